//! `POST /tokenize` and `POST /detokenize`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::error::ApiError;
use super::fields::{Fields, describe};
use super::generation::{blocking, take_model};
use crate::app::App;
use crate::keys::Principal;

/// The tokens of a text.
#[derive(Serialize)]
pub struct Tokens {
    tokens: Vec<u32>,
    count: usize,
}

/// The text of tokens.
#[derive(Serialize)]
pub struct Text {
    prompt: String,
}

/// Text to tokens; spellings of control tokens are ordinary text.
pub async fn tokenize(
    State(app): State<App>,
    principal: Principal,
    mut body: Fields,
) -> Result<Json<Tokens>, ApiError> {
    take_model(&mut body, &app, &principal)?;
    let text = body.string("prompt")?.ok_or_else(|| body.error("prompt", "is missing"))?;
    let add_special_tokens = body.boolean("add_special_tokens")?.unwrap_or(true);
    body.finish()?;
    let tokens = blocking(move || {
        let tokenizer = &app.checkpoint().tokenizer;
        tokenizer.encode(&text, add_special_tokens).map_err(|source| ApiError::Tokenizer { source, param: "prompt" })
    })
    .await?;
    Ok(Json(Tokens { count: tokens.len(), tokens }))
}

/// Tokens to text; control tokens are spelled out.
pub async fn detokenize(
    State(app): State<App>,
    principal: Principal,
    mut body: Fields,
) -> Result<Json<Text>, ApiError> {
    take_model(&mut body, &app, &principal)?;
    let list = body.list("tokens")?.ok_or_else(|| body.error("tokens", "is missing"))?;
    let vocab_size = app.checkpoint().tokenizer.vocab_size();
    let tokens: Vec<u32> = list
        .iter()
        .map(|value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.filter(|id| (*id as usize) < vocab_size).ok_or_else(|| {
                let found = describe(value);
                body.error("tokens", format!("must be a list of token ids from 0 to {}, found {found}", vocab_size - 1))
            })
        })
        .collect::<Result<_, _>>()?;
    body.finish()?;
    let prompt = blocking(move || {
        let tokenizer = &app.checkpoint().tokenizer;
        tokenizer.decode(&tokens, false).map_err(|source| ApiError::Tokenizer { source, param: "tokens" })
    })
    .await?;
    Ok(Json(Text { prompt }))
}
