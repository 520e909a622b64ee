//! `high-risk`: refuses help with crime and weapons, forged documents, self-harm, sexual content about children, threats
//! and hate, in 31 languages. Self-harm is met with a caring answer and a helpline that the operator names.

use std::collections::BTreeMap;
use std::rc::Rc;

use safelmm_intent::screen::{self, Response, Screen};
use safelmm_intent::{DataError, Judge, LANGUAGES, Language};
use safelmm_plugin::{
    Action, Description, Document, Hook, Policy, Request, Session, SettingError, Vector, Verdict, policy,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// The terms of all languages.
const TERMS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/terms.bin"));

/// How much of an answer may be held until a sentence ends, in bytes.
const HELD: usize = 400;

/// The settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is done with texts of a category; `deny` where none is named.
    pub responses: BTreeMap<String, Response>,
    /// Findings of a lower score are left out; from 0 to 1.
    pub threshold: f32,
    /// Words that may be asked about: a finding among whose words one of these phrases stands is left out.
    pub exempt: Vec<String>,
    /// What is said in the place of `{helpline}` to people in danger of self-harm, by language (ISO 639-1): the name and the
    /// number of a helpline.
    pub helplines: BTreeMap<String, String>,
    /// The same for languages that `helplines` does not name.
    pub helpline: String,
    /// Whether answers are judged too, for hate.
    pub answers: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            responses: BTreeMap::new(),
            threshold: 0.5,
            exempt: Vec::new(),
            helplines: BTreeMap::new(),
            helpline: String::new(),
            answers: true,
        }
    }
}

/// The policy.
pub struct HighRisk {
    prompts: Rc<Judge>,
    answers: Option<Judge>,
    screen: Screen,
    helplines: BTreeMap<String, String>,
    helpline: String,
}

/// The judge of prompts.
///
/// # Errors
/// Data that no build should have.
pub fn judge() -> Result<Judge, DataError> {
    Judge::new(TERMS, include_str!("rules.txt"))
}

impl Policy for HighRisk {
    type Settings = Settings;
    type Session = Answer;

    fn describe() -> Description {
        let categories = [
            "harassment/threatening",
            "hate",
            "identity-documents",
            "illicit",
            "illicit/violent",
            "self-harm/instructions",
            "self-harm/intent",
            "sexual/minors",
            "violence",
        ];
        Description::new("high-risk", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .hooks([Hook::ScreenPrompt, Hook::InspectStream, Hook::ReviewResponse])
            .categories(categories)
            .languages(LANGUAGES)
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        let broken = |error: DataError| vec![SettingError::new("", format!("the policy's own data: {error}"))];
        let prompts = judge().map_err(broken)?;
        let answers = settings.answers.then(|| Judge::new(TERMS, include_str!("answers.txt"))).transpose();
        let answers = answers.map_err(broken)?;
        let mut errors = Vec::new();
        for language in settings.helplines.keys().filter(|l| !LANGUAGES.contains(&l.as_str())) {
            let message = format!("no language has the code {language}; there are: {}", LANGUAGES.join(", "));
            errors.push(SettingError::new(format!("/helplines/{language}"), message));
        }
        let screen = Screen::new(&prompts, settings.responses, settings.threshold, &settings.exempt);
        match screen {
            Ok(screen) if errors.is_empty() => Ok(Self {
                prompts: Rc::new(prompts),
                answers,
                screen,
                helplines: settings.helplines,
                helpline: settings.helpline,
            }),
            Ok(_) => Err(errors),
            Err(more) => Err([errors, more].concat()),
        }
    }

    fn vectors() -> Vec<Vector> {
        screen::vectors(include_str!("vectors.tsv"))
    }

    fn session(&self, _: &Request, _: &str) -> Answer {
        Answer
    }

    fn screen_prompt(&self, request: &Request, text: &str) -> Verdict {
        let known = request.language.as_deref().and_then(Language::of);
        let found = self.prompts.findings(text, known);
        self.screen.verdict(text, &found, |category, language| self.reason(category, language))
    }

    fn review_response(&self, _: &Request, text: &str, _: &[Document]) -> Verdict {
        self.answer(text)
    }
}

impl HighRisk {
    fn answer(&self, text: &str) -> Verdict {
        let found = self.answers.as_ref().map(|judge| judge.findings(text, None)).unwrap_or_default();
        self.screen.verdict(text, &found, |category, language| self.reason(category, language))
    }

    fn reason(&self, category: &str, language: Language) -> String {
        let key = match category {
            "identity-documents" => "identity",
            "self-harm/intent" | "self-harm/instructions" => "self-harm",
            "sexual/minors" => "minors",
            "hate" => "hate",
            "violence" | "harassment/threatening" => "violence",
            _ => "refuse",
        };
        let message = self.prompts.message(language, key).unwrap_or("This cannot be answered.");
        let helpline = self.helplines.get(language.code()).unwrap_or(&self.helpline);
        message.replace("{helpline}", helpline).trim_end().to_owned()
    }
}

/// An answer that is being written: judged sentence by sentence.
pub struct Answer;

impl Session<HighRisk> for Answer {
    fn inspect_stream(&mut self, policy: &HighRisk, pending: &str, sources: Option<&[Document]>) -> Action {
        if policy.answers.is_none() {
            return Action::Pass;
        }
        let end = match screen::sentence_end(pending) {
            _ if sources.is_some() => pending.len(),
            Some(end) => end,
            None if pending.len() > HELD => pending.len(),
            None => 0,
        };
        if end == 0 {
            return Action::hold(pending.len());
        }
        match policy.answer(&pending[..end]) {
            Verdict::Deny(findings) => {
                let message = findings.first().map(|f| f.reason.clone()).unwrap_or_default();
                Action::stop(message, findings)
            }
            Verdict::Flag(findings) => Action::replace(pending, pending.len() - end, findings),
            _ => Action::hold(pending.len() - end),
        }
    }
}

policy!(HighRisk);

#[cfg(test)]
mod tests;
