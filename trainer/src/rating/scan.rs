//! Cuts a text into folded words, without allocating for each word.

/// What the scanner met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A word; its folded form is in the caller's buffer.
    Word,
    /// One character of a script that is matched by substring; it starts at this byte offset.
    Joined(usize, char),
}

/// A cursor over a text. Copy it to look ahead.
#[derive(Clone, Copy)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Scanner { text, position: 0 }
    }

    /// Moves on to a byte offset that lies on a character boundary.
    pub fn seek(&mut self, position: usize) {
        self.position = position;
    }

    /// The next token; a word is written, folded, into `word`.
    pub fn next(&mut self, word: &mut String) -> Option<Token> {
        word.clear();
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.position) {
            if byte.is_ascii() {
                if byte.is_ascii_alphanumeric() {
                    word.push(byte.to_ascii_lowercase() as char);
                } else if !word.is_empty() {
                    return Some(Token::Word);
                }
                self.position += 1;
                continue;
            }
            let Some(c) = self.text.get(self.position..).and_then(|rest| rest.chars().next()) else {
                break;
            };
            if is_joined_script(c) {
                if !word.is_empty() {
                    return Some(Token::Word);
                }
                let at = self.position;
                self.position += c.len_utf8();
                return Some(Token::Joined(at, c));
            }
            if is_word_character(c) {
                word.extend(c.to_lowercase());
            } else if !is_invisible(c) && !word.is_empty() {
                return Some(Token::Word);
            }
            self.position += c.len_utf8();
        }
        (!word.is_empty()).then_some(Token::Word)
    }
}

/// The folded form of a single word.
pub(super) fn fold(word: &str) -> String {
    let mut folded = String::new();
    Scanner::new(word).next(&mut folded);
    folded
}

/// Han, kana and Hangul: no spaces between words, or endings joined to them.
pub(super) fn is_joined_script(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// Letters, digits, and the marks that belong to a letter without being alphabetic (virama, combining accents).
fn is_word_character(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '\u{300}'..='\u{36f}' | '\u{900}'..='\u{963}')
}

/// Soft hyphens, zero-width characters and Arabic vowel signs do not end a word and are not part of it.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{640}' | '\u{64b}'..='\u{652}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let (mut scanner, mut word, mut out) = (Scanner::new(text), String::new(), Vec::new());
        while let Some(token) = scanner.next(&mut word) {
            out.push(match token {
                Token::Word => word.clone(),
                Token::Joined(_, c) => c.to_string(),
            });
        }
        out
    }

    #[test]
    fn words_are_folded_and_cut() {
        assert_eq!(words("It’s a DRAGON-fly, ÉTÉ!"), ["it", "s", "a", "dragon", "fly", "été"]);
        assert_eq!(words("हत्या।"), ["हत्या"]);
        assert_eq!(words("mur\u{ad}der"), ["murder"]);
        assert_eq!(words("in杀人x"), ["in", "杀", "人", "x"]);
        assert!(words(" … —").is_empty());
    }
}
