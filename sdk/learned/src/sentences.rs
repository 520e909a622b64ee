//! Where sentences end, decided from what stands before the place and a few characters behind it: a text cut into any
//! pieces has the same sentences.

/// The longest sentence in bytes; a longer one is cut at its last space within them.
pub const LONGEST: usize = 480;

/// What is known of the beginning of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The first sentence, with the space behind it, ends at this byte.
    At(usize),
    /// No end yet: it lies at this byte or later, so that a longer text need only be looked at from there.
    NotBefore(usize),
}

/// The end of the first sentence of `text`, of which the first `known` bytes were looked at before
/// ([`Cut::NotBefore`]; 0 at first). `complete`: nothing follows.
pub fn first_sentence(text: &str, known: usize, complete: bool) -> Cut {
    let mut from = known.min(text.len());
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    let mut rest = text[from..].char_indices().peekable();
    while let Some((offset, c)) = rest.next() {
        let at = from + offset;
        if at >= LONGEST {
            return Cut::At(last_space(text, at));
        }
        let hard = c == '\n' || is_full_stop(c);
        if !hard && !is_soft_stop(c) {
            continue;
        }
        // Closing marks, more stops and the space behind them belong to the sentence; what follows must be known.
        let (mut end, mut space, mut look) = (at + c.len_utf8(), c == '\n', rest.clone());
        let belongs = |next: char, space: bool| next.is_whitespace() || (!space && closes(next));
        while let Some((offset, next)) = look.next_if(|(_, next)| belongs(*next, space)) {
            space |= next.is_whitespace();
            end = from + offset + next.len_utf8();
            if end >= LONGEST {
                return Cut::At(end);
            }
        }
        match look.peek() {
            None if !complete => return Cut::NotBefore(at),
            None => return Cut::At(end),
            Some(_) if hard => return Cut::At(end),
            // "3.5", "e.g. this": no end before a digit or a small letter.
            Some((_, next)) if space && (c != '.' || !next.is_lowercase()) => return Cut::At(end),
            Some(_) => {}
        }
    }
    match complete {
        true => Cut::At(text.len()),
        false => Cut::NotBefore(text.len()),
    }
}

/// Calls `f` with each sentence of a whole text and the byte where it starts.
pub fn sentences(text: &str, mut f: impl FnMut(usize, &str)) {
    let mut start = 0;
    while start < text.len() {
        let Cut::At(length) = first_sentence(&text[start..], 0, true) else { return };
        let end = (start + length.max(1)).min(text.len());
        f(start, &text[start..end]);
        start = end;
    }
}

/// Stops of scripts that put no space behind them.
fn is_full_stop(c: char) -> bool {
    matches!(c, '。' | '！' | '？' | '．' | '।' | '॥')
}

/// Stops that need a space behind them.
fn is_soft_stop(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '؟')
}

fn closes(c: char) -> bool {
    is_full_stop(c) || is_soft_stop(c) || matches!(c, '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '」' | '』' | '）')
}

/// The last place behind a space at or before `at`, else `at`.
fn last_space(text: &str, at: usize) -> usize {
    let place = text[..at].rfind(char::is_whitespace).and_then(|p| Some(p + text[p..].chars().next()?.len_utf8()));
    place.filter(|p| *p > 0).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        let mut out = Vec::new();
        let mut end = 0;
        sentences(text, |start, sentence| {
            assert_eq!(start, end);
            end += sentence.len();
            out.push(&text[start..end]);
        });
        assert_eq!(end, text.len());
        out
    }

    /// As a stream: one character more at a time.
    fn grown(text: &str) -> Vec<String> {
        let (mut out, mut pending, mut known) = (Vec::new(), String::new(), 0);
        for c in text.chars() {
            pending.push(c);
            while let Cut::At(end) = match first_sentence(&pending, known, false) {
                Cut::NotBefore(place) => {
                    known = place;
                    Cut::NotBefore(place)
                }
                at => at,
            } {
                out.push(pending[..end].to_owned());
                pending.drain(..end);
                known = 0;
            }
        }
        let mut rest = cut(&pending).into_iter().map(str::to_owned).collect();
        out.append(&mut rest);
        out
    }

    #[test]
    fn sentences_of_many_scripts() {
        assert_eq!(cut("One. Two! \"Three?\" Four"), ["One. ", "Two! ", "\"Three?\" ", "Four"]);
        assert_eq!(cut("It is 3.5 m, e.g. this. So."), ["It is 3.5 m, e.g. this. ", "So."]);
        assert_eq!(cut("他来了。她走了！好"), ["他来了。", "她走了！", "好"]);
        assert_eq!(cut("वह आया। वह गई।"), ["वह आया। ", "वह गई।"]);
        assert_eq!(cut("a\nb\n\nc"), ["a\n", "b\n\n", "c"]);
        assert_eq!(cut(""), Vec::<&str>::new());
    }

    #[test]
    fn a_text_in_pieces_has_the_same_sentences() {
        let long = "word ".repeat(300);
        let joined = "漢字".repeat(400);
        let stops = format!("End{} next. ", ".".repeat(1000));
        for text in [
            "One. Two! \"Three?\" Four",
            "It is 3.5 m, e.g. this. So.",
            "他来了。她走了！好",
            "a\nb\n\nc",
            &long,
            &joined,
            &stops,
        ] {
            assert_eq!(grown(text), cut(text), "{text}");
            assert!(cut(text).iter().all(|s| s.len() <= LONGEST + 4), "{text}");
        }
    }
}
