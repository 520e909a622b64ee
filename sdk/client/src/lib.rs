//! An HTTP client for SafeLMM servers: completions with a rating, whole or streamed.
//!
//! The API is OpenAI's, so any client of that works too; this one knows the field `safelmm` and gives typed errors.
//!
//! ```no_run
//! # async fn example() -> Result<(), safelmm_client::ClientError> {
//! use safelmm_client::{Client, CompletionRequest};
//!
//! let client = Client::new("http://127.0.0.1:8080");
//! let request = CompletionRequest { max_tokens: Some(64), ..CompletionRequest::rated("Once upon a time", "G") };
//! let answer = client.complete(&request).await?;
//! println!("{}", answer.text);
//! # Ok(())
//! # }
//! ```

mod frames;

use futures::{Stream, StreamExt};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use frames::Frames;

/// A server to ask.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// A prompt to continue.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CompletionRequest {
    /// The text to continue.
    pub prompt: String,
    /// Tokens of the answer, at most; the server's default where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// Sampling temperature; 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// The same seed gives the same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Strings that end the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Whether end-of-text is generated like any other token; for measurements.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_eos: bool,
    /// What is SafeLMM's own.
    pub safelmm: Options,
}

/// The field `safelmm` of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Options {
    /// The ceiling: `"G"`, `"PG"`, `"R"` or `"X"`; the server's default where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating: Option<String>,
    /// Strength of the rating, from 0 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    /// `"commercial"` or `"non-commercial"`.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub declared_use: Option<String>,
}

impl CompletionRequest {
    /// A prompt with a rating, everything else as the server has it.
    pub fn rated(prompt: &str, rating: &str) -> CompletionRequest {
        let safelmm = Options { rating: Some(rating.to_owned()), ..Options::default() };
        CompletionRequest { prompt: prompt.to_owned(), safelmm, ..CompletionRequest::default() }
    }
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The text after the prompt.
    pub text: String,
    /// `"stop"` or `"length"`.
    pub finish_reason: String,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// What the server says under `safelmm`: rating, attributions, policy findings.
    pub safelmm: Value,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server cannot be reached, or the connection broke.
    #[error("{0}")]
    Transport(#[from] reqwest::Error),
    /// The server refused the request, or failed.
    #[error("{status}: {message}")]
    Refused {
        /// The HTTP status; 200 for a stream that broke in the middle.
        status: StatusCode,
        /// What the server says.
        message: String,
        /// The parameter at fault.
        param: Option<String>,
        /// The kind of error, such as `"queue_full"` or `"content_policy_violation"`.
        code: Option<String>,
    },
    /// The answer is not what the API promises.
    #[error("the server's answer cannot be read: {0}")]
    Malformed(String),
}

#[derive(Deserialize)]
struct Chunk {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    safelmm: Value,
}

#[derive(Deserialize)]
struct Choice {
    text: String,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: u64,
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Client {
        Client { http: reqwest::Client::new(), base: base.trim_end_matches('/').to_owned() }
    }

    /// The whole answer at once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn complete(&self, request: &CompletionRequest) -> Result<Completion, ClientError> {
        let body = self.post(request, false).await?.bytes().await?;
        let chunk: Chunk = parse(&body)?;
        let choice = chunk.choices.into_iter().next();
        match (choice, chunk.usage) {
            (Some(Choice { text, finish_reason: Some(finish_reason) }), Some(Usage { completion_tokens })) => {
                Ok(Completion { text, finish_reason, completion_tokens, safelmm: chunk.safelmm })
            }
            _ => Err(ClientError::Malformed("it has no finished choice, or no token counts".to_owned())),
        }
    }

    /// The answer piece by piece; dropping the stream ends the generation.
    ///
    /// # Errors
    /// [`ClientError`], before the first piece or in the place of one.
    pub async fn stream(
        &self,
        request: &CompletionRequest,
    ) -> Result<impl Stream<Item = Result<String, ClientError>> + use<>, ClientError> {
        let mut frames = Frames::default();
        let bytes = self.post(request, true).await?.bytes_stream();
        Ok(bytes.flat_map(move |piece| {
            let texts: Vec<Result<String, ClientError>> = match piece {
                Ok(piece) => frames.push(&piece).iter().filter_map(|data| text_of(data).transpose()).collect(),
                Err(error) => vec![Err(error.into())],
            };
            futures::stream::iter(texts)
        }))
    }

    async fn post(&self, request: &CompletionRequest, stream: bool) -> Result<Response, ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(flatten)]
            request: &'a CompletionRequest,
            stream: bool,
        }
        let body = Body { request, stream };
        let response = self.http.post(format!("{}/v1/completions", self.base)).json(&body).send().await?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => {
                let body = response.bytes().await?;
                Err(parse::<ErrorBody>(&body)?.refused(status))
            }
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorFields,
}

#[derive(Deserialize)]
struct ErrorFields {
    message: String,
    param: Option<String>,
    code: Option<String>,
}

impl ErrorBody {
    fn refused(self, status: StatusCode) -> ClientError {
        let ErrorFields { message, param, code } = self.error;
        ClientError::Refused { status, message, param, code }
    }
}

fn parse<T: for<'d> Deserialize<'d>>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|e| ClientError::Malformed(e.to_string()))
}

/// The text in the data of one event; `None` for events without text.
fn text_of(data: &[u8]) -> Result<Option<String>, ClientError> {
    if data == b"[DONE]" {
        return Ok(None);
    }
    if let Ok(error) = serde_json::from_slice::<ErrorBody>(data) {
        return Err(error.refused(StatusCode::OK));
    }
    let chunk: Chunk = parse(data)?;
    Ok(chunk.choices.into_iter().next().map(|choice| choice.text).filter(|text| !text.is_empty()))
}
