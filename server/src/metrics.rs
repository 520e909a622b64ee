//! What the server counts and measures, in the form that Prometheus scrapes.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use safelmm_plugins::host::{Observer, Reported};

use crate::engine::Memory;

/// The labels of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    /// The route's pattern.
    route: String,
    /// The status code.
    status: u16,
}

/// The label of a refusal: the error's `code`, or its `type` where it has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

/// What state blocks of the key-value cache are in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// The labels of a policy at one of its hooks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct At {
    plugin: String,
    hook: &'static str,
}

/// The labels of a policy's decisions: a verdict, `hold`, `adjust` or `failure`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decision {
    plugin: String,
    hook: &'static str,
    outcome: &'static str,
}

/// The labels of a policy's failures.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureOf {
    plugin: String,
    hook: &'static str,
    kind: &'static str,
}

/// The labels of a policy that was to be loaded again; no plugin stands for the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    plugin: String,
    outcome: &'static str,
}

/// A handle on the metrics of one application; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    answers: Family<Answer, Counter>,
    refusals: Family<Reason, Counter>,
    request: Histogram,
    validation: Histogram,
    queue: Histogram,
    prefill: Histogram,
    first_token: Histogram,
    inter_token: Histogram,
    step: Histogram,
    batch: Histogram,
    running: Gauge,
    pending: Gauge,
    blocks: Family<State, Gauge>,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    generated_tokens: Counter,
    step_tokens: Counter,
    policy_calls: Family<Decision, Counter>,
    policy_failures: Family<FailureOf, Counter>,
    policy_fuel: Family<At, Counter>,
    policy_seconds: Family<At, Histogram>,
    policy_reloads: Family<Reload, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a tenth of a millisecond to about an hour.
        let seconds = || Histogram::new(exponential_buckets(1e-4, 2.0, 25));
        let inner = Inner {
            registry: Registry::with_prefix("safelmm"),
            answers: Family::default(),
            refusals: Family::default(),
            request: seconds(),
            validation: seconds(),
            queue: seconds(),
            prefill: seconds(),
            first_token: seconds(),
            inter_token: seconds(),
            step: seconds(),
            batch: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
            running: Gauge::default(),
            pending: Gauge::default(),
            blocks: Family::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            step_tokens: Counter::default(),
            policy_calls: Family::default(),
            policy_failures: Family::default(),
            policy_fuel: Family::default(),
            // From a microsecond to half a minute.
            policy_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1e-6, 2.0, 25))),
            policy_reloads: Family::default(),
        };
        Metrics(Arc::new(inner.registered()))
    }
}

impl Inner {
    fn registered(mut self) -> Self {
        let mut r = std::mem::take(&mut self.registry);
        r.register("answers", "Answers by route and status", self.answers.clone());
        r.register("refusals", "Requests that were not answered as asked, by reason", self.refusals.clone());
        let mut seconds = |name: &str, help: &str, histogram: &Histogram| {
            r.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        seconds("request", "From the head of a request to the head of its answer", &self.request);
        seconds("validation", "Reading and checking a request, tokenization included", &self.validation);
        seconds("queue", "From submission until a request's first sequence starts", &self.queue);
        seconds("prefill", "From a request's start to its first token", &self.prefill);
        seconds("time_to_first_token", "From submission to a request's first token", &self.first_token);
        seconds("inter_token_latency", "Between two tokens of a sequence", &self.inter_token);
        seconds("step", "One step of the batch", &self.step);
        r.register("batch_size", "Sequences in a step", self.batch.clone());
        r.register("sequences_running", "Sequences in the batch now", self.running.clone());
        r.register("sequences_pending", "Sequences that wait for a place in the batch", self.pending.clone());
        r.register("kv_blocks", "Blocks of the key-value cache, by state", self.blocks.clone());
        r.register("prompt_tokens", "Tokens of prompts", self.prompt_tokens.clone());
        r.register(
            "cached_prompt_tokens",
            "Tokens found in the prefix cache, over all choices and passes",
            self.cached_tokens.clone(),
        );
        r.register("generated_tokens", "Tokens generated", self.generated_tokens.clone());
        r.register("step_tokens", "Tokens run through the decoder", self.step_tokens.clone());
        r.register("policy_calls", "Calls of plugins, by what they decided", self.policy_calls.clone());
        r.register("policy_failures", "Calls of plugins that failed, by how", self.policy_failures.clone());
        r.register("policy_fuel", "Instructions that plugins took, roughly", self.policy_fuel.clone());
        let (name, help) = ("policy_call", "One call of a plugin, the host's part included");
        r.register_with_unit(name, help, Unit::Seconds, self.policy_seconds.clone());
        r.register(
            "policy_reloads",
            "Plugins that were loaded again, by whether they could",
            self.policy_reloads.clone(),
        );
        Inner { registry: r, ..self }
    }
}

impl Metrics {
    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// Never in practice: writing to a string.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// A request was answered, with the pattern of its route and the time until the head of the answer.
    pub fn answered(&self, route: &str, status: u16, took: Duration) {
        self.0.answers.get_or_create(&Answer { route: route.to_owned(), status }).inc();
        self.0.request.observe(took.as_secs_f64());
    }

    /// A request was refused or failed; `reason` is the error's code.
    pub fn refused(&self, reason: &str) {
        self.0.refusals.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    /// A plugin, or the configuration of all of them, was loaded again.
    pub fn policy_reloaded(&self, plugin: &str, taken_over: bool) {
        let outcome = if taken_over { "taken over" } else { "refused" };
        self.0.policy_reloads.get_or_create(&Reload { plugin: plugin.to_owned(), outcome }).inc();
    }

    /// A request was read, checked and turned into tokens.
    pub fn validated(&self, took: Duration, prompt_tokens: usize) {
        self.0.validation.observe(took.as_secs_f64());
        self.0.prompt_tokens.inc_by(prompt_tokens as u64);
    }

    /// A request left the queue.
    pub fn queued(&self, took: Duration) {
        self.0.queue.observe(took.as_secs_f64());
    }

    /// The first token of a request came: since its submission, and since its start.
    pub fn first_token(&self, since_submission: Duration, since_start: Duration) {
        self.0.first_token.observe(since_submission.as_secs_f64());
        self.0.prefill.observe(since_start.as_secs_f64());
    }

    /// A token of a sequence was taken on its way to the client, so long after the one before it.
    pub fn token(&self, since_the_last: Option<Duration>) {
        if let Some(time) = since_the_last {
            self.0.inter_token.observe(time.as_secs_f64());
        }
        self.0.generated_tokens.inc();
    }

    /// A sequence joined the batch.
    pub fn sequence_started(&self, cached_tokens: usize) {
        self.0.cached_tokens.inc_by(cached_tokens as u64);
    }

    /// A step of the engine is over.
    pub fn step(&self, sequences: usize, tokens: usize, took: Duration) {
        self.0.step.observe(took.as_secs_f64());
        self.0.batch.observe(sequences as f64);
        self.0.step_tokens.inc_by(tokens as u64);
    }

    /// How the engine stands.
    pub fn engine(&self, running: usize, pending: usize, memory: Memory) {
        let gauge = |gauge: &Gauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        gauge(&self.0.running, running);
        gauge(&self.0.pending, pending);
        for (state, value) in [("capacity", memory.capacity), ("taken", memory.taken), ("cached", memory.cached)] {
            gauge(&self.0.blocks.get_or_create(&State { state }), value);
        }
    }
}

impl Observer for Metrics {
    fn called(&self, call: &Reported<'_>) {
        let (plugin, hook) = (call.plugin.to_owned(), call.hook.as_str());
        let outcome = call.outcome.unwrap_or("failure");
        self.0.policy_calls.get_or_create(&Decision { plugin: plugin.clone(), hook, outcome }).inc();
        if let Err(kind) = call.outcome {
            self.0.policy_failures.get_or_create(&FailureOf { plugin: plugin.clone(), hook, kind }).inc();
        }
        let at = At { plugin, hook };
        self.0.policy_fuel.get_or_create(&at).inc_by(call.fuel);
        self.0.policy_seconds.get_or_create(&at).observe(call.took.as_secs_f64());
    }
}
