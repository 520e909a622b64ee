//! Answers that are being written.

use safelmm_plugin::{Action, Document, Finding, Session};

use crate::kind::{Kind, Match};
use crate::settings::Mode;
use crate::{Pii, fold::Folded, open, secret};

/// How much of what has left is remembered as context, in bytes.
const CONTEXT: usize = 160;

/// How much of an undecided end may be held, in bytes of the folded text; of a longer one the front is decided as it is.
const HELD: usize = open::WORD + open::NUMBER;

/// An answer.
pub struct Answer {
    request: String,
    /// The end of what was written before what is pending.
    context: String,
    /// What the front of what is pending belongs to.
    inside: Inside,
}

/// What goes on from before.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Nothing,
    /// A private key: all of it goes.
    Key,
    /// A secret so long that its front was decided before its end was seen.
    Word,
}

impl Answer {
    /// The beginning of an answer to this request.
    pub fn new(request: &str) -> Self {
        Answer { request: request.into(), context: String::new(), inside: Inside::Nothing }
    }

    fn remember(&mut self, text: &str) {
        self.context.push_str(text);
        if self.context.len() > CONTEXT * 2 {
            let mut from = self.context.len() - CONTEXT;
            while !self.context.is_char_boundary(from) {
                from += 1;
            }
            self.context.drain(..from);
        }
    }

    /// How much of the text belongs to what goes on from before.
    fn goes_on(&mut self, text: &str, is_last: bool) -> usize {
        let length = match self.inside {
            Inside::Nothing => 0,
            Inside::Key => {
                let key = secret::key_body(text, is_last);
                if key.is_over {
                    self.inside = Inside::Nothing;
                }
                key.length
            }
            Inside::Word => {
                let length = text.find(|c: char| !c.is_ascii_graphic() || c == '"').unwrap_or(text.len());
                if length < text.len() {
                    self.inside = Inside::Nothing;
                }
                length
            }
        };
        self.remember(&text[..length]);
        length
    }
}

impl Session<Pii> for Answer {
    fn inspect_stream(&mut self, policy: &Pii, pending: &str, sources: Option<&[Document]>) -> Action {
        let mode = policy.answers;
        if mode == Mode::Off {
            return Action::Pass;
        }
        let is_last = sources.is_some();
        let mut out = String::new();
        let mut findings = Vec::new();
        let mut rest = pending;
        let mut changed = false;
        loop {
            let inside = self.goes_on(rest, is_last);
            if mode == Mode::Flag {
                out.push_str(&rest[..inside]);
            } else {
                changed |= inside > 0;
            }
            rest = &rest[inside..];
            if self.inside != Inside::Nothing || rest.is_empty() {
                break;
            }
            let step = self.step(policy, rest, is_last);
            if mode == Mode::Deny {
                if let Some(m) = step.found.first() {
                    let finding = policy.finding(m, m.start..m.end, pending.len() - rest.len());
                    return Action::stop(policy.refusal(), vec![finding]);
                }
            }
            let mut from = 0;
            for m in &step.found {
                out.push_str(&rest[from..m.start]);
                findings.push(policy.finding(m, m.start..m.end, pending.len() - rest.len()));
                out.push_str(&policy.replacement(mode, m.kind, &rest[m.start..m.end], &self.request));
                from = m.end;
            }
            changed |= !step.found.is_empty();
            out.push_str(&rest[from..step.decided]);
            self.remember(&rest[..step.decided]);
            rest = &rest[step.decided..];
            self.inside = step.inside;
            if self.inside == Inside::Nothing {
                break;
            }
        }
        if changed {
            out.push_str(rest);
            Action::replace(out, rest.len(), findings)
        } else {
            Action::hold(rest.len())
        }
    }
}

/// What one look at a text gives.
struct Step {
    /// In bytes of the text, not of what it was folded to; all before `decided`.
    found: Vec<Match>,
    /// Up to where the text is decided.
    decided: usize,
    /// What the text behind it begins with.
    inside: Inside,
}

impl Answer {
    fn step(&self, policy: &Pii, text: &str, is_last: bool) -> Step {
        let whole = [&self.context[..], text].concat();
        let before = self.context.len();
        let folded = Folded::new(&whole);
        let from = folded.position(before);
        let length = folded.text.len();
        let reading = crate::text::Text::new(&folded.text);
        let open = if is_last { length } else { open::begins(&reading).max(from) };
        // A word without end is decided up to where what it may still be begins.
        let mut decided = if length - open > HELD { length - open::WORD / 2 } else { open };
        while !folded.text.is_char_boundary(decided) {
            decided -= 1;
        }
        let is_forced = decided > open;
        let mut inside = Inside::Nothing;
        let mut found = Vec::new();
        for m in policy.scan(&reading, from) {
            if m.start >= decided || inside != Inside::Nothing {
                break;
            }
            // What reaches into the undecided end waits with it, unless that is too long.
            if m.end > decided && !is_forced {
                decided = m.start;
                break;
            }
            if m.what == crate::scan::PRIVATE_KEY {
                inside = Inside::Key;
                decided = m.end;
            } else if m.end > decided {
                inside = if m.end == length && m.kind == Kind::Secret { Inside::Word } else { Inside::Nothing };
                decided = m.end;
            }
            found.push(m);
        }
        let back = |at: usize| folded.original(at).max(before) - before;
        let found = found.into_iter().map(|m| Match { start: back(m.start), end: back(m.end), ..m }).collect();
        Step { found, decided: back(decided), inside }
    }
}

impl Pii {
    /// A finding about what was found in these bytes, which begin at `offset`.
    pub(crate) fn finding(&self, m: &Match, range: std::ops::Range<usize>, offset: usize) -> Finding {
        Finding::new(m.kind.category(), m.score, format!("Looks like {}.", m.what))
            .at(range.start + offset..range.end + offset)
    }
}
