//! The words before a number, found by one automaton for all lists (Aho and Corasick, 1975).

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use crate::national;
use crate::text::{Text, is_word};
use crate::words;

/// How far before a number its words may stand, in bytes.
pub const REACH: usize = 72;

/// A list of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// [`words::PHONE`]
    Phone,
    /// [`words::PASSPORT`]
    Passport,
    /// [`words::DRIVING`]
    Driving,
    /// [`words::IDENTITY_CARD`]
    IdentityCard,
    /// [`words::NAMED`]
    Named,
    /// [`words::IDENTITY`]
    Identity,
    /// The words of a national number, by its place among them.
    National(usize),
}

const FIXED: [&[&str]; 6] =
    [words::PHONE, words::PASSPORT, words::DRIVING, words::IDENTITY_CARD, words::NAMED, words::IDENTITY];

impl List {
    fn number(self) -> usize {
        match self {
            List::Phone => 0,
            List::Passport => 1,
            List::Driving => 2,
            List::IdentityCard => 3,
            List::Named => 4,
            List::Identity => 5,
            List::National(place) => FIXED.len() + place,
        }
    }
}

/// All words, and the lists that have them.
struct Words {
    /// None if it cannot be built, as it can: a test builds it.
    automaton: Option<AhoCorasick>,
    /// For each word the numbers of its lists, and whether it must end where it ends.
    lists: Vec<(Vec<usize>, bool)>,
    count: usize,
}

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let lists: Vec<&[&str]> = FIXED.into_iter().chain(national::numbers().map(|number| number.words)).collect();
    let mut of_word: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, words) in lists.iter().enumerate() {
        words.iter().for_each(|word| of_word.entry(word).or_default().push(number));
    }
    let automaton = AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .build(of_word.keys().map(|word| word.trim_end_matches('|')))
        .ok();
    let count = lists.len();
    Words { automaton, lists: of_word.into_iter().map(|(word, lists)| (lists, word.ends_with('|'))).collect(), count }
});

/// Makes the automaton, which takes about a millisecond, before it is needed.
pub fn prepare() {
    LazyLock::force(&WORDS);
}

/// What stands before a place of a text. It is looked at when it is asked for.
pub struct Context<'a> {
    text: &'a Text<'a>,
    at: usize,
    seen: OnceCell<Seen>,
}

struct Seen {
    /// In lower case.
    window: String,
    /// For each list, the last of its words: first byte, and byte behind.
    last: Vec<Option<(usize, usize)>>,
}

impl<'a> Context<'a> {
    /// What stands before this byte.
    pub fn new(text: &'a Text<'a>, at: usize) -> Self {
        Context { text, at, seen: OnceCell::new() }
    }

    fn seen(&self) -> &Seen {
        self.seen.get_or_init(|| {
            let window = self.text.context(self.at, REACH);
            let mut last = vec![None; WORDS.count];
            for m in WORDS.automaton.iter().flat_map(|automaton| automaton.find_overlapping_iter(&window)) {
                let (lists, whole) = &WORDS.lists[m.pattern().as_usize()];
                let begins = !window[..m.start()].chars().next_back().is_some_and(is_word);
                let ends = !whole || !window[m.end()..].chars().next().is_some_and(is_word);
                if begins && ends {
                    lists.iter().for_each(|&list| last[list] = last[list].max(Some((m.start(), m.end()))));
                }
            }
            Seen { window, last }
        })
    }

    /// The text before, in lower case.
    pub fn window(&self) -> &str {
        &self.seen().window
    }

    /// How many bytes before the place the last word of the list ends; none where there is none behind the last `digits`
    /// digits in a row: what announced one number does not announce the next.
    pub fn distance(&self, list: List, digits: usize) -> Option<usize> {
        let seen = self.seen();
        let (start, end) = seen.last[list.number()]?;
        let mut row = 0;
        let is_disturbed = seen.window.as_bytes()[start..].iter().any(|b| {
            row = if b.is_ascii_digit() { row + 1 } else { 0 };
            row >= digits
        });
        (!is_disturbed).then(|| seen.window.len() - end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_words_are_found_by_one_automaton() {
        assert!(WORDS.automaton.is_some());
        for (number, words) in FIXED.iter().enumerate() {
            for word in words.iter() {
                let before = format!("{} ", word.trim_end_matches('|'));
                let text = format!("{before}123");
                let text = Text::new(&text);
                let context = Context::new(&text, before.len());
                assert!(context.seen().last[number].is_some(), "{word}: not in small letters?");
            }
        }
    }

    #[test]
    fn a_word_announces_one_number() {
        let text = "Tel. 0301234567, Pass 12, 99";
        let reading = Text::new(text);
        let at = |place: usize| Context::new(&reading, place);
        assert_eq!(at(5).distance(List::Phone, 5), Some(1));
        assert_eq!(at(text.len()).distance(List::Phone, 5), None);
    }
}
