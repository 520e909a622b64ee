//! A folded text, and what detectors ask of it.

/// A folded text.
pub struct Text<'a> {
    /// The text.
    pub s: &'a str,
    /// Its bytes.
    pub b: &'a [u8],
}

/// Whether a character is part of a word whose end would be its neighbour. Scripts without spaces between words (from
/// U+2E80: Han, kana, Hangul) end a number or a name as punctuation does.
pub fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (!c.is_ascii() && c < '\u{2e80}' && c.is_alphanumeric())
}

impl<'a> Text<'a> {
    /// A text.
    pub fn new(s: &'a str) -> Self {
        Text { s, b: s.as_bytes() }
    }

    /// The byte there; 0 behind the end.
    pub fn byte(&self, at: usize) -> u8 {
        self.b.get(at).copied().unwrap_or(0)
    }

    /// The character before.
    pub fn before(&self, at: usize) -> Option<char> {
        self.s.get(..at)?.chars().next_back()
    }

    /// The character that begins there.
    pub fn after(&self, at: usize) -> Option<char> {
        self.s.get(at..)?.chars().next()
    }

    /// Whether no word reaches up to here from the left.
    pub fn starts_word(&self, at: usize) -> bool {
        !self.before(at).is_some_and(is_word)
    }

    /// Whether no word goes on here.
    pub fn ends_word(&self, at: usize) -> bool {
        !self.after(at).is_some_and(is_word)
    }

    /// Whether a number can begin here: what stands before is not a part of it, as in `1.23`, `a-12`, `$12`.
    pub fn left_clear(&self, at: usize) -> bool {
        let Some(c) = self.before(at) else { return true };
        if is_word(c) {
            return false;
        }
        let further = at.checked_sub(2).map_or(0, |further| self.byte(further));
        match c {
            '-' | '/' => !further.is_ascii_alphanumeric(),
            '.' | ',' | ':' => !further.is_ascii_digit(),
            '+' => !further.is_ascii_alphanumeric(),
            '$' | '€' | '£' | '¥' | '%' => false,
            _ => true,
        }
    }

    /// Whether a number can end here: what follows is not a part of it, as in `1.23`, `12-a`, `12%`.
    pub fn right_clear(&self, at: usize) -> bool {
        let Some(c) = self.after(at) else { return true };
        if is_word(c) {
            return false;
        }
        let further = self.byte(at + 1);
        match c {
            '-' | '/' => !further.is_ascii_alphanumeric(),
            '.' | ',' | ':' => !further.is_ascii_digit(),
            '@' => !further.is_ascii_alphanumeric(),
            '%' => false,
            _ => true,
        }
    }

    /// The end of the run of ASCII letters and digits that begins here.
    pub fn token_end(&self, at: usize) -> usize {
        at + self.b[at.min(self.b.len())..].iter().take_while(|b| b.is_ascii_alphanumeric()).count()
    }

    /// The end of the run of digits that begins here.
    pub fn digits_end(&self, at: usize) -> usize {
        at + self.b[at.min(self.b.len())..].iter().take_while(|b| b.is_ascii_digit()).count()
    }

    /// At most so many bytes before, within their paragraph, in lower case.
    pub fn context(&self, at: usize, bytes: usize) -> String {
        let mut from = at.saturating_sub(bytes);
        while !self.s.is_char_boundary(from) {
            from += 1;
        }
        let window = &self.s[from..at];
        window.rsplit("\n\n").next().unwrap_or(window).to_lowercase()
    }

    /// The last word before, in lower case, if no more than punctuation and spaces stand between.
    pub fn word_before(&self, at: usize) -> String {
        let context = self.context(at, 32);
        let trimmed = context.trim_end_matches(|c: char| !c.is_alphabetic() && !c.is_ascii_digit() && c != '§');
        let from = trimmed.rfind(|c: char| !c.is_alphabetic() && c != '§');
        let start = from.map_or(0, |at| at + trimmed[at..].chars().next().map_or(0, char::len_utf8));
        trimmed[start..].to_owned()
    }
}

/// Whether one of the words begins a word of the text, or stands in it where its script has no spaces. Both in lower
/// case; a word that ends in `|` must end there too.
pub fn has_word(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| {
        let (word, whole) = word.strip_suffix('|').map_or((*word, false), |word| (word, true));
        text.match_indices(word).any(|(at, _)| {
            let begins = !text[..at].chars().next_back().is_some_and(is_word);
            let ends = !whole || !text[at + word.len()..].chars().next().is_some_and(is_word);
            begins && ends
        })
    })
}
