//! Lists of words as automata (Aho and Corasick, 1975), and what they find.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use safelmm_plugin::SettingError;

use crate::settings::{CATEGORIES, List};
use crate::view::{Folding, View, is_agglutinated, is_spaceless, is_word};

/// The longest word or phrase, in bytes of its folded form: so much of an answer may be held.
const LONGEST: usize = 256;

/// A word that was found, in bytes of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The list, by its number.
    pub list: usize,
    /// The first byte.
    pub start: usize,
    /// The byte behind.
    pub end: usize,
}

/// The words of all lists.
pub struct Matcher {
    groups: Vec<Group>,
}

/// The words that are compared in one way.
struct Group {
    folding: Folding,
    automaton: AhoCorasick,
    words: Vec<Word>,
    /// The numbers of the words that must begin a word of the text, and of the others, in the order of their letters.
    beginning: Vec<usize>,
    anywhere: Vec<usize>,
    longest: usize,
}

struct Word {
    text: String,
    list: usize,
    goes_on_left: bool,
    goes_on_right: bool,
}

/// What is wrong with lists: words that are empty or too long, categories that are none.
pub fn errors(lists: &[List]) -> Vec<SettingError> {
    let mut errors = Vec::new();
    for (number, list) in lists.iter().enumerate() {
        check(number, list, &mut errors);
    }
    errors
}

impl Matcher {
    /// The lists of these numbers as automata.
    ///
    /// # Errors
    /// When their words are too many.
    pub fn new(lists: &[List], numbers: &[usize]) -> Result<Self, Vec<SettingError>> {
        let mut groups = Vec::new();
        for (accents, leet) in [(true, false), (true, true), (false, false), (false, true)] {
            let folding = Folding { accents, leet };
            let of_group = |list: &List| list.ignore_accents == accents && (!leet || list.leetspeak);
            let words: Vec<Word> = numbers
                .iter()
                .filter(|&&number| of_group(&lists[number]))
                .flat_map(|&number| lists[number].words.iter().map(move |word| Word::new(word, number, folding)))
                .filter(|word| !word.text.is_empty())
                .collect();
            if !words.is_empty() {
                groups.push(Group::new(folding, words).map_err(|error| {
                    vec![SettingError::new("/lists", format!("The words are too many for one automaton: {error}."))]
                })?);
            }
        }
        Ok(Matcher { groups })
    }

    /// What is found in a whole text, in its order, none over another: of those that overlap the one of the list that
    /// comes first in `strictness`, then the longest.
    pub fn find(&self, text: &str, strictness: &dyn Fn(usize) -> u8) -> Vec<Found> {
        let mut found = Vec::new();
        for group in &self.groups {
            group.find(&View::new(text, group.folding, true), &mut found);
        }
        without_overlaps(found, strictness)
    }

    /// What is found in a text that goes on, and the byte where its end begins that is not decided: what follows could
    /// make a word of it, or make none of what is one now.
    pub fn find_open(&self, text: &str, strictness: &dyn Fn(usize) -> u8) -> (Vec<Found>, usize) {
        let mut found = Vec::new();
        let mut open = text.len();
        for group in &self.groups {
            let view = View::new(text, group.folding, false);
            group.find(&view, &mut found);
            if let Some(at) = group.open(&view) {
                open = open.min(at);
            }
        }
        // A word that reaches into the undecided end waits with it.
        while let Some(start) = found.iter().filter(|f| f.end > open && f.start < open).map(|f| f.start).min() {
            open = start;
        }
        found.retain(|f| f.end <= open);
        (without_overlaps(found, strictness), open)
    }
}

fn check(number: usize, list: &List, errors: &mut Vec<SettingError>) {
    let pointer = |what: &str| format!("/lists/{number}/{what}");
    if list.words.is_empty() {
        errors.push(SettingError::new(pointer("words"), "A list needs at least one word."));
    }
    if list.hooks.is_empty() {
        errors.push(SettingError::new(pointer("hooks"), "A list that is looked for nowhere: name at least one place."));
    }
    if !CATEGORIES.contains(&&list.category[..]) {
        let message = format!("{:?} is not one of {}.", list.category, CATEGORIES.join(", "));
        errors.push(SettingError::new(pointer("category"), message));
    }
    for (place, word) in list.words.iter().enumerate() {
        let folded = Word::new(word, number, Folding { accents: list.ignore_accents, leet: false }).text;
        let message = if folded.is_empty() || !folded.chars().any(|c| !c.is_whitespace()) {
            format!("Nothing is left of {word:?} to look for.")
        } else if folded.len() > LONGEST {
            format!("{} bytes are too long: at most {LONGEST}.", folded.len())
        } else {
            continue;
        };
        errors.push(SettingError::new(pointer(&format!("words/{place}")), message));
    }
}

impl Word {
    fn new(word: &str, list: usize, folding: Folding) -> Self {
        let word = word.trim();
        let (word, goes_on_left) = word.strip_prefix('*').map_or((word, false), |word| (word, true));
        let (word, goes_on_right) = word.strip_suffix('*').map_or((word, false), |word| (word, true));
        let text = View::new(word, folding, true).text.trim().to_owned();
        Word { text, list, goes_on_left, goes_on_right }
    }

    /// Whether the word may stand behind this character.
    fn follows(&self, before: Option<char>) -> bool {
        let first = self.text.chars().next();
        self.goes_on_left || !continues_word(before, first)
    }

    /// Whether the word may stand before this character.
    fn precedes(&self, next: Option<char>) -> bool {
        let last = self.text.chars().next_back();
        self.goes_on_right || last.is_some_and(is_agglutinated) || !continues_word(last, next)
    }
}

/// Whether two characters are parts of one word.
fn continues_word(left: Option<char>, right: Option<char>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return false };
    is_word(left) && is_word(right) && !is_spaceless(left) && !is_spaceless(right)
}

impl Group {
    fn new(folding: Folding, words: Vec<Word>) -> Result<Self, aho_corasick::BuildError> {
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(words.iter().map(|word| &word.text))?;
        let sorted = |anywhere: bool| {
            let mut numbers: Vec<usize> = (0..words.len()).filter(|&n| words[n].goes_on_left == anywhere).collect();
            numbers.sort_by(|&a, &b| words[a].text.cmp(&words[b].text));
            numbers
        };
        let longest = words.iter().map(|word| word.text.len()).max().unwrap_or(0);
        Ok(Group { folding, automaton, beginning: sorted(false), anywhere: sorted(true), longest, words })
    }

    fn find(&self, view: &View, found: &mut Vec<Found>) {
        for m in self.automaton.find_overlapping_iter(&view.text) {
            let word = &self.words[m.pattern()];
            // What is written plainly is found by the group that reads plainly.
            if self.folding.leet && !view.is_disguise(m.start(), m.end()) {
                continue;
            }
            let before = view.text[..m.start()].chars().next_back();
            let next = view.text[m.end()..].chars().next();
            if word.follows(before) && word.precedes(next) {
                let origin = view.origin(m.start(), m.end());
                found.extend(origin.map(|(start, end)| Found { list: word.list, start, end }));
            }
        }
    }

    /// Where the longest end of the text begins that begins a word of the list, or is one.
    fn open(&self, view: &View) -> Option<usize> {
        let longest_open = |text: &str, is_whole: bool| {
            let mut from = text.len().saturating_sub(self.longest);
            while !text.is_char_boundary(from) {
                from += 1;
            }
            text[from..].char_indices().map(|(at, _)| from + at).find(|&at| self.begins(text, at, is_whole))
        };
        // With a sign at the end that may be a letter, and without it: then a word may have been over before it.
        let as_letter = longest_open(&view.text, false);
        let as_sign =
            (view.undecided > 0).then(|| longest_open(&view.text[..view.text.len() - view.undecided], true)).flatten();
        let at = as_letter.into_iter().chain(as_sign).min()?;
        view.origin(at, view.text.len()).map(|(start, _)| start)
    }

    /// Whether a word begins with, or is, what stands from here to the end of the text.
    fn begins(&self, text: &str, at: usize, is_whole: bool) -> bool {
        let (before, rest) = (text[..at].chars().next_back(), &text[at..]);
        let begins = |numbers: &[usize]| {
            let first = numbers.partition_point(|&n| &self.words[n].text[..] < rest);
            let word = numbers.get(first).map(|&n| &self.words[n].text[..]);
            word.is_some_and(|word| if is_whole { word == rest } else { word.starts_with(rest) })
        };
        begins(&self.anywhere) || (!continues_word(before, rest.chars().next()) && begins(&self.beginning))
    }
}

fn without_overlaps(mut found: Vec<Found>, strictness: &dyn Fn(usize) -> u8) -> Vec<Found> {
    found.sort_by_key(|f| (u8::MAX - strictness(f.list), usize::MAX - (f.end - f.start), f.start, f.list));
    let mut kept: Vec<Found> = Vec::with_capacity(found.len());
    for f in found {
        if kept.iter().all(|k| f.end <= k.start || k.end <= f.start) {
            kept.push(f);
        }
    }
    kept.sort_by_key(|f| f.start);
    kept
}
