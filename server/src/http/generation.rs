//! What completions and chat completions have in common, from the typed request to the answer.

use std::num::NonZero;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::response::Response;
use safelmm_model::Generation;
use tokio::sync::Semaphore;
use tracing::Span;

use super::answer::{Head, Running, Sequences, Shape, Streaming, answer};
use super::error::ApiError;
use super::extension::{Extension, Report};
use super::inline_moderation::Moderator;
use super::journal::Journal;
use super::json::shortened;
use super::plan::{Plan, Prompts, Wanted};
use super::request::SharedFields;
use super::sampling::Sampling;
use super::screener::Screener;
use crate::app::{App, unix_time};
use crate::engine::{CacheDomain, EngineError, Sequence, Ticket};
use crate::keys::{Principal, Use};

/// The longest `user`: it stands in every log line of the request.
const MAX_USER_BYTES: usize = 256;

/// A request that has been read and checked.
pub struct Prepared<S> {
    /// What the engine will run.
    pub plan: Plan<S>,
    /// Whether and how the answer is streamed.
    pub streaming: Streaming,
    /// What was asked for under `safelmm`.
    pub extension: Extension,
    /// What the answer says under `safelmm`.
    pub report: Report,
    /// Who judges the answers, where the client asks.
    pub moderator: Option<Moderator>,
}

/// The shared fields, checked.
pub struct Shared {
    /// Whether and how the answer is streamed.
    pub streaming: Streaming,
    extension: Extension,
    /// The most tokens that the key's limits can ever let through.
    most_tokens: Option<usize>,
    /// How choices are sampled.
    pub sampling: Sampling,
}

impl Shared {
    /// Checks them.
    pub fn new(mut fields: SharedFields, app: &App, principal: &Principal) -> Result<Self, ApiError> {
        check_model(fields.model.as_deref(), app, principal)?;
        record_user(fields.user.take())?;
        Ok(Shared {
            streaming: Streaming::take(&mut fields)?,
            extension: Extension::new(fields.safelmm.take(), app, principal)?,
            most_tokens: principal.most_tokens(),
            sampling: Sampling::take(&mut fields, app.checkpoint())?,
        })
    }

    /// What takes the request's texts through the policies.
    pub fn screener(&self, app: &App, principal: &Principal, route: &'static str) -> Screener {
        Screener::new(app, principal, route, Some(&self.extension))
    }

    /// What the engine will run for these prompts, which have gone through `screener`.
    pub fn prepare<S>(
        self,
        app: &App,
        prompts: Prompts<S>,
        wanted: &Wanted,
        screener: Screener,
    ) -> Result<Prepared<S>, ApiError> {
        let scope = screener.into_scope();
        let plan = Plan::new(app, prompts, &self.sampling, wanted, &self.extension, &scope, self.most_tokens)?;
        let report = Report::new(&self.extension, scope);
        Ok(Prepared { plan, streaming: self.streaming, extension: self.extension, report, moderator: None })
    }
}

/// Prepares the request away from the threads that serve sockets (long prompts take time to tokenize), submits it and
/// answers.
pub async fn generate<S: Shape, R: Send + 'static>(
    app: App,
    principal: Principal,
    request: R,
    prepare: fn(&App, &Principal, R) -> Result<Prepared<S>, ApiError>,
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let Prepared { plan, streaming, extension, report, moderator } = blocking({
        // The principal moves along, so that the request counts until the work has ended, even if its client leaves.
        let (app, principal) = (app.clone(), principal.clone());
        move || prepare(&app, &principal, request)
    })
    .await?;
    app.metrics().validated(begun.elapsed(), plan.prompt_tokens);
    let charge = principal
        .charge(plan.prompt_tokens.saturating_add(plan.max_tokens))
        .map_err(ApiError::limited("max_tokens"))?;
    let journal = Journal::new(plan.prompt_tokens, charge, app.metrics().clone());
    let attachment = extension.attachment;
    let sources = attachment.as_ref().map(|attachment| attachment.retrieval.domain()).unwrap_or_default();
    let submitted = submit(&app, &principal, plan.generations, extension.declared_use, &sources);
    let origin = attachment.filter(|attachment| attachment.is_traced()).map(|attachment| (app.clone(), attachment));
    let sequences = Sequences { shapes: plan.shapes, guards: plan.guards, traced: plan.traced };
    let running = Running::new(submitted, journal, sequences, origin, moderator)?;
    let head = Head {
        id: format!("{}{}", S::ID_PREFIX, uuid::Uuid::new_v4().simple()),
        created: unix_time(),
        model: app.model_name().to_owned(),
        report,
    };
    answer(head, running, plan.ranking, streaming).await
}

/// Gives sequences to the engine. What was computed for another caller, for another declared use, or with other documents
/// in force (`sources`), is not used for them.
pub fn submit(
    app: &App,
    principal: &Principal,
    generations: Vec<Generation>,
    declared_use: Use,
    sources: &str,
) -> Result<Ticket, EngineError> {
    let caller = principal.id().map_or_else(String::new, |id| id.to_string());
    let domain = CacheDomain::new([&caller, declared_use.as_str(), sources]);
    let sequences: Vec<Sequence> = generations.into_iter().map(|g| Sequence::new(g, &domain)).collect();
    let tokens = sequences.iter().map(Sequence::tokens).sum();
    app.engine().submit(sequences, tokens)
}

/// The requests that are prepared at once: more would only slow each other, and the engine, down. A turn goes with the
/// work and not with its client, who may leave before the work has ended.
static TURNS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    Arc::new(Semaphore::new(processors.max(2)))
});

/// Runs work that takes the processor for a while on a thread of its own, in the current span, when it has its turn.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let span = Span::current();
    let turn = Arc::clone(&TURNS).acquire_owned().await;
    let turn = turn.map_err(|error| ApiError::Internal(format!("no request is prepared any more: {error}")))?;
    let done = tokio::task::spawn_blocking(move || {
        let done = span.in_scope(work);
        drop(turn);
        done
    })
    .await;
    done.unwrap_or_else(|error| Err(ApiError::Internal(format!("a request could not be prepared: {error}"))))
}

/// Refuses every model but the one that generates, and that one too if the key may not use it. A request may leave it out.
pub fn check_model(requested: Option<&str>, app: &App, principal: &Principal) -> Result<(), ApiError> {
    let requested = requested.unwrap_or(app.model_name());
    if requested == app.model_name() && principal.may_use_model(requested) {
        return Ok(());
    }
    Err(unknown_model(requested, app, principal))
}

/// The error for a model that is not served, or not to this key.
pub fn unknown_model(requested: &str, app: &App, principal: &Principal) -> ApiError {
    let served = principal.may_use_model(app.model_name()).then(|| app.model_name().to_owned());
    ApiError::UnknownModel { requested: shortened(requested), served }
}

/// The client's own name for its user; the log records it.
pub fn record_user(user: Option<String>) -> Result<(), ApiError> {
    if let Some(user) = user {
        if user.len() > MAX_USER_BYTES {
            return Err(ApiError::parameter("user", format!("'user' is longer than {MAX_USER_BYTES} bytes")));
        }
        Span::current().record("user", user);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::http::completions::Completion;
    use crate::keys::{self, Keyring, Limits, Rights};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A request whose preparation says when it begins, and ends when it is told to.
    struct Slow {
        begun: Sender<()>,
        end: Receiver<()>,
    }

    fn prepare(_: &App, _: &Principal, Slow { begun, end }: Slow) -> Result<Prepared<Completion>, ApiError> {
        begun.send(()).unwrap();
        end.recv_timeout(PATIENCE).unwrap();
        Err(ApiError::NotJson("over".into()))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn preparation_counts_against_the_key_even_if_the_client_has_left() {
        let app = App::start(Arc::new(crate::demo::open().unwrap()), &Config::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        let limits = Limits { concurrent: NonZeroU32::new(1), ..Limits::default() };
        let key = keys::add(&file, "test", Rights::default(), limits, None).unwrap().key;
        let holder = Keyring::open(&file).unwrap().authenticate(&key.reveal()).unwrap();

        let ((begun, has_begun), (ended, end)) = (channel(), channel());
        let admitted = holder.admit().unwrap();
        let request = tokio::spawn(generate(app, admitted, Slow { begun, end }, prepare));
        has_begun.recv_timeout(PATIENCE).unwrap();
        // As the server does with the request of a client that has closed its connection.
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert!(holder.admit().is_err(), "the work goes on and counted for nothing");
        ended.send(()).unwrap();
        let free = async {
            while holder.admit().is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, free).await.expect("the place was not given back");
    }
}
