//! Golden vectors: examples that a policy brings along with their right answers. Every one is tried before it serves.

use std::collections::BTreeMap;
use std::fmt;

use super::answers::{self, Answers};
use super::bindings::exports::safelmm::policy::generation::Action as WitAction;
use super::bindings::safelmm::policy::types as wit;
use super::component::{Component, LoadError};
use super::failure::Failure;
use super::instance::Instance;
use crate::guard::release;
use crate::request::RequestContext;
use crate::session::Action;
use crate::verdict::{Finding, Judgement};

/// The most vectors of one policy, and pieces of one stream.
const MAX_VECTORS: usize = 10_000;
/// The most failed vectors that an error tells of.
const MAX_TOLD: usize = 5;

/// What came of one vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorResult {
    /// Its name.
    pub name: String,
    /// What is wrong; none where it is as expected.
    pub wrong: Option<String>,
    /// Instructions that it took, roughly.
    pub fuel: u64,
}

/// A policy fails its own examples.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorsFailed {
    /// Those that failed, with what is wrong.
    pub failed: Vec<VectorResult>,
    /// How many there are.
    pub of: usize,
}

impl fmt::Display for VectorsFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it fails {} of its {} golden vectors:", self.failed.len(), self.of)?;
        for VectorResult { name, wrong, .. } in self.failed.iter().take(MAX_TOLD) {
            write!(f, " {name:?}: {};", wrong.as_deref().unwrap_or_default())?;
        }
        match self.failed.len() > MAX_TOLD {
            true => write!(f, " …"),
            false => Ok(()),
        }
    }
}

impl std::error::Error for VectorsFailed {}

/// Tries all vectors; refuses a policy that fails one.
pub(super) fn require(component: &Component) -> Result<(), LoadError> {
    let results = component.try_vectors()?;
    let of = results.len();
    let failed: Vec<VectorResult> = results.into_iter().filter(|result| result.wrong.is_some()).collect();
    if failed.is_empty() { Ok(()) } else { Err(LoadError::Vectors(VectorsFailed { failed, of })) }
}

impl Component {
    /// Tries its golden vectors, each with its settings.
    ///
    /// # Errors
    /// [`LoadError::Start`], where it cannot be asked for them.
    pub fn try_vectors(&self) -> Result<Vec<VectorResult>, LoadError> {
        let mut instances: BTreeMap<String, Instance> = BTreeMap::new();
        let default = "{}".to_owned();
        let mut first = self.configured(&default)?;
        let asked = first.call(self.limits(), self.limits().startup_fuel, |policy, store| {
            policy.safelmm_policy_meta().call_vectors(store)
        });
        let vectors = asked.answer.map_err(LoadError::Start)?;
        instances.insert(default.clone(), first);
        if vectors.len() > MAX_VECTORS {
            let message = format!("it brings {} golden vectors: at most {MAX_VECTORS} are possible", vectors.len());
            return Err(LoadError::Description(message));
        }
        let checker = Answers::new(self);
        Ok(vectors
            .into_iter()
            .map(|vector| {
                let settings = vector.settings.clone().unwrap_or_else(|| default.clone());
                let instance = instances.remove(&settings).map_or_else(
                    || {
                        // One beside that of the defaults: there is room for few, and settings are as many as vectors.
                        instances.retain(|settings, _| *settings == default);
                        self.vector_instance(&settings)
                    },
                    Ok,
                );
                let (name, mut fuel) = (vector.name.clone(), 0);
                let wrong = match instance {
                    Err(wrong) => Some(wrong),
                    Ok(mut instance) => match self.ask(&mut instance, &vector, &checker, &mut fuel) {
                        Ok(said) => {
                            // A failed one is not kept.
                            instances.insert(settings, instance);
                            said.differs_from(&vector)
                        }
                        Err(failure) => Some(format!("it failed: {failure}")),
                    },
                };
                VectorResult { name, wrong, fuel }
            })
            .collect())
    }

    fn vector_instance(&self, settings: &str) -> Result<Instance, String> {
        let value: serde_json::Value =
            serde_json::from_str(settings).map_err(|error| format!("its settings are not JSON: {error}"))?;
        self.check_settings(&value).map_err(|error| error.to_string())?;
        self.configured(settings).map_err(|error| error.to_string())
    }

    fn ask(
        &self,
        instance: &mut Instance,
        vector: &wit::Vector,
        checker: &Answers,
        fuel: &mut u64,
    ) -> Result<Said, Failure> {
        let limits = *self.limits();
        let request = answers::request(&example());
        match vector.probe.clone() {
            wit::Probe::ScreenPrompt(text) => {
                let called = instance.call(&limits, limits.fuel_for(text.len()), |policy, store| {
                    policy.safelmm_policy_texts().call_screen_prompt(store, &request, &text)
                });
                *fuel += called.fuel;
                Ok(Said::judged(checker.judgement(called.answer?, &text)?, text))
            }
            wit::Probe::ReviewResponse(text) => {
                let called = instance.call(&limits, limits.fuel_for(text.len()), |policy, store| {
                    policy.safelmm_policy_texts().call_review_response(store, &request, &text, &vector.sources)
                });
                *fuel += called.fuel;
                Ok(Said::judged(checker.judgement(called.answer?, &text)?, text))
            }
            wit::Probe::FilterPassage(passage) => {
                let text = answers::passage_of_vector(passage.clone()).text;
                let called = instance.call(&limits, limits.fuel_for(text.len()), |policy, store| {
                    policy.safelmm_policy_texts().call_filter_passages(store, &request, &[passage])
                });
                *fuel += called.fuel;
                let verdict = called.answer?.into_iter().next();
                let verdict = verdict.ok_or_else(|| Failure::Answer("no verdict on a passage".to_owned()))?;
                Ok(Said::judged(checker.judgement(verdict, &text)?, text))
            }
            wit::Probe::InspectStream(pieces) => {
                self.stream(instance, (pieces, &vector.sources), checker, fuel, &request)
            }
        }
    }

    /// The answer in its pieces, as a stream is inspected, and the documents that had a part in it.
    fn stream(
        &self,
        instance: &mut Instance,
        (pieces, sources): (Vec<String>, &[wit::Document]),
        checker: &Answers,
        fuel: &mut u64,
        request: &wit::Request,
    ) -> Result<Said, Failure> {
        let limits = *self.limits();
        let begun = instance.call(&limits, limits.fuel, |policy, store| {
            policy.safelmm_policy_generation().session().call_constructor(store, request, "")
        });
        let session = begun.answer?;
        *fuel += begun.fuel;
        let mut said = Said { outcome: wit::Outcome::Allow, categories: Vec::new(), text: String::new() };
        let mut pending = String::new();
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).map(|piece| (piece, false));
        for (piece, last) in pieces.chain([(String::new(), true)]) {
            pending += &piece;
            let called = instance.call(&limits, limits.fuel_for(pending.len()), |policy, store| {
                let sources = last.then_some(sources);
                policy.safelmm_policy_generation().session().call_inspect_stream(store, session, &pending, sources)
            });
            *fuel += called.fuel;
            let action: WitAction = called.answer?;
            match checker.action(action, &pending, last)? {
                Action::Pass => said.text += &std::mem::take(&mut pending),
                Action::Hold(hold) => said.text += &release(&mut pending, hold),
                Action::Replace { text, hold, findings } => {
                    said.found(wit::Outcome::Rewrite, &findings);
                    pending = text;
                    said.text += &release(&mut pending, hold);
                }
                Action::Stop { message, findings } => {
                    said.found(wit::Outcome::Deny, &findings);
                    said.text += &message;
                    break;
                }
            }
        }
        let ended = instance.call(&limits, limits.fuel, |_, store| session.resource_drop(store));
        ended.answer.map(|()| said)
    }
}

/// The request that vectors are about.
fn example() -> RequestContext {
    RequestContext {
        id: "vector".to_owned(),
        model: String::new(),
        caller: None,
        rating: None,
        declared_use: None,
        route: "/v1/chat/completions",
        language: None,
    }
}

/// What a policy said to a probe.
struct Said {
    outcome: wit::Outcome,
    categories: Vec<String>,
    /// What came out.
    text: String,
}

impl Said {
    fn judged(judgement: Judgement, asked: String) -> Said {
        let mut said = Said { outcome: wit::Outcome::Allow, categories: Vec::new(), text: asked };
        let outcome = match &judgement {
            Judgement::Allow => wit::Outcome::Allow,
            Judgement::Abstain => wit::Outcome::Abstain,
            Judgement::Flag(_) => wit::Outcome::Flag,
            Judgement::Rewrite { .. } => wit::Outcome::Rewrite,
            Judgement::Deny(_) => wit::Outcome::Deny,
        };
        said.found(outcome, judgement.findings());
        match judgement {
            Judgement::Rewrite { text, .. } => said.text = text,
            Judgement::Deny(_) => said.text.clear(),
            _ => {}
        }
        said
    }

    fn found(&mut self, outcome: wit::Outcome, findings: &[Finding]) {
        self.outcome = outcome;
        self.categories.extend(findings.iter().map(|finding| finding.category.clone()));
    }

    fn differs_from(&self, vector: &wit::Vector) -> Option<String> {
        if self.outcome != vector.expected {
            return Some(format!("{}, expected {}", name(self.outcome), name(vector.expected)));
        }
        if let Some(category) = vector.category.as_ref().filter(|category| !self.categories.contains(category)) {
            return Some(format!("found {:?}, expected {category:?} among it", self.categories));
        }
        match &vector.text {
            Some(text) if *text != self.text => Some(format!("{:?} came out, expected {text:?}", self.text)),
            _ => None,
        }
    }
}

fn name(outcome: wit::Outcome) -> &'static str {
    match outcome {
        wit::Outcome::Allow => "allow",
        wit::Outcome::Flag => "flag",
        wit::Outcome::Rewrite => "rewrite",
        wit::Outcome::Deny => "deny",
        wit::Outcome::Abstain => "abstain",
    }
}
