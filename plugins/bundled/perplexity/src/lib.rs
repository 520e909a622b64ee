//! `perplexity`: flags text that an n-gram model of harmful text likes better than one of clean text.
//!
//! The perplexity filter of BigScience's ROOTS corpus (Laurençon et al. 2022, "The BigScience ROOTS Corpus", after Wenzek et al.
//! 2020, "CCNet") drops documents by the perplexity of one KenLM model (Heafield 2011). Here two models are held against each
//! other, so that text that is merely unusual, or of a language that both know little of, does not stand out (Moore & Lewis 2010,
//! "Intelligent Selection of Language Model Training Data"): the score of a sentence of *n* characters is
//!
//! ```text
//! Δ = (H_clean − H_harmful) / (n + 16)      in bits per character
//! ```
//!
//! with *H* the bits that a model needs for the sentence; the 16 keep very short sentences from deciding on a letter or two. A text
//! has the score of its highest sentence, and the probability shown is `σ(slope · (Δ − threshold))`, calibrated by the command that
//! makes the models, `safelmm-train policy-models perplexity`. Operators bring their own models in the settings.

mod models;
mod vectors;

use models::{Models, OwnModels};
use safelmm_plugin::{
    Description, Document, Finding, Hook, Passage, Policy, Request, SettingError, Vector, Verdict, policy,
};
use schemars::JsonSchema;
use serde::Deserialize;

pub use models::Calibration;

/// The categories that findings may be given: `harmful`, and OpenAI's moderation names.
pub const CATEGORIES: [&str; 14] = [
    "harmful",
    "hate",
    "hate/threatening",
    "harassment",
    "harassment/threatening",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
    "illicit",
    "illicit/violent",
];

/// What happens to a text above the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Consequence {
    /// It is not judged.
    Abstain,
    /// It passes, and the answer says what was found.
    Flag,
    /// It does not pass.
    Deny,
}

/// What an operator may set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The category of findings: `harmful`, or what the operator's own models are about, by OpenAI's moderation names.
    category: String,
    /// The difference, in bits per character, from which a sentence counts; without it that of the models.
    threshold: Option<f32>,
    /// What happens to prompts.
    prompts: Consequence,
    /// What happens to passages of stores.
    passages: Consequence,
    /// What happens to answers.
    answers: Consequence,
    /// Models of the operator's own, in place of the bundled ones.
    models: Option<OwnModels>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            category: "harmful".into(),
            threshold: None,
            prompts: Consequence::Flag,
            passages: Consequence::Deny,
            answers: Consequence::Flag,
            models: None,
        }
    }
}

/// The policy.
pub struct Perplexity {
    models: Models,
    category: String,
    prompts: Consequence,
    passages: Consequence,
    answers: Consequence,
}

impl Policy for Perplexity {
    type Settings = Settings;
    type Session = ();

    fn describe() -> Description {
        Description::new(
            "perplexity",
            env!("CARGO_PKG_VERSION"),
            "Flags text that an n-gram model of harmful text likes better than one of clean text.",
        )
        .hooks([Hook::ScreenPrompt, Hook::FilterPassages, Hook::ReviewResponse])
        .categories(CATEGORIES)
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        let mut errors = Vec::new();
        if !CATEGORIES.contains(&settings.category.as_str()) {
            let message = format!("{:?} is none of {}.", settings.category, CATEGORIES.join(", "));
            errors.push(SettingError::new("/category", message));
        }
        if let Some(threshold) = settings.threshold.filter(|t| !(-20.0..=20.0).contains(t)) {
            let message = format!("{threshold} is no difference of two models: expected -20 to 20 bits per character.");
            errors.push(SettingError::new("/threshold", message));
        }
        let models = match settings.models {
            None => Models::bundled(),
            Some(own) => Models::own(&own),
        };
        match models {
            Ok(models) if errors.is_empty() => Ok(Perplexity {
                models: models.with_threshold(settings.threshold),
                category: settings.category,
                prompts: settings.prompts,
                passages: settings.passages,
                answers: settings.answers,
            }),
            Ok(_) => Err(errors),
            Err(more) => {
                errors.extend(more);
                Err(errors)
            }
        }
    }

    fn vectors() -> Vec<Vector> {
        vectors::all()
    }

    fn session(&self, _: &Request, _: &str) {}

    fn screen_prompt(&self, _: &Request, text: &str) -> Verdict {
        self.judge(text, self.prompts)
    }

    fn filter_passages(&self, _: &Request, passages: &[Passage]) -> Vec<Verdict> {
        passages.iter().map(|passage| self.judge(&passage.text, self.passages)).collect()
    }

    fn review_response(&self, _: &Request, text: &str, _: &[Document]) -> Verdict {
        self.judge(text, self.answers)
    }
}

impl Perplexity {
    fn judge(&self, text: &str, consequence: Consequence) -> Verdict {
        if consequence == Consequence::Abstain {
            return Verdict::Abstain;
        }
        let Some(highest) = self.models.highest(text) else { return Verdict::Allow };
        if highest.difference < self.models.threshold() {
            return Verdict::Allow;
        }
        let reason = format!(
            "A model of harmful text needs {:.2} bits per character less for a sentence than one of clean text: rephrase it.",
            highest.difference
        );
        let finding = Finding::new(&*self.category, highest.probability, reason).at(highest.range);
        match consequence {
            Consequence::Deny => Verdict::Deny(vec![finding]),
            _ => Verdict::Flag(vec![finding]),
        }
    }
}

policy!(Perplexity);

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64;
    use safelmm_plugin::testing::{assert_vectors, configure};

    #[test]
    fn golden_vectors() {
        assert_vectors::<Perplexity>();
    }

    #[test]
    fn operators_bring_their_own_models() {
        let harmful = BASE64.encode(models::HARMFUL);
        let clean = BASE64.encode(models::CLEAN);
        let own = |harmful: &str, clean: &str| {
            format!(
                r#"{{"category": "violence", "models": {{"harmful": "{harmful}", "clean": "{clean}", "threshold": 0.3, "slope": 5}}}}"#
            )
        };
        let policy: Perplexity = configure(&own(&harmful, &clean)).unwrap();
        let text = "You fucking bastard, I will stab you to death, you piece of shit.";
        let Verdict::Flag(findings) = policy.screen_prompt(&Request::new("x"), text) else { panic!() };
        assert_eq!(findings[0].category, "violence");
        // The other way round it is the clean text that stands out.
        let turned: Perplexity = configure(&own(&clean, &harmful)).unwrap();
        assert_eq!(turned.screen_prompt(&Request::new("x"), text), Verdict::Allow);
    }

    #[test]
    fn bad_settings_are_named() {
        let wrong = |json: &str| configure::<Perplexity>(json).err().unwrap().remove(0);
        assert_eq!(wrong(r#"{"category": "bad"}"#).pointer, "/category");
        assert_eq!(wrong(r#"{"threshold": 100}"#).pointer, "/threshold");
        let model = r#""threshold": 0.3, "slope": 5"#;
        let error = wrong(&format!(r#"{{"models": {{"harmful": "%%", "clean": "", {model}}}}}"#));
        assert_eq!(error.pointer, "/models/harmful");
        assert!(error.message.contains("base64"), "{}", error.message);
        let error = wrong(&format!(r#"{{"models": {{"harmful": "R0dVRg==", "clean": "", {model}}}}}"#));
        assert!(error.message.contains("SLMNGRM1"), "{}", error.message);
        assert_eq!(
            wrong(r#"{"models": {"harmful": "", "clean": "", "threshold": 0, "slope": -1}}"#).pointer,
            "/models/slope"
        );
    }

    #[test]
    fn any_text_is_judged_without_panic() {
        let policy: Perplexity = configure("").unwrap();
        for text in ["", "\0", "\u{301}", "💀💀", "ß", "殺", "。。。", "?!?!", "\u{a0}\n\n", "สวัสดี"]
        {
            for repeated in [text.to_owned(), text.repeat(999)] {
                assert!(!matches!(policy.screen_prompt(&Request::new("x"), &repeated), Verdict::Deny(_)), "{text:?}");
            }
        }
    }
}
