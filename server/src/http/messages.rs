//! Conversations as the tokenizer takes them.

use safelmm_model::{ChatMessage, TokenizerError};

use super::error::ApiError;
use super::json::Any;
use super::request::{Content, Message, ToolCall};
use super::screener::Screener;
use crate::app::App;

/// The most messages and text parts of one conversation.
const MAX_MESSAGES: usize = 4096;

/// Checks messages and puts their texts through the policies.
///
/// # Errors
/// What is missing, empty or not supported, by its path; a policy's refusal; a model without a chat template.
pub fn check(messages: Vec<Message>, app: &App, screener: &Screener) -> Result<Vec<ChatMessage>, ApiError> {
    if !app.checkpoint().tokenizer.has_chat_template() {
        return Err(ApiError::Tokenizer { source: TokenizerError::NoChatTemplate, param: "messages" });
    }
    if messages.is_empty() {
        return Err(ApiError::parameter("messages", "'messages' is an empty list: expected at least one message"));
    }
    if messages.len() > MAX_MESSAGES {
        let message = format!("'messages' has {} messages: at most {MAX_MESSAGES} are possible", messages.len());
        return Err(ApiError::parameter("messages", message));
    }
    let takes_tools = app.checkpoint().tokenizer.takes_tools();
    let mut messages: Vec<ChatMessage> = messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| check_message(message, takes_tools, &format!("messages[{index}]")))
        .collect::<Result<_, _>>()?;
    for message in &mut messages {
        let ChatMessage { role, content, name, tool_calls, tool_call_id } = message;
        let calls = tool_calls.iter_mut().flat_map(|call| [&mut call.id, &mut call.name, &mut call.arguments]);
        let texts = [role, content].into_iter().chain(name).chain(tool_call_id);
        // A template writes all of them into the prompt.
        for text in texts.chain(calls) {
            screener.screened(text, "messages")?;
        }
    }
    Ok(messages)
}

/// What is said in a conversation, by whomever: the contents of its messages and the arguments of its calls.
pub fn texts(messages: &[Message]) -> Vec<String> {
    let of_message = |message: &Message| {
        let calls = message.tool_calls.iter().flatten().map(|call| call.function.arguments.clone());
        message.content.as_ref().map(Content::text).into_iter().chain(calls).collect::<Vec<_>>()
    };
    messages.iter().flat_map(of_message).filter(|text| !text.is_empty()).collect()
}

fn check_message(message: Message, takes_tools: bool, path: &str) -> Result<ChatMessage, ApiError> {
    let Message { role, content, name, tool_calls, tool_call_id, refusal, audio, function_call, annotations } = message;
    let error = |name: &str, message: &str| {
        let param = format!("{path}.{name}");
        ApiError::parameter(&param, format!("'{param}' {message}"))
    };
    for (name, value) in [("refusal", refusal), ("audio", audio), ("function_call", function_call)] {
        if value.is_some() {
            return Err(error(name, "is not supported: only null is"));
        }
    }
    if annotations.is_some_and(|Any(value)| value.as_array().is_none_or(|list| !list.is_empty())) {
        return Err(error("annotations", "is not supported: only an empty list is"));
    }
    if role.is_empty() {
        return Err(error("role", "is empty"));
    }
    let calls = tool_calls.unwrap_or_default();
    if !calls.is_empty() && role != "assistant" {
        return Err(error("tool_calls", "stands in a message that is not the assistant's"));
    }
    if tool_call_id.is_some() && role != "tool" {
        return Err(error("tool_call_id", "stands in a message whose role is not \"tool\""));
    }
    // A template that knows no calls would leave them out of the prompt without a word.
    let of_tools =
        [("tool_calls", !calls.is_empty()), ("tool_call_id", tool_call_id.is_some()), ("role", role == "tool")];
    if let Some((name, _)) = of_tools.iter().find(|(_, is_there)| *is_there && !takes_tools) {
        return Err(error(name, &format!("cannot be honoured: {}", TokenizerError::NoTools)));
    }
    let content = match content {
        Some(content) => content.text(),
        None if !calls.is_empty() => String::new(),
        None => return Err(error("content", "is missing")),
    };
    let tool_calls = calls
        .into_iter()
        .map(|ToolCall { id, kind: _, function, index: _ }| safelmm_model::ToolCall {
            id,
            name: function.name,
            arguments: function.arguments,
        })
        .collect();
    Ok(ChatMessage { role, content, name, tool_calls, tool_call_id })
}
