//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::answer::{Answer, Finish, Gain, Shape};
use super::constraints;
use super::error::ApiError;
use super::generation::{Prepared, Shared, generate};
use super::inline_moderation::Moderator;
use super::json::{Any, Json};
use super::logprobs::{ChatLogprobs, ChatToken};
use super::messages;
use super::plan::{Length, Prompt, Prompts, Wanted};
use super::request::{ChatRequest, FormatKind};
use super::sampling::check_top_logprobs;
use super::spelling::Spellings;
use super::tools::{Call, CallReader, calling};
use crate::app::App;
use crate::keys::Principal;

/// Goes on with a conversation.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "generation",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answers, or with `stream` their chunks, ended by `[DONE]`", content(
            (Answer<ChatChoice> = "application/json"),
            (Answer<ChatDelta> = "text/event-stream"),
        )),
        ApiError,
    ),
)]
pub async fn chat_completions(
    State(app): State<App>,
    principal: Principal,
    Json(request): Json<ChatRequest>,
) -> Result<Response, ApiError> {
    generate(app, principal, request, prepare).await
}

/// Checks a request, down to the sequences that it asks for.
pub fn prepare(app: &App, principal: &Principal, mut request: ChatRequest) -> Result<Prepared<Chat>, ApiError> {
    let shared = Shared::new(request.take_shared(), app, principal)?;
    refuse_unsupported(&mut request)?;
    let length = length(&request)?.map_or(Length::UpTo(usize::MAX), Length::Exactly);
    let top = top_logprobs(&request)?;
    let screener = shared.screener(app, principal, "/v1/chat/completions");
    let calling = calling(
        request.tools.take().unwrap_or_default(),
        request.tool_choice.take(),
        request.parallel_tool_calls,
        app,
        &screener,
    )?;
    let formatted = request.response_format.as_ref().is_some_and(|format| format.kind != FormatKind::Text);
    if formatted && calling.is_some() {
        let message =
            "'response_format' cannot be combined with 'tools': set 'tool_choice' to \"none\", or leave one out";
        return Err(ApiError::parameter("response_format", message));
    }
    let grammar = match &calling {
        Some(calling) => calling.grammar(app)?,
        None => constraints::grammar(request.response_format.take(), app)?,
    };
    if grammar.is_some() && shared.sampling.ignore_eos {
        let message = "'ignore_eos' cannot be combined with an answer of a given form ('response_format', or a \
                       'tool_choice' that asks for a call): the end of the text is what such a form ends with";
        return Err(ApiError::parameter("ignore_eos", message));
    }
    let tools = calling.as_ref().map_or(&[][..], |calling| &calling.tools);
    // Judged when they have been screened: what is refused anyway costs no second look.
    let judged = request.moderation.take().map(|fields| (fields, messages::texts(&request.messages)));
    let messages = messages::check(request.messages, app, &screener)?;
    let moderator = judged.map(|(fields, texts)| Moderator::new(fields, &texts, &screener)).transpose()?;
    let encoded = app.checkpoint().tokenizer.encode_chat(&messages, tools, true);
    let tokens = encoded.map_err(|source| ApiError::Tokenizer { source, param: "messages" })?;
    let may_call = calling.is_some();
    let spellings = top.map(|_| Arc::clone(app.spellings()));
    let shape = move || Chat { calls: calling.as_ref().map(|calling| calling.reader()), spellings: spellings.clone() };
    let prompts =
        Prompts { prompts: vec![Prompt { tokens, shape: Box::new(shape) }], param: "messages", length, best_of: None };
    let wanted = Wanted {
        top_logprobs: top.unwrap_or(0),
        score_prompt: false,
        may_call,
        stages: grammar.map(|grammar| -> super::plan::Stages { Box::new(move || vec![grammar.stage()]) }),
    };
    Ok(Prepared { moderator, ..shared.prepare(app, prompts, &wanted, screener)? })
}

/// Refuses what the OpenAI API knows and this server cannot honour, but for the values that ask for nothing.
fn refuse_unsupported(request: &mut ChatRequest) -> Result<(), ApiError> {
    let one_of = |values: &'static [&'static str]| move |value: &Value| values.iter().any(|neutral| value == neutral);
    let none = |_: &Value| false;
    refuse("functions", &mut request.functions, none, "use 'tools'")?;
    refuse("function_call", &mut request.function_call, none, "use 'tool_choice'")?;
    let reason = "the model does not reason before it answers";
    refuse("reasoning_effort", &mut request.reasoning_effort, one_of(&["none"]), reason)?;
    refuse("store", &mut request.store, |value| value == &json!(false), "this server keeps no answers")?;
    refuse("metadata", &mut request.metadata, |value| value == &json!({}), "this server keeps no answers")?;
    let tiers = one_of(&["auto", "default"]);
    refuse("service_tier", &mut request.service_tier, tiers, "all requests are served alike")?;
    refuse("modalities", &mut request.modalities, |value| value == &json!(["text"]), "the model writes text")?;
    refuse("audio", &mut request.audio, none, "the model writes text")?;
    refuse("prediction", &mut request.prediction, none, "answers are not predicted")?;
    refuse("web_search_options", &mut request.web_search_options, none, "the model searches nothing")
}

fn refuse(name: &str, value: &mut Option<Any>, is_neutral: impl Fn(&Value) -> bool, why: &str) -> Result<(), ApiError> {
    match value.take() {
        Some(Any(value)) if !is_neutral(&value) => {
            Err(ApiError::parameter(name, format!("'{name}' is not supported with this value: {why}")))
        }
        _ => Ok(()),
    }
}

/// `max_completion_tokens`, or `max_tokens` as it was called before.
fn length(request: &ChatRequest) -> Result<Option<usize>, ApiError> {
    match (request.max_completion_tokens, request.max_tokens) {
        (Some(new), Some(old)) if new != old => {
            let message = format!("'max_tokens' is {old}, but 'max_completion_tokens' is {new}: give one of them");
            Err(ApiError::parameter("max_tokens", message))
        }
        (Some(0), _) => Err(ApiError::parameter("max_completion_tokens", "'max_completion_tokens' must be at least 1")),
        (_, Some(0)) => Err(ApiError::parameter("max_tokens", "'max_tokens' must be at least 1, found 0")),
        (new, old) => Ok(new.or(old)),
    }
}

/// How many log-probabilities are told in each place, where any are.
fn top_logprobs(request: &ChatRequest) -> Result<Option<usize>, ApiError> {
    let top = request.top_logprobs.map(|top| check_top_logprobs("top_logprobs", top)).transpose()?;
    match (request.logprobs.unwrap_or(false), top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::parameter("top_logprobs", "'top_logprobs' needs 'logprobs' to be true")),
    }
}

/// One choice of a chat.
pub struct Chat {
    calls: Option<CallReader>,
    /// Where log-probabilities were asked for.
    spellings: Option<Arc<Spellings>>,
}

/// An answer to a conversation.
#[derive(Serialize, ToSchema)]
pub struct ChatChoice {
    /// Its place among the choices.
    index: usize,
    /// The answer.
    message: AnswerMessage,
    /// Log-probabilities, where they were asked for.
    logprobs: Option<ChatLogprobs>,
    /// Why it ended: `stop`, `length`, `tool_calls` or, by a policy, `content_filter`.
    finish_reason: Option<&'static str>,
}

/// What the assistant says.
#[derive(Serialize, ToSchema)]
struct AnswerMessage {
    /// `assistant`.
    role: &'static str,
    /// The text; null where there are calls alone.
    content: Option<String>,
    /// The functions that are to be called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

/// A piece of an answer to a conversation.
#[derive(Serialize, ToSchema)]
pub struct ChatDelta {
    /// Its place among the choices.
    index: usize,
    /// What comes behind that which came before.
    delta: DeltaMessage,
    /// Log-probabilities of the tokens, where they were asked for.
    logprobs: Option<ChatLogprobs>,
    /// Why it ended, in the last chunk: `stop`, `length`, `tool_calls` or, by a policy, `content_filter`.
    finish_reason: Option<&'static str>,
}

/// A piece of what the assistant says.
#[derive(Serialize, ToSchema)]
struct DeltaMessage {
    /// `assistant`, in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// More text.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// More calls, each complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

/// What a choice has gained.
#[derive(Default)]
pub struct ChatPiece {
    content: String,
    calls: Vec<Call>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

impl Shape for Chat {
    const OBJECT: &'static str = "chat.completion";
    const CHUNK_OBJECT: &'static str = "chat.completion.chunk";
    const ID_PREFIX: &'static str = "chatcmpl-";
    type Piece = ChatPiece;
    type Choice = ChatChoice;
    type Delta = ChatDelta;

    fn piece(&mut self, Gain { tokens, text, finish, .. }: Gain) -> Result<ChatPiece, ApiError> {
        let mut piece = ChatPiece { finish_reason: finish.map(Finish::as_str), ..ChatPiece::default() };
        if let Some(spellings) = self.spellings.as_ref().filter(|_| !tokens.is_empty()) {
            let content = tokens.iter().map(|token| ChatToken::new(token, spellings)).collect();
            piece.logprobs = Some(ChatLogprobs { content, refusal: () });
        }
        match &mut self.calls {
            Some(calls) => (piece.content, piece.calls) = calls.push(&text),
            None => piece.content = text,
        }
        if let (Some(calls), Some(finish)) = (&mut self.calls, finish) {
            let (text, more) = calls.finish();
            piece.content += &text;
            piece.calls.extend(more);
            if calls.has_call() && finish == Finish::Stop {
                piece.finish_reason = Some("tool_calls");
            }
        }
        Ok(piece)
    }

    fn append(whole: &mut ChatPiece, piece: ChatPiece) {
        whole.content += &piece.content;
        whole.calls.extend(piece.calls);
        whole.finish_reason = whole.finish_reason.or(piece.finish_reason);
        if let Some(more) = piece.logprobs {
            whole.logprobs.get_or_insert_default().content.extend(more.content);
        }
    }

    fn choice(index: usize, ChatPiece { content, calls, logprobs, finish_reason }: ChatPiece) -> ChatChoice {
        let content = Some(content).filter(|text| !text.is_empty() || calls.is_empty());
        let tool_calls = calls.into_iter().map(Call::whole).collect();
        let message = AnswerMessage { role: "assistant", content, tool_calls };
        ChatChoice { index, message, logprobs, finish_reason }
    }

    fn opening(index: usize) -> Option<ChatDelta> {
        let delta = DeltaMessage { role: Some("assistant"), content: Some(String::new()), tool_calls: vec![] };
        Some(ChatDelta { index, delta, logprobs: None, finish_reason: None })
    }

    fn delta(index: usize, ChatPiece { content, calls, logprobs, finish_reason }: ChatPiece) -> Option<ChatDelta> {
        if content.is_empty() && calls.is_empty() && logprobs.is_none() && finish_reason.is_none() {
            return None;
        }
        let content = Some(content).filter(|text| !text.is_empty());
        let delta = DeltaMessage { role: None, content, tool_calls: calls };
        Some(ChatDelta { index, delta, logprobs, finish_reason })
    }
}
