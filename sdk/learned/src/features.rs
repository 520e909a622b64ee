//! Hashed features of a sentence: words, pairs of words, and the character 3- to 5-grams of words.
//!
//! As in fastText (Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification"), a word is also the n-grams of its
//! characters between marks of its beginning and end, so that inflected and unseen words share weights; the hashing trick
//! (Weinberger et al. 2009) keeps no dictionary. Scripts without spaces give 1-, 2- and 3-grams of characters.

use crate::fold::{LONGEST_WORD, Unit, units};
use crate::hash::{START, below, mix};

/// Marks the beginning and the end of a word.
const BORDER: char = '\u{1}';
/// Lengths of character n-grams, marks included.
const SHORTEST: usize = 3;
const LONGEST: usize = 5;

/// What kind of feature, so that a word and an n-gram of the same characters differ.
const WORD: u32 = 0x11_0001;
const PAIR: u32 = 0x11_0002;
const GRAM: u32 = 0x11_0003;
const TRIPLE: u32 = 0x11_0004;

/// Calls `f` with the bucket, below `buckets`, of every feature of the text, and gives the number of words: Han and kana count
/// a half each.
pub fn features(text: &str, buckets: u32, mut f: impl FnMut(u32)) -> f32 {
    let (mut before, mut second) = (START, START);
    let mut words = 0.0;
    let mut marked = Vec::with_capacity(LONGEST_WORD + 6);
    units(text, |unit| {
        let this = match unit {
            Unit::Word(word) => {
                words += 1.0;
                marked.clear();
                marked.push(BORDER);
                marked.extend_from_slice(word);
                marked.push(BORDER);
                grams(&marked, buckets, &mut f);
                word.iter().fold(mix(START, WORD), |hash, c| mix(hash, *c as u32))
            }
            Unit::Character(c) => {
                words += 0.5;
                let this = mix(mix(START, WORD), c as u32);
                f(below(mix(mix(second, before as u32), this as u32 ^ TRIPLE), buckets));
                this
            }
        };
        f(below(this, buckets));
        f(below(mix(before, this as u32 ^ PAIR), buckets));
        (second, before) = (before, this);
    });
    words
}

fn grams(marked: &[char], buckets: u32, f: &mut impl FnMut(u32)) {
    for start in 0..(marked.len() + 1).saturating_sub(SHORTEST) {
        let mut hash = mix(START, GRAM);
        for (length, c) in marked[start..].iter().take(LONGEST).enumerate() {
            hash = mix(hash, *c as u32);
            if length + 1 >= SHORTEST {
                f(below(hash, buckets));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<u32> {
        let mut out = Vec::new();
        features(text, 1 << 30, |bucket| out.push(bucket));
        out
    }

    #[test]
    fn a_word_has_itself_a_pair_and_its_grams() {
        // <cat>: 3 + 2 + 1 grams, the word, and its pair with the beginning.
        assert_eq!(of("cat").len(), 8);
        assert_eq!(of("Cat!"), of("cat"));
        assert_ne!(of("cat dog"), of("dog cat"));
        // 他被: a word, a pair and a triple each.
        assert_eq!(of("他被").len(), 6);
    }

    #[test]
    fn inflected_words_share_most_grams() {
        let (one, other) = (of("murdered"), of("murders"));
        let shared = one.iter().filter(|f| other.contains(f)).count();
        assert!(shared * 2 > other.len(), "{shared} of {}", other.len());
    }

    #[test]
    fn words_are_counted() {
        assert_eq!(features("one two, three", 8, |_| ()), 3.0);
        assert_eq!(features("他被杀了", 8, |_| ()), 2.0);
        assert_eq!(features("…", 8, |_| ()), 0.0);
    }
}
