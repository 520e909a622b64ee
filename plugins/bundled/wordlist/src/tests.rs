use std::rc::Rc;

use proptest::prelude::*;
use safelmm_plugin::testing::{assert_vectors, configure, stream};
use safelmm_plugin::{Outcome, Policy, Request, Verdict};

use super::*;

fn policy(settings: &str) -> Rc<Wordlist> {
    Rc::new(configure::<Wordlist>(settings).unwrap())
}

fn list(words: &[&str], rest: &str) -> String {
    format!(r#"{{"lists": [{{"name": "l", "words": {words:?}{rest}}}]}}"#)
}

fn whole(policy: &Wordlist, text: &str) -> String {
    match policy.screen_prompt(&Request::new("r"), text) {
        Verdict::Allow | Verdict::Flag(_) => text.to_owned(),
        Verdict::Rewrite(rewriting) => rewriting.text,
        other => panic!("{other:?}"),
    }
}

fn streamed(policy: &Rc<Wordlist>, pieces: &[&str]) -> String {
    stream(policy, &Request::new("r"), "", pieces, &[]).unwrap().text
}

fn characters(text: &str) -> Vec<&str> {
    text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect()
}

#[test]
fn vectors() {
    assert_vectors::<Wordlist>();
}

#[test]
fn accents_and_leetspeak_matter_where_it_is_set() {
    let strict = policy(&list(&["mà", "leet"], r#", "ignore_accents": false, "leetspeak": false"#));
    assert_eq!(whole(&strict, "ma má mà MÀ m\u{61}\u{300} l33t leet"), "ma má *** *** *** l33t ***");
    let loose = policy(&list(&["mà", "leet"], ""));
    assert_eq!(whole(&loose, "ma má mà l33t 1337"), "*** *** *** *** 1337");
}

#[test]
fn the_stricter_list_wins_and_then_the_longer_word() {
    let settings = r#"{"lists": [
        {"name": "a", "words": ["red cabbage soup"], "mask": "A"},
        {"name": "b", "words": ["cabbage"], "mask": "B"},
        {"name": "c", "words": ["soup"], "action": "flag"}
    ]}"#;
    let both = policy(settings);
    assert_eq!(whole(&both, "red cabbage soup, cabbage, soup"), "A, B, soup");
    assert_eq!(streamed(&both, &characters("red cabbage soup, cabbage, soup")), "A, B, soup");
    assert_eq!(streamed(&both, &characters("red cabbage stew")), "red B stew");
}

#[test]
fn exactly_the_end_that_may_become_a_word_is_held() {
    let policy = policy(&list(&["turnip", "red cabbage"], ""));
    let held = |text: &str| {
        let mut session = policy.session(&Request::new("r"), "");
        match session.inspect_stream(&policy, text, None) {
            Action::Pass => 0,
            Action::Hold(bytes) => bytes as usize,
            Action::Replace(replacement) => replacement.hold as usize,
            Action::Stop(_) => panic!(),
        }
    };
    for (text, bytes) in [
        ("Hello", 0),
        ("Hello ", 0),
        ("A turn", 4),
        ("A turnip", 6),
        ("A turnip.", 0),
        ("A saturn", 0),
        ("red", 3),
        ("red \n", 5),
        ("red  cab", 8),
        ("red ca ", 0),
        ("A t", 1),
        ("7ur", 3),
        ("tur!", 0),
        ("turn!", 5),
        ("tu\u{200b}r", 6),
        ("шt", 0),
    ] {
        assert_eq!(held(text), bytes, "{text:?}");
    }
}

#[test]
fn invisible_characters_without_end_are_not_held_for_ever() {
    let policy = policy(&list(&["turnip"], ""));
    let text = format!("tur{}nip", "\u{200b}".repeat(5000));
    let pieces = characters(&text);
    let mut session = policy.session(&Request::new("r"), "");
    let mut pending = String::new();
    for piece in pieces {
        pending.push_str(piece);
        match session.inspect_stream(&policy, &pending, None) {
            Action::Pass => pending.clear(),
            Action::Hold(bytes) => {
                assert!(bytes as usize <= HELD + CONTEXT * 2);
                pending.drain(..pending.len() - bytes as usize);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn wrong_settings_are_refused_with_their_place() {
    let pointers = |json: &str| -> Vec<String> {
        configure::<Wordlist>(json).err().unwrap().into_iter().map(|e| e.pointer).collect()
    };
    assert_eq!(
        pointers(r#"{"lists": [{"name": "l", "words": ["a", " ", "\u200b"]}]}"#),
        ["/lists/0/words/1", "/lists/0/words/2"]
    );
    assert_eq!(
        pointers(&list(&[], r#", "category": "x", "hooks": []"#)),
        ["/lists/0/words", "/lists/0/hooks", "/lists/0/category"]
    );
    assert_eq!(pointers(&list(&["a", &"b".repeat(300)], "")), ["/lists/0/words/1"]);
    assert_eq!(pointers(r#"{"lists": [{"words": ["a"]}]}"#), ["/lists/0"]);
    assert_eq!(pointers(&list(&["a"], r#", "action": "burn""#)), ["/lists/0/action"]);
}

#[test]
fn a_finding_names_the_list_and_the_place() {
    let policy = policy(&list(&["Straße"], r#", "action": "flag", "category": "hate""#));
    let text = "Die STRASSE dort";
    let Verdict::Flag(findings) = policy.screen_prompt(&Request::new("r"), text) else { panic!() };
    let span = findings[0].where_.unwrap();
    assert_eq!(&text[span.start as usize..span.end as usize], "STRASSE");
    assert_eq!((&findings[0].category[..], findings[0].reason.contains("\"l\"")), ("hate", true));
    let answer = stream(&policy, &Request::new("r"), "", &characters(text), &[]).unwrap();
    assert_eq!((answer.outcome, &answer.text[..], answer.findings.len()), (Outcome::Rewrite, text, 1));
}

#[test]
fn many_words_take_little_time_to_configure() {
    let words: Vec<String> = (0..5000).map(|n| format!("word{n} phrase{}", n * 7)).collect();
    let policy = policy(&list(&words.iter().map(|word| &word[..]).collect::<Vec<_>>(), ""));
    assert_eq!(whole(&policy, "a word4999 phrase34993 here"), "a *** here");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4000 }))]

    #[test]
    fn any_text_cut_anywhere_gives_what_it_gives_whole(
        parts in prop::collection::vec(prop::sample::select(vec![
            "ab", "abc", "c", "ca", "b", "a", " ", "  ", ".", "!", "1", "l", "4b", "é", "e\u{301}", "e", "\u{301}", "\u{200b}", "ß", "s", "ss",
            "カ", "ブ", "순", "무", "म", "ा", "\n", "$", "|", "x", "ａ", "\u{ad}", "Σ", "ς", "@", "ﬁ", "fi",
        ]), 0..14),
        words in prop::collection::vec(prop::sample::select(vec![
            "abc", "ab", "ca b", "*bc", "ab*", "é", "caé", "ass", "カブ", "순무", "मा", "li", "l", "b", "σσ", "fi", "c a", "b!c", "$a", "!",
        ]), 1..5),
    ) {
        let text = parts.concat();
        let policy = policy(&list(&words, ""));
        let expected = whole(&policy, &text);
        prop_assert_eq!(streamed(&policy, &characters(&text)), expected.clone());
        for (at, _) in text.char_indices() {
            prop_assert_eq!(streamed(&policy, &[&text[..at], &text[at..]]), expected.clone(), "cut at {}", at);
        }
    }

    #[test]
    fn any_text_and_words_do_no_harm(text in "\\PC{0,60}", word in "\\PC{1,8}") {
        if let Ok(policy) = configure::<Wordlist>(&list(&[&word], "")) {
            let policy = Rc::new(policy);
            prop_assert_eq!(streamed(&policy, &characters(&text)), whole(&policy, &text));
        }
    }
}
