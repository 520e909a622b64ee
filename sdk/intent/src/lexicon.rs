//! Terms of classes, found in folded texts.

use crate::language::of_script;
use crate::normal::BREAK;
use crate::{Language, Mask, Normal};

/// The term's last word may go on.
pub(crate) const OPEN: u8 = 1;
/// The term may begin inside a word.
pub(crate) const INSIDE: u8 = 2;
/// Accents count.
pub(crate) const EXACT: u8 = 4;

/// The term is of a script or language where every term may begin and end anywhere.
pub(crate) const WIDE: u8 = 8;

/// Stands in a term for the rest of a word.
pub(crate) const REST: u8 = 2;

/// The class of the words that tell languages apart.
const WORDS: u8 = 0;

/// Why bytes are no lexicon: they were not made by [`crate::compile`].
#[derive(Debug, thiserror::Error)]
#[error("the compiled lexicon ends early or is damaged at byte {0}: build the policy again")]
pub struct LexiconError(usize);

/// Terms of classes in 31 languages.
pub struct Lexicon {
    classes: Vec<&'static str>,
    messages: Vec<(Language, &'static str, &'static str)>,
    words: Table,
    inside: Table,
}

/// A term that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its class, a place in [`Lexicon::classes`].
    pub class: u8,
    /// The languages of which it is a term.
    pub mask: Mask,
    /// Its first word, a place in [`Normal::tokens`].
    pub first: u32,
    /// Its last word.
    pub last: u32,
    /// Its bytes in the folded text.
    pub bytes: (u32, u32),
}

/// What stands in a text.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The terms, in the order in which they begin.
    pub hits: Vec<Hit>,
    /// The language that fits best; none where nothing speaks for one.
    pub language: Option<Language>,
    /// The languages in which the text may be meant: the best one and those that fit nearly as well.
    pub candidates: Mask,
}

struct Term {
    text: &'static [u8],
    exact: &'static str,
    mask: Mask,
    class: u8,
    flags: u8,
}

/// Terms in the order of their bytes, with the first one for each pair of first bytes.
struct Table {
    terms: Vec<Term>,
    index: Vec<u32>,
}

impl Lexicon {
    /// Reads what [`crate::compile`] wrote. Costs one pass over the bytes and no sorting.
    ///
    /// # Errors
    /// Bytes that end early or are not text where text must stand.
    pub fn new(bytes: &'static [u8]) -> Result<Self, LexiconError> {
        let mut reader = Reader { bytes, at: 0 };
        let classes = (0..reader.number()?).map(|_| reader.string()).collect::<Result<_, _>>()?;
        let mut messages = Vec::new();
        for _ in 0..reader.number()? {
            let index = usize::from(reader.byte()?);
            let language = Language::all().nth(index).ok_or(LexiconError(reader.at))?;
            messages.push((language, reader.string()?, reader.string()?));
        }
        let words = reader.table()?;
        let inside = reader.table()?;
        Ok(Self { classes, messages, words, inside })
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[&'static str] {
        &self.classes
    }

    /// How many terms it has.
    pub fn len(&self) -> usize {
        self.words.terms.len() + self.inside.terms.len()
    }

    /// Whether it has no terms.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A message in a language, or in English where the language has none.
    pub fn message(&self, language: Option<Language>, key: &str) -> Option<&'static str> {
        let of = |language| self.messages.iter().find(|(l, k, _)| *l == language && *k == key).map(|m| m.2);
        language.and_then(of).or_else(|| of(Language::ENGLISH))
    }

    /// Finds the terms of a text and guesses its language; `text` is what `normal` was made from, `known` a language that is
    /// likelier than others.
    pub fn read(&self, text: &str, normal: &Normal, known: Option<Language>) -> Reading {
        let folded = normal.text();
        let mut hits = Vec::new();
        let script = script_of(folded);
        for (i, token) in normal.tokens().iter().enumerate() {
            let start = token.start as usize;
            let end = normal.tokens().get(i + 1).map_or(folded.len(), |t| t.start as usize);
            let word = folded[start..end].trim_end_matches([' ', BREAK]);
            let mut found = |limit: Mask, term: &Term, from: usize, to: usize| {
                let mask = term.mask.and(limit).and(script);
                if mask.is_empty() || (term.flags & EXACT != 0 && !written_so(&text[token.from as usize..], term.exact))
                {
                    return;
                }
                let last = normal.token_at(to - 1);
                // A stem stands for its whole word.
                let open = term.flags & OPEN != 0 && term.flags & WIDE == 0;
                let whole = normal.tokens().get(last + 1).map_or(folded.len(), |t| t.start as usize - 1);
                let (last, bytes) = (last as u32, (from as u32, if open { whole.max(to) } else { to } as u32));
                hits.push(Hit { class: term.class, mask, first: i as u32, last, bytes });
            };
            self.words.find(folded, start, |term, to| found(Mask::ALL, term, start, to));
            for (skip, limit) in stripped(word, script) {
                self.words.find(folded, start + skip, |term, to| found(limit, term, start + skip, to));
            }
            if !self.inside.terms.is_empty() {
                for (at, _) in word.char_indices() {
                    self.inside.find(folded, start + at, |term, to| found(Mask::ALL, term, start + at, to));
                }
            }
        }
        let (language, candidates) = guess(text, &hits, script, known);
        hits.retain(|h| h.class != WORDS);
        Reading { hits, language, candidates }
    }
}

/// Whether the original text begins with these letters, accents included, in either case.
fn written_so(original: &str, exact: &str) -> bool {
    use unicode_normalization::UnicodeNormalization;
    let mut letters = original.nfc().flat_map(char::to_lowercase);
    exact.chars().all(|c| letters.next() == Some(c))
}

/// Where a word may also begin: behind Arabic particles and the article, and behind the mutations of Irish initials.
fn stripped(word: &str, script: Mask) -> Vec<(usize, Mask)> {
    let (arabic, irish) = (const { Mask::of("ar") }, const { Mask::of("ga") });
    let mut starts = Vec::new();
    if script == arabic {
        for prefix in ["وال", "بال", "فال", "كال", "لل", "ال", "ولل", "وب", "ول", "و", "ب", "ل", "ف", "ك"]
        {
            if word.starts_with(prefix) && word[prefix.len()..].chars().count() >= 3 {
                starts.push((prefix.len(), arabic));
            }
        }
    } else if script.has(Language::ENGLISH) {
        let eclipsed = ["mb", "gc", "nd", "ng", "bp", "dt", "bhf", "ts"].iter().find(|p| word.starts_with(**p));
        if let Some(prefix) = eclipsed.filter(|_| word.len() >= 4) {
            starts.push((prefix.len() - 1, irish));
        } else if (word.starts_with('h') || word.starts_with('n') || word.starts_with('t')) && word.len() >= 4 {
            starts.push((1, irish));
        }
    }
    starts
}

/// The languages of the script that most letters belong to; kana among Han characters mean Japanese.
fn script_of(folded: &str) -> Mask {
    let mut counts: [(Mask, u32); 8] = Default::default();
    let japanese = const { Mask::of("ja") };
    let mut kana = 0;
    for c in folded.chars() {
        let Some(mask) = of_script(c) else { continue };
        let weight = if crate::normal::is_wide(c) { 2 } else { 1 };
        kana += u32::from(mask == japanese);
        if let Some(slot) = counts.iter_mut().find(|s| s.0 == mask || s.0.is_empty()) {
            *slot = (mask, slot.1 + weight);
        }
    }
    let wide = const { Mask::of("zh") }.or(japanese);
    let best = counts.iter().max_by_key(|s| s.1).map_or(Mask::ALL, |s| if s.1 == 0 { Mask::ALL } else { s.0 });
    if kana > 0 && (best == wide || best == japanese) { japanese } else { best }
}

/// Letters that few languages have.
const LETTERS: [(&str, Mask); 24] = [
    ("őű", Mask(Mask::of("hu").0)),
    ("řěů", Mask(Mask::of("cs").0)),
    ("ľĺŕô", Mask(Mask::of("sk").0)),
    ("ł", Mask(Mask::of("pl").0)),
    ("ęą", Mask(Mask::of("pl").0 | Mask::of("lt").0)),
    ("ß", Mask(Mask::of("de").0)),
    ("ñ¿¡", Mask(Mask::of("es").0)),
    ("ãç", Mask(Mask::of("pt").0)),
    ("õ", Mask(Mask::of("et").0 | Mask::of("pt").0)),
    ("ħġċ", Mask(Mask::of("mt").0)),
    ("șțăşţ", Mask(Mask::of("ro").0)),
    ("å", Mask(Mask::of("sv").0 | Mask::of("da").0)),
    ("øæ", Mask(Mask::of("da").0)),
    ("ėįų", Mask(Mask::of("lt").0)),
    ("ļņķģāēī", Mask(Mask::of("lv").0)),
    ("ū", Mask(Mask::of("lt").0 | Mask::of("lv").0)),
    ("đ", Mask(Mask::of("hr").0 | Mask::of("vi").0)),
    ("ơưạảấầẩẫậắằẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ", Mask(Mask::of("vi").0)),
    ("ć", Mask(Mask::of("hr").0 | Mask::of("pl").0)),
    ("ś", Mask(Mask::of("pl").0)),
    ("ż", Mask(Mask::of("pl").0 | Mask::of("mt").0)),
    ("ê", Mask(Mask::of("fr").0 | Mask::of("pt").0 | Mask::of("vi").0)),
    ("è", Mask(Mask::of("fr").0 | Mask::of("it").0)),
    ("ä", Mask(Mask::of("de").0 | Mask::of("fi").0 | Mask::of("et").0 | Mask::of("sv").0 | Mask::of("sk").0)),
];

fn guess(text: &str, hits: &[Hit], script: Mask, known: Option<Language>) -> (Option<Language>, Mask) {
    if script.len() == 1 {
        return (Language::all().find(|l| script.has(*l)), script);
    }
    let mut scores = [0.0f32; 31];
    let mut add = |mask: Mask, weight: f32| {
        for language in Language::all().filter(|l| mask.has(*l)) {
            scores[language.index()] += weight / mask.len() as f32;
        }
    };
    for hit in hits.iter().filter(|h| h.mask.len() < 20) {
        // Longer terms speak louder: few words of other languages look like them.
        add(hit.mask, if hit.class == WORDS { 1.0 } else { 0.6 } + 0.3 * (hit.last - hit.first) as f32);
    }
    if !text.is_ascii() {
        for c in text.chars().filter(|c| !c.is_ascii()).flat_map(char::to_lowercase) {
            for (_, mask) in LETTERS.iter().filter(|(letters, _)| letters.contains(c)) {
                add(*mask, 0.6);
            }
        }
    }
    if let Some(language) = known.filter(|l| script.has(*l)) {
        scores[language.index()] += 0.5;
    }
    let best = scores.iter().copied().fold(0.0, f32::max);
    if best == 0.0 {
        return (None, script);
    }
    let near = |l: &Language| script.has(*l) && scores[l.index()] >= best * 0.65;
    let mask = Language::all().filter(near).fold(Mask::default(), |m, l| m.or(Mask::only(l)));
    (Language::all().find(|l| scores[l.index()] == best), mask)
}

impl Table {
    fn new(terms: Vec<Term>) -> Self {
        let mut index = vec![0u32; 0x1_0001];
        for term in &terms {
            index[pair(term.text, 0) + 1] += 1;
        }
        for i in 1..index.len() {
            index[i] += index[i - 1];
        }
        Self { terms, index }
    }

    /// Calls `found` with each term that stands at byte `at`, and its end.
    fn find(&self, text: &str, at: usize, mut found: impl FnMut(&Term, usize)) {
        let bytes = text.as_bytes();
        let single = bytes.get(at).map_or(0, |b| usize::from(*b) << 8);
        let both = pair(bytes, at);
        self.walk(bytes, (single, 1), at + 1, &mut found);
        if both != single {
            self.walk(bytes, (both, 2), at + 2, &mut found);
        }
    }

    fn walk(&self, bytes: &[u8], (key, depth): (usize, usize), at: usize, found: &mut impl FnMut(&Term, usize)) {
        let range = (self.index[key] as usize, self.index[key + 1] as usize);
        self.narrow(bytes, range, depth, at, found);
    }

    /// Follows the terms of a range, which agree in their first `depth` bytes, along the text from byte `at`.
    fn narrow(
        &self,
        bytes: &[u8],
        (mut low, mut high): (usize, usize),
        mut depth: usize,
        mut at: usize,
        found: &mut impl FnMut(&Term, usize),
    ) {
        let ends = |at: usize| bytes.get(at).is_none_or(|b| *b == b' ' || *b == BREAK as u8);
        while low < high {
            let term = &self.terms[low];
            if term.text.len() == depth {
                // A byte that goes on with a character is none that a term ends before.
                let whole = bytes.get(at).is_none_or(|b| b & 0xC0 != 0x80);
                if whole && (term.flags & OPEN != 0 || ends(at)) {
                    found(term, at);
                }
                low += 1;
                continue;
            }
            let starting = |from: usize, byte: u8| {
                let range = &self.terms[from..high];
                from + range.partition_point(|t| t.text.get(depth).is_none_or(|b| *b <= byte))
            };
            if term.text[depth] == REST {
                let next = starting(low, REST);
                let rest = (at..=bytes.len()).find(|&i| ends(i)).unwrap_or(bytes.len());
                self.narrow(bytes, (low, next), depth + 1, rest, found);
                low = next;
                continue;
            }
            let Some(&byte) = bytes.get(at).filter(|b| **b > REST) else { break };
            low = starting(low, byte - 1);
            high = starting(low, byte);
            (depth, at) = (depth + 1, at + 1);
        }
    }
}

/// The first two bytes; the second is 0 for a single one.
fn pair(bytes: &[u8], at: usize) -> usize {
    let byte = |i| bytes.get(i).map_or(0, |b| usize::from(*b));
    byte(at) << 8 | byte(at + 1)
}

struct Reader {
    bytes: &'static [u8],
    at: usize,
}

impl Reader {
    fn take(&mut self, n: usize) -> Result<&'static [u8], LexiconError> {
        let slice = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end)).ok_or(LexiconError(self.at))?;
        self.at += n;
        Ok(slice)
    }

    fn byte(&mut self) -> Result<u8, LexiconError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32, LexiconError> {
        let at = self.at;
        let bytes = self.take(4)?;
        bytes.try_into().map(u32::from_le_bytes).map_err(|_| LexiconError(at))
    }

    fn string(&mut self) -> Result<&'static str, LexiconError> {
        let n = self.number()? as usize;
        let at = self.at;
        std::str::from_utf8(self.take(n)?).map_err(|_| LexiconError(at))
    }

    fn table(&mut self) -> Result<Table, LexiconError> {
        let mut terms = Vec::new();
        for _ in 0..self.number()? {
            let mask = Mask(self.number()?);
            let (class, flags) = (self.byte()?, self.byte()?);
            let text = self.string()?.as_bytes();
            let exact = if flags & EXACT != 0 { self.string()? } else { "" };
            terms.push(Term { text, exact, mask, class, flags });
        }
        Ok(Table::new(terms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lexicon(files: &[(&str, &str)]) -> Lexicon {
        let bytes = crate::compile(files.iter().copied()).unwrap();
        Lexicon::new(Box::leak(bytes.into_boxed_slice())).unwrap()
    }

    fn found(lexicon: &Lexicon, text: &str) -> Vec<(String, String)> {
        let normal = Normal::of(text);
        let reading = lexicon.read(text, &normal, None);
        let span = |h: &Hit| {
            let (first, last) = (normal.tokens()[h.first as usize], normal.tokens()[h.last as usize]);
            text[first.from as usize..last.to as usize].to_string()
        };
        reading.hits.iter().map(|h| (lexicon.classes()[usize::from(h.class)].to_string(), span(h))).collect()
    }

    #[test]
    fn stems_words_and_phrases_are_found_where_they_may_stand() {
        let lexicon = lexicon(&[
            ("de", "A: bombe*, wie man, *waffe*, schmutzig* bombe*\nB: =töt*\n"),
            ("zh", "A: 炸弹"),
            ("ar", "A: قنبل*"),
        ]);
        let pairs = |text| found(&lexicon, text).into_iter().map(|p| p.1).collect::<Vec<_>>();
        assert_eq!(pairs("Wie man Bomben findet"), ["Wie man", "Bomben"]);
        assert_eq!(pairs("Schusswaffen, Plumbombe"), ["Schusswaffen"]);
        assert_eq!(pairs("töten und Toten"), ["töten"]);
        assert_eq!(pairs("怎么做炸弹"), ["炸弹"]);
        assert_eq!(pairs("بالقنبلة"), ["بالقنبلة"]);
        assert!(pairs("wie. man").is_empty());
        assert_eq!(pairs("eine schmutzigen Bomben-Idee"), ["schmutzigen Bomben", "Bomben"]);
        assert!(pairs("schmutzig und bomb").is_empty());
    }

    #[test]
    fn languages_are_guessed() {
        let lexicon = lexicon(&[("de", "words: ich, nicht, der, in"), ("nl", "words: ik, niet, in"), ("ja", "A: 本")]);
        let guess = |text: &str| lexicon.read(text, &Normal::of(text), None).language.map(Language::code);
        assert_eq!(guess("Das weiß ich nicht"), Some("de"));
        assert_eq!(guess("ik niet"), Some("nl"));
        assert_eq!(guess("本を読む"), Some("ja"));
        assert_eq!(guess("Привет"), Some("bg"));
        assert_eq!(guess("12345"), None);
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let bytes = crate::compile([("en", "A: b")]).unwrap();
        for end in 0..bytes.len() {
            let cut: &'static [u8] = Box::leak(bytes[..end].to_vec().into_boxed_slice());
            assert!(Lexicon::new(cut).is_err(), "{end} bytes");
        }
    }
}
