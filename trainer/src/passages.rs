//! Documents cut into passages: runs of whole paragraphs that fit the context.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;

/// Text as it goes into training: Unicode NFC, spaces at the ends of lines dropped, runs of empty lines made one, paragraphs that
/// begin with stray spaces put straight.
pub fn clean(text: &str) -> String {
    let text: String = text.nfc().collect();
    let mut paragraphs: Vec<String> = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().chain([""]) {
        match line.trim() {
            "" if !lines.is_empty() => paragraphs.push(std::mem::take(&mut lines).join("\n")),
            "" => {}
            line => lines.push(line),
        }
    }
    paragraphs.join("\n\n")
}

/// Cuts a cleaned text into passages of at most `limit` units as `length` counts them: whole paragraphs where they fit,
/// else whole sentences, else pieces cut at spaces or between characters. A passage is a stretch of the text as it
/// stands; those shorter than `shortest` are dropped.
pub fn cut<'a>(text: &'a str, limit: usize, shortest: usize, length: &impl Fn(&str) -> usize) -> Vec<&'a str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for paragraph in text.split("\n\n") {
        split_long(text, start..start + paragraph.len(), limit, length, &mut pieces);
        start += paragraph.len() + 2;
    }
    let mut passages: Vec<Range<usize>> = Vec::new();
    let mut units = 0;
    for piece in pieces {
        let size = length(&text[piece.clone()]) + 1; // what stands between two pieces counts as one
        match passages.last_mut() {
            Some(passage) if units + size <= limit => {
                passage.end = piece.end;
                units += size;
            }
            _ => {
                passages.push(piece);
                units = size;
            }
        }
    }
    passages.into_iter().map(|passage| &text[passage]).filter(|passage| length(passage) >= shortest).collect()
}

/// Pushes stretches of at most `limit` units, in order; spaces at a cut belong to neither side.
fn split_long(
    text: &str,
    range: Range<usize>,
    limit: usize,
    length: &impl Fn(&str) -> usize,
    out: &mut Vec<Range<usize>>,
) {
    let piece = &text[range.clone()];
    if length(piece) < limit {
        out.push(range);
        return;
    }
    match split_near_middle(piece) {
        Some((left, right)) => {
            split_long(text, range.start..range.start + left.len(), limit, length, out);
            split_long(text, range.end - right.len()..range.end, limit, length, out);
        }
        None => out.push(range),
    }
}

/// The two halves of a text, cut after a sentence near its middle, else at a space, else between characters.
fn split_near_middle(text: &str) -> Option<(&str, &str)> {
    let middle = text.len() / 2;
    let nearest = |places: &mut dyn Iterator<Item = usize>| {
        places.filter(|&p| p > 0 && p < text.len()).min_by_key(|&p| p.abs_diff(middle))
    };
    let ends = [". ", "! ", "? ", "” ", "。", "！", "？", "।", "\n"];
    let sentence = nearest(&mut ends.iter().flat_map(|end| text.match_indices(end).map(|(i, m)| i + m.len())));
    let place = sentence
        .filter(|p| p.abs_diff(middle) < text.len() / 4)
        .or_else(|| nearest(&mut text.match_indices(' ').map(|(i, _)| i + 1)))
        .or_else(|| nearest(&mut text.char_indices().map(|(i, _)| i)))?;
    let (left, right) = text.split_at(place);
    Some((left.trim_end(), right.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    #[test]
    fn cleaning_keeps_paragraphs_and_drops_stray_space() {
        assert_eq!(clean("I\n\n   Down the hole \n\n\n\n a\nb  \n"), "I\n\nDown the hole\n\na\nb");
        assert_eq!(clean(" \n \n"), "");
        assert_eq!(clean("Mo\u{308}rder"), "Mörder");
    }

    #[test]
    fn passages_hold_every_word_in_order_within_the_limit() {
        let text = clean(&format!("{}\n\n{}\n\nshort one here", "A b c d. ".repeat(40), "x y z\n\n".repeat(30)));
        let passages = cut(&text, 20, 1, &words);
        assert!(passages.len() > 10);
        assert!(passages.iter().all(|p| words(p) <= 20), "{passages:?}");
        let joined = passages.join(" ");
        assert_eq!(joined.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn a_text_without_spaces_is_cut_between_characters() {
        let text = "漢字".repeat(50);
        let passages = cut(&text, 30, 1, &|t: &str| t.chars().count());
        assert!(passages.iter().all(|p| p.chars().count() <= 30));
        assert_eq!(passages.concat(), text);
    }

    #[test]
    fn pieces_that_meet_again_stand_as_in_the_text() {
        let text = format!("{}\n\nkurz", "行く。".repeat(12));
        let passages = cut(&text, 40, 1, &|t: &str| t.chars().count());
        assert!(passages.iter().all(|p| text.contains(p) && !p.contains(' ')), "{passages:?}");
    }

    #[test]
    fn short_leftovers_are_dropped() {
        assert!(cut("too short", 20, 3, &words).is_empty());
    }
}
