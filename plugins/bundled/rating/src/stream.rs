//! Answers while they are written: whole sentences leave, the unfinished one is held.

use safelmm_learned::sentences::{Cut, first_sentence};
use safelmm_plugin::{Action, Document, Finding, Session};

use crate::judge::{finding, is_known};
use crate::level::Level;
use crate::{Answers, Rating};

/// An answer.
pub struct Answer {
    ceiling: Level,
    /// Bytes of what is held that were searched for the end of a sentence.
    known: usize,
}

impl Answer {
    /// Nothing written yet.
    pub fn new(ceiling: Level) -> Self {
        Answer { ceiling, known: 0 }
    }
}

/// What came of screening a text.
#[derive(Default)]
pub struct Screened {
    /// What may be read: sentences as they were or replaced, and the end message where the answer is ended.
    pub text: String,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Bytes of the input that were decided.
    pub decided: usize,
    /// Bytes of the rest that hold no end of a sentence.
    pub known: usize,
    /// Whether the answer ends here.
    pub stopped: bool,
}

/// Decides all whole sentences of `text`, of which the first `known` bytes hold no end of one.
pub fn screen(policy: &Rating, ceiling: Level, text: &str, known: usize, complete: bool, out: &mut Screened) {
    out.known = known;
    while out.decided < text.len() {
        let rest = &text[out.decided..];
        let end = match first_sentence(rest, out.known, complete) {
            Cut::At(end) => end.clamp(1, rest.len()),
            Cut::NotBefore(place) => {
                out.known = place;
                return;
            }
        };
        out.known = 0;
        let sentence = &rest[..end];
        let judged = is_known(sentence).then(|| policy.judge.above(sentence, ceiling)).flatten();
        let Some(above) = judged else {
            out.text.push_str(sentence);
            out.decided += end;
            continue;
        };
        let bare = sentence.trim_end().len();
        out.findings.push(finding(above, ceiling).at(out.decided..out.decided + bare));
        if policy.settings.answers == Answers::Block {
            out.text.push_str(&policy.settings.message);
            out.stopped = true;
            return;
        }
        out.text.push_str(&policy.settings.replacement);
        out.text.push_str(&sentence[bare..]);
        out.decided += end;
    }
}

impl Session<Rating> for Answer {
    fn inspect_stream(&mut self, policy: &Rating, pending: &str, sources: Option<&[Document]>) -> Action {
        if self.ceiling == Level::X {
            return Action::Pass;
        }
        let mut screened = Screened::default();
        screen(policy, self.ceiling, pending, self.known, sources.is_some(), &mut screened);
        self.known = screened.known;
        let Screened { mut text, findings, decided, stopped, .. } = screened;
        if stopped {
            return Action::stop(text, findings);
        }
        let held = &pending[decided..];
        if findings.is_empty() {
            return Action::hold(held.len());
        }
        text.push_str(held);
        Action::replace(text, held.len(), findings)
    }
}
