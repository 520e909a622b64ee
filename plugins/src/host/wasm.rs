//! A component as a policy of the pipeline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::ResourceAny;

use super::answers::{self, Answers};
use super::bindings::PolicyWithVocabulary;
use super::component::{Component, LoadError};
use super::failure::{Failure, OnError};
use super::limits::Limits;
use super::pool::{Lease, Pool};
use super::sandbox::Sandbox;
use super::state::{State, Vocabulary};
use super::vectors;
use crate::document::{Document, Passage};
use crate::hook::{Hook, Hooks};
use crate::policy::{About, Policy};
use crate::request::RequestContext;
use crate::session::{Action, Candidates, Inspection, Session};
use crate::verdict::{Judgement, Verdict};

/// One call of a policy, for those who count.
#[derive(Clone, Copy, Debug)]
pub struct Reported<'a> {
    /// Its name in the configuration.
    pub plugin: &'a str,
    /// Where it was asked.
    pub hook: Hook,
    /// What it decided: a verdict, `hold` or `adjust`; or the kind of its failure.
    pub outcome: Result<&'static str, &'static str>,
    /// Instructions that it took, roughly.
    pub fuel: u64,
    /// How long it took, in the host too.
    pub took: Duration,
}

/// Who counts calls of policies.
pub trait Observer: Send + Sync {
    /// A policy was called.
    fn called(&self, call: &Reported<'_>);
}

/// How a component is used as a policy.
#[derive(Clone)]
pub struct WasmSettings {
    /// The name by which configuration, log and answers call it.
    pub name: String,
    /// Where it comes from, for listings.
    pub source: String,
    /// What its digest must be, as `sha256:HEX`.
    pub digest: Option<String>,
    /// Its own settings.
    pub settings: serde_json::Value,
    /// What happens when it fails.
    pub on_error: OnError,
    /// What happens instead when it fails at certain hooks.
    pub on_error_at: Vec<(Hook, OnError)>,
    /// Where it is asked: all hooks of its description, where this does not say.
    pub hooks: Option<Vec<Hook>>,
    /// What it may take.
    pub limits: Limits,
    /// The vocabulary, where it may have it.
    pub vocabulary: Option<Arc<dyn Vocabulary>>,
    /// Who counts.
    pub observer: Option<Arc<dyn Observer>>,
}

impl WasmSettings {
    /// A component under this name with its own defaults, and nothing granted.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Self {
        WasmSettings {
            name: name.into(),
            source: source.into(),
            digest: None,
            settings: serde_json::Value::Object(serde_json::Map::new()),
            on_error: OnError::default(),
            on_error_at: Vec::new(),
            hooks: None,
            limits: Limits::default(),
            vocabulary: None,
            observer: None,
        }
    }
}

/// A component as a policy. Cheap to clone.
#[derive(Clone)]
pub struct WasmPolicy(Arc<Inner>);

struct Inner {
    pool: Arc<Pool>,
    answers: Answers,
    about: About,
    hooks: Hooks,
    limits: Limits,
    on_error: OnError,
    on_error_at: Vec<(Hook, OnError)>,
    observer: Option<Arc<dyn Observer>>,
}

impl WasmPolicy {
    /// Makes a policy of a component: it is checked, compiled, asked what it is, its settings held against its schema and
    /// shown to it, and its golden vectors tried. Takes seconds for a large one.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(sandbox: &Sandbox, bytes: &[u8], settings: WasmSettings) -> Result<WasmPolicy, LoadError> {
        let WasmSettings { name, source, digest, settings, on_error, on_error_at, hooks, limits, vocabulary, observer } =
            settings;
        let limits = Limits { memory_bytes: limits.memory_bytes.min(sandbox.limits.memory_bytes), ..limits };
        let component = Component::load(sandbox, &name, bytes, digest.as_deref(), &limits, vocabulary)?;
        if let Some(hook) = hooks.iter().flatten().find(|hook| !component.hooks.has(**hook)) {
            return Err(LoadError::Hook(*hook));
        }
        let hooks = hooks.map_or(component.hooks, |hooks| component.hooks.and(hooks.into_iter().collect()));
        component.check_settings(&settings)?;
        vectors::require(&component)?;
        let about = About {
            name,
            policy: component.name.clone(),
            version: component.version.clone(),
            summary: component.summary.clone(),
            source,
            digest: Some(component.digest.clone()),
            hooks: hooks.iter().collect(),
            categories: component.categories.clone(),
            languages: component.languages.clone(),
        };
        let answers = Answers::new(&component);
        let pool = Pool::new(component, settings.to_string())?;
        Ok(WasmPolicy(Arc::new(Inner { pool, answers, about, hooks, limits, on_error, on_error_at, observer })))
    }
}

impl Inner {
    fn on_error(&self, hook: Hook) -> OnError {
        self.on_error_at.iter().find(|(at, _)| *at == hook).map_or(self.on_error, |(_, choice)| *choice)
    }

    /// Calls a lent instance, checks its answer, and tells those who count.
    fn ask<T, R>(
        &self,
        lease: &mut Lease,
        (hook, bytes): (Hook, usize),
        call: impl FnOnce(&PolicyWithVocabulary, &mut Store<State>) -> wasmtime::Result<T>,
        check: impl FnOnce(T) -> Result<R, Failure>,
        outcome: impl FnOnce(&R) -> &'static str,
    ) -> Result<R, Failure> {
        let begun = Instant::now();
        let called = lease.call(bytes, call);
        let answer = called.answer.and_then(|answer| check(answer).inspect_err(|_| lease.fail()));
        let told = answer.as_ref().map(outcome).map_err(Failure::kind);
        self.report(hook, told, called.fuel, begun.elapsed());
        answer.inspect_err(|failure| self.log(hook, failure))
    }

    /// As [`Self::ask`], with an instance for this call alone.
    fn ask_any<T, R>(
        &self,
        at: (Hook, usize),
        call: impl FnOnce(&PolicyWithVocabulary, &mut Store<State>) -> wasmtime::Result<T>,
        check: impl FnOnce(T) -> Result<R, Failure>,
        outcome: impl FnOnce(&R) -> &'static str,
    ) -> Result<R, Failure> {
        let mut lease = self.lease(at.0)?;
        self.ask(&mut lease, at, call, check, outcome)
    }

    fn lease(&self, hook: Hook) -> Result<Lease, Failure> {
        let begun = Instant::now();
        self.pool.lease().inspect_err(|failure| {
            self.report(hook, Err(failure.kind()), 0, begun.elapsed());
            self.log(hook, failure);
        })
    }

    fn report(&self, hook: Hook, outcome: Result<&'static str, &'static str>, fuel: u64, took: Duration) {
        if let Some(observer) = &self.observer {
            observer.called(&Reported { plugin: &self.about.name, hook, outcome, fuel, took });
        }
    }

    /// Never with the text that it was asked about.
    fn log(&self, hook: Hook, failure: &Failure) {
        let (policy, hook, choice) = (&self.about.name, hook.as_str(), self.on_error(hook));
        tracing::warn!(policy, hook, %failure, on_error = ?choice, "a policy failed");
    }

    /// What becomes of a text that could not be judged.
    fn unjudged(&self, hook: Hook, failure: &Failure) -> Judgement {
        match self.on_error(hook) {
            OnError::Block => Judgement::Deny(vec![failure.finding()]),
            OnError::Allow => Judgement::Flag(vec![failure.finding()]),
        }
    }
}

fn name_of(judgement: &Judgement) -> &'static str {
    judgement.verdict().as_str()
}

impl Policy for WasmPolicy {
    fn name(&self) -> &str {
        &self.0.about.name
    }

    fn about(&self) -> About {
        self.0.about.clone()
    }

    fn hooks(&self) -> Hooks {
        self.0.hooks
    }

    fn screen_prompt(&self, request: &RequestContext, text: &str) -> Judgement {
        let (inner, request) = (&self.0, answers::request(request));
        let judged = inner.ask_any(
            (Hook::ScreenPrompt, text.len()),
            |policy, store| policy.safelmm_policy_texts().call_screen_prompt(store, &request, text),
            |verdict| inner.answers.judgement(verdict, text),
            name_of,
        );
        judged.unwrap_or_else(|failure| inner.unjudged(Hook::ScreenPrompt, &failure))
    }

    fn filter_passages(&self, request: &RequestContext, passages: &[Passage]) -> Vec<Judgement> {
        let (inner, request) = (&self.0, answers::request(request));
        let asked: Vec<_> = passages.iter().map(answers::passage).collect();
        let bytes = passages.iter().map(|passage| passage.text.len()).sum();
        let judged = inner.ask_any(
            (Hook::FilterPassages, bytes),
            |policy, store| policy.safelmm_policy_texts().call_filter_passages(store, &request, &asked),
            |verdicts| {
                if verdicts.len() != passages.len() {
                    let (got, expected) = (verdicts.len(), passages.len());
                    return Err(Failure::Answer(format!("{got} verdicts on {expected} passages: expected as many")));
                }
                let judge = |(verdict, passage): (_, &Passage)| inner.answers.judgement(verdict, &passage.text);
                verdicts.into_iter().zip(passages).map(judge).collect()
            },
            |judgements: &Vec<Judgement>| {
                let rank = |judgement: &&Judgement| match judgement.verdict() {
                    Verdict::Abstain => 0,
                    Verdict::Allow => 1,
                    Verdict::Flag => 2,
                    Verdict::Rewrite => 3,
                    Verdict::Deny => 4,
                };
                judgements.iter().max_by_key(rank).map_or("allow", name_of)
            },
        );
        judged.unwrap_or_else(|failure| vec![inner.unjudged(Hook::FilterPassages, &failure); passages.len()])
    }

    fn review_response(&self, request: &RequestContext, text: &str, sources: &[Document]) -> Judgement {
        let (inner, request) = (&self.0, answers::request(request));
        let sources = answers::documents(sources);
        let judged = inner.ask_any(
            (Hook::ReviewResponse, text.len()),
            |policy, store| policy.safelmm_policy_texts().call_review_response(store, &request, text, &sources),
            |verdict| inner.answers.judgement(verdict, text),
            name_of,
        );
        judged.unwrap_or_else(|failure| inner.unjudged(Hook::ReviewResponse, &failure))
    }

    fn session(&self, request: &RequestContext, prompt: &str) -> Option<Box<dyn Session>> {
        let inner = Arc::clone(&self.0);
        let hook = if inner.hooks.has(Hook::InspectStream) { Hook::InspectStream } else { Hook::AdjustLogits };
        let request = answers::request(request);
        let begun = inner.lease(hook).and_then(|mut lease| {
            let called = lease.call(prompt.len(), |policy, store| {
                policy.safelmm_policy_generation().session().call_constructor(store, &request, prompt)
            });
            match called.answer {
                Ok(resource) => Ok(Running { resource, lease }),
                Err(failure) => {
                    inner.report(hook, Err(failure.kind()), called.fuel, Duration::ZERO);
                    inner.log(hook, &failure);
                    Err(failure)
                }
            }
        });
        Some(Box::new(WasmSession { policy: inner, state: begun }))
    }

    fn is_quick(&self, _: Hook, bytes: usize) -> bool {
        self.0.limits.is_quick(bytes)
    }
}

/// A session in an instance that is lent to it alone.
struct Running {
    resource: ResourceAny,
    lease: Lease,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may run code of the component; where that fails, the instance is gone.
        let _ = self.lease.call(0, |_, store| self.resource.resource_drop(store));
    }
}

/// One answer, as a component sees it.
struct WasmSession {
    policy: Arc<Inner>,
    /// Until it fails.
    state: Result<Running, Failure>,
}

impl Session for WasmSession {
    fn adjust_logits(
        &mut self,
        drawn: Option<u32>,
        candidates: &Candidates,
    ) -> Result<Vec<(u32, f32)>, crate::verdict::Finding> {
        let (hook, policy) = (Hook::AdjustLogits, &self.policy);
        let asked = answers::candidates(candidates);
        let bytes = size_of::<(u32, f32)>() * asked.ids.len();
        let answer = match &mut self.state {
            Err(failure) => Err(failure.clone()),
            Ok(Running { resource, lease }) => policy.ask(
                lease,
                (hook, bytes),
                |policy, store| {
                    let session = policy.safelmm_policy_generation().session();
                    session.call_adjust_logits(store, *resource, drawn, &asked)
                },
                answers::biases,
                |biases| if biases.is_empty() { Verdict::Allow.as_str() } else { "adjust" },
            ),
        };
        answer.or_else(|failure| {
            let answer = match policy.on_error(hook) {
                OnError::Block => Err(failure.finding()),
                OnError::Allow => Ok(Vec::new()),
            };
            self.state = Err(failure);
            answer
        })
    }

    fn inspect_stream(&mut self, pending: &str, sources: Option<&[Document]>) -> Inspection {
        let (hook, policy) = (Hook::InspectStream, &self.policy);
        let documents = sources.map(answers::documents);
        let answer = match &mut self.state {
            Err(failure) => Err(failure.clone()),
            Ok(Running { resource, lease }) => policy.ask(
                lease,
                (hook, pending.len()),
                |policy, store| {
                    let session = policy.safelmm_policy_generation().session();
                    session.call_inspect_stream(store, *resource, pending, documents.as_deref())
                },
                |action| policy.answers.action(action, pending, sources.is_some()),
                |action| match action {
                    Action::Pass => Verdict::Allow.as_str(),
                    Action::Hold(_) => "hold",
                    Action::Replace { .. } => Verdict::Rewrite.as_str(),
                    Action::Stop { .. } => Verdict::Deny.as_str(),
                },
            ),
        };
        answer.map_or_else(
            |failure| {
                let finding = failure.finding();
                self.state = Err(failure);
                match policy.on_error(hook) {
                    OnError::Block => Inspection::Act(Action::Stop { message: String::new(), findings: vec![finding] }),
                    OnError::Allow => Inspection::Failed(finding),
                }
            },
            Inspection::Act,
        )
    }
}
