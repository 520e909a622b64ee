use std::rc::Rc;

use safelmm_plugin::testing::{assert_vectors, configure, stream};
use safelmm_plugin::{Outcome, Policy, Request};

use super::*;

fn policy(settings: &str) -> Rc<Disclosure> {
    Rc::new(configure::<Disclosure>(settings).unwrap())
}

/// The answer that leaves, the same however the text is cut.
fn answer(settings: &str, prompt: &str, text: &str) -> String {
    let policy = policy(settings);
    let run = |pieces: &[&str]| stream(&policy, &Request::new("r"), prompt, pieces, &[]).unwrap().text;
    let whole = run(&[text]);
    let letters: Vec<&str> = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect();
    assert_eq!(run(&letters), whole, "letter by letter");
    assert_eq!(run(&text.split_inclusive(' ').collect::<Vec<_>>()), whole, "word by word");
    whole
}

#[test]
fn vectors() {
    assert_vectors::<Disclosure>();
}

#[test]
fn every_language_has_vectors_and_its_sentence_says_what_it_must() {
    let policy = policy("");
    for language in Language::all() {
        let prefix = format!("{} ", language.code());
        let own: Vec<_> = Disclosure::vectors().into_iter().filter(|v| v.name.starts_with(&prefix)).collect();
        assert!(own.iter().any(|v| v.expected == Outcome::Flag), "{}: a question", language.code());
        assert!(own.iter().any(|v| v.expected == Outcome::Allow), "{}: another prompt", language.code());
        let sentence = policy.sentence(language);
        let found = policy.judge.findings(sentence, Some(language));
        assert!(found.iter().any(|f| f.category == "says"), "{}: {sentence}", language.code());
        assert!(found.iter().all(|f| f.category != "claim"), "{}: {sentence}", language.code());
    }
}

#[test]
fn an_answer_says_that_an_ai_gives_it() {
    let asked = "Are you a real person?";
    assert_eq!(answer("", asked, "Nice to meet you."), "I am an AI, not a human being. Nice to meet you.");
    assert_eq!(answer("", asked, "I am an AI. Hello!"), "I am an AI. Hello!");
    assert_eq!(answer("", asked, "Yes, I am a human. Hello!"), "I am an AI, not a human being. Hello!");
    assert_eq!(answer("", asked, "Yes."), "I am an AI, not a human being.");
    assert_eq!(answer("", asked, ""), "I am an AI, not a human being.");
    assert_eq!(answer("", asked, "Hello there. I am a real person."), "I am an AI, not a human being. Hello there.");
    assert_eq!(answer("", "Bist du ein Mensch?", "Guten Tag!"), "Ich bin eine KI und kein Mensch. Guten Tag!");
    let settings = r#"{"sentences": {"en": "This is a machine."}}"#;
    assert_eq!(answer(settings, asked, "Hi, you."), "This is a machine. Hi, you.");
}

#[test]
fn other_answers_stay_as_they_are() {
    for text in ["I am a human, said the robot. It lied.", "42", "", "One.\nTwo."] {
        assert_eq!(answer("", "Write a story about a robot.", text), text);
    }
}

#[test]
fn wrong_settings_are_named() {
    let pointers = |settings: &str| -> Vec<String> {
        configure::<Disclosure>(settings).err().unwrap().into_iter().map(|e| e.pointer).collect()
    };
    assert_eq!(pointers(r#"{"sentences": {"qq": "x", "de": " "}}"#), ["/sentences/de", "/sentences/qq"]);
}
