//! `POST /v1/completions`.

use axum::extract::State;
use axum::response::Response;
use safelmm_model::FinishReason;
use safelmm_plugins::Entry;
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::Shape;
use super::error::ApiError;
use super::fields::{Fields, describe};
use super::generation::{Prepared, Shared, generate, screen};
use super::plan::{Length, Prompts};
use crate::app::App;
use crate::keys::Principal;

/// The default of the OpenAI API.
const DEFAULT_MAX_TOKENS: usize = 16;
const NO_LOGPROBS: &str = "this server returns no log-probabilities";

/// Answers with a completion of each prompt.
pub async fn completions(State(app): State<App>, principal: Principal, body: Fields) -> Result<Response, ApiError> {
    generate::<Completion>(app, principal, body, prepare).await
}

fn prepare(app: &App, principal: &Principal, mut body: Fields) -> Result<Prepared, ApiError> {
    let shared = Shared::take(&mut body, app, principal)?;
    let length = body.count("max_tokens", 1)?.map_or(Length::UpTo(DEFAULT_MAX_TOKENS), Length::Exactly);
    let prompt = body.take("prompt").ok_or_else(|| body.error("prompt", "is missing"))?;
    refuse_best_of(&mut body, shared.sampling.n)?;
    body.refuse("echo", &json!(false), "this server does not repeat the prompt")?;
    body.refuse("logprobs", &Value::Null, NO_LOGPROBS)?;
    body.refuse("suffix", &Value::Null, "the model continues text and does not fill gaps")?;
    body.finish()?;
    let mut policy = Vec::new();
    let tokens = read_prompts(prompt, app, &mut policy)?;
    shared.prepare(app, Prompts { tokens, param: "prompt" }, length, policy)
}

/// `best_of` equal to `n` asks for nothing more than `n`.
fn refuse_best_of(body: &mut Fields, n: usize) -> Result<(), ApiError> {
    match body.count("best_of", 1)? {
        Some(best_of) if best_of != n => {
            Err(body.error("best_of", format!("must equal 'n' ({n}), found {best_of}: this server ranks no choices")))
        }
        _ => Ok(()),
    }
}

/// A string, a list of strings, a list of token ids, or a list of those.
fn read_prompts(prompt: Value, app: &App, policy: &mut Vec<Entry>) -> Result<Vec<Vec<u32>>, ApiError> {
    match prompt {
        Value::Array(list) if list.is_empty() => Err(ApiError::parameter("prompt", "'prompt' is an empty list")),
        Value::Array(list) if list.iter().all(Value::is_number) => Ok(vec![read_tokens(&list, app)?]),
        Value::Array(list) => list.into_iter().map(|item| read_prompt(item, app, policy)).collect(),
        single => Ok(vec![read_prompt(single, app, policy)?]),
    }
}

fn read_prompt(prompt: Value, app: &App, policy: &mut Vec<Entry>) -> Result<Vec<u32>, ApiError> {
    match prompt {
        // The sequences of a rated model begin with the rating, so that the tokenizer need not add a beginning.
        Value::String(text) => {
            screen(app, &text, "prompt", policy)?;
            let encoded = app.checkpoint().tokenizer.encode(&text, !app.checkpoint().rated());
            encoded.map_err(|source| ApiError::Tokenizer { source, param: "prompt" })
        }
        Value::Array(list) => read_tokens(&list, app),
        other => {
            let message = format!(
                "'prompt' must be a string, a list of strings, a list of token ids or a list of such lists, found {}",
                describe(&other)
            );
            Err(ApiError::parameter("prompt", message))
        }
    }
}

/// Token ids as the client gives them; the range is checked with the rest of the request.
fn read_tokens(list: &[Value], app: &App) -> Result<Vec<u32>, ApiError> {
    let tokenizer = &app.checkpoint().tokenizer;
    list.iter()
        .map(|value| {
            let token = value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                let message = format!("'prompt' has {} among its token ids: expected integers from 0", describe(value));
                ApiError::parameter("prompt", message)
            })?;
            // In a rated model's prompt a rating would stand in for one above the ceiling, and an end of text would begin
            // a text that no rating holds for.
            if app.checkpoint().rated() && tokenizer.control_ids().contains(&token) {
                let text = tokenizer.token_text(token).unwrap_or_default();
                let message = format!(
                    "'prompt' has the control token {text} ({token}) among its ids, which the server alone may set: ask \
                     for a rating with 'safelmm.rating', for a conversation with /v1/chat/completions"
                );
                return Err(ApiError::parameter("prompt", message));
            }
            Ok(token)
        })
        .collect()
}

/// The shape of text completions.
struct Completion;

#[derive(Serialize)]
struct Choice {
    index: usize,
    text: String,
    logprobs: (),
    finish_reason: Option<&'static str>,
}

impl Shape for Completion {
    const OBJECT: &'static str = "text_completion";
    const CHUNK_OBJECT: &'static str = "text_completion";
    const ID_PREFIX: &'static str = "cmpl-";
    type Choice = Choice;
    type Delta = Choice;

    fn choice(index: usize, text: String, finish: FinishReason) -> Choice {
        Self::delta(index, text, Some(finish))
    }

    fn opening(_index: usize) -> Option<Choice> {
        None
    }

    fn delta(index: usize, text: String, finish: Option<FinishReason>) -> Choice {
        Choice { index, text, logprobs: (), finish_reason: finish.map(FinishReason::as_str) }
    }
}
