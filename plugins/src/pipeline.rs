//! Policies in their order, and the verdicts of all of them as one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::document::{Document, Passage};
use crate::hook::{Hook, Hooks};
use crate::policy::Policy;
use crate::request::{PerKey, RequestContext};
use crate::verdict::{Finding, Judgement, Verdict};

/// The most entries that one answer names: what lies beyond repeats itself.
const MAX_ENTRIES: usize = 256;

/// One line of an answer's `safelmm.policy`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// The policy.
    pub plugin: String,
    /// When it spoke.
    pub hook: Hook,
    /// What it decided.
    pub verdict: Verdict,
    /// What it found.
    pub category: String,
    /// How sure it is, from 0 to 1.
    pub score: f32,
}

/// A refused text: the policy, and its reason for people.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the policy '{plugin}' refuses this text ({category}): {reason}")]
pub struct Denial {
    /// The policy.
    pub plugin: String,
    /// What it found.
    pub category: String,
    /// Why, and what to do about it.
    pub reason: String,
}

/// Which of the policies that can be chosen hold for a request: those of its route that are those of its key too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// For a route, by its path, the names of the policies that hold; all of them for routes that are not named.
    pub routes: BTreeMap<String, Vec<String>>,
    /// For each key the names of the policies that hold; all of them where there is none.
    pub keys: PerKey<Option<Vec<String>>>,
}

impl Selection {
    fn has(&self, policy: &str, request: &RequestContext) -> bool {
        let lists = self.routes.get(request.route).into_iter().chain(self.keys.of(request));
        lists.into_iter().all(|names| names.iter().any(|name| name == policy))
    }
}

/// The policies of a server, in the order in which they are asked. It never changes: other policies are another pipeline,
/// and requests that were begun go on with the one that they met.
#[derive(Default)]
pub struct Pipeline {
    always: Vec<Arc<dyn Policy>>,
    chosen: Vec<Arc<dyn Policy>>,
    selection: Selection,
}

impl Pipeline {
    /// `always` holds for every request; `chosen`, behind these, for those that `selection` says.
    pub fn new(always: Vec<Arc<dyn Policy>>, chosen: Vec<Arc<dyn Policy>>, selection: Selection) -> Self {
        Pipeline { always, chosen, selection }
    }

    /// All policies in their order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<dyn Policy>> {
        self.always.iter().chain(&self.chosen)
    }

    /// Whether any policy is told which documents had a part in an answer.
    pub fn asks_for_sources(&self) -> bool {
        self.policies()
            .any(|policy| policy.hooks().has(Hook::InspectStream) || policy.hooks().has(Hook::ReviewResponse))
    }

    /// The policies that hold for one request.
    pub fn scope(&self, request: RequestContext) -> Scope {
        let chosen = self.chosen.iter().filter(|policy| self.selection.has(policy.name(), &request));
        let policies: Vec<_> = self.always.iter().chain(chosen).map(Arc::clone).collect();
        let hooks = policies.iter().flat_map(|policy| policy.hooks().iter().collect::<Vec<_>>()).collect();
        Scope(Arc::new(Inner { policies, hooks, request, entries: Mutex::default() }))
    }
}

/// The policies of one request, and what they have found in it. Cheap to clone; clones share the findings.
#[derive(Clone)]
pub struct Scope(Arc<Inner>);

struct Inner {
    policies: Vec<Arc<dyn Policy>>,
    hooks: Hooks,
    request: RequestContext,
    entries: Mutex<Vec<Entry>>,
}

impl Scope {
    /// What the policies are told of the request.
    pub fn request(&self) -> &RequestContext {
        &self.0.request
    }

    /// Where any of the policies is asked.
    pub fn hooks(&self) -> Hooks {
        self.0.hooks
    }

    /// Those that are asked at a hook, in their order.
    pub(crate) fn at(&self, hook: Hook) -> impl Iterator<Item = &Arc<dyn Policy>> {
        self.0.policies.iter().filter(move |policy| policy.hooks().has(hook))
    }

    /// Those that look at answers while they are written, in their order.
    pub(crate) fn policies_in_sessions(&self) -> Vec<Arc<dyn Policy>> {
        self.0.policies.iter().filter(|policy| policy.hooks().in_sessions()).map(Arc::clone).collect()
    }

    /// What has been found up to now, each kind of finding once.
    pub fn entries(&self) -> Vec<Entry> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps findings for the answer.
    pub(crate) fn record(&self, plugin: &str, hook: Hook, verdict: Verdict, findings: &[Finding]) {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for Finding { category, score, .. } in findings {
            let (plugin, category, score) = (plugin.to_owned(), category.clone(), *score);
            let entry = Entry { plugin, hook, verdict, category, score };
            if entries.len() < MAX_ENTRIES && !entries.contains(&entry) {
                entries.push(entry);
            }
        }
    }

    /// Asks each policy about a text of the request; returns the text that the model may see. What one rewrites is what
    /// the next one is asked about.
    ///
    /// # Errors
    /// The first denial; the policies after it are not asked.
    pub fn screen_prompt<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, Denial> {
        let mut text = Cow::Borrowed(text);
        for policy in self.at(Hook::ScreenPrompt) {
            let judgement = policy.screen_prompt(self.request(), &text);
            if let Some(other) = self.follow(policy.name(), Hook::ScreenPrompt, judgement)? {
                text = Cow::Owned(other);
            }
        }
        Ok(text)
    }

    /// What those that screen prompts can find.
    pub fn categories(&self) -> Vec<String> {
        self.at(Hook::ScreenPrompt).flat_map(|policy| policy.about().categories).collect()
    }

    /// What each policy says of a text by itself, with nothing kept for the answer.
    pub fn judge_prompt(&self, text: &str) -> Vec<Judgement> {
        self.at(Hook::ScreenPrompt).map(|policy| policy.screen_prompt(self.request(), text)).collect()
    }

    /// The passages that may stand in the context, as they may stand there, each with its place among those given.
    pub fn filter_passages(&self, passages: Vec<Passage>) -> Vec<(usize, Passage)> {
        let mut kept: Vec<(usize, Passage)> = passages.into_iter().enumerate().collect();
        for policy in self.at(Hook::FilterPassages) {
            if kept.is_empty() {
                break;
            }
            let asked: Vec<Passage> = kept.iter().map(|(_, passage)| passage.clone()).collect();
            let mut judgements = policy.filter_passages(self.request(), &asked).into_iter();
            kept.retain_mut(|(_, passage)| {
                // A judgement that is missing denies: nothing unjudged stands in a context.
                let judgement = judgements.next().unwrap_or(Judgement::Deny(Vec::new()));
                match self.follow(policy.name(), Hook::FilterPassages, judgement) {
                    Ok(None) => true,
                    Ok(Some(other)) => {
                        passage.text = other;
                        true
                    }
                    Err(_) => false,
                }
            });
        }
        kept
    }

    /// Asks each policy about a whole answer; returns the text that may leave.
    ///
    /// # Errors
    /// The first denial.
    pub fn review_response<'a>(&self, text: &'a str, sources: &[Document]) -> Result<Cow<'a, str>, Denial> {
        let mut text = Cow::Borrowed(text);
        for policy in self.at(Hook::ReviewResponse) {
            let judgement = policy.review_response(self.request(), &text, sources);
            if let Some(other) = self.follow(policy.name(), Hook::ReviewResponse, judgement)? {
                text = Cow::Owned(other);
            }
        }
        Ok(text)
    }

    /// Records a judgement; returns the text that it puts in place of another.
    fn follow(&self, plugin: &str, hook: Hook, judgement: Judgement) -> Result<Option<String>, Denial> {
        self.record(plugin, hook, judgement.verdict(), judgement.findings());
        match judgement {
            Judgement::Allow | Judgement::Abstain | Judgement::Flag(_) => Ok(None),
            Judgement::Rewrite { text, .. } => Ok(Some(text)),
            Judgement::Deny(findings) => {
                let (category, reason) = match findings.into_iter().next() {
                    Some(Finding { category, reason, .. }) => (category, reason),
                    None => (String::new(), "it gives no reason".to_owned()),
                };
                Err(Denial { plugin: plugin.to_owned(), category, reason })
            }
        }
    }
}
