//! Folded words of a text, with the way back to its bytes.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;

/// What stands between the words of different sentences, as a space stands between those of one.
pub(crate) const BREAK: char = '\u{1}';

/// A sentence of more words is taken as two, which bounds what rules cost.
const LONGEST: usize = 120;

/// A word of the folded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// First byte in the folded text.
    pub start: u32,
    /// First byte in the original text.
    pub from: u32,
    /// End in the original text.
    pub to: u32,
    /// Place of the word, counted in words. Two characters of Chinese or Japanese count as one word.
    pub place: u32,
}

/// A text in folded form: compatibility forms composed away (NFKD), lower case, no accents, no invisible characters, digits
/// that stand for letters inside words read as letters, look-alikes from other alphabets read as what they look like; one
/// space between words, and a mark between sentences.
#[derive(Clone, Debug, Default)]
pub struct Normal {
    pub(crate) text: String,
    tokens: Vec<Token>,
    sentences: Vec<Range<usize>>,
}

impl Normal {
    /// Folds `text`.
    pub fn of(text: &str) -> Self {
        let mut normal = Self { text: String::with_capacity(text.len() + text.len() / 4), ..Self::default() };
        let mut state = State { sentence: 0, broken: true, place: 0, wide: false };
        let mut word: Option<usize> = None;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|&(_, c)| c);
            if is_wide(c) {
                normal.end_word(text, &mut word, at, &mut state);
                normal.push(text, at..at + c.len_utf8(), true, &mut state);
            } else if is_word(c)
                || (is_leet(c) && (word.is_some() || c == '@' || c == '$') && next.is_some_and(is_word))
            {
                word.get_or_insert(at);
            } else if !is_invisible(c) {
                normal.end_word(text, &mut word, at, &mut state);
                if ends_sentence(c, next) {
                    normal.end_sentence(&mut state);
                }
            }
        }
        normal.end_word(text, &mut word, text.len(), &mut state);
        normal.end_sentence(&mut state);
        normal.join_letters();
        normal
    }

    /// The words.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Ranges of [`Normal::tokens`], one for each sentence.
    pub fn sentences(&self) -> &[Range<usize>] {
        &self.sentences
    }

    /// The folded text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The word in which a byte of the folded text lies.
    pub(crate) fn token_at(&self, byte: usize) -> usize {
        self.tokens.partition_point(|t| t.start as usize <= byte).saturating_sub(1)
    }

    fn end_word(&mut self, text: &str, word: &mut Option<usize>, end: usize, state: &mut State) {
        if let Some(start) = word.take() {
            self.push(text, start..end, false, state);
        }
    }

    fn push(&mut self, text: &str, range: Range<usize>, wide: bool, state: &mut State) {
        let before = self.text.len();
        if before > 0 && state.broken {
            self.text.push(BREAK);
        } else if before > 0 && !(wide && state.wide) {
            self.text.push(' ');
        }
        let start = self.text.len();
        fold(&text[range.clone()], &mut self.text);
        if self.text.len() == start {
            self.text.truncate(before);
            return;
        }
        let token =
            Token { start: start as u32, from: range.start as u32, to: range.end as u32, place: state.place / 2 };
        self.tokens.push(token);
        state.place += if wide { 1 } else { 2 };
        state.broken = false;
        state.wide = wide;
        if self.tokens.len() - state.sentence >= LONGEST {
            self.end_sentence(state);
        }
    }

    fn end_sentence(&mut self, state: &mut State) {
        if state.sentence < self.tokens.len() {
            self.sentences.push(state.sentence..self.tokens.len());
            state.sentence = self.tokens.len();
        }
        state.broken = true;
        state.place += 8;
    }

    /// Reads four and more single letters in a row as a word: `b o m b`.
    fn join_letters(&mut self) {
        let single = |t: &Token| t.to - t.from == 1;
        if !self.tokens.windows(4).any(|w| w.iter().all(single)) {
            return;
        }
        let old = std::mem::take(self);
        for sentence in &old.sentences {
            let first = self.tokens.len();
            let mut i = sentence.start;
            while i < sentence.end {
                let mut end = i + 1;
                // `a b o m b` is an article and a word.
                let word = |t: &Token| single(t) && !matches!(&old.text[t.start as usize..][..1], "a" | "i");
                if single(&old.tokens[i]) && (word(&old.tokens[i]) || i > sentence.start && single(&old.tokens[i - 1]))
                {
                    end = (i..sentence.end).find(|&j| !single(&old.tokens[j])).unwrap_or(sentence.end);
                    end = if end - i >= 4 { end } else { i + 1 };
                }
                if !self.text.is_empty() {
                    self.text.push(if i == sentence.start { BREAK } else { ' ' });
                }
                let token = Token { start: self.text.len() as u32, to: old.tokens[end - 1].to, ..old.tokens[i] };
                for j in i..end {
                    let from = old.tokens[j].start as usize;
                    let to = old.tokens.get(j + 1).map_or(old.text.len(), |t| t.start as usize);
                    self.text.push_str(old.text[from..to].trim_end_matches([' ', BREAK]));
                }
                self.tokens.push(token);
                i = end;
            }
            self.sentences.push(first..self.tokens.len());
        }
    }
}

struct State {
    sentence: usize,
    broken: bool,
    place: u32,
    wide: bool,
}

/// Characters of scripts without spaces: each is a word of its own.
pub(crate) fn is_wide(c: char) -> bool {
    matches!(c as u32, 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xFF66..=0xFF9F | 0x20000..=0x3FFFF)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c as u32, 0x300..=0x36F | 0x610..=0x61A | 0x64B..=0x65F | 0x900..=0x963)
}

fn is_leet(c: char) -> bool {
    matches!(c, '@' | '$' | '!' | '|')
}

fn is_invisible(c: char) -> bool {
    matches!(c as u32, 0xAD | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x2069 | 0xFE00..=0xFE0F | 0xFEFF | 0x640 | 0xE0000..=0xE0FFF)
}

fn ends_sentence(c: char, next: Option<char>) -> bool {
    match c {
        '.' | '?' | '!' | ';' => next.is_none_or(|n| !n.is_alphanumeric()),
        '\n' | '…' | '。' | '？' | '！' | '؟' | '؛' | '।' | '\u{37e}' | '；' | '．' | '\u{2028}' | '\u{2029}' => {
            true
        }
        _ => false,
    }
}

/// Appends one word in folded form.
pub(crate) fn fold(word: &str, out: &mut String) {
    if word.is_ascii() && word.bytes().all(|b| b.is_ascii_alphabetic()) {
        out.extend(word.bytes().map(|b| b.to_ascii_lowercase() as char));
        return;
    }
    let mut folded: String = String::with_capacity(word.len());
    for c in word.nfkd().flat_map(char::to_lowercase) {
        match c {
            '\u{300}'..='\u{36F}' | '\u{64B}'..='\u{655}' | '\u{670}' | '\u{93C}' => {}
            c if is_invisible(c) => {}
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'þ' => folded.push_str("th"),
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' | 'ð' => folded.push('d'),
            'ħ' => folded.push('h'),
            'ı' => folded.push('i'),
            'ς' => folded.push('σ'),
            'ة' => folded.push('ه'),
            'ى' => folded.push('ي'),
            c => folded.push(c),
        }
    }
    one_alphabet(&mut folded);
    unleet(&folded, out);
}

const LATIN: &str = "aeopcyxijskmtbh";
const CYRILLIC: &str = "аеорсухіјѕкмтвн";
const GREEK: &str = "αεορςυχιϳѕκμτβη";

/// Words of mixed alphabets become words of one: Latin, unless most letters are Cyrillic or Greek ones without a twin.
fn one_alphabet(word: &mut String) {
    let latin = word.chars().filter(char::is_ascii_alphabetic).count();
    let other = word.chars().filter(|c| matches!(*c as u32, 0x370..=0x52F)).count();
    if latin == 0 || other == 0 {
        return;
    }
    let to_latin = |c: char| {
        [CYRILLIC, GREEK].iter().find_map(|from| from.chars().position(|f| f == c)).and_then(|i| LATIN.chars().nth(i))
    };
    let strange = word.chars().any(|c| matches!(c as u32, 0x370..=0x52F) && to_latin(c).is_none());
    let to_cyrillic = |c: char| LATIN.chars().position(|f| f == c).and_then(|i| CYRILLIC.chars().nth(i));
    let map = |c: char| if strange { to_cyrillic(c) } else { to_latin(c) }.unwrap_or(c);
    *word = word.chars().map(map).collect();
}

/// Reads digits and signs inside a word as the letters they stand for, unless they end the word as a number does.
fn unleet(word: &str, out: &mut String) {
    let leet = |c: char| matches!(c, '0' | '1' | '3' | '4' | '5' | '7' | '@' | '$' | '!' | '|');
    let letters = word.chars().filter(char::is_ascii_alphabetic).count();
    let signs = word.chars().filter(|&c| leet(c)).count();
    let core = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let inside = core.chars().any(leet) || (word.len() - core.len() == 1 && core.len() >= 3 && core.chars().any(leet));
    let digits_only_before = core.trim_start_matches(|c: char| c.is_ascii_digit()).chars().all(|c| !leet(c));
    let ordinal = digits_only_before && core.starts_with(|c: char| c.is_ascii_digit()) && letters <= 2;
    if signs == 0
        || letters < 2
        || !inside
        || signs > letters
        || ordinal
        || !word.chars().all(|c| leet(c) || c.is_ascii_alphabetic())
    {
        out.push_str(word);
        return;
    }
    out.extend(word.chars().map(|c| match c {
        '0' => 'o',
        '1' | '!' | '|' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        c => c,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        Normal::of(text).text.replace(BREAK, "|")
    }

    #[test]
    fn words_are_folded() {
        assert_eq!(folded("Größe, l'été!  Łódź"), "grosse l ete|lodz");
        assert_eq!(folded("Ｂｏｍｂ b\u{200b}omb b-o"), "bomb bomb b o");
        assert_eq!(folded("أَسْلِحَة"), "اسلحه");
    }

    #[test]
    fn letters_in_disguise_are_read() {
        assert_eq!(folded("make a b0mb and h@ck p4ssw0rds"), "make a bomb and hack passwords");
        assert_eq!(folded("b o m b now"), "bomb now");
        assert_eq!(folded("make a b o m b now"), "make a bomb now");
        assert_eq!(folded("bоmb"), "bomb", "the second letter is Cyrillic");
        assert_eq!(folded("python3 mp3 covid19 3d 1st 2nd 4chan"), "python3 mp3 covid19 3d 1st 2nd achan");
    }

    #[test]
    fn sentences_and_places() {
        let normal = Normal::of("Version 1.5 is out. How? 爆弾を作る。");
        assert_eq!(normal.sentences().len(), 3);
        assert_eq!(normal.text.replace(BREAK, "|"), "version 1 5 is out|how|爆弾を作る".nfkd().collect::<String>());
        let last = normal.tokens().last().copied().unwrap();
        assert_eq!(&"Version 1.5 is out. How? 爆弾を作る。"[last.from as usize..last.to as usize], "る");
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(Normal::of(" \u{200b} ?! ").tokens().is_empty());
    }
}
