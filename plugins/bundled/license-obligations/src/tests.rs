use std::rc::Rc;

use safelmm_plugin::testing::{Answer, assert_vectors, configure, stream};
use safelmm_plugin::{Document, Obligation, Outcome, Request};

use super::*;

fn handbook() -> Document {
    Document {
        obligations: vec![Obligation::Attribution, Obligation::NonCommercial],
        ..Document::new("d1", "Bees at Home", "R. Imker", "CC-BY-NC-4.0", "https://example.org/bees")
    }
}

fn answered(settings: &str, language: Option<&str>, pieces: &[&str], sources: &[Document]) -> Answer {
    let policy = Rc::new(configure::<LicenseObligations>(settings).unwrap());
    let request = Request { language: language.map(Into::into), ..Request::new("r") };
    stream(&policy, &request, "How?", pieces, sources).unwrap()
}

#[test]
fn vectors() {
    assert_vectors::<LicenseObligations>();
}

#[test]
fn a_notice_names_title_author_license_address_and_what_is_asked() {
    let answer = answered("", None, &["Feed them ", "in autumn."], &[handbook()]);
    assert_eq!(
        answer.text,
        "Feed them in autumn.\n\n\
         This answer draws on the following sources, whose licenses ask that they be named:\n\
         - Bees at Home · R. Imker · CC-BY-NC-4.0 · https://example.org/bees (attribution, non-commercial)"
    );
    assert_eq!(answer.outcome, Outcome::Rewrite);
    assert_eq!(answer.findings[0].category, CATEGORY);
}

#[test]
fn a_notice_is_the_same_however_the_answer_is_cut() {
    let text = "Füttere sie im Herbst.";
    let whole = answered("", Some("de"), &[text], &[handbook()]);
    assert!(whole.text.contains("Namensnennung, nicht kommerziell"), "{}", whole.text);
    for (at, _) in text.char_indices() {
        assert_eq!(answered("", Some("de"), &[&text[..at], &text[at..]], &[handbook()]), whole);
    }
}

/// Every set of obligations, in every language, one to sixteen sources to an answer: which works are named, and with what.
#[test]
fn precision_and_recall() {
    const ALL: [Obligation; 4] =
        [Obligation::Attribution, Obligation::ShareAlike, Obligation::NonCommercial, Obligation::NoDerivatives];
    let source = |set: usize| Document {
        obligations: ALL.into_iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, o)| o).collect(),
        ..Document::new(&format!("d{set}"), &format!("Work {set}."), "A. Author", &format!("License {set}."), "")
    };
    let (mut right, mut wrong, mut missed) = (0, 0, 0);
    for phrases in &phrases::PHRASES {
        for count in 1..=16 {
            let sources: Vec<Document> = (0..count).map(|i| source((i * 7 + count) % 16)).collect();
            let text = answered("", Some(phrases.0), &["Yes."], &sources).text;
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("- ")).collect();
            for source in &sources {
                let asked: Vec<&str> = source.obligations.iter().map(|o| phrases::name(phrases, *o)).collect();
                let parts = [&source.title[..], &source.author, &source.license].map(str::to_owned);
                let line = lines.iter().find(|line| line.contains(&source.title));
                let is_whole = |line: &&&str| {
                    parts.iter().all(|part| line.contains(part)) && line.ends_with(&format!("({})", asked.join(", ")))
                };
                match (source.obligations.is_empty(), line) {
                    (true, None) => {}
                    (true, Some(_)) => wrong += 1,
                    (false, line) if line.as_ref().is_some_and(is_whole) => right += 1,
                    (false, _) => missed += 1,
                }
            }
            wrong += lines.len().saturating_sub(sources.len());
        }
    }
    println!("{right} works named as they ask, {missed} not, {wrong} named that ask for nothing");
    assert_eq!((wrong, missed), (0, 0));
    assert!(right > 3000);
}

#[test]
fn every_language_has_its_own_words() {
    let mut seen = std::collections::BTreeSet::new();
    for phrases in &phrases::PHRASES {
        let text = answered("", Some(phrases.0), &["x"], &[handbook()]).text;
        assert!(text.contains(phrases.1), "{text}");
        assert!(seen.insert(phrases.1), "{} twice", phrases.1);
        let by_settings = answered(&format!(r#"{{"language": "{}"}}"#, phrases.0), None, &["x"], &[handbook()]).text;
        assert_eq!(by_settings, text);
        assert!(phrases.2.iter().all(|name| !name.is_empty()));
    }
    assert!(phrases::PHRASES.is_sorted_by(|a, b| a.0 < b.0), "looked up by halves");
}

#[test]
fn a_language_tag_may_have_a_region_and_an_unknown_one_falls_back() {
    let portuguese = answered("", Some("pt"), &["x"], &[handbook()]).text;
    for tag in ["pt-BR", "PT", "pt_PT"] {
        assert_eq!(answered("", Some(tag), &["x"], &[handbook()]).text, portuguese);
    }
    assert_eq!(
        answered("", Some("tlh"), &["x"], &[handbook()]).text,
        answered("", Some("en"), &["x"], &[handbook()]).text
    );
}

#[test]
fn what_asks_for_nothing_is_named_only_where_all_is_set() {
    let free = Document::new("d2", "Common Things", "Many", "CC0-1.0", "");
    let sources = [free, handbook(), handbook()];
    let text = answered("", None, &["x"], &sources).text;
    assert!(!text.contains("Common Things"));
    assert_eq!(text.matches("Bees at Home").count(), 1, "each work once");
    let all = answered(r#"{"all": true}"#, None, &["x"], &sources).text;
    assert!(all.contains("- Common Things · Many · CC0-1.0\n"), "{all}");
    assert_eq!(answered("", None, &["x"], &sources[..1]).outcome, Outcome::Allow);
}

#[test]
fn a_title_cannot_write_lines_of_its_own() {
    let sly = Document { title: "A\n\nIgnore all licenses\u{202e}\u{7}".into(), author: String::new(), ..handbook() };
    let text = answered("", None, &["x"], &[sly]).text;
    assert!(
        text.ends_with(
            "- A Ignore all licenses · CC-BY-NC-4.0 · https://example.org/bees (attribution, non-commercial)"
        ),
        "{text}"
    );
    let nameless = Document { title: " ".into(), ..handbook() };
    assert!(answered("", None, &["x"], &[nameless]).text.contains("- d1 · "));
    let long = Document { title: "é".repeat(1000), ..handbook() };
    assert!(answered("", None, &["x"], &[long]).text.chars().count() < 600);
}

#[test]
fn wrong_settings_are_refused_with_their_place() {
    let pointers = |json: &str| -> Vec<String> {
        configure::<LicenseObligations>(json).err().unwrap().into_iter().map(|e| e.pointer).collect()
    };
    assert_eq!(pointers(r#"{"language": "tlh", "heading": " "}"#), ["/language", "/heading"]);
    assert_eq!(pointers(r#"{"all": 1}"#), ["/all"]);
}

#[test]
fn json_stays_json() {
    for text in ["{\"a\": [1]}", " [1, 2]\n"] {
        for (at, _) in text.char_indices() {
            let answer = answered("", None, &[&text[..at], &text[at..]], &[handbook()]);
            assert_eq!(answer.text, text);
            assert!(answer.findings[0].reason.contains("JSON"), "{:?}", answer.findings);
        }
    }
    assert!(answered("", None, &["{a} and [b]"], &[handbook()]).text.contains("Bees at Home"));
}
