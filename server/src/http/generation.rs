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
use crate::keys::Principal;

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
    pub fn take(body: &mut Fields, app: &App, principal: &Principal) -> Result<Self, ApiError> {
        take_model(body, app, principal)?;
        take_user(body)?;
        Ok(Shared {
            streaming: Streaming::take(body)?,
            extension: Extension::take(body, app, principal)?,
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
    principal: Principal,
    body: Fields,
    prepare: fn(&App, &Principal, Fields) -> Result<Prepared, ApiError>,
) -> Result<Response, ApiError> {
    let Prepared { plan, streaming, report } = blocking({
        let (app, principal) = (app.clone(), principal.clone());
        move || prepare(&app, &principal, body)
    })
    .await?;
    let charge = principal.charge(plan.prompt_tokens.saturating_add(plan.max_tokens)).map_err(ApiError::Limited)?;
    let journal = Journal::new(plan.prompt_tokens, charge);
    let choices = plan.generations.len();
    let running = Running::new(app.engine().submit(plan.generations), journal, choices)?;
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
pub fn take_model(body: &mut Fields, app: &App, principal: &Principal) -> Result<(), ApiError> {
    match body.string("model")? {
        Some(requested) => check_model(requested, app, principal),
        None if principal.may_use_model(app.model_name()) => Ok(()),
        None => Err(ApiError::UnknownModel { requested: "default".into(), served: None }),
    }
}

/// Refuses every model but the one that is served, and that one too if the key may not use it.
pub fn check_model(requested: String, app: &App, principal: &Principal) -> Result<(), ApiError> {
    let allowed = principal.may_use_model(app.model_name());
    if allowed && requested == app.model_name() {
        return Ok(());
    }
    let served = allowed.then(|| app.model_name().to_owned());
    Err(ApiError::UnknownModel { requested: shortened(&requested), served })
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
