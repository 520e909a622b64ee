//! The one place where errors become HTTP: status, `type`, `param`, `code` and the message for the client.
//!
//! What the client is told and what the log is told are two messages: the client learns what it can change, the log
//! learns the cause.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use safelmm_model::{EncoderError, GenerateError, TokenizerError};
use safelmm_plugins::Denial;
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as ResponseSchema, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::embedder::EmbedError;
use crate::engine::EngineError;
use crate::keys::{RatingRefusal, Refusal, Rejected, Use};

/// Seconds after which a client may try again that met a server which is shutting down.
const RETRY_AFTER_STOP: u64 = 1;

/// Everything that a route can answer instead of what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A parameter is unknown, has the wrong type or a value that cannot be honoured.
    #[error("{message}")]
    Parameter {
        /// The parameter's path, such as `safelmm.rating`.
        param: String,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// The body is not a JSON object.
    #[error("{0}")]
    NotJson(String),
    /// The body is longer than the configuration allows.
    #[error("the request body is longer than the {limit} bytes this server accepts")]
    BodyTooLarge {
        /// The configured limit.
        limit: usize,
    },
    /// The body could not be read to its end.
    #[error("the request body could not be read to its end")]
    BodyUnreadable,
    /// The body did not come in time.
    #[error("the request body did not arrive within {} seconds", limit.as_secs_f32())]
    BodyTimeout {
        /// The configured time.
        limit: Duration,
    },
    /// No key, or one that does not count.
    #[error("{}", match .rejected {
        Some(rejected) => rejected.to_string(),
        None => "You didn't provide an API key. Send it in the header 'Authorization: Bearer YOUR_KEY'".into(),
    })]
    Unauthorized {
        /// What is wrong with the key; none if there is none.
        rejected: Option<Rejected>,
        /// Whether the answer makes a browser ask its user.
        in_browser: bool,
    },
    /// The key's limits do not let the request in.
    #[error("{refusal}")]
    Limited {
        /// Why, and when to come back.
        refusal: Refusal,
        /// The parameter that can make the request smaller.
        param: &'static str,
    },
    /// The key does not have the right to a declared use.
    #[error(
        "This API key may not be used for {declared} use{}",
        match .declared.other() {
            other if *.other_allowed => format!(
                ": if that is what the answer is for, declare it with \"safelmm\": {{\"use\": \"{other}\"}}", other = other.as_str()
            ),
            _ => ": ask the operator of this server for one that may".into(),
        }, declared = .declared.as_str()
    )]
    UseNotAllowed {
        /// What the request declares, or does by default.
        declared: Use,
        /// Whether the key has the right to the other use.
        other_allowed: bool,
    },
    /// A rating that the request cannot have.
    #[error("{}", match .0 {
        RatingRefusal::CannotKeep(_) => .0.to_string(),
        _ => format!("'safelmm.rating' {}", .0),
    })]
    Rating(#[from] RatingRefusal),
    /// A model that this server does not serve, or not to this key.
    #[error("The model '{requested}' does not exist{}", match .served {
        Some(served) => format!(": this server serves '{served}'"),
        None => ", or your API key may not use it".into(),
    })]
    UnknownModel {
        /// What the client asked for.
        requested: String,
        /// What it could ask for, if anything.
        served: Option<String>,
    },
    /// A page of another site, in a browser on this machine.
    #[error(
        "This server answers programs and its own pages, and the request came with '{0}'. Use the address that the \
         server printed"
    )]
    ForeignSite(String),
    /// A store that there is not, or not for this request: both are told in the same words.
    #[error(
        "The store '{0}' does not exist, or holds nothing that this request may use by its key, its declared use and its \
         rating"
    )]
    UnknownStore(String),
    /// A document that there is not, or not for this request.
    #[error("The document '{0}' does not exist in this store")]
    UnknownDocument(String),
    /// Documents of somebody, or of an address, that there are none of.
    #[error("No document of this store has the {what} '{value}'")]
    NoDocuments {
        /// What they were looked for by.
        what: &'static str,
        /// Whose, or which.
        value: String,
    },
    /// The key may read stores and not change them.
    #[error("This API key may not change stores: ask the operator of this server for one that may")]
    StoresNotManaged,
    /// The checkpoint came without a provenance file.
    #[error("The model '{0}' has no provenance record")]
    NoProvenance(String),
    /// No route has this path.
    #[error("Unknown path {0}: the API is at /v1, the playground at /")]
    UnknownRoute(String),
    /// The route exists for other methods.
    #[error("The method {method} is not allowed for {path}")]
    WrongMethod {
        /// The method of the request.
        method: String,
        /// Its path.
        path: String,
    },
    /// A policy refuses the text. The message begins with the OpenAI API's own words: clients that see the message alone,
    /// as LiteLLM does with newer versions of `openai`, know by them what kind of refusal it is.
    #[error("Invalid prompt: it was flagged as violating our usage policy: {denial}")]
    Policy {
        /// Which, and why.
        denial: Denial,
        /// The parameter that holds the text.
        param: &'static str,
    },
    /// The model refuses the request.
    #[error("{source}")]
    Generate {
        /// Why.
        source: GenerateError,
        /// What this endpoint calls its prompt: `prompt` or `messages`.
        prompt_param: &'static str,
    },
    /// A text cannot be turned into tokens, or tokens into text.
    #[error("{source}")]
    Tokenizer {
        /// Why.
        source: TokenizerError,
        /// The parameter that holds the text.
        param: &'static str,
    },
    /// The encoder refuses a text, or failed.
    #[error("{0}")]
    Encoder(#[from] EncoderError),
    /// The engine gives no (further) tokens.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Something that must not happen; the text is for the log.
    #[error("{0}")]
    Internal(String),
}

/// The body of an error answer, and of an error in the middle of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    error: ErrorFields,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorFields {
    /// What is wrong, what was expected and what to do, for people.
    message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The path of the parameter at fault, such as `messages[2].content`.
    param: Option<String>,
    /// The kind of error, for programs.
    code: Option<&'static str>,
}

/// Every status with which a request may be refused or fail, for the API's description.
const STATUSES: [(StatusCode, &str); 11] = [
    (StatusCode::BAD_REQUEST, "A parameter is unknown, wrong or cannot be honoured, or a policy refuses the text"),
    (StatusCode::UNAUTHORIZED, "The server asks for an API key, and this is none"),
    (StatusCode::FORBIDDEN, "The request comes from a page of another site, or the key does not allow it"),
    (StatusCode::NOT_FOUND, "There is no such model, store or path"),
    (StatusCode::METHOD_NOT_ALLOWED, "The path exists for another method"),
    (StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time"),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is longer than the server accepts"),
    (StatusCode::TOO_MANY_REQUESTS, "Too many requests wait: `Retry-After` says when to come back"),
    (StatusCode::INTERNAL_SERVER_ERROR, "The server failed; its log has the cause"),
    (StatusCode::SERVICE_UNAVAILABLE, "The server is shutting down"),
    (StatusCode::GATEWAY_TIMEOUT, "The request was not finished in time"),
];

impl From<EmbedError> for ApiError {
    fn from(error: EmbedError) -> Self {
        match error {
            EmbedError::Encoder(error) => error.into(),
            EmbedError::Engine(error) => error.into(),
        }
    }
}

impl IntoResponses for ApiError {
    fn responses() -> BTreeMap<String, RefOr<ResponseSchema>> {
        let body = || ContentBuilder::new().schema(Some(Ref::from_schema_name(ErrorBody::name()))).build();
        let response = |(status, description): (StatusCode, &str)| {
            let response = ResponseBuilder::new().description(description).content("application/json", body()).build();
            (status.as_str().to_owned(), response.into())
        };
        STATUSES.map(response).into()
    }
}

impl ApiError {
    /// A parameter with a value that cannot be honoured.
    pub fn parameter(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::Parameter { param: param.into(), message: message.into() }
    }

    /// A request that the key's limits do not let in; `param` is what could make it smaller.
    pub fn limited(param: &'static str) -> impl Fn(Refusal) -> Self {
        move |refusal| ApiError::Limited { refusal, param }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            ApiError::Parameter { .. } | ApiError::NotJson(_) | ApiError::BodyUnreadable | ApiError::Policy { .. } => {
                StatusCode::BAD_REQUEST
            }
            ApiError::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            ApiError::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            ApiError::UseNotAllowed { .. } | ApiError::Rating(RatingRefusal::CannotKeep(_)) => StatusCode::FORBIDDEN,
            ApiError::Rating(_) | ApiError::Limited { refusal: Refusal::NeverFits { .. }, .. } => {
                StatusCode::BAD_REQUEST
            }
            ApiError::Limited { .. } => StatusCode::TOO_MANY_REQUESTS,
            ApiError::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::ForeignSite(_) | ApiError::StoresNotManaged => StatusCode::FORBIDDEN,
            ApiError::UnknownModel { .. }
            | ApiError::UnknownStore(_)
            | ApiError::UnknownDocument(_)
            | ApiError::NoDocuments { .. }
            | ApiError::NoProvenance(_)
            | ApiError::UnknownRoute(_) => StatusCode::NOT_FOUND,
            ApiError::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::Generate { source: GenerateError::Decoder(_) | GenerateError::Tokenizer(_), .. }
            | ApiError::Tokenizer { source: TokenizerError::TemplateFailed(_), .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            ApiError::Generate { .. } | ApiError::Tokenizer { .. } => StatusCode::BAD_REQUEST,
            ApiError::Encoder(
                EncoderError::Empty { .. }
                | EncoderError::TooLong { .. }
                | EncoderError::TokenOutOfRange { .. }
                | EncoderError::Tokenizer(_),
            ) => StatusCode::BAD_REQUEST,
            ApiError::Encoder(_) => StatusCode::INTERNAL_SERVER_ERROR,
            ApiError::Engine(EngineError::QueueFull { .. }) => StatusCode::TOO_MANY_REQUESTS,
            ApiError::Engine(EngineError::Timeout { .. }) => StatusCode::GATEWAY_TIMEOUT,
            ApiError::Engine(EngineError::Stopped) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Engine(EngineError::TooLarge | EngineError::CannotGoOn) => StatusCode::BAD_REQUEST,
            ApiError::Engine(EngineError::StepFailed) | ApiError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Why, in one word, for those who count: the code, or what kind of error it is.
    pub fn reason(&self) -> &'static str {
        self.code().unwrap_or(self.kind())
    }

    fn kind(&self) -> &'static str {
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            ApiError::BodyTimeout { .. } => Some("request_timeout"),
            ApiError::Unauthorized { .. } => Some("invalid_api_key"),
            ApiError::UseNotAllowed { .. } => Some("use_not_allowed"),
            ApiError::Rating(RatingRefusal::CannotKeep(_)) => Some("rating_not_allowed"),
            ApiError::Limited { refusal: Refusal::NeverFits { .. }, .. } => Some("token_limit_exceeded"),
            ApiError::Limited { .. } => Some("rate_limit_exceeded"),
            ApiError::Policy { .. } => Some("content_policy_violation"),
            ApiError::UnknownModel { .. } => Some("model_not_found"),
            ApiError::ForeignSite(_) => Some("foreign_site"),
            ApiError::UnknownStore(_) => Some("store_not_found"),
            ApiError::UnknownDocument(_) | ApiError::NoDocuments { .. } => Some("document_not_found"),
            ApiError::StoresNotManaged => Some("stores_not_managed"),
            ApiError::NoProvenance(_) => Some("provenance_not_found"),
            ApiError::UnknownRoute(_) => Some("unknown_url"),
            ApiError::WrongMethod { .. } => Some("method_not_allowed"),
            ApiError::BodyTooLarge { .. } => Some("body_too_large"),
            ApiError::Generate { source: GenerateError::ContextOverflow { .. }, .. } => Some("context_length_exceeded"),
            ApiError::Encoder(EncoderError::TooLong { .. }) => Some("context_length_exceeded"),
            ApiError::Engine(EngineError::QueueFull { .. }) => Some("queue_full"),
            ApiError::Engine(EngineError::Timeout { .. }) => Some("timeout"),
            ApiError::Engine(EngineError::Stopped) => Some("shutting_down"),
            ApiError::Engine(EngineError::TooLarge) => Some("too_large"),
            ApiError::Engine(EngineError::CannotGoOn) => Some("answer_impossible"),
            _ if self.status().is_server_error() => Some("internal_error"),
            _ => None,
        }
    }

    fn param(&self) -> Option<String> {
        match self {
            ApiError::Parameter { param, .. } => Some(param.clone()),
            ApiError::UnknownModel { .. } => Some("model".into()),
            ApiError::UseNotAllowed { .. } => Some("safelmm.use".into()),
            ApiError::Rating(_) => Some("safelmm.rating".into()),
            ApiError::Limited { refusal: Refusal::NeverFits { .. }, param } => Some((*param).into()),
            ApiError::UnknownStore(_) => Some("safelmm.stores".into()),
            ApiError::Encoder(_) if !self.status().is_server_error() => Some("input".into()),
            ApiError::Tokenizer { source: TokenizerError::NoTools, .. } => Some("tools".into()),
            ApiError::Tokenizer { param, .. } | ApiError::Policy { param, .. } => Some((*param).into()),
            ApiError::Generate { source, prompt_param } => source.param().map(|param| match (param, *prompt_param) {
                // Embeddings have no answer that could be shorter.
                ("prompt", param) | ("max_tokens", param @ "input") => param.into(),
                (other, _) => other.into(),
            }),
            _ => None,
        }
    }

    /// The body for the client; the details of an internal failure stay in the log.
    pub fn body(&self) -> ErrorBody {
        let status = self.status();
        let message = match self {
            ApiError::Engine(told) => told.to_string(),
            _ if status.is_server_error() => {
                "The server failed while it worked on this request; its log has the cause".into()
            }
            told => told.to_string(),
        };
        ErrorBody { error: ErrorFields { message, kind: self.kind(), param: self.param(), code: self.code() } }
    }

    /// Tells the log, inside the request's span. As strings, which the log quotes: messages hold what clients wrote.
    pub fn log(&self) {
        let status = self.status().as_u16();
        if matches!(self, ApiError::Engine(_)) {
            tracing::warn!(status, reason = self.to_string(), "not answered");
        } else if self.status().is_server_error() {
            tracing::error!(status, cause = self.to_string(), "failed");
        } else {
            tracing::info!(status, param = self.param(), code = self.code(), reason = self.loggable(), "refused");
        }
    }

    /// The message of a refusal for the log; none where it may say back what stands in a prompt, which is nobody's
    /// business but the client's.
    fn loggable(&self) -> Option<String> {
        match self {
            ApiError::Parameter { .. }
            | ApiError::NotJson(_)
            | ApiError::Tokenizer { .. }
            | ApiError::Policy { .. }
            | ApiError::Encoder(EncoderError::Tokenizer(_)) => None,
            other => Some(other.to_string()),
        }
    }
}

/// Why a request was not answered as asked: travels with the answer to those who count.
#[derive(Clone, Copy)]
pub struct Reason(pub &'static str);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut response = (self.status(), Json(self.body())).into_response();
        response.extensions_mut().insert(Reason(self.reason()));
        match self {
            ApiError::Unauthorized { rejected, in_browser } => {
                let challenge = match (in_browser, rejected) {
                    (true, _) => "Basic realm=\"safelmm\", charset=\"UTF-8\"",
                    (false, None) => "Bearer realm=\"safelmm\"",
                    (false, Some(_)) => "Bearer realm=\"safelmm\", error=\"invalid_token\"",
                };
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            ApiError::Limited { refusal, .. } => {
                if let Some(wait) = refusal.retry_after() {
                    let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
                    response.headers_mut().insert(header::RETRY_AFTER, ms.div_ceil(1000).into());
                    response.headers_mut().insert("retry-after-ms", ms.into());
                }
            }
            ApiError::Engine(EngineError::QueueFull { retry_after }) => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs()));
            }
            ApiError::Engine(EngineError::Stopped) => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_STOP));
            }
            // Asking again would take as long again.
            ApiError::Engine(EngineError::Timeout { .. }) => {
                response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One error of every status there is.
    fn of_each_status() -> Vec<ApiError> {
        let text = || "x".to_owned();
        vec![
            ApiError::parameter("input", "x"),
            ApiError::Unauthorized { rejected: None, in_browser: false },
            ApiError::ForeignSite(text()),
            ApiError::UnknownRoute(text()),
            ApiError::WrongMethod { method: text(), path: text() },
            ApiError::BodyTimeout { limit: Duration::ZERO },
            ApiError::BodyTooLarge { limit: 1 },
            EngineError::QueueFull { retry_after: Duration::ZERO }.into(),
            ApiError::Internal(text()),
            EngineError::Stopped.into(),
            EngineError::Timeout { limit: Duration::ZERO }.into(),
        ]
    }

    #[test]
    fn every_status_is_described_once() {
        let described: Vec<u16> = STATUSES.iter().map(|(status, _)| status.as_u16()).collect();
        let mut known: Vec<u16> = of_each_status().iter().map(|error| error.status().as_u16()).collect();
        known.sort_unstable();
        assert_eq!(described, known);
    }

    #[test]
    fn the_log_does_not_repeat_what_a_client_wrote() {
        const SECRET: &str = "my diary";
        let denial = Denial { plugin: "p".into(), category: "c".into(), reason: SECRET.into() };
        for error in [
            ApiError::parameter("prompt", format!("'prompt' must be a list, found \"{SECRET}\"")),
            ApiError::NotJson(format!("the body must be an object in JSON, found \"{SECRET}\"")),
            ApiError::Tokenizer { source: TokenizerError::TemplateRefused(SECRET.into()), param: "messages" },
            ApiError::Policy { denial, param: "messages" },
        ] {
            assert!(error.to_string().contains(SECRET), "{error}");
            assert_eq!(error.loggable(), None, "{error}");
        }
        assert!(ApiError::BodyUnreadable.loggable().is_some());
    }
}
