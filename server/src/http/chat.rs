//! `POST /v1/chat/completions`.

use axum::extract::State;
use axum::response::Response;
use safelmm_model::{ChatMessage, FinishReason, TokenizerError};
use safelmm_plugins::Entry;
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::Shape;
use super::error::ApiError;
use super::fields::{Fields, describe, shortened};
use super::generation::{Prepared, Shared, generate, screen};
use super::plan::{Length, Prompts};
use crate::app::App;
use crate::keys::Principal;

/// Parameters of the OpenAI API that this server knows and cannot honour: name, neutral value, reason.
const UNSUPPORTED: [(&str, Value, &str); 9] = [
    ("logprobs", Value::Bool(false), "this server returns no log-probabilities"),
    ("top_logprobs", Value::Null, "this server returns no log-probabilities"),
    ("tools", Value::Null, "the model calls no tools"),
    ("tool_choice", Value::Null, "the model calls no tools"),
    ("parallel_tool_calls", Value::Null, "the model calls no tools"),
    ("functions", Value::Null, "the model calls no functions"),
    ("function_call", Value::Null, "the model calls no functions"),
    ("modalities", Value::Null, "the model writes text"),
    ("audio", Value::Null, "the model writes text"),
];

/// Answers with the next message of a conversation.
pub async fn chat_completions(
    State(app): State<App>,
    principal: Principal,
    body: Fields,
) -> Result<Response, ApiError> {
    generate::<Chat>(app, principal, body, prepare).await
}

fn prepare(app: &App, principal: &Principal, mut body: Fields) -> Result<Prepared, ApiError> {
    let shared = Shared::take(&mut body, app, principal)?;
    let length = take_length(&mut body)?.map_or(Length::UpTo(usize::MAX), Length::Exactly);
    let messages = body.list("messages")?.ok_or_else(|| body.error("messages", "is missing"))?;
    for (name, neutral, reason) in &UNSUPPORTED {
        body.refuse(name, neutral, reason)?;
    }
    body.refuse("response_format", &json!({"type": "text"}), "the model writes free text")?;
    body.finish()?;
    let mut policy = Vec::new();
    let tokens = vec![encode(messages, app, &mut policy)?];
    shared.prepare(app, Prompts { tokens, param: "messages" }, length, policy)
}

/// `max_completion_tokens`, or `max_tokens` as it was called before.
fn take_length(body: &mut Fields) -> Result<Option<usize>, ApiError> {
    match (body.count("max_completion_tokens", 1)?, body.count("max_tokens", 1)?) {
        (Some(new), Some(old)) if new != old => {
            Err(body.error("max_tokens", format!("is {old}, but 'max_completion_tokens' is {new}: give one of them")))
        }
        (new, old) => Ok(new.or(old)),
    }
}

fn encode(messages: Vec<Value>, app: &App, policy: &mut Vec<Entry>) -> Result<Vec<u32>, ApiError> {
    let tokenizer = &app.checkpoint().tokenizer;
    if !tokenizer.has_chat_template() {
        return Err(ApiError::Tokenizer { source: TokenizerError::NoChatTemplate, param: "messages" });
    }
    if messages.is_empty() {
        return Err(ApiError::parameter("messages", "'messages' is an empty list"));
    }
    let messages = messages
        .into_iter()
        .enumerate()
        .map(|(position, message)| read_message(&format!("messages[{position}]"), message))
        .collect::<Result<Vec<_>, _>>()?;
    for text in messages.iter().flat_map(|m| [&m.role, &m.content].into_iter().chain(&m.name)) {
        screen(app, text, "messages", policy)?;
    }
    tokenizer.encode_chat(&messages, true).map_err(|source| ApiError::Tokenizer { source, param: "messages" })
}

fn read_message(path: &str, message: Value) -> Result<ChatMessage, ApiError> {
    let Value::Object(map) = message else {
        return Err(ApiError::parameter(path, format!("'{path}' must be an object, found {}", describe(&message))));
    };
    let mut fields = Fields::new(path, map);
    let role = fields.string("role")?.ok_or_else(|| fields.error("role", "is missing"))?;
    if role.is_empty() {
        return Err(fields.error("role", "is empty"));
    }
    let content = fields.take("content").ok_or_else(|| fields.error("content", "is missing"))?;
    let content = read_content(&fields, content)?;
    let name = fields.string("name")?;
    fields.finish()?;
    Ok(ChatMessage { role, content, name })
}

/// A string, or a list of text parts, which are put together as they are.
fn read_content(message: &Fields, content: Value) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => {
            let found = describe(&other);
            return Err(message.error("content", format!("must be a string or a list of text parts, found {found}")));
        }
    };
    parts
        .into_iter()
        .enumerate()
        .map(|(position, part)| {
            let name = format!("content[{position}]");
            let Value::Object(map) = part else {
                return Err(message.error(&name, format!("must be a text part, found {}", describe(&part))));
            };
            let mut part = Fields::new(&message.path(&name), map);
            match part.string("type")?.as_deref() {
                Some("text") => {}
                Some(other) => {
                    let other = shortened(other);
                    return Err(part.error("type", format!("is {other:?}: this model reads text parts alone")));
                }
                None => return Err(part.error("type", "is missing")),
            }
            let text = part.string("text")?.ok_or_else(|| part.error("text", "is missing"))?;
            part.finish()?;
            Ok(text)
        })
        .collect()
}

/// The shape of chat completions.
struct Chat;

#[derive(Serialize)]
struct Choice {
    index: usize,
    message: Message,
    logprobs: (),
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Delta {
    index: usize,
    delta: DeltaMessage,
    logprobs: (),
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct DeltaMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

impl Shape for Chat {
    const OBJECT: &'static str = "chat.completion";
    const CHUNK_OBJECT: &'static str = "chat.completion.chunk";
    const ID_PREFIX: &'static str = "chatcmpl-";
    type Choice = Choice;
    type Delta = Delta;

    fn choice(index: usize, text: String, finish: FinishReason) -> Choice {
        let message = Message { role: "assistant", content: text };
        Choice { index, message, logprobs: (), finish_reason: finish.as_str() }
    }

    fn opening(index: usize) -> Option<Delta> {
        let delta = DeltaMessage { role: Some("assistant"), content: Some(String::new()) };
        Some(Delta { index, delta, logprobs: (), finish_reason: None })
    }

    fn delta(index: usize, text: String, finish: Option<FinishReason>) -> Delta {
        let delta = DeltaMessage { role: None, content: Some(text).filter(|text| !text.is_empty()) };
        Delta { index, delta, logprobs: (), finish_reason: finish.map(FinishReason::as_str) }
    }
}
