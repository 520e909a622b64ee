//! A safety policy for SafeLMM: prompts with an excluded word are refused, and in answers it is masked.

use safelmm_plugin::{
    Action, Description, Document, Finding, Hook, Outcome, Policy, Request, Session, SettingError, Vector, Verdict,
    policy,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// What an operator may set.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Words that are excluded, in small letters.
    words: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { words: vec!["turnip".into()] }
    }
}

pub struct Example {
    words: Vec<String>,
}

impl Policy for Example {
    type Settings = Settings;
    type Session = Answer;

    fn describe() -> Description {
        Description::new("{{name}}", env!("CARGO_PKG_VERSION"), "Excludes words.")
            .hooks([Hook::ScreenPrompt, Hook::InspectStream])
            .categories(["excluded-word"])
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        let empty = settings.words.iter().position(|word| word.trim().is_empty());
        match empty {
            Some(number) => Err(vec![SettingError::new(format!("/words/{number}"), "An empty word: leave it out.")]),
            None => Ok(Example { words: settings.words.iter().map(|word| word.to_ascii_lowercase()).collect() }),
        }
    }

    fn vectors() -> Vec<Vector> {
        vec![
            Vector::prompt("another word", "A carrot, please.", Outcome::Allow),
            Vector::prompt("an excluded word", "A Turnip, please.", Outcome::Deny).category("excluded-word"),
            Vector::stream("in two pieces", ["Eat a tur", "nip."], Outcome::Rewrite).text("Eat a ***."),
            Vector::stream("only the beginning", ["Take a tur", "n."], Outcome::Allow).text("Take a turn."),
            Vector::prompt("other words", "A carrot.", Outcome::Deny).settings(r#"{"words": ["carrot"]}"#),
        ]
    }

    fn screen_prompt(&self, _request: &Request, text: &str) -> Verdict {
        match self.find(text) {
            Some((at, word)) => Verdict::Deny(vec![finding(at, word)]),
            None => Verdict::Allow,
        }
    }

    fn session(&self, _request: &Request, _prompt: &str) -> Answer {
        Answer
    }
}

impl Example {
    /// The first excluded word, and where it stands.
    fn find(&self, text: &str) -> Option<(usize, &str)> {
        let text = text.to_ascii_lowercase();
        self.words.iter().filter_map(|word| Some((text.find(word)?, &word[..]))).min()
    }

    /// How many bytes at the end of the text may be the beginning of an excluded word.
    fn begun(&self, text: &str) -> usize {
        let text = text.to_ascii_lowercase();
        let ends = text.char_indices().map(|(at, _)| &text[at..]);
        ends.filter(|end| self.words.iter().any(|word| word.starts_with(end))).map(str::len).max().unwrap_or(0)
    }
}

fn finding(at: usize, word: &str) -> Finding {
    Finding::new("excluded-word", 1.0, "A word that is excluded here.").at(at..at + word.len())
}

/// An answer that is being written. What it needs to remember would stand here.
pub struct Answer;

impl Session<Example> for Answer {
    fn inspect_stream(&mut self, policy: &Example, pending: &str, sources: Option<&[Document]>) -> Action {
        let (mut out, mut rest, mut findings) = (String::new(), pending, Vec::new());
        while let Some((at, word)) = policy.find(rest) {
            findings.push(finding(pending.len() - rest.len() + at, word));
            out.push_str(&rest[..at]);
            out.push_str("***");
            rest = &rest[at + word.len()..];
        }
        // The last call has the sources of the answer: nothing follows, and nothing can be held.
        let hold = if sources.is_some() { 0 } else { policy.begun(rest) };
        if findings.is_empty() {
            return Action::hold(hold);
        }
        Action::replace(out + rest, hold, findings)
    }
}

policy!(Example);

#[test]
fn vectors() {
    safelmm_plugin::testing::assert_vectors::<Example>();
}
