//! A text as words are compared: NFKC (UAX #15), case folded, without accents and invisible characters, digits and signs
//! that stand for letters read as these. Every byte leads back to where it came from.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

/// What is taken for equal, beside case and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Folding {
    /// `é` is `e`, `ł` is `l`.
    pub accents: bool,
    /// `1`, `!`, `|` and `l` are `i`, `0` is `o`, `$` is `s`.
    pub leet: bool,
}

/// A folded text.
#[derive(Default)]
pub struct View {
    /// The text.
    pub text: String,
    /// For each byte of it, the first byte in the original of the character that it came from, and the byte behind.
    origins: Vec<(u32, u32)>,
    /// Whether each byte came from a digit or sign that was read as a letter.
    disguised: Vec<bool>,
    /// The bytes at the end that came from signs of which what follows decides what they are.
    pub undecided: usize,
}

/// Characters without a look: soft hyphen, zero width, joiners, direction, variation, tatweel.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{640}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Accents of Latin, Greek and Cyrillic, points of Hebrew, vowel signs of Arabic. Not the vowel signs of Indic scripts,
/// which make other words.
fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{6d6}'..='\u{6ed}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}')
}

/// Letters with a stroke or of two letters, which have no decomposition.
fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        'ø' => "o",
        'ł' => "l",
        'đ' | 'ð' => "d",
        'ħ' => "h",
        'ŧ' => "t",
        'ı' => "i",
        'æ' => "ae",
        'œ' => "oe",
        'þ' => "th",
        'ŋ' => "n",
        _ => return None,
    })
}

/// The letter that a digit or sign stands for.
fn letter(c: char) -> Option<char> {
    Some(match c {
        '0' => 'o',
        '1' | '!' | '|' => 'i',
        '3' | '€' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '6' | '9' => 'g',
        '7' => 't',
        '8' => 'b',
        _ => return None,
    })
}

/// Signs that are letters between letters alone.
fn is_punctuation(c: char) -> bool {
    matches!(c, '!' | '|')
}

/// Whether a character goes on with the one before: a combining mark, or a vowel or final of Hangul.
fn continues(c: char) -> bool {
    !c.is_ascii()
        && (canonical_combining_class(c) != 0
            || matches!(c, '\u{1160}'..='\u{11ff}' | '\u{d7b0}'..='\u{d7ff}')
            || is_invisible(c))
}

impl View {
    /// Folds a text. With `is_whole`, nothing follows it.
    pub fn new(text: &str, folding: Folding, is_whole: bool) -> Self {
        let mut view = View { text: String::with_capacity(text.len()), ..View::default() };
        let mut rest = text.char_indices().peekable();
        while let Some((start, c)) = rest.next() {
            let mut end = start + c.len_utf8();
            while let Some(&(at, next)) = rest.peek().filter(|(_, next)| continues(*next)) {
                end = at + next.len_utf8();
                rest.next();
            }
            // The character by which a sign stands.
            let next = rest.peek().map(|(_, next)| *next);
            view.add(&text[start..end], start, next, folding, is_whole);
        }
        view
    }

    fn add(&mut self, cluster: &str, start: usize, next: Option<char>, folding: Folding, is_whole: bool) {
        let end = start + cluster.len();
        if let [byte] = cluster.as_bytes() {
            let c = char::from(byte.to_ascii_lowercase());
            return self.push(c, start, end, next, folding, is_whole);
        }
        let visible = cluster.chars().filter(|c| !is_invisible(*c));
        for c in visible.nfkc().flat_map(char::to_lowercase) {
            match c {
                'ß' => self.push_all("ss", start, end, next, folding, is_whole),
                'ς' => self.push('σ', start, end, next, folding, is_whole),
                c if !folding.accents || ('\u{ac00}'..='\u{d7a3}').contains(&c) => {
                    self.push(c, start, end, next, folding, is_whole);
                }
                c => {
                    for part in std::iter::once(c).nfd().filter(|part| !is_accent(*part)) {
                        match plain(part) {
                            Some(letters) => self.push_all(letters, start, end, next, folding, is_whole),
                            None => self.push(part, start, end, next, folding, is_whole),
                        }
                    }
                }
            }
        }
    }

    fn push_all(&mut self, s: &str, start: usize, end: usize, next: Option<char>, folding: Folding, is_whole: bool) {
        s.chars().for_each(|c| self.push(c, start, end, next, folding, is_whole));
    }

    fn push(&mut self, c: char, start: usize, end: usize, next: Option<char>, folding: Folding, is_whole: bool) {
        if is_invisible(c) {
            return;
        }
        // Spaces of any kind and number are one.
        let mut c = if c.is_whitespace() { ' ' } else { c };
        if c == ' ' && self.text.ends_with(' ') {
            if let Some(origin) = self.origins.last_mut() {
                origin.1 = narrow(end);
            }
            return;
        }
        let mut disguised = false;
        let mut undecided = false;
        if folding.leet {
            if let Some(letter) = letter(c) {
                let behind_word = self.text.chars().next_back().is_some_and(is_word);
                let before_word = next.map_or(!is_whole, is_word_or_sign);
                undecided = is_punctuation(c) && behind_word && next.is_none() && !is_whole;
                if !is_punctuation(c) || (behind_word && before_word) {
                    c = letter;
                    disguised = true;
                }
            } else if c == 'l' {
                c = 'i';
            }
        }
        self.text.push(c);
        self.origins.resize(self.text.len(), (narrow(start), narrow(end)));
        self.disguised.resize(self.text.len(), disguised);
        self.undecided = if undecided { self.undecided + c.len_utf8() } else { 0 };
    }

    /// The bytes of the original for bytes of the folded text; none where there are none.
    pub fn origin(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let (first, last) = (self.origins.get(start)?, self.origins.get(end.checked_sub(1)?)?);
        Some((first.0 as usize, last.1 as usize))
    }

    /// Whether the folded bytes are made of letters and of signs in the place of letters.
    pub fn is_disguise(&self, start: usize, end: usize) -> bool {
        let signs = self.disguised[start..end].iter().filter(|sign| **sign).count();
        signs > 0 && signs < end - start
    }
}

/// Whether a `!` before this character is read as a letter.
fn is_word_or_sign(c: char) -> bool {
    is_word(c) || (letter(c).is_some() && !is_punctuation(c))
}

/// The host passes no text of 4 GiB.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Whether a character is part of a word.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || canonical_combining_class(c) != 0 || is_indic_sign(c)
}

/// Vowel signs of Indic and South-East Asian scripts, some of which are not alphabetic.
fn is_indic_sign(c: char) -> bool {
    matches!(c, '\u{900}'..='\u{903}' | '\u{93a}'..='\u{94f}' | '\u{962}' | '\u{963}')
}

/// Whether words of a script stand without spaces: Han, kana, Thai, Lao, Burmese, Khmer.
pub fn is_spaceless(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{a4cf}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9f}' | '\u{20000}'..='\u{3ffff}')
}

/// Whether other words grow onto the end of a word of a script: the particles of Korean.
pub fn is_agglutinated(c: char) -> bool {
    ('\u{ac00}'..='\u{d7a3}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Folding = Folding { accents: true, leet: false };

    fn folded(text: &str, folding: Folding) -> String {
        View::new(text, folding, true).text
    }

    #[test]
    fn what_is_written_otherwise_is_the_same() {
        for (written, expected) in [
            ("Straße", "strasse"),
            ("CAFÉ", "cafe"),
            ("cafe\u{301}", "cafe"),
            ("Łódź", "lodz"),
            ("ｆｕｌｌ", "full"),
            ("ﬁne", "fine"),
            ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
            ("z\u{200b}e\u{ad}r\u{feff}o", "zero"),
            ("مُحَمَّد", "محمد"),
            ("два  \n слова", "два слова"),
            ("한국", "한국"),
            ("한국", "한국"),
            ("हिन्दी", "हिन्दी"),
            ("ｶﾞ", "か\u{3099}".replace('か', "カ").as_str()),
        ] {
            assert_eq!(folded(written, ALL), expected, "{written}");
        }
        assert_eq!(folded("Café", Folding { accents: false, leet: false }), "café");
        assert_eq!(folded("cafe\u{301}", Folding { accents: false, leet: false }), "café");
    }

    #[test]
    fn signs_stand_for_letters_and_marks_at_the_end_do_not() {
        let leet = Folding { accents: true, leet: true };
        assert_eq!(folded("b4dw0rd", leet), "badword");
        assert_eq!(folded("sh!p", leet), "ship");
        assert_eq!(folded("ship!", leet), "ship!");
        assert_eq!(folded("ship!!", leet), "ship!!");
        assert_eq!(folded("he11", leet), folded("hell", leet));
    }

    #[test]
    fn bytes_lead_back() {
        let text = "Ein Straße\u{301}nkäfer";
        let view = View::new(text, ALL, true);
        let at = view.text.find("strassenkafer").unwrap();
        let (start, end) = view.origin(at, at + "strassenkafer".len()).unwrap();
        assert_eq!(&text[start..end], "Straße\u{301}nkäfer");
    }
}
