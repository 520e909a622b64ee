//! Text as the detectors read it: other ways to write a space, a hyphen or a digit are the plain ones, and characters
//! that cannot be seen are not there. Offsets lead back to the text itself.

use std::borrow::Cow;

/// A folded text.
pub struct Folded<'a> {
    /// What the detectors read.
    pub text: Cow<'a, str>,
    /// For each byte of `text` and for its end, the byte of the original where its character begins; nothing where the
    /// two are the same.
    offsets: Vec<u32>,
    length: usize,
}

/// What stands for a character; none where nothing does.
fn folded(c: char) -> Option<char> {
    Some(match c {
        // Invisible: soft hyphen, zero width, joiners, marks of direction, variation selectors.
        '\u{ad}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{180e}'
        | '\u{34f}' => return None,
        // Spaces of another width. U+3000 is the wide one of CJK.
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' => '-',
        '\u{2019}' => '\'',
        // Full width.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0)?,
        // Digits of Arabic, Persian and Devanagari.
        '\u{660}'..='\u{669}' => char::from_u32(u32::from(c) - 0x660 + 0x30)?,
        '\u{6f0}'..='\u{6f9}' => char::from_u32(u32::from(c) - 0x6f0 + 0x30)?,
        '\u{966}'..='\u{96f}' => char::from_u32(u32::from(c) - 0x966 + 0x30)?,
        c => c,
    })
}

impl<'a> Folded<'a> {
    /// Folds a text.
    pub fn new(text: &'a str) -> Self {
        if text.is_ascii() || text.chars().all(|c| folded(c) == Some(c)) {
            return Folded { text: Cow::Borrowed(text), offsets: Vec::new(), length: text.len() };
        }
        let mut out = String::with_capacity(text.len());
        let mut offsets = Vec::with_capacity(text.len() + 1);
        for (at, c) in text.char_indices() {
            if let Some(c) = folded(c) {
                out.push(c);
                // The host passes no text of 4 GiB.
                offsets.resize(out.len(), u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        offsets.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        Folded { text: Cow::Owned(out), offsets, length: text.len() }
    }

    /// The byte of the original at which the character at this byte begins, or at which the text ends.
    pub fn original(&self, at: usize) -> usize {
        if self.offsets.is_empty() { at } else { self.offsets.get(at).map_or(self.length, |&at| at as usize) }
    }

    /// The byte of the folded text at which the first character at or behind this byte of the original begins.
    pub fn position(&self, original: usize) -> usize {
        if self.offsets.is_empty() { original } else { self.offsets.partition_point(|&at| (at as usize) < original) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_lead_back() {
        let text = "a\u{200b}b\u{a0}１é–9\u{feff}";
        let folded = Folded::new(text);
        assert_eq!(folded.text, "ab 1é-9");
        for (at, c) in folded.text.char_indices() {
            let original = folded.original(at);
            let there = text[original..].chars().next().unwrap();
            assert_eq!(super::folded(there), Some(c));
            assert_eq!(folded.position(original), at);
        }
        assert_eq!(folded.original(folded.text.len()), text.len());
        assert_eq!(folded.position(text.len()), folded.text.len());
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(Folded::new("plain, und schön").text, Cow::Borrowed(_)));
    }
}
