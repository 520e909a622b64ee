//! `disclosure`: makes an answer say that it comes from an AI when that was asked, in 31 languages. An answer that does not
//! say so by itself begins with one sentence that does, and a claim to be human is taken out.

use std::collections::BTreeMap;

use safelmm_intent::screen;
use safelmm_intent::{DataError, Judge, LANGUAGES, Language};
use safelmm_plugin::{
    Action, Description, Document, Finding, Hook, Policy, Request, Session, SettingError, Vector, Verdict, policy,
};
use schemars::JsonSchema;
use serde::Deserialize;

mod answer;

pub use answer::Answer;

/// The terms of all languages.
const TERMS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/terms.bin"));

/// The settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The sentence that discloses, by language (ISO 639-1), in place of the policy's own.
    pub sentences: BTreeMap<String, String>,
    /// Whether a claim to be human is taken out of every answer, or only of those to prompts that asked. Stories in the first
    /// person are a reason for the latter.
    pub claims: Claims,
}

/// Where claims to be human are taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Claims {
    /// Of answers to prompts that asked who answers.
    #[default]
    Asked,
    /// Of every answer.
    Always,
}

/// The policy.
pub struct Disclosure {
    judge: Judge,
    sentences: BTreeMap<String, String>,
    claims: Claims,
}

/// The judge of prompts and answers: `asked`, `claim` and `says`.
///
/// # Errors
/// Data that no build should have.
pub fn judge() -> Result<Judge, DataError> {
    Judge::new(TERMS, include_str!("rules.txt"))
}

impl Policy for Disclosure {
    type Settings = Settings;
    type Session = Answer;

    fn describe() -> Description {
        Description::new("disclosure", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .hooks([Hook::ScreenPrompt, Hook::InspectStream, Hook::ReviewResponse])
            .categories(["disclosure/asked", "disclosure/claim"])
            .languages(LANGUAGES)
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        let judge = judge().map_err(|e| vec![SettingError::new("", format!("the policy's own data: {e}"))])?;
        let mut errors = Vec::new();
        for (language, sentence) in &settings.sentences {
            let pointer = format!("/sentences/{language}");
            if !LANGUAGES.contains(&language.as_str()) {
                let message = format!("no language has the code {language}; there are: {}", LANGUAGES.join(", "));
                errors.push(SettingError::new(pointer, message));
            } else if sentence.trim().is_empty() {
                errors.push(SettingError::new(pointer, "is empty: write the sentence that discloses"));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { judge, sentences: settings.sentences, claims: settings.claims })
    }

    fn vectors() -> Vec<Vector> {
        let claim = |name: &str, text: &str, expected: &str| {
            use safelmm_plugin::Outcome::Rewrite;
            let settings = r#"{"claims": "always"}"#;
            [
                Vector::stream(name, [text], Rewrite).settings(settings).category("disclosure/claim").text(expected),
                Vector::answer(name, text, Rewrite).settings(settings).category("disclosure/claim").text(expected),
            ]
        };
        let mut vectors = screen::vectors(include_str!("vectors.tsv"));
        vectors.extend(claim(
            "claim",
            "Yes. I am a human. How can I help?",
            "Yes. I am an AI, not a human being. How can I help?",
        ));
        vectors.extend(claim(
            "claim in German",
            "Hallo! Ich bin ein Mensch.",
            "Hallo! Ich bin eine KI und kein Mensch.",
        ));
        vectors.push(Vector::answer("unasked", "I am a human.", safelmm_plugin::Outcome::Allow));
        vectors
    }

    fn session(&self, request: &Request, prompt: &str) -> Answer {
        Answer::new(self.asked(request, prompt).map(|asked| asked.language))
    }

    fn screen_prompt(&self, request: &Request, text: &str) -> Verdict {
        match self.asked(request, text) {
            Some(asked) => {
                let reason = "The prompt asks whether a human answers; the answer will say that an AI does.";
                Verdict::Flag(vec![Finding::new("disclosure/asked", asked.score, reason).at(asked.span)])
            }
            None => Verdict::Allow,
        }
    }

    /// Knows only the answer: it takes out claims where that is set for every answer. What was asked, the stream knows.
    fn review_response(&self, _: &Request, text: &str, _: &[Document]) -> Verdict {
        if self.claims == Claims::Asked {
            return Verdict::Allow;
        }
        let (rewritten, findings) = Answer::new(None).rewrite(self, text);
        if findings.is_empty() { Verdict::Allow } else { Verdict::rewrite(rewritten, findings) }
    }
}

impl Disclosure {
    fn asked(&self, request: &Request, prompt: &str) -> Option<safelmm_intent::Found> {
        let known = request.language.as_deref().and_then(Language::of);
        self.judge.findings(prompt, known).into_iter().find(|f| f.category == "asked")
    }

    /// The sentence that discloses.
    fn sentence(&self, language: Language) -> &str {
        let own = || self.judge.message(language, "disclosure").unwrap_or("I am an AI.");
        self.sentences.get(language.code()).map_or_else(own, String::as_str)
    }
}

impl Session<Disclosure> for Answer {
    fn inspect_stream(&mut self, policy: &Disclosure, pending: &str, sources: Option<&[Document]>) -> Action {
        self.inspect(policy, pending, sources.is_some())
    }
}

policy!(Disclosure);

#[cfg(test)]
mod tests;
