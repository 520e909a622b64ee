//! `pii`: finds personal data and secrets in prompts, passages and answers, and masks, pseudonymises, flags or refuses
//! them.
//!
//! Detectors read the text as [`fold`] leaves it: e-mail addresses, telephone numbers, IBANs, payment cards, internet
//! addresses, keys and passwords, the identity numbers of the European Union's states and others, passports and driving
//! licenses. Whatever has check digits is checked. In a stream, [`open`] says which end of the text is not decided yet, and
//! that alone is held.

mod card;
mod document;
mod email;
mod fold;
mod iban;
mod ip;
mod kind;
mod mask;
mod national;
mod open;
mod phone;
mod scan;
mod secret;
mod settings;
mod stream;
mod text;
mod vectors;
mod words;

use safelmm_plugin::{Description, Finding, Hook, Passage, Policy, Request, SettingError, Vector, Verdict, policy};

pub use kind::{Kind, Match};
pub use settings::{Mode, Settings};
pub use stream::Answer;

use fold::Folded;
use scan::Kinds;
use text::Text;

/// The policy.
pub struct Pii {
    kinds: Kinds,
    prompts: Mode,
    passages: Mode,
    answers: Mode,
    allow: Vec<String>,
    threshold: f32,
}

impl Policy for Pii {
    type Settings = Settings;
    type Session = Answer;

    fn describe() -> Description {
        Description::new(
            "pii",
            env!("CARGO_PKG_VERSION"),
            "Finds personal data and secrets, and masks, pseudonymises, flags or refuses them.",
        )
        .hooks([Hook::ScreenPrompt, Hook::FilterPassages, Hook::InspectStream])
        .categories(Kind::ALL.map(Kind::category))
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        let errors = settings.errors();
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Pii {
            kinds: Kinds::of(&settings.kinds),
            prompts: settings.prompts.unwrap_or(settings.mode),
            passages: settings.passages.unwrap_or(settings.mode),
            answers: settings.answers.unwrap_or(settings.mode),
            allow: settings.allow.iter().map(|value| settings::normalised(value)).collect(),
            threshold: settings.threshold,
        })
    }

    fn vectors() -> Vec<Vector> {
        vectors::vectors()
    }

    fn session(&self, request: &Request, _prompt: &str) -> Answer {
        Answer::new(&request.id)
    }

    fn screen_prompt(&self, request: &Request, text: &str) -> Verdict {
        self.judge(self.prompts, &request.id, text)
    }

    fn filter_passages(&self, request: &Request, passages: &[Passage]) -> Vec<Verdict> {
        passages.iter().map(|passage| self.judge(self.passages, &request.id, &passage.text)).collect()
    }
}

impl Pii {
    /// What is found in a whole text, in its order.
    pub fn find(&self, text: &str) -> Vec<Match> {
        let folded = Folded::new(text);
        let mut over = 0;
        let mut found = Vec::new();
        for mut m in self.scan(&Text::new(&folded.text), 0) {
            if m.start < over {
                continue;
            }
            if m.what == scan::PRIVATE_KEY {
                m.end += secret::key_body(&folded.text[m.end..], true).length;
            }
            over = m.end;
            found.push(Match { start: folded.original(m.start), end: folded.original(m.end), ..m });
        }
        found
    }

    /// What is found in a folded text from a byte on and is neither allowed nor too unsure.
    fn scan(&self, text: &Text, from: usize) -> Vec<Match> {
        let mut found = scan::scan(text, from, self.kinds);
        found.retain(|m| m.score >= self.threshold && !self.is_allowed(&text.s[m.start..m.end]));
        found
    }

    fn is_allowed(&self, value: &str) -> bool {
        if self.allow.is_empty() {
            return false;
        }
        let value = settings::normalised(value);
        self.allow.iter().any(|allowed| *allowed == value || (allowed.starts_with('@') && value.ends_with(allowed)))
    }

    fn judge(&self, mode: Mode, request: &str, text: &str) -> Verdict {
        let found = if mode == Mode::Off { Vec::new() } else { self.find(text) };
        if found.is_empty() {
            return Verdict::Allow;
        }
        let findings: Vec<Finding> = found.iter().map(|m| self.finding(m, m.start..m.end, 0)).collect();
        match mode {
            Mode::Off => Verdict::Allow,
            Mode::Flag => Verdict::Flag(findings),
            Mode::Deny => Verdict::Deny(findings),
            Mode::Redact | Mode::Pseudonymise => {
                let mut out = String::with_capacity(text.len());
                let mut from = 0;
                for m in &found {
                    out.push_str(&text[from..m.start]);
                    out.push_str(&self.replacement(mode, m.kind, &text[m.start..m.end], request));
                    from = m.end;
                }
                out.push_str(&text[from..]);
                Verdict::rewrite(out, findings)
            }
        }
    }

    /// What stands in the place of a value.
    fn replacement(&self, mode: Mode, kind: Kind, value: &str, request: &str) -> String {
        match mode {
            Mode::Redact | Mode::Deny => mask::redacted(kind),
            Mode::Pseudonymise => mask::pseudonym(kind, &Folded::new(value).text, request),
            Mode::Flag | Mode::Off => value.to_owned(),
        }
    }

    /// What the reader of an answer gets that was ended.
    fn refusal(&self) -> &'static str {
        "\n\n[This answer was ended because it contained personal data or a secret.]"
    }
}

policy!(Pii);

#[cfg(test)]
mod tests;
