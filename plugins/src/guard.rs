//! What the policies say while an answer is written: nothing of it leaves before each of them has let it pass.

use std::sync::{Arc, Mutex, PoisonError};

use crate::document::Document;
use crate::hook::Hook;
use crate::pipeline::Scope;
use crate::policy::Policy;
use crate::session::{Action, Candidates, Inspection, Session};
use crate::verdict::{Finding, Verdict};

/// The policies of one answer. Cheap to clone: the logits chain has one clone and the stream another, so that a policy that
/// looks at both sees one answer.
#[derive(Clone)]
pub struct Answer(Arc<Inner>);

struct Inner {
    scope: Scope,
    prompt: Arc<str>,
    links: Vec<Link>,
    /// A policy that adjusts logits failed, and its operator blocks then.
    blocked: Mutex<bool>,
}

struct Link {
    policy: Arc<dyn Policy>,
    state: Mutex<State>,
}

/// Begun with the first call, so that an answer that waits holds nothing.
enum State {
    Waiting,
    Running(Box<dyn Session>),
    Over,
}

impl Answer {
    /// What the policies of `scope` say while an answer to `prompt` is written.
    pub fn new(scope: Scope, prompt: impl Into<Arc<str>>) -> Self {
        let prompt = prompt.into();
        let links = scope.policies_in_sessions();
        let link = |policy| Link { policy, state: Mutex::new(State::Waiting) };
        Answer(Arc::new(Inner {
            links: links.into_iter().map(link).collect(),
            scope,
            prompt,
            blocked: Mutex::default(),
        }))
    }

    /// Whether a policy adjusts logits.
    pub fn adjusts(&self) -> bool {
        self.0.scope.hooks().has(Hook::AdjustLogits)
    }

    /// Has each policy change the logits of the next token, `[vocabulary]`, given the token drawn before. A policy sees the
    /// [most probable](Candidates::of) ones, as the policies before it left them, and can change any.
    ///
    /// # Errors
    /// A policy failed, and its operator blocks then: the answer must end, and [`Guard::finish`] will say why.
    pub fn adjust(&self, drawn: Option<u32>, logits: &mut [f32]) -> Result<(), Blocked> {
        for link in self.0.links.iter().filter(|link| link.policy.hooks().has(Hook::AdjustLogits)) {
            let candidates = Candidates::of(logits);
            match link.call(&self.0, |session| session.adjust_logits(drawn, &candidates)) {
                None => {}
                Some(Ok(biases)) => {
                    for (id, bias) in biases {
                        if let Some(logit) = logits.get_mut(id as usize) {
                            *logit += bias;
                        }
                    }
                }
                Some(Err(finding)) => {
                    self.0.scope.record(link.policy.name(), Hook::AdjustLogits, Verdict::Deny, &[finding]);
                    *self.0.blocked.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    return Err(Blocked);
                }
            }
        }
        Ok(())
    }

    /// What the answer's text goes through.
    pub fn guard(&self) -> Guard {
        let whole = self.0.scope.hooks().has(Hook::ReviewResponse).then(String::new);
        Guard { whole, ..self.stream() }
    }

    /// The same without the policies that review whole answers.
    pub fn stream(&self) -> Guard {
        let inspects = |(_, link): &(usize, &Link)| link.policy.hooks().has(Hook::InspectStream);
        let stages = self.0.links.iter().enumerate().filter(inspects);
        let stages = stages.map(|(link, _)| Stage { link, pending: String::new() }).collect();
        Guard { answer: self.clone(), stages, whole: None, changed: false, stopped: false }
    }
}

/// A policy that adjusts logits failed, and its operator blocks then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked;

impl Link {
    /// Calls the session, which the first call begins; none where there is none any more.
    fn call<T>(&self, answer: &Inner, call: impl FnOnce(&mut dyn Session) -> T) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Waiting = *state {
            *state = match self.policy.session(answer.scope.request(), &answer.prompt) {
                Some(session) => State::Running(session),
                None => State::Over,
            };
        }
        match &mut *state {
            State::Running(session) => Some(call(&mut **session)),
            State::Waiting | State::Over => None,
        }
    }

    fn is_waiting(&self) -> bool {
        matches!(*self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Waiting)
    }

    /// Gives back what the session holds.
    fn end(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Over;
    }
}

/// One policy of the stream, and the text that it has not let pass.
struct Stage {
    link: usize,
    pending: String,
}

/// What an answer's text goes through before it leaves: each policy that inspects streams, in its order, then, once the
/// answer has ended, those that review it.
///
/// What one policy lets pass, or puts in its place, is what the next one is asked about; what the last one lets pass may
/// leave. Nothing leaves early for policies that review.
pub struct Guard {
    answer: Answer,
    stages: Vec<Stage>,
    /// What has been let pass, where it waits for a review.
    whole: Option<String>,
    changed: bool,
    stopped: bool,
}

/// What may leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// The text.
    pub text: String,
    /// Whether a policy has ended the answer: nothing follows.
    pub stopped: bool,
}

impl Guard {
    /// Whether there is nothing that looks at the text, nor can end the answer.
    pub fn is_open(&self) -> bool {
        self.stages.is_empty() && self.whole.is_none() && !self.answer.adjusts()
    }

    /// Whether what left, or will leave, is another text than what was written.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Whether a policy has ended the answer.
    pub fn has_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether [`push`](Self::push) of so many bytes surely takes little time, so that no thread of its own is needed.
    pub fn is_quick(&self, bytes: usize) -> bool {
        self.stages.iter().all(|stage| {
            let link = &self.answer.0.links[stage.link];
            !link.is_waiting() && link.policy.is_quick(Hook::InspectStream, stage.pending.len() + bytes)
        })
    }

    /// Takes the next piece of the answer; returns what may leave.
    pub fn push(&mut self, text: &str) -> Cleared {
        if text.is_empty() || self.stopped {
            return Cleared { text: String::new(), stopped: self.stopped };
        }
        let text = self.through(text.to_owned(), None);
        self.out(text)
    }

    /// Takes the last piece of the answer, in which `sources` had a part; returns what may leave.
    pub fn finish(&mut self, text: &str, sources: &[Document]) -> Cleared {
        if self.stopped {
            return Cleared { text: String::new(), stopped: true };
        }
        let cleared = self.through(text.to_owned(), Some(sources));
        let mut cleared = self.out(cleared);
        if *self.answer.0.blocked.lock().unwrap_or_else(PoisonError::into_inner) {
            (self.stopped, self.changed) = (true, true);
        }
        cleared.text += &self.review(sources);
        self.answer.0.links.iter().for_each(Link::end);
        Cleared { stopped: self.stopped, ..cleared }
    }

    /// Takes a text through the policies of the stream; at the end, or when one of them ends the answer, all that is
    /// pending.
    fn through(&mut self, mut text: String, mut sources: Option<&[Document]>) -> String {
        for stage in &mut self.stages {
            stage.pending += &text;
            if stage.pending.is_empty() && sources.is_none() {
                return String::new();
            }
            let stepped = stage.step(&self.answer.0, sources);
            text = stepped.text;
            self.changed |= stepped.changed;
            if stepped.stopped {
                // Those behind it see the end of the answer now.
                self.stopped = true;
                sources.get_or_insert(&[]);
            }
        }
        text
    }

    /// What leaves, or waits for the review.
    fn out(&mut self, text: String) -> Cleared {
        match &mut self.whole {
            Some(whole) => {
                *whole += &text;
                // An answer that was ended is reviewed at once.
                let text = if self.stopped { self.review(&[]) } else { String::new() };
                Cleared { text, stopped: self.stopped }
            }
            None => Cleared { text, stopped: self.stopped },
        }
    }

    /// Reviews what has waited; empty where nothing has.
    fn review(&mut self, sources: &[Document]) -> String {
        let Some(whole) = self.whole.take() else { return String::new() };
        match self.answer.0.scope.review_response(&whole, sources) {
            Ok(text) => {
                self.changed |= text != whole;
                text.into_owned()
            }
            Err(_) => {
                (self.changed, self.stopped) = (true, true);
                String::new()
            }
        }
    }
}

/// What came of one call.
struct Stepped {
    text: String,
    changed: bool,
    stopped: bool,
}

impl Stage {
    fn step(&mut self, answer: &Inner, sources: Option<&[Document]>) -> Stepped {
        let link = &answer.links[self.link];
        let record = |verdict, findings: &[Finding]| {
            answer.scope.record(link.policy.name(), Hook::InspectStream, verdict, findings);
        };
        let pass = |text| Stepped { text, changed: false, stopped: false };
        let inspection = link.call(answer, |session| session.inspect_stream(&self.pending, sources));
        match inspection {
            None => pass(std::mem::take(&mut self.pending)),
            Some(Inspection::Failed(finding)) => {
                record(Verdict::Flag, &[finding]);
                link.end();
                pass(std::mem::take(&mut self.pending))
            }
            Some(Inspection::Act(Action::Pass)) => pass(std::mem::take(&mut self.pending)),
            Some(Inspection::Act(Action::Hold(bytes))) => pass(release(&mut self.pending, bytes)),
            Some(Inspection::Act(Action::Replace { text, hold, findings })) => {
                record(Verdict::Rewrite, &findings);
                let changed = text != self.pending;
                self.pending = text;
                Stepped { text: release(&mut self.pending, hold), changed, stopped: false }
            }
            Some(Inspection::Act(Action::Stop { message, findings })) => {
                record(Verdict::Deny, &findings);
                self.pending.clear();
                link.end();
                Stepped { text: message, changed: true, stopped: true }
            }
        }
    }
}

/// All but the last `hold` bytes, rounded up to whole characters; these stay.
pub(crate) fn release(pending: &mut String, hold: usize) -> String {
    let mut end = pending.len().saturating_sub(hold);
    while !pending.is_char_boundary(end) {
        end -= 1;
    }
    let held = pending.split_off(end);
    std::mem::replace(pending, held)
}
