//! The word lists of the rating rule, one file for each language, and the tables they are looked up in.
//!
//! A list is made of sections, `[category rating]`, of items between white space:
//!
//! | item        | stands for                                                                        |
//! |-------------|-----------------------------------------------------------------------------------|
//! | `kill`      | the word                                                                          |
//! | `kill\|s\|ed` | the word and the word with each ending                                            |
//! | `mutil/er/é`| the stem with each ending, never the stem alone                                   |
//! | `nužud*`    | every word with this beginning (four characters at least)                         |
//! | `shot_dead` | words in a row                                                                    |
//! | `war?`      | innocent in another of the languages ("war" is German for "was"): counts only where the text reads as this language |
//!
//! `[markers]` holds the common small words by which the language of a text is told, `[innocent]` turns of phrase
//! that hold a listed word and mean no harm ("shooting star"). Lists of languages written without spaces
//! (Chinese, Japanese) or with endings joined to the noun (Korean) are matched as substrings.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use safelmm_model::Rating;

use super::scan::{self, Scanner, Token};

/// What kind of matter a term belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Fighting, weapons, killing, torture.
    Violence,
    /// Blood, corpses, mutilation.
    Gore,
    /// Alcohol, tobacco, drugs.
    Substances,
    /// Insults and strong language.
    Profanity,
    /// Nakedness, sexual references, sexual violence.
    Sexual,
    /// Peril and dread.
    Horror,
}

impl Category {
    /// All categories.
    pub const ALL: [Category; 6] = [
        Category::Violence,
        Category::Gore,
        Category::Substances,
        Category::Profanity,
        Category::Sexual,
        Category::Horror,
    ];

    /// The name used in the word lists and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Category::Violence => "violence",
            Category::Gore => "gore",
            Category::Substances => "substances",
            Category::Profanity => "profanity",
            Category::Sexual => "sexual",
            Category::Horror => "horror",
        }
    }
}

/// The languages of the lists, as ISO 639-1 codes, each with its list; English first.
const LISTS: [(&str, &str); 31] = [
    ("en", include_str!("lexicon/en.txt")),
    ("bg", include_str!("lexicon/bg.txt")),
    ("cs", include_str!("lexicon/cs.txt")),
    ("da", include_str!("lexicon/da.txt")),
    ("de", include_str!("lexicon/de.txt")),
    ("el", include_str!("lexicon/el.txt")),
    ("es", include_str!("lexicon/es.txt")),
    ("et", include_str!("lexicon/et.txt")),
    ("fi", include_str!("lexicon/fi.txt")),
    ("fr", include_str!("lexicon/fr.txt")),
    ("ga", include_str!("lexicon/ga.txt")),
    ("hr", include_str!("lexicon/hr.txt")),
    ("hu", include_str!("lexicon/hu.txt")),
    ("it", include_str!("lexicon/it.txt")),
    ("lt", include_str!("lexicon/lt.txt")),
    ("lv", include_str!("lexicon/lv.txt")),
    ("mt", include_str!("lexicon/mt.txt")),
    ("nl", include_str!("lexicon/nl.txt")),
    ("pl", include_str!("lexicon/pl.txt")),
    ("pt", include_str!("lexicon/pt.txt")),
    ("ro", include_str!("lexicon/ro.txt")),
    ("sk", include_str!("lexicon/sk.txt")),
    ("sl", include_str!("lexicon/sl.txt")),
    ("sv", include_str!("lexicon/sv.txt")),
    ("zh", include_str!("lexicon/zh.txt")),
    ("hi", include_str!("lexicon/hi.txt")),
    ("id", include_str!("lexicon/id.txt")),
    ("vi", include_str!("lexicon/vi.txt")),
    ("ja", include_str!("lexicon/ja.txt")),
    ("ko", include_str!("lexicon/ko.txt")),
    ("ar", include_str!("lexicon/ar.txt")),
];

/// Number of languages of the lists.
pub(super) const LANGUAGES: usize = LISTS.len();

/// The languages of the lists, as ISO 639-1 codes; English first.
pub fn languages() -> impl Iterator<Item = &'static str> {
    LISTS.iter().map(|(code, _)| *code)
}

/// A term of the lists that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedTerm {
    /// The word or words; the beginning of one where the list leaves its ending open.
    pub text: &'static str,
    /// ISO 639-1 code of its list.
    pub language: &'static str,
    /// What kind of matter it is.
    pub category: Category,
    /// PG, R or X.
    pub severity: Rating,
}

/// All terms of all lists, innocent turns of phrase left out.
pub fn terms() -> impl Iterator<Item = ListedTerm> {
    Lexicon::get().terms.iter().filter_map(|term| {
        let (category, severity) = term.sense?;
        let language = LISTS.get(term.language as usize)?.0;
        Some(ListedTerm { text: &term.text, language, category, severity })
    })
}

/// One form of one item, as a finding names it.
#[derive(Debug)]
pub(super) struct Term {
    pub text: String,
    pub language: u8,
    /// `None`: an innocent turn of phrase.
    pub sense: Option<(Category, Rating)>,
    /// Counts only in a text of its own language.
    pub own_language_only: bool,
}

/// What a word may begin or be.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Bit `i`: a marker of language `i`.
    pub markers: u32,
    /// Terms that are this word alone.
    pub terms: Vec<u32>,
    /// Terms that begin with this word, and the words that follow; longest first.
    pub phrases: Vec<(Vec<String>, u32)>,
}

type Table<K, V> = HashMap<K, V, BuildHasherDefault<WordHasher>>;

/// The lists in lookup form.
#[derive(Debug, Default)]
pub(super) struct Lexicon {
    terms: Vec<Term>,
    words: Table<String, Entry>,
    /// By their first four characters.
    beginnings: Table<String, Vec<(String, u32)>>,
    /// By their first character.
    substrings: HashMap<char, Vec<(String, u32)>>,
}

impl Lexicon {
    /// The one lexicon of the process, built at first use.
    pub fn get() -> &'static Lexicon {
        static LEXICON: OnceLock<Lexicon> = OnceLock::new();
        LEXICON.get_or_init(|| {
            let mut lexicon = Lexicon::default();
            for (language, (_, list)) in LISTS.iter().enumerate() {
                lexicon.add_list(language as u8, list);
            }
            for entry in lexicon.words.values_mut() {
                entry.phrases.sort_by_key(|(rest, _)| std::cmp::Reverse(rest.len()));
            }
            lexicon
        })
    }

    pub fn term(&self, id: u32) -> &Term {
        &self.terms[id as usize]
    }

    pub fn language_of(&self, id: u32) -> &'static str {
        LISTS[self.term(id).language as usize].0
    }

    /// The entry of a folded word.
    pub fn word(&self, word: &str) -> Option<&Entry> {
        self.words.get(word)
    }

    /// The terms that a folded word begins with.
    pub fn beginning<'a>(&'a self, word: &'a str) -> impl Iterator<Item = u32> + 'a {
        four_characters(word)
            .and_then(|start| self.beginnings.get(start))
            .into_iter()
            .flatten()
            .filter(move |(beginning, _)| word.starts_with(beginning.as_str()))
            .map(|(_, id)| *id)
    }

    /// The longest substring term that `text` starts with, whose first character is `first`.
    pub fn substring(&self, first: char, text: &str) -> Option<(usize, u32)> {
        self.substrings
            .get(&first)?
            .iter()
            .filter(|(term, _)| text.starts_with(term.as_str()))
            .map(|(term, id)| (term.len(), *id))
            .max()
    }

    fn add_list(&mut self, language: u8, list: &str) {
        let mut section = None;
        for line in list.lines() {
            if let Some(header) = line.strip_prefix('[') {
                section = section_of(header.trim_end().trim_end_matches(']'));
                continue;
            }
            for item in line.split_whitespace() {
                match section {
                    Some(Section::Markers) => {
                        self.words.entry(scan::fold(item)).or_default().markers |= 1 << language;
                    }
                    Some(Section::Innocent) => self.add_item(language, item, None),
                    Some(Section::Terms(category, rating)) => {
                        self.add_item(language, item, Some((category, rating)));
                    }
                    None => {}
                }
            }
        }
    }

    fn add_item(&mut self, language: u8, item: &str, sense: Option<(Category, Rating)>) {
        let (item, own_language_only) = match item.strip_suffix('?') {
            Some(item) => (item, true),
            None => (item, false),
        };
        let (item, open) = match item.strip_suffix('*') {
            Some(item) => (item, true),
            None => (item, false),
        };
        let mut forms = Vec::new();
        if let Some((stem, endings)) = item.split_once('/') {
            forms.extend(endings.split('/').map(|ending| format!("{stem}{ending}")));
        } else {
            let mut parts = item.split('|');
            let stem = parts.next().unwrap_or_default();
            forms.push(stem.to_owned());
            forms.extend(parts.map(|ending| format!("{stem}{ending}")));
        }
        forms.dedup();
        for form in forms {
            let text = form.replace('_', " ");
            let id = self.terms.len() as u32;
            self.terms.push(Term { text: text.clone(), language, sense, own_language_only });
            if let Some(first) = text.chars().next().filter(|c| scan::is_joined_script(*c)) {
                self.substrings.entry(first).or_default().push((text, id));
                continue;
            }
            let mut words = Vec::new();
            let mut scanner = Scanner::new(&text);
            let mut buffer = String::new();
            while let Some(token) = scanner.next(&mut buffer) {
                if token == Token::Word {
                    words.push(buffer.clone());
                }
            }
            match (words.len(), open) {
                (0, _) => {}
                (1, true) => {
                    if let Some(start) = four_characters(&words[0]) {
                        let start = start.to_owned();
                        self.beginnings.entry(start).or_default().push((words.remove(0), id));
                    }
                }
                (1, false) => self.words.entry(words.remove(0)).or_default().terms.push(id),
                _ => {
                    let first = words.remove(0);
                    self.words.entry(first).or_default().phrases.push((words, id));
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Section {
    Markers,
    Innocent,
    Terms(Category, Rating),
}

fn section_of(header: &str) -> Option<Section> {
    match header {
        "markers" => Some(Section::Markers),
        "innocent" => Some(Section::Innocent),
        _ => {
            let (category, rating) = header.split_once(' ')?;
            let category = Category::ALL.into_iter().find(|c| c.as_str() == category)?;
            Some(Section::Terms(category, rating.parse().ok()?))
        }
    }
}

fn four_characters(word: &str) -> Option<&str> {
    let (last, c) = word.char_indices().nth(3)?;
    word.get(..last + c.len_utf8())
}

/// Multiplies and shifts, eight bytes at a time: the keys are short words of a fixed list, so that nobody can choose collisions.
#[derive(Default)]
pub(super) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mixed = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 = mixed ^ (mixed >> 29);
        }
    }

    fn finish(&self) -> u64 {
        // hashbrown takes its control byte from the top bits
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_parses_and_has_strong_terms() {
        for (code, list) in LISTS {
            for line in list.lines().filter(|l| l.starts_with('[')) {
                let header = line.trim_start_matches('[').trim_end_matches(']');
                assert!(section_of(header).is_some(), "{code}: {line}");
            }
        }
        let lexicon = Lexicon::get();
        for (language, (code, _)) in LISTS.iter().enumerate() {
            let count = |rating| {
                lexicon
                    .terms
                    .iter()
                    .filter(|t| t.language as usize == language)
                    .filter(|t| t.sense.is_some_and(|s| s.1 == rating))
                    .count()
            };
            assert!(count(Rating::R) >= 15, "{code}: {} R terms", count(Rating::R));
            assert!(count(Rating::X) >= 5, "{code}: {} X terms", count(Rating::X));
        }
    }

    #[test]
    fn open_items_are_long_enough_to_be_found() {
        let lexicon = Lexicon::get();
        let open = lexicon.beginnings.values().map(Vec::len).sum::<usize>();
        let listed: usize = LISTS
            .iter()
            .flat_map(|(_, list)| list.split_whitespace())
            .filter(|i| i.trim_end_matches('?').ends_with('*'))
            .count();
        assert_eq!(open, listed);
    }
}
