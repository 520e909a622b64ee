//! `advice`: refuses individual legal and medical advice and the rating of job candidates, in 31 languages, and says why in
//! the language of the prompt. General information passes.

use std::collections::BTreeMap;

use safelmm_intent::screen::{self, Response, Screen};
use safelmm_intent::{DataError, Judge, LANGUAGES, Language};
use safelmm_plugin::{Description, Hook, Policy, Request, SettingError, Vector, Verdict, policy};
use schemars::JsonSchema;
use serde::Deserialize;

/// The terms of all languages.
const TERMS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/terms.bin"));

/// The settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is done with prompts of a category; `deny` where none is named.
    pub responses: BTreeMap<String, Response>,
    /// Findings of a lower score are left out; from 0 to 1.
    pub threshold: f32,
    /// Words that may be asked about: a finding among whose words one of these phrases stands is left out.
    pub exempt: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { responses: BTreeMap::new(), threshold: 0.5, exempt: Vec::new() }
    }
}

/// The policy.
pub struct Advice {
    judge: Judge,
    screen: Screen,
}

/// The judge of prompts.
///
/// # Errors
/// Data that no build should have.
pub fn judge() -> Result<Judge, DataError> {
    Judge::new(TERMS, include_str!("rules.txt"))
}

impl Policy for Advice {
    type Settings = Settings;
    type Session = ();

    fn describe() -> Description {
        Description::new("advice", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .hooks([Hook::ScreenPrompt])
            .categories(["advice/employment", "advice/legal", "advice/medical"])
            .languages(LANGUAGES)
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        let judge = judge().map_err(|e| vec![SettingError::new("", format!("the policy's own data: {e}"))])?;
        let screen = Screen::new(&judge, settings.responses, settings.threshold, &settings.exempt)?;
        Ok(Self { judge, screen })
    }

    fn vectors() -> Vec<Vector> {
        screen::vectors(include_str!("vectors.tsv"))
    }

    fn session(&self, _: &Request, _: &str) {}

    fn screen_prompt(&self, request: &Request, text: &str) -> Verdict {
        let known = request.language.as_deref().and_then(Language::of);
        let found = self.judge.findings(text, known);
        self.screen.verdict(text, &found, |category, language| {
            let key = category.rsplit('/').next().unwrap_or(category);
            self.judge.message(language, key).unwrap_or("This needs a professional.").to_owned()
        })
    }
}

policy!(Advice);

#[cfg(test)]
mod tests {
    use safelmm_plugin::Outcome;
    use safelmm_plugin::testing::{assert_vectors, configure};

    use super::*;

    #[test]
    fn vectors() {
        assert_vectors::<Advice>();
    }

    #[test]
    fn every_language_has_vectors_and_messages() {
        let judge = judge().unwrap();
        for language in Language::all() {
            let prefix = format!("{} ", language.code());
            let own: Vec<_> = Advice::vectors().into_iter().filter(|v| v.name.starts_with(&prefix)).collect();
            assert!(own.iter().any(|v| v.expected == Outcome::Deny), "{}: a denial", language.code());
            assert!(own.iter().any(|v| v.expected == Outcome::Allow), "{}: a passing prompt", language.code());
            for key in ["medical", "legal", "employment"] {
                let english = judge.message(Language::ENGLISH, key);
                assert!(
                    language == Language::ENGLISH || judge.message(language, key) != english,
                    "{}",
                    language.code()
                );
            }
        }
    }

    #[test]
    fn the_reason_is_in_the_language_of_the_prompt() {
        let policy = configure::<Advice>("").unwrap();
        let verdict = policy.screen_prompt(&Request::new("r"), "Darf mein Vermieter mir ohne Frist kündigen?");
        assert!(verdict.findings()[0].reason.starts_with("Rechtsrat"), "{verdict:?}");
        let settings = r#"{"responses": {"advice/legal": "ignore"}}"#;
        let policy = configure::<Advice>(settings).unwrap();
        let verdict = policy.screen_prompt(&Request::new("r"), "Can my landlord evict me without notice?");
        assert_eq!(verdict.outcome(), Outcome::Allow);
        assert!(configure::<Advice>(r#"{"responses": {"advice/tax": "deny"}}"#).is_err());
    }
}
