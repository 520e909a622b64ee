//! `wordlist`: the operator's own lists of words and phrases in any language, found in prompts, passages and answers
//! however they are written: in other case or width, with accents or invisible characters, with digits in the place of
//! letters. Words are whole ones where the script has spaces.

use std::rc::Rc;

mod matcher;
mod settings;
mod vectors;
mod view;

use safelmm_plugin::{
    Action, Description, Document, Finding, Hook, Passage, Policy, Request, Session, SettingError, Vector, Verdict,
    policy,
};

pub use settings::{ActionKind, List, Place, Settings};

use matcher::{Found, Matcher};

/// How much of an answer may be held, in bytes: words of at most 256, with invisible characters between their letters.
const HELD: usize = 4096;

/// How much of what has left is remembered, in bytes: the character before a word.
const CONTEXT: usize = 32;

/// The policy.
pub struct Wordlist {
    lists: Vec<List>,
    prompts: Rc<Matcher>,
    passages: Rc<Matcher>,
    answers: Rc<Matcher>,
}

impl Policy for Wordlist {
    type Settings = Settings;
    type Session = Answer;

    fn describe() -> Description {
        Description::new(
            "wordlist",
            env!("CARGO_PKG_VERSION"),
            "Finds the words of the operator's lists, however they are written.",
        )
        .hooks([Hook::ScreenPrompt, Hook::FilterPassages, Hook::InspectStream])
        .categories(settings::CATEGORIES.iter().copied())
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        let lists = settings.lists;
        let errors = matcher::errors(&lists);
        if !errors.is_empty() {
            return Err(errors);
        }
        let numbers = |place: Place| -> Vec<usize> {
            (0..lists.len()).filter(|&number| lists[number].hooks.contains(&place)).collect()
        };
        let mut made: Vec<(Vec<usize>, Rc<Matcher>)> = Vec::new();
        let mut matcher = |place: Place| -> Result<Rc<Matcher>, Vec<SettingError>> {
            let numbers = numbers(place);
            if let Some((_, matcher)) = made.iter().find(|(of, _)| *of == numbers) {
                return Ok(matcher.clone());
            }
            let matcher = Rc::new(Matcher::new(&lists, &numbers)?);
            made.push((numbers, matcher.clone()));
            Ok(matcher)
        };
        let (prompts, passages, answers) =
            (matcher(Place::Prompts)?, matcher(Place::Passages)?, matcher(Place::Answers)?);
        Ok(Wordlist { lists, prompts, passages, answers })
    }

    fn vectors() -> Vec<Vector> {
        vectors::vectors()
    }

    fn session(&self, _request: &Request, _prompt: &str) -> Answer {
        Answer { context: String::new() }
    }

    fn screen_prompt(&self, _request: &Request, text: &str) -> Verdict {
        self.judge(&self.prompts, text)
    }

    fn filter_passages(&self, _request: &Request, passages: &[Passage]) -> Vec<Verdict> {
        passages.iter().map(|passage| self.judge(&self.passages, &passage.text)).collect()
    }
}

impl Wordlist {
    fn strictness(&self, list: usize) -> u8 {
        self.lists[list].action as u8
    }

    fn finding(&self, found: &Found, offset: usize) -> Finding {
        let list = &self.lists[found.list];
        Finding::new(&list.category, 1.0, format!("A word of the list {:?}.", list.name))
            .at(found.start + offset..found.end + offset)
    }

    /// What stands in the place of a word.
    fn replacement<'a>(&'a self, found: &Found, text: &'a str) -> &'a str {
        match self.lists[found.list].action {
            ActionKind::Mask => &self.lists[found.list].mask,
            ActionKind::Flag | ActionKind::Deny => &text[found.start..found.end],
        }
    }

    fn judge(&self, matcher: &Matcher, text: &str) -> Verdict {
        let found = matcher.find(text, &|list| self.strictness(list));
        let findings: Vec<Finding> = found.iter().map(|f| self.finding(f, 0)).collect();
        match found.iter().map(|f| self.lists[f.list].action).max() {
            None => Verdict::Allow,
            Some(ActionKind::Flag) => Verdict::Flag(findings),
            Some(ActionKind::Deny) => Verdict::Deny(findings),
            Some(ActionKind::Mask) => Verdict::rewrite(self.replaced(text, &found), findings),
        }
    }

    fn replaced(&self, text: &str, found: &[Found]) -> String {
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for f in found {
            out.push_str(&text[from..f.start]);
            out.push_str(self.replacement(f, text));
            from = f.end;
        }
        out.push_str(&text[from..]);
        out
    }
}

/// An answer that is being written.
pub struct Answer {
    /// The end of what has left, as it was written.
    context: String,
}

impl Session<Wordlist> for Answer {
    fn inspect_stream(&mut self, policy: &Wordlist, pending: &str, sources: Option<&[Document]>) -> Action {
        let before = self.context.len();
        let text = [&self.context[..], pending].concat();
        let strictness = |list| policy.strictness(list);
        let (mut found, mut open) = match sources {
            Some(_) => (policy.answers.find(&text, &strictness), text.len()),
            None => policy.answers.find_open(&text, &strictness),
        };
        if text.len() - open > HELD {
            (found, open) = (policy.answers.find(&text, &strictness), text.len());
        }
        let open = open.max(before);
        // What begins in the context has been decided.
        found.retain(|f| f.start >= before);
        let found: Vec<Found> =
            found.into_iter().map(|f| Found { start: f.start - before, end: f.end - before, ..f }).collect();
        let (decided, rest) = pending.split_at(open - before);
        if let Some(denied) = found.iter().find(|f| policy.lists[f.list].action == ActionKind::Deny) {
            let findings = found.iter().map(|f| policy.finding(f, 0)).collect();
            return Action::stop(&policy.lists[denied.list].message, findings);
        }
        self.remember(decided);
        if found.is_empty() {
            return Action::hold(rest.len());
        }
        let findings = found.iter().map(|f| policy.finding(f, 0)).collect();
        Action::replace(policy.replaced(decided, &found) + rest, rest.len(), findings)
    }
}

impl Answer {
    fn remember(&mut self, text: &str) {
        self.context.push_str(text);
        if self.context.len() > 2 * CONTEXT {
            let mut from = self.context.len() - CONTEXT;
            while !self.context.is_char_boundary(from) {
                from += 1;
            }
            self.context.drain(..from);
        }
    }
}

policy!(Wordlist);

#[cfg(test)]
mod tests;
