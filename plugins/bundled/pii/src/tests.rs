use std::rc::Rc;

use proptest::prelude::*;
use safelmm_plugin::testing::{assert_vectors, configure, stream};
use safelmm_plugin::{Outcome, Passage, Policy, Request, Verdict};

use super::*;

/// What is found in the labelled texts is found in streams too, and what is not there is not found.
fn lines() -> impl Iterator<Item = String> {
    let lines = include_str!("../tests/labelled.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let unmarked = line.replace('⟧', "");
        let parts: Vec<&str> = unmarked.split('⟦').collect();
        let values = parts[1..].iter().map(|part| part.split_once('|').unwrap().1);
        parts[..1].iter().copied().chain(values).collect()
    })
}

fn policy(settings: &str) -> Rc<Pii> {
    Rc::new(configure::<Pii>(settings).unwrap())
}

fn redacted(policy: &Pii, text: &str) -> String {
    match policy.screen_prompt(&Request::new("r"), text) {
        Verdict::Allow => text.to_owned(),
        Verdict::Rewrite(rewriting) => rewriting.text,
        other => panic!("{other:?}"),
    }
}

fn streamed(policy: &Rc<Pii>, pieces: &[&str]) -> String {
    stream(policy, &Request::new("r"), "", pieces, &[]).unwrap().text
}

fn characters(text: &str) -> Vec<&str> {
    text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect()
}

#[test]
fn vectors() {
    assert_vectors::<Pii>();
}

#[test]
fn a_stream_cut_anywhere_gives_what_the_whole_text_gives() {
    let policy = policy("");
    for text in lines() {
        let whole = redacted(&policy, &text);
        assert_eq!(streamed(&policy, &characters(&text)), whole);
        for (at, _) in text.char_indices() {
            assert_eq!(streamed(&policy, &[&text[..at], &text[at..]]), whole, "cut at {at}");
        }
    }
}

#[test]
fn neighbours_in_a_stream_do_not_change_what_is_found() {
    let policy = policy("");
    let all: Vec<String> = lines().collect();
    for pair in all.windows(2) {
        for between in [" ", "\n", ". "] {
            let text = pair.join(between);
            assert_eq!(streamed(&policy, &characters(&text)), redacted(&policy, &text), "{text}");
        }
    }
}

const KEY: &str = "-----BEGIN RSA PRIVATE KEY-----\n\
    MIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Qu\n\
    KUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQJAIJLixBy2qpFoS4DSmoEm\n\
    o3qGy0t6z09AIJtH+5OeRV1be+N4cDYJKffGzDa88vQENZiRm0GRq6a+HPGQMd2k\n\
    TQIhAKMSvzIBnni7ot/OSie2TmJLY4SwTQAevXysE2RbFDYdAiEBCUEaRQnMnbp7\n\
    9mxDXDf6AU0cN/RPBjb9qSHDcWZHGzUCIG2Es59z8ugGrDY+pxLQnwfotadxd+Uy\n\
    v/Ow5T0q5gIJAiEAyS4RaI9YG8EWx/2w0T67ZUVAw8eOMB6BIUg0Xcu+3okCIBOs\n\
    /5OiPgoTdSy7bcF9IGpSE8ZgGKzgYQVZeN97YE00\n\
    -----END RSA PRIVATE KEY-----";

#[test]
fn a_private_key_goes_whole_however_long_it_is() {
    let policy = policy("");
    for text in [
        format!("Here it is:\n{KEY}\nKeep it safe."),
        format!("Here it is:\n{}\nKeep it safe.", KEY.replace(" RSA", "")),
        format!("{{\"k\": \"{}\"}}", KEY.replace('\n', "\\n")),
        KEY.to_owned(),
        KEY[..300].to_owned(),
        KEY.replace("KEY-----\nMII", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF\n\nMII"),
    ] {
        let whole = redacted(&policy, &text);
        assert!(whole.contains("[SECRET]") && !whole.contains("MII") && !whole.contains("AJB"), "{whole}");
        assert_eq!(whole.contains("Keep it safe."), text.contains("Keep it safe."), "{whole}");
        assert_eq!(streamed(&policy, &characters(&text)), whole);
        for at in (0..text.len()).step_by(7) {
            assert_eq!(streamed(&policy, &[&text[..at], &text[at..]]), whole, "cut at {at}");
        }
    }
    let public = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj3\n-----END PUBLIC KEY-----";
    assert_eq!(redacted(&policy, public), public);
    let named = "A file begins with -----BEGIN PRIVATE KEY----- and then come lines.";
    assert!(redacted(&policy, named).ends_with(" and then come lines."));
}

#[test]
fn invisible_and_wide_characters_hide_nothing() {
    let policy = policy("");
    for text in [
        "jo\u{200b}hn@exam\u{ad}ple.org",
        "ＤＥ８９ ３７０４ ００４４ ０５３２ ０１３０ ００",
        "4111\u{a0}1111\u{202f}1111\u{2009}1111",
        "070761\u{2011}4285",
        "+49\u{a0}30\u{2013}1234567",
        "ghp_16C7e42F292c69\u{2060}12E7710c838347Ae178B4a",
        "هاتف ٠٥٠١٢٣٤٥٦٧",
    ] {
        let whole = redacted(&policy, text);
        assert!(whole.contains('[') && !whole.contains("4111"), "{text}: {whole}");
        assert_eq!(streamed(&policy, &characters(text)), whole);
    }
}

#[test]
fn modes_are_those_of_each_hook() {
    let text = "Write to anna@example.org.";
    let request = Request::new("r");
    let flag = policy(r#"{"mode": "flag", "passages": "deny", "answers": "off"}"#);
    let Verdict::Flag(findings) = flag.screen_prompt(&request, text) else { panic!() };
    let span = findings[0].where_.unwrap();
    assert_eq!(&text[span.start as usize..span.end as usize], "anna@example.org");
    assert_eq!(findings[0].category, "pii/email");
    let passage = Passage { source: safelmm_plugin::Document::new("d", "", "", "", ""), score: 1.0, text: text.into() };
    assert!(matches!(flag.filter_passages(&request, &[passage])[..], [Verdict::Deny(_)]));
    let answer = stream(&flag, &request, "", &[text], &[]).unwrap();
    assert_eq!((answer.outcome, &answer.text[..]), (Outcome::Allow, text));
    let deny = policy(r#"{"answers": "deny"}"#);
    let answer = stream(&deny, &request, "", &characters(text), &[]).unwrap();
    assert_eq!(answer.outcome, Outcome::Deny);
    assert!(!answer.text.contains("example"), "{}", answer.text);
    let flagged = policy(r#"{"answers": "flag"}"#);
    for pieces in [vec![text], characters(text), characters(KEY), vec![KEY]] {
        let answer = stream(&flagged, &request, "", &pieces, &[]).unwrap();
        assert_eq!(answer.text, pieces.concat());
        assert_eq!(answer.findings.len(), 1);
    }
}

#[test]
fn pseudonyms_are_alike_within_a_request_alone() {
    let policy = policy(r#"{"mode": "pseudonymise"}"#);
    let text = "Anna@example.org and anna@example.org and otto@example.org; DE89370400440532013000, DE89 3704 0044 0532 0130 00.";
    let pseudonyms = |request: &str| -> Vec<String> {
        let Verdict::Rewrite(rewriting) = policy.screen_prompt(&Request::new(request), text) else { panic!() };
        rewriting.text.split('[').skip(1).map(|part| part.split(']').next().unwrap().to_owned()).collect()
    };
    let first = pseudonyms("a");
    assert_eq!(first.len(), 5);
    assert!(first[0] == first[1] && first[1] != first[2] && first[3] == first[4], "{first:?}");
    assert!(first[0].starts_with("EMAIL-") && first[3].starts_with("IBAN-"));
    assert_eq!(pseudonyms("a"), first);
    assert_ne!(pseudonyms("b"), first);
    let request = Request::new("a");
    let answer = stream(&policy, &request, "", &characters(text), &[]).unwrap();
    assert!(first.iter().all(|pseudonym| answer.text.contains(pseudonym)), "{}", answer.text);
}

#[test]
fn what_is_allowed_passes() {
    let policy = policy(r#"{"allow": ["@example.org", "+49 30 1234567"], "kinds": ["email", "phone"]}"#);
    let text = "anna@example.org, +49-30-1234567, ANNA@EXAMPLE.ORG, 203.0.113.9";
    assert_eq!(redacted(&policy, text), text);
    assert_eq!(redacted(&policy, "a@example.com +49 30 1234568"), "[EMAIL] [PHONE]");
}

#[test]
fn wrong_settings_are_refused_with_their_place() {
    let pointers =
        |json: &str| -> Vec<String> { configure::<Pii>(json).err().unwrap().into_iter().map(|e| e.pointer).collect() };
    assert_eq!(
        pointers(r#"{"kinds": [], "threshold": 2, "allow": ["abc", "x"]}"#),
        ["/kinds", "/threshold", "/allow/1"]
    );
    assert_eq!(pointers(r#"{"kinds": ["email", "shoe-size"]}"#), ["/kinds/1"]);
    assert_eq!(pointers(r#"{"mode": "burn"}"#), ["/mode"]);
}

#[test]
fn a_word_without_end_is_not_held_for_ever_and_leaks_nothing() {
    let policy = policy("");
    for (front, secret) in [
        ("a".repeat(1300) + " ", "anna@example.org"),
        ("a/".repeat(700), "anna@example.org"),
        ("x".repeat(1300) + "=", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
        ("12 ".repeat(450), "DE89 3704 0044 0532 0130 00"),
        ("AB ".repeat(450), "4111 1111 1111 1111"),
        ("-".repeat(1300), "4111111111111111"),
    ] {
        let text = format!("{front}{secret} end");
        for size in [3, 100, 5000] {
            let pieces: Vec<String> =
                text.chars().collect::<Vec<_>>().chunks(size).map(|chunk| chunk.iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(|piece| &piece[..]).collect();
            let out = streamed(&policy, &pieces);
            assert!(
                !out.contains(secret) && out.ends_with("] end"),
                "{size}: {}",
                &out[out.len().saturating_sub(80)..]
            );
        }
    }
    // A token longer than what is held goes whole.
    let token = format!("password={}9aB! and more", "aB3".repeat(450));
    let out = streamed(&policy, &characters(&token));
    assert_eq!(out, "password=[SECRET] and more");
}

fn fragments() -> impl Strategy<Value = String> {
    let known: Vec<String> = lines().flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    let separators = prop::sample::select(vec![
        " ", " ", " ", "", ".", ", ", "\n", "-", ":", "/", "\u{a0}", "\u{200b}", "\n\n", "=",
    ]);
    let piece = prop_oneof![
        8 => prop::sample::select(known),
        1 => "[0-9+() .-]{1,24}",
        1 => "\\PC{0,6}",
    ];
    prop::collection::vec((piece, separators), 1..16)
        .prop_map(|parts| parts.into_iter().map(|(piece, separator)| piece + separator).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4000 }))]

    #[test]
    fn any_text_cut_anywhere_gives_what_it_gives_whole(
        text in fragments(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let policy = policy("");
        let whole = redacted(&policy, &text);
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| places[cut.index(places.len())]).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            pieces.push(&text[from..cut]);
            from = cut;
        }
        prop_assert_eq!(streamed(&policy, &pieces), whole.clone());
        prop_assert_eq!(streamed(&policy, &characters(&text)), whole);
    }

    #[test]
    fn spans_are_within_the_text_and_in_order(text in "\\PC{0,200}") {
        let mut over = 0;
        for m in policy("").find(&text) {
            prop_assert!(m.start >= over && m.end > m.start && text.get(m.start..m.end).is_some());
            over = m.end;
        }
    }
}
