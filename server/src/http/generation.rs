//! What completions and chat completions have in common, from the body to the answer.

use axum::response::Response;
use safelmm_plugins::Entry;
use tracing::Span;

use super::answer::{Head, Running, Shape, Streaming, answer};
use super::error::ApiError;
use super::extension::{Extension, Report};
use super::fields::{Fields, shortened};
use super::journal::Journal;
use super::plan::{Length, Plan, Prompts};
use super::sampling::Sampling;
use crate::app::{App, unix_time};
use crate::engine::{CacheDomain, Sequence};

/// The longest `user`: it stands in every log line of the request.
const MAX_USER_BYTES: usize = 256;

/// A request that has been read and checked.
pub struct Prepared {
    /// What the engine will run.
    pub plan: Plan,
    /// Whether and how the answer is streamed.
    pub streaming: Streaming,
    /// What the answer says under `safelmm`.
    pub report: Report,
}

/// The fields that completions and chat completions share.
pub struct Shared {
    streaming: Streaming,
    extension: Extension,
    /// How choices are sampled.
    pub sampling: Sampling,
}

impl Shared {
    /// Takes them out of a body.
    pub fn take(body: &mut Fields, app: &App) -> Result<Self, ApiError> {
        take_model(body, app)?;
        take_user(body)?;
        Ok(Shared {
            streaming: Streaming::take(body)?,
            extension: Extension::take(body, app)?,
            sampling: Sampling::take(body, app.checkpoint())?,
        })
    }

    /// What the engine will run for these prompts; `policy` is what the policies found in them.
    pub fn prepare(
        self,
        app: &App,
        prompts: Prompts,
        length: Length,
        policy: Vec<Entry>,
    ) -> Result<Prepared, ApiError> {
        let plan = Plan::new(app, prompts, length, &self.sampling, self.extension)?;
        Ok(Prepared { plan, streaming: self.streaming, report: Report::new(self.extension, policy) })
    }
}

/// Prepares the request away from the threads that serve sockets (long prompts take time to tokenize), submits it and
/// answers.
pub async fn generate<S: Shape>(
    app: App,
    body: Fields,
    prepare: fn(&App, Fields) -> Result<Prepared, ApiError>,
) -> Result<Response, ApiError> {
    let Prepared { plan, streaming, report } = blocking({
        let app = app.clone();
        move || prepare(&app, body)
    })
    .await?;
    let journal = Journal::new(plan.prompt_tokens);
    let choices = plan.generations.len();
    let domain = CacheDomain::new([report.use_name()]);
    let sequences: Vec<Sequence> = plan.generations.into_iter().map(|g| Sequence::new(g, &domain)).collect();
    let tokens = sequences.iter().map(Sequence::tokens).sum();
    let running = Running::new(app.engine().submit(sequences, tokens), journal, choices)?;
    let head = Head {
        id: format!("{}{}", S::ID_PREFIX, uuid::Uuid::new_v4().simple()),
        created: unix_time(),
        model: app.model_name().to_owned(),
        report,
    };
    answer::<S>(head, running, streaming).await
}

/// Runs work that takes the processor for a while on a thread of its own, in the current span.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let span = Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.unwrap_or_else(|error| Err(ApiError::Internal(format!("a request could not be prepared: {error}"))))
}

/// Takes `model`. A request may leave it out, since one model is served.
pub fn take_model(body: &mut Fields, app: &App) -> Result<(), ApiError> {
    match body.string("model")? {
        Some(requested) => check_model(requested, app),
        None => Ok(()),
    }
}

/// Refuses every model but the one that is served.
pub fn check_model(requested: String, app: &App) -> Result<(), ApiError> {
    if requested == app.model_name() {
        return Ok(());
    }
    Err(ApiError::UnknownModel { requested: shortened(&requested), served: app.model_name().to_owned() })
}

/// Puts a text through the policies, which add what they flag to `entries`.
pub fn screen(app: &App, text: &str, param: &'static str, entries: &mut Vec<Entry>) -> Result<(), ApiError> {
    app.policies().screen_prompt(text, entries).map_err(|denial| ApiError::Policy { denial, param })
}

/// Takes `user`, the client's own name for its user; the log records it.
fn take_user(body: &mut Fields) -> Result<(), ApiError> {
    if let Some(user) = body.string("user")? {
        if user.len() > MAX_USER_BYTES {
            return Err(body.error("user", format!("is longer than {MAX_USER_BYTES} bytes")));
        }
        Span::current().record("user", user);
    }
    Ok(())
}
