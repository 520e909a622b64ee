//! `license-obligations`: when documents of a store had a part in an answer, the notice that their licenses ask for
//! stands at its end.
//!
//! A license with the element BY asks for title, author, source and license (Creative Commons, "TASL"; CC BY 4.0, section
//! 3(a)(1)); the other elements are named beside it, because who passes the answer on is bound by them.

mod phrases;

use phrases::Phrases;
use safelmm_plugin::{
    Action, Description, Document, Finding, Hook, Obligation, Outcome, Policy, Request, Session, SettingError, Vector,
    policy,
};
use schemars::JsonSchema;
use serde::Deserialize;

const CATEGORY: &str = "license/obligations";

/// The longest title or name in a notice, in characters.
const LONGEST: usize = 300;

/// What an operator may set.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The language of the notice (ISO 639-1) where that of the request is not known.
    language: String,
    /// A heading in place of the built-in one, for all languages.
    heading: Option<String>,
    /// Name documents too whose licenses ask for nothing.
    all: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { language: "en".into(), heading: None, all: false }
    }
}

/// The policy.
pub struct LicenseObligations {
    fallback: &'static Phrases,
    heading: Option<String>,
    all: bool,
}

/// An answer.
pub struct Answer {
    /// What its notice is written in.
    phrases: &'static Phrases,
    /// Its first and last characters that are not spaces.
    ends: Option<(char, char)>,
}

impl Answer {
    fn read(&mut self, text: &str) {
        let text = text.trim();
        if let (Some(first), Some(last)) = (text.chars().next(), text.chars().next_back()) {
            self.ends = Some((self.ends.map_or(first, |(first, _)| first), last));
        }
    }

    /// Whether the answer is an object or a list of JSON, to which nothing can be added: a program reads it.
    fn is_json(&self) -> bool {
        matches!(self.ends, Some(('{', '}') | ('[', ']')))
    }
}

impl Policy for LicenseObligations {
    type Settings = Settings;
    type Session = Answer;

    fn describe() -> Description {
        Description::new(
            "license-obligations",
            env!("CARGO_PKG_VERSION"),
            "Ends an answer with the notice that the licenses of its sources ask for.",
        )
        .hooks([Hook::InspectStream])
        .categories([CATEGORY])
        .languages(phrases::PHRASES.map(|phrases| phrases.0))
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        let mut errors = Vec::new();
        let fallback = phrases::of(&settings.language);
        if fallback.is_none() {
            let known = phrases::PHRASES.map(|phrases| phrases.0).join(", ");
            errors.push(SettingError::new(
                "/language",
                format!("There is no notice in {:?}; there is one in {known}.", settings.language),
            ));
        }
        if settings.heading.as_deref().is_some_and(|heading| heading.trim().is_empty()) {
            errors.push(SettingError::new("/heading", "An empty heading: leave it out for the built-in one."));
        }
        match fallback {
            Some(fallback) if errors.is_empty() => {
                Ok(LicenseObligations { fallback, heading: settings.heading, all: settings.all })
            }
            _ => Err(errors),
        }
    }

    fn vectors() -> Vec<Vector> {
        let by_language = phrases::PHRASES.iter().map(|phrases| {
            let (language, heading, [attribution, share_alike, ..]) = phrases;
            let work = Document {
                obligations: vec![Obligation::Attribution, Obligation::ShareAlike],
                ..Document::new("d", "Bees at Home", "R. Imker", "CC-BY-SA-4.0", "https://example.org/bees")
            };
            Vector::stream(&format!("a notice ({language})"), ["…"], Outcome::Rewrite)
                .settings(format!(r#"{{"language": "{language}"}}"#))
                .sources([work])
                .category(CATEGORY)
                .text(format!(
                    "…\n\n{heading}\n- Bees at Home · R. Imker · CC-BY-SA-4.0 · https://example.org/bees \
                     ({attribution}, {share_alike})"
                ))
        });
        let free = Document::new("f", "Common Things", "Many", "CC0-1.0", "");
        let mut vectors = vec![
            Vector::stream("an answer without sources", ["Water boils ", "at 100 °C."], Outcome::Allow)
                .text("Water boils at 100 °C."),
            Vector::stream("nothing", [""], Outcome::Allow).text(""),
            Vector::stream("a source that asks for nothing", ["Yes."], Outcome::Allow)
                .sources([free.clone()])
                .text("Yes."),
            Vector::stream("a heading of one's own", ["Yes."], Outcome::Rewrite)
                .settings(r#"{"language": "mt", "heading": "Sources:", "all": true}"#)
                .sources([free])
                .text("Yes.\n\nSources:\n- Common Things · Many · CC0-1.0"),
        ];
        vectors.extend(by_language);
        vectors
    }

    fn session(&self, request: &Request, _prompt: &str) -> Answer {
        Answer { phrases: request.language.as_deref().and_then(phrases::of).unwrap_or(self.fallback), ends: None }
    }
}

impl Session<LicenseObligations> for Answer {
    fn inspect_stream(&mut self, policy: &LicenseObligations, pending: &str, sources: Option<&[Document]>) -> Action {
        self.read(pending);
        let Some((notice, named)) = sources.and_then(|sources| policy.notice(self.phrases, sources)) else {
            return Action::Pass;
        };
        let asked = format!("The licenses of the sources of this answer ask for a notice ({named} works)");
        let finding = |what: &str| vec![Finding::new(CATEGORY, 1.0, format!("{asked}; {what}."))];
        if self.is_json() {
            return Action::replace(
                pending,
                0,
                finding("the answer is JSON, so it has none: its reader must name them"),
            );
        }
        Action::replace(format!("{pending}\n\n{notice}"), 0, finding("it was added"))
    }
}

impl LicenseObligations {
    /// The notice, and how many works it names; none where nothing asks for one.
    fn notice(&self, phrases: &Phrases, sources: &[Document]) -> Option<(String, usize)> {
        let mut lines: Vec<String> = Vec::new();
        for document in sources {
            if document.obligations.is_empty() && !self.all {
                continue;
            }
            let line = line(phrases, document);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let heading = self.heading.as_deref().unwrap_or(phrases.1);
        (!lines.is_empty()).then(|| (format!("{heading}\n{}", lines.join("\n")), lines.len()))
    }
}

/// Title, author, license, address, and what the license asks for.
fn line(phrases: &Phrases, document: &Document) -> String {
    let title = one_line(&document.title);
    // Never nameless: the id is what an operator can look up.
    let title = if title.is_empty() { one_line(&document.id) } else { title };
    let facts = [&document.author, &document.license, &document.url].map(|fact| one_line(fact));
    let mut line = format!("- {title}");
    for fact in facts.iter().filter(|fact| !fact.is_empty()) {
        line.push_str(" · ");
        line.push_str(fact);
    }
    let mut asked: Vec<&str> = Vec::new();
    for &obligation in &document.obligations {
        let name = phrases::name(phrases, obligation);
        if !asked.contains(&name) {
            asked.push(name);
        }
    }
    if !asked.is_empty() {
        line.push_str(&format!(" ({})", asked.join(", ")));
    }
    line
}

/// The text on one line, without control characters and those that turn the direction of writing, and not too long: a
/// title is what somebody put into a store.
fn one_line(text: &str) -> String {
    let direction = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(|&c| !direction(c)).collect();
    let mut line = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

policy!(LicenseObligations);

#[cfg(test)]
mod tests;
