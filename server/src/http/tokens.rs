//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::generation::{blocking, check_model};
use super::json::Json;
use super::messages;
use super::request::{DetokenizeRequest, TokenizeRequest, ToolChoice, ToolMode};
use super::screener::Screener;
use super::tools::calling;
use crate::app::App;
use crate::keys::Principal;

/// The tokens of a text.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// Their ids.
    tokens: Vec<u32>,
    /// How many they are.
    count: usize,
    /// How many tokens the model's context holds.
    max_model_len: usize,
    /// Their texts, where the request asks for them.
    token_strs: Option<Vec<String>>,
}

/// The text of tokens.
#[derive(Serialize, ToSchema)]
pub struct Text {
    /// The text.
    prompt: String,
}

/// What programs must know that write chat prompts themselves.
#[derive(Serialize, ToSchema)]
pub struct TokenizerInfo {
    /// The token that ends a text.
    eos_token: Option<String>,
    /// The token that begins a text.
    bos_token: Option<String>,
    /// The token that fills batches.
    pad_token: Option<String>,
    /// The chat template, in Jinja.
    chat_template: Option<String>,
}

/// Turns a text or a conversation into tokens. Spellings of control tokens in texts are ordinary text.
#[utoipa::path(
    post, path = "/tokenize", tag = "tokens",
    request_body = TokenizeRequest,
    responses((status = 200, description = "The tokens", body = Tokens), ApiError),
)]
pub async fn tokenize(
    State(app): State<App>,
    principal: Principal,
    Json(request): Json<TokenizeRequest>,
) -> Result<axum::Json<Tokens>, ApiError> {
    blocking(move || prepare(&app, &principal, request).map(axum::Json)).await
}

/// Checks a request and answers it.
pub fn prepare(app: &App, principal: &Principal, request: TokenizeRequest) -> Result<Tokens, ApiError> {
    let TokenizeRequest {
        model,
        prompt,
        messages,
        tools,
        add_generation_prompt,
        add_special_tokens,
        return_token_strs,
    } = request;
    check_model(model.as_deref(), app, principal)?;
    let tokenizer = &app.checkpoint().tokenizer;
    let tokens = match (prompt, messages) {
        (Some(text), None) => {
            for (name, given) in
                [("tools", tools.is_some()), ("add_generation_prompt", add_generation_prompt.is_some())]
            {
                if given {
                    return Err(ApiError::parameter(name, format!("'{name}' belongs to 'messages'")));
                }
            }
            match control_token(app, &text) {
                Some(id) => vec![id],
                None => {
                    let encoded = tokenizer.encode(&text, add_special_tokens.unwrap_or(true));
                    encoded.map_err(|source| ApiError::Tokenizer { source, param: "prompt" })?
                }
            }
        }
        (None, Some(messages)) => {
            if add_special_tokens == Some(true) {
                let message = "'add_special_tokens' must be false with 'messages': the chat template writes its own";
                return Err(ApiError::parameter("add_special_tokens", message));
            }
            let screener = Screener::new(app, principal, "/tokenize", None);
            let choice = Some(ToolChoice::Mode(ToolMode::Auto));
            let calling = calling(tools.unwrap_or_default(), choice, None, app, &screener)?;
            let tools = calling.as_ref().map_or(&[][..], |calling| &calling.tools);
            let messages = messages::check(messages, app, &screener)?;
            let encoded = tokenizer.encode_chat(&messages, tools, add_generation_prompt.unwrap_or(true));
            encoded.map_err(|source| ApiError::Tokenizer { source, param: "messages" })?
        }
        (Some(_), Some(_)) => {
            return Err(ApiError::parameter(
                "messages",
                "'messages' and 'prompt' are both given: expected one of them",
            ));
        }
        (None, None) => {
            return Err(ApiError::parameter("prompt", "'prompt' is missing: expected it, or 'messages'"));
        }
    };
    let spell = || tokens.iter().map(|token| app.spellings().text(*token)).collect();
    Ok(Tokens {
        count: tokens.len(),
        max_model_len: app.checkpoint().context_length(),
        token_strs: return_token_strs.unwrap_or(false).then(spell),
        tokens,
    })
}

/// The control token that a text is the name of. Inside a longer text it is text like any other, and what generates takes
/// none from text at all; but programs (lm-evaluation-harness) ask for the id of a beginning or an end of text this way.
fn control_token(app: &App, text: &str) -> Option<u32> {
    let tokenizer = &app.checkpoint().tokenizer;
    tokenizer.control_ids().iter().copied().find(|id| tokenizer.token_text(*id).as_deref() == Some(text))
}

/// Turns tokens into text; control tokens are spelled out.
#[utoipa::path(
    post, path = "/detokenize", tag = "tokens",
    request_body = DetokenizeRequest,
    responses((status = 200, description = "The text", body = Text), ApiError),
)]
pub async fn detokenize(
    State(app): State<App>,
    principal: Principal,
    Json(request): Json<DetokenizeRequest>,
) -> Result<axum::Json<Text>, ApiError> {
    blocking(move || prepare_text(&app, &principal, &request).map(axum::Json)).await
}

/// Checks a request and answers it.
pub fn prepare_text(app: &App, principal: &Principal, request: &DetokenizeRequest) -> Result<Text, ApiError> {
    let DetokenizeRequest { model, tokens } = request;
    check_model(model.as_deref(), app, principal)?;
    let tokenizer = &app.checkpoint().tokenizer;
    let vocab_size = tokenizer.vocab_size();
    if let Some((index, id)) = tokens.iter().enumerate().find(|(_, id)| **id as usize >= vocab_size) {
        let param = format!("tokens[{index}]");
        let message = format!("'{param}' must be a token id from 0 to {}, found {id}", vocab_size.saturating_sub(1));
        return Err(ApiError::parameter(param, message));
    }
    let decoded = tokenizer.decode(tokens, false);
    Ok(Text { prompt: decoded.map_err(|source| ApiError::Tokenizer { source, param: "tokens" })? })
}

/// Describes the tokenizer.
#[utoipa::path(
    get, path = "/tokenizer_info", tag = "tokens",
    responses((status = 200, description = "The tokenizer's special tokens and chat template", body = TokenizerInfo), ApiError),
)]
pub async fn tokenizer_info(
    State(app): State<App>,
    principal: Principal,
) -> Result<axum::Json<TokenizerInfo>, ApiError> {
    check_model(None, &app, &principal)?;
    let tokenizer = &app.checkpoint().tokenizer;
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
    Ok(axum::Json(TokenizerInfo {
        eos_token: tokenizer.eos_token().map(str::to_owned),
        bos_token: text(tokenizer.bos_id()),
        pad_token: tokenizer.pad_token().map(str::to_owned),
        chat_template: tokenizer.chat_template().map(str::to_owned),
    }))
}
