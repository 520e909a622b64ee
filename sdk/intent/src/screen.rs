//! From findings to the verdict of a policy: what operators may set for every policy that judges intents.

use std::collections::BTreeMap;

use safelmm_plugin::schemars::{self, JsonSchema};
use safelmm_plugin::serde::{self, Deserialize};
use safelmm_plugin::{Finding, SettingError, Verdict};

use crate::{Found, Judge, Language, Normal};

/// What is done with a text of a category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(crate = "serde", rename_all = "kebab-case")]
#[schemars(crate = "schemars")]
pub enum Response {
    /// Nothing.
    Ignore,
    /// The text passes, and what was found is reported.
    Flag,
    /// The text does not pass, and the reason is said in its language.
    #[default]
    Deny,
}

/// What an operator sets for each category.
pub struct Screen {
    responses: BTreeMap<String, Response>,
    threshold: f32,
    exempt: Vec<String>,
}

impl Screen {
    /// Takes settings: `responses` by category, deny where none is named; findings of a score below `threshold` are left
    /// out, and those whose words contain one of the phrases `exempt`.
    ///
    /// # Errors
    /// Categories that the judge does not find, a threshold outside 0 to 1, and empty phrases, with their pointers.
    pub fn new(
        judge: &Judge,
        responses: BTreeMap<String, Response>,
        threshold: f32,
        exempt: &[String],
    ) -> Result<Self, Vec<SettingError>> {
        let known = judge.rules().categories();
        let mut errors: Vec<SettingError> = responses
            .keys()
            .filter(|category| !known.contains(category))
            .map(|category| {
                let pointer = format!("/responses/{}", category.replace('~', "~0").replace('/', "~1"));
                SettingError::new(pointer, format!("there is no category {category}; there are: {}", known.join(", ")))
            })
            .collect();
        if !(0.0..=1.0).contains(&threshold) {
            errors.push(SettingError::new("/threshold", format!("must be from 0 to 1, and is {threshold}")));
        }
        let exempt: Vec<String> = exempt.iter().map(|phrase| Normal::of(phrase).text().to_owned()).collect();
        for (i, _) in exempt.iter().enumerate().filter(|(_, phrase)| phrase.is_empty()) {
            errors
                .push(SettingError::new(format!("/exempt/{i}"), "has no letters: name words that may be asked about"));
        }
        if errors.is_empty() { Ok(Self { responses, threshold, exempt }) } else { Err(errors) }
    }

    /// The verdict on a text with these findings; `reason` says why in the language of the text.
    pub fn verdict(&self, text: &str, found: &[Found], reason: impl Fn(&str, Language) -> String) -> Verdict {
        let mut worst = Response::Ignore;
        let mut findings: Vec<Finding> = Vec::new();
        for f in found {
            let response = self.responses.get(&f.category).copied().unwrap_or_default();
            if response == Response::Ignore || f.score < self.threshold || self.exempts(&text[f.span.clone()]) {
                continue;
            }
            worst = worst.max(response);
            if findings.iter().all(|other| other.category != f.category) {
                let finding = Finding::new(f.category.as_str(), f.score, reason(&f.category, f.language));
                findings.push(finding.at(f.span.clone()));
            }
        }
        match worst {
            Response::Ignore => Verdict::Allow,
            Response::Flag => Verdict::Flag(findings),
            Response::Deny => Verdict::Deny(findings),
        }
    }

    fn exempts(&self, words: &str) -> bool {
        if self.exempt.is_empty() {
            return false;
        }
        let normal = Normal::of(words);
        self.exempt.iter().any(|phrase| normal.text().contains(phrase.as_str()))
    }
}

/// Where the last sentence of a text ends; none where none does.
pub fn sentence_end(text: &str) -> Option<usize> {
    let ends = |(at, c): (usize, char)| {
        let next = text[at + c.len_utf8()..].chars().next();
        let end = match c {
            '.' | '?' | '!' | ';' => next.is_some_and(char::is_whitespace),
            '\n' | '。' | '？' | '！' | '؟' | '।' => true,
            _ => false,
        };
        end.then_some(at + c.len_utf8())
    };
    text.char_indices().rev().find_map(ends)
}

/// Golden vectors for prompts from lines of `outcome`, `category`, `language` and `text`, divided by tabs.
pub fn vectors(lines: &str) -> Vec<safelmm_plugin::Vector> {
    use safelmm_plugin::{Outcome, Vector};
    let vector = |(number, line): (usize, &str)| {
        let mut fields = line.splitn(4, '\t');
        let (outcome, category) = (fields.next()?, fields.next()?);
        let (language, text) = (fields.next()?, fields.next()?);
        let outcome = match outcome {
            "deny" => Outcome::Deny,
            "flag" => Outcome::Flag,
            _ => Outcome::Allow,
        };
        let vector = Vector::prompt(&format!("{language} {}", number + 1), text, outcome);
        Some(if category.is_empty() { vector } else { vector.category(category) })
    };
    lines.lines().enumerate().filter_map(vector).collect()
}
