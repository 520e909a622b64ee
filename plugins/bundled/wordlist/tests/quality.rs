//! How often a listed word is found where it stands in another guise, and how often where it does not stand.
//!
//! Each line of `sentences.txt` is a language, a word of its list, and a sentence in which the word stands once between
//! ⟦ and ⟧, or in which it does not stand, though a longer or a similar word may.

use std::collections::BTreeMap;
use std::ops::Range;

use safelmm_plugin::testing::configure;
use safelmm_plugin::{Finding, Policy, Request, Verdict};
use safelmm_policy_wordlist::Wordlist;

/// A name, and what it makes of a character.
type Guise = (&'static str, fn(char) -> String);

fn wide(c: char) -> String {
    let wide = c.is_ascii_graphic().then(|| char::from_u32(u32::from(c) + 0xfee0)).flatten();
    wide.unwrap_or(c).to_string()
}

fn accented(c: char) -> String {
    match "aeiouyαεηιουωаеиоуыэюя".contains(c) {
        true => format!("{c}\u{301}"),
        false => c.to_string(),
    }
}

fn replaced(c: char, letters: &str, others: &str) -> String {
    let place = letters.chars().position(|letter| letter == c);
    place.and_then(|place| others.chars().nth(place)).unwrap_or(c).to_string()
}

const GUISES: [Guise; 7] = [
    ("as it is", |c| c.to_string()),
    ("capitals", |c| c.to_uppercase().to_string()),
    ("full width", wide),
    ("invisible characters", |c| format!("{c}\u{200b}")),
    ("accents", accented),
    ("digits and signs", |c| replaced(c, "aeiost", "431057")),
    ("Cyrillic letters", |c| replaced(c, "aceopxy", "асеорху").to_string()),
];

/// Where the policy finds something.
fn found(policy: &Wordlist, text: &str) -> Vec<Range<usize>> {
    match policy.screen_prompt(&Request::new("1"), text) {
        Verdict::Flag(findings) => {
            let span = |finding: Finding| finding.where_.map(|span| span.start as usize..span.end as usize);
            findings.into_iter().filter_map(span).collect()
        }
        _ => Vec::new(),
    }
}

#[derive(Default)]
struct Counts {
    right: usize,
    missed: usize,
}

#[test]
fn precision_and_recall() {
    let lines: Vec<[&str; 3]> = include_str!("sentences.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('\t').collect::<Vec<_>>().try_into().unwrap())
        .collect();
    let (mut by_guise, mut wrong, mut without) = (BTreeMap::<&str, Counts>::new(), 0, 0);
    let mut mistakes = Vec::new();
    for [language, word, sentence] in lines {
        let settings = format!(r#"{{"lists": [{{"name": "test", "words": ["{word}"], "action": "flag"}}]}}"#);
        let policy = configure::<Wordlist>(&settings).unwrap();
        let Some((before, rest)) = sentence.split_once('⟦') else {
            without += 1;
            let extra = found(&policy, sentence).len();
            wrong += extra;
            mistakes.extend((extra > 0).then(|| format!("{language}: {word} found in {sentence}")));
            continue;
        };
        let (stands, after) = rest.split_once('⟧').unwrap();
        for (name, change) in GUISES {
            let guise: String = stands.chars().map(change).collect();
            if name != "as it is" && guise == stands {
                continue; // not of this script
            }
            let text = format!("{before}{guise}{after}");
            let expected = before.len()..before.len() + guise.trim_end_matches('\u{200b}').len();
            let spans = found(&policy, &text);
            let hit = spans.iter().any(|span| span.start == expected.start && span.end >= expected.end);
            wrong += spans.len() - usize::from(hit);
            let counts = by_guise.entry(name).or_default();
            match hit {
                true => counts.right += 1,
                false => {
                    counts.missed += 1;
                    mistakes.push(format!("{language}: {word} not found as {guise:?} in {text}"));
                }
            }
        }
    }
    println!("{}", mistakes.join("\n"));
    println!("{:22} {:>5} {:>6}", "the word stands", "items", "recall");
    for (name, Counts { right, missed }) in &by_guise {
        println!("{name:22} {:>5} {:>6.3}", right + missed, *right as f64 / (right + missed) as f64);
    }
    let (right, items) = by_guise.values().fold((0, 0), |(r, n), c| (r + c.right, n + c.right + c.missed));
    let (precision, recall) = (right as f64 / (right + wrong) as f64, right as f64 / items as f64);
    println!("{:22} {items:>5} {recall:>6.3}, precision {precision:.3}; {without} sentences without it", "all");
    assert!(precision >= 0.95 && recall >= 0.95, "precision {precision:.3}, recall {recall:.3}");
}
