//! Cutting a document into passages that overlap and begin and end with sentences.

use std::ops::Range;

use super::sentences::{Border, ends};

/// Tokens of a passage, unless the encoder's context is shorter (Min et al. 2024, SILO, section 3).
pub const PASSAGE_SIZE: usize = 1024;
/// Tokens between the beginnings of two passages.
pub const PASSAGE_STRIDE: usize = 512;

/// Ranges of tokens, of at most `size` each, that begin about `stride` tokens after one another and cover the text: the
/// first begins with it, each begins where its predecessor has not ended yet or just ends, the last ends with it.
///
/// An end is moved back by up to a quarter of `size`, a beginning to either side by up to a quarter of `stride`, to where
/// a sentence ends, or else a line. No border lies inside a character, although tokens may: `offsets` holds the bytes of
/// each token, and tokens that stand for parts of one character have overlapping or empty ranges or borders inside it.
/// Only if one character has more than `size` tokens is a range longer.
pub fn cut(text: &str, offsets: &[Range<usize>], size: usize, stride: usize) -> Vec<Range<usize>> {
    let (size, stride) = (size.max(1), stride.clamp(1, size.max(1)));
    let count = offsets.len();
    let borders = borders(text, offsets);
    let mut passages = Vec::new();
    let (mut start, mut covered) = (0, 0);
    while start < count {
        if count - start <= size {
            passages.push(start..count);
            break;
        }
        // A passage goes further than the one before it.
        let (least, most) = (covered + 1, start + size);
        let end = best(&borders, (most - size / 4).max(least)..=most, most)
            .or_else(|| (least..=most).rev().find(|&at| borders[at] != Border::Never));
        let end = match end {
            Some(end) => end,
            None if start < covered => {
                start = covered;
                continue;
            }
            None => (most + 1..count).find(|&at| borders[at] != Border::Never).unwrap_or(count),
        };
        passages.push(start..end);
        if end == count {
            break;
        }
        covered = end;
        let target = (start + stride).min(end);
        start = best(&borders, (target - stride / 4).max(start + 1)..=(target + stride / 4).min(end), target)
            .or_else(|| (start + 1..=target).rev().find(|&at| borders[at] != Border::Never))
            .unwrap_or(end);
    }
    passages
}

/// The end of a sentence that is nearest to the target, or else of a line.
fn best(borders: &[Border], range: std::ops::RangeInclusive<usize>, target: usize) -> Option<usize> {
    let nearest = |least| range.clone().filter(|&at| borders[at] >= least).min_by_key(|&at| at.abs_diff(target));
    nearest(Border::Sentence).or_else(|| nearest(Border::Line))
}

/// What lies before each token, and after the last.
fn borders(text: &str, offsets: &[Range<usize>]) -> Vec<Border> {
    let mut borders = Vec::with_capacity(offsets.len() + 1);
    let mut covered = 0;
    for offset in offsets {
        let between = offset.start >= covered && offset.start < offset.end && text.is_char_boundary(offset.start);
        borders.push(if between || borders.is_empty() { Border::Character } else { Border::Never });
        covered = covered.max(offset.end);
    }
    borders.push(Border::Sentence);
    // The border of an end is before the first token that begins there or after the space behind it.
    ends(text, |end, kind| {
        let at = offsets.partition_point(|offset| offset.start < end);
        let Some(offset) = offsets.get(at) else { return };
        let space = text.get(end..offset.start).is_some_and(|between| between.chars().all(char::is_whitespace));
        if space && borders[at] != Border::Never {
            borders[at] = borders[at].max(kind);
        }
    });
    borders
}
