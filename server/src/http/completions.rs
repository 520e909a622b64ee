//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use safelmm_model::TokenLogprob;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Answer, Finish, Gain, Shape};
use super::error::ApiError;
use super::generation::{Prepared, Shared, generate};
use super::json::Json;
use super::logprobs::{TextLogprobs, TextScores};
use super::plan::{Length, Prompt, Prompts, Wanted};
use super::prompts::{Encoded, encode};
use super::request::CompletionRequest;
use super::sampling::{check_n, check_top_logprobs};
use crate::app::App;
use crate::keys::Principal;

/// The default of the OpenAI API.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Continues prompts.
#[utoipa::path(
    post, path = "/v1/completions", tag = "generation",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The answers, or with `stream` their chunks, ended by `[DONE]`", content(
            (Answer<TextChoice> = "application/json"),
            (Answer<TextChoice> = "text/event-stream"),
        )),
        ApiError,
    ),
)]
pub async fn completions(
    State(app): State<App>,
    principal: Principal,
    Json(request): Json<CompletionRequest>,
) -> Result<Response, ApiError> {
    generate(app, principal, request, prepare).await
}

/// Checks a request, down to the sequences that it asks for.
pub fn prepare(
    app: &App,
    principal: &Principal,
    mut request: CompletionRequest,
) -> Result<Prepared<Completion>, ApiError> {
    let shared = Shared::new(request.take_shared(), app, principal)?;
    let echo = request.echo.unwrap_or(false);
    let logprobs = request.logprobs.map(|top| check_top_logprobs("logprobs", top)).transpose()?;
    let best_of = request.best_of.map(|best_of| check_best_of(best_of, &shared)).transpose()?;
    if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        let message = "'suffix' is not supported: the model continues text and does not fill gaps";
        return Err(ApiError::parameter("suffix", message));
    }
    let length = request.max_tokens.map_or(Length::UpTo(DEFAULT_MAX_TOKENS), Length::Exactly);
    let screener = shared.screener(app, principal, "/v1/completions");
    let prompts = encode(request.prompt, "prompt", app, &screener)?
        .into_iter()
        .map(|encoded| {
            let tokens = encoded.tokens();
            let echo = echo.then(|| Echo::new(encoded, app)).transpose()?;
            let app = app.clone();
            let shape = move || Completion {
                before: echo.as_ref().map_or(0, |echo| echo.text.chars().count()),
                echo: echo.clone(),
                scored: Vec::new(),
                scores: logprobs.map(|top| TextScores::new(Arc::clone(app.spellings()), top)),
            };
            Ok(Prompt { tokens, shape: Box::new(shape) })
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    let score_prompt = echo && logprobs.is_some();
    let wanted = Wanted { top_logprobs: logprobs.unwrap_or(0), score_prompt, ..Wanted::default() };
    shared.prepare(app, Prompts { prompts, param: "prompt", length, best_of }, &wanted, screener)
}

fn check_best_of(best_of: usize, shared: &Shared) -> Result<usize, ApiError> {
    let n = shared.sampling.n;
    let refuse = |message: String| Err(ApiError::parameter("best_of", format!("'best_of' {message}")));
    match check_n("best_of", best_of)? {
        best_of if best_of < n => refuse(format!("must be at least 'n' ({n}), found {best_of}")),
        best_of if best_of > n && shared.streaming.stream => {
            refuse("cannot be streamed: the best answers are known when all have ended".into())
        }
        best_of => Ok(best_of),
    }
}

/// A prompt that stands before its answer.
#[derive(Clone)]
struct Echo {
    tokens: Vec<u32>,
    text: String,
}

impl Echo {
    fn new(encoded: Encoded, app: &App) -> Result<Self, ApiError> {
        Ok(Echo { text: encoded.text(app)?, tokens: encoded.shown })
    }
}

/// One choice of a completion.
pub struct Completion {
    /// The prompt's characters, where it is shown.
    before: usize,
    /// The prompt, until it has been shown.
    echo: Option<Echo>,
    /// What has come of the prompt's scores.
    scored: Vec<TokenLogprob>,
    scores: Option<TextScores>,
}

/// An answer to a prompt, or in a chunk a piece of it.
#[derive(Serialize, ToSchema)]
pub struct TextChoice {
    /// Its place among all choices.
    index: usize,
    /// The text.
    text: String,
    /// Log-probabilities, where they were asked for.
    logprobs: Option<TextLogprobs>,
    /// Why it ended: `stop`, `length` or, by a policy, `content_filter`; null in chunks before the last.
    finish_reason: Option<&'static str>,
}

/// What a choice has gained.
#[derive(Default)]
pub struct TextPiece {
    text: String,
    logprobs: Option<TextLogprobs>,
    finish: Option<Finish>,
}

impl Shape for Completion {
    const OBJECT: &'static str = "text_completion";
    const CHUNK_OBJECT: &'static str = "text_completion";
    const ID_PREFIX: &'static str = "cmpl-";
    type Piece = TextPiece;
    type Choice = TextChoice;
    type Delta = TextChoice;

    fn before(&self) -> usize {
        self.before
    }

    fn piece(&mut self, gain: Gain) -> Result<TextPiece, ApiError> {
        let Gain { scored, begun, tokens, text, finish } = gain;
        self.scored.extend(scored);
        let mut piece = TextPiece { finish, ..TextPiece::default() };
        let failed = |error| ApiError::Internal(format!("a token cannot be shown: {error}"));
        if begun {
            if let Some(scores) = &mut self.scores {
                piece.logprobs = finish.is_some().then(TextLogprobs::default);
                if let Some(Echo { tokens, text }) = &self.echo {
                    piece.logprobs = Some(scores.prompt(tokens, text, &self.scored).map_err(failed)?);
                }
            }
            self.scored.clear();
            piece.text = self.echo.take().map(|echo| echo.text).unwrap_or_default();
        }
        piece.text += &text;
        if let Some(scores) = &mut self.scores {
            for token in &tokens {
                piece.logprobs.get_or_insert_default().append(scores.token(token).map_err(failed)?);
            }
        }
        Ok(piece)
    }

    fn append(whole: &mut TextPiece, piece: TextPiece) {
        whole.text += &piece.text;
        whole.finish = whole.finish.or(piece.finish);
        if let Some(entries) = piece.logprobs {
            whole.logprobs.get_or_insert_default().append(entries);
        }
    }

    fn choice(index: usize, TextPiece { text, logprobs, finish }: TextPiece) -> TextChoice {
        TextChoice { index, text, logprobs, finish_reason: finish.map(Finish::as_str) }
    }

    fn opening(_index: usize) -> Option<TextChoice> {
        None
    }

    fn delta(index: usize, piece: TextPiece) -> Option<TextChoice> {
        let says_something = !piece.text.is_empty() || piece.logprobs.is_some() || piece.finish.is_some();
        says_something.then(|| Self::choice(index, piece))
    }
}
