//! Stop strings: text at which an answer ends, none of which the client sees.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};

/// Stop strings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// An empty stop string would end every answer at once.
    #[error("a stop string is empty: expected at least one character")]
    Empty,
    /// The automaton that looks for all of them at once would be too large.
    #[error("the stop strings cannot be searched for: {0}")]
    TooLarge(String),
}

/// The stop strings of a request, shared by its sequences.
#[derive(Clone, Debug, Default)]
pub struct StopStrings(Option<Arc<Patterns>>);

#[derive(Debug)]
struct Patterns {
    automaton: AhoCorasick,
    /// For the question whether a text begins one of them.
    sorted: Vec<String>,
    longest: usize,
}

impl StopStrings {
    /// Prepares the search for all of them at once.
    ///
    /// # Errors
    /// An empty string, or more text than an automaton can hold.
    pub fn new(mut stops: Vec<String>) -> Result<Self, StopError> {
        if stops.iter().any(String::is_empty) {
            return Err(StopError::Empty);
        }
        if stops.is_empty() {
            return Ok(StopStrings(None));
        }
        stops.sort_unstable();
        stops.dedup();
        let automaton = AhoCorasick::builder()
            // The match that is complete first, whatever may come behind it: the same in any pieces.
            .match_kind(MatchKind::Standard)
            .build(&stops)
            .map_err(|e| StopError::TooLarge(e.to_string()))?;
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        Ok(StopStrings(Some(Arc::new(Patterns { automaton, sorted: stops, longest }))))
    }
}

impl Patterns {
    /// Whether one of the strings goes on behind this text.
    fn begins(&self, text: &str) -> bool {
        let at = self.sorted.partition_point(|stop| &stop[..] <= text);
        self.sorted.get(at).is_some_and(|stop| stop.starts_with(text))
    }

    /// Where the longest end of `text` begins that may turn out to begin a stop string; its length where none does.
    fn held_from(&self, text: &str) -> usize {
        let earliest = text.len().saturating_sub(self.longest - 1);
        let starts = (earliest..text.len()).filter(|at| text.is_char_boundary(*at));
        starts.into_iter().find(|at| self.begins(&text[*at..])).unwrap_or(text.len())
    }
}

/// The text of one sequence on its way to the client. Holds text back while it may still turn out to be the beginning of
/// a stop string.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopFilter {
    stops: StopStrings,
    held: String,
    hit: bool,
}

impl StopFilter {
    pub fn new(stops: StopStrings) -> Self {
        StopFilter { stops, ..StopFilter::default() }
    }

    /// Adds new text and moves what is certain to `out`; true once a stop string is complete, and no text comes after it.
    pub fn push(&mut self, new: &str, out: &mut String) -> bool {
        let Some(patterns) = &self.stops.0 else {
            out.push_str(new);
            return false;
        };
        if self.hit {
            return true;
        }
        self.held.push_str(new);
        if let Some(found) = patterns.automaton.find(&self.held) {
            out.push_str(&self.held[..found.start()]);
            self.hit = true;
        } else {
            out.extend(self.held.drain(..patterns.held_from(&self.held)));
        }
        self.hit
    }

    /// Adds the last text and releases what was held back, unless a stop string is complete: then true.
    pub fn finish(&mut self, tail: &str, out: &mut String) -> bool {
        let hit = self.push(tail, out);
        if !hit {
            out.push_str(&std::mem::take(&mut self.held));
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopFilter::new(StopStrings::new(stops.iter().map(|s| s.to_string()).collect()).unwrap());
        let mut out = String::new();
        for piece in pieces {
            if filter.push(piece, &mut out) {
                return (out, true);
            }
        }
        let hit = filter.finish("", &mut out);
        (out, hit)
    }

    #[test]
    fn stop_strings_are_found_over_any_cut_and_never_leak() {
        let text = "one two\n\nthree";
        for cut in 0..=text.len() {
            for cut2 in cut..=text.len() {
                let pieces = [&text[..cut], &text[cut..cut2], &text[cut2..]];
                assert_eq!(run(&["\n\n", "threefold"], &pieces), ("one two".to_owned(), true));
                assert_eq!(run(&["\n\n\n", "threefold"], &pieces), (text.to_owned(), false));
            }
        }
        assert_eq!(run(&["äö"], &["xä", "ä", "öy"]), ("xä".to_owned(), true));
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        assert_eq!(StopStrings::new(vec!["a".into(), String::new()]).unwrap_err(), StopError::Empty);
    }

    proptest! {
        #[test]
        fn any_cut_gives_what_the_whole_text_gives(
            text in "[abä]{0,24}", stops in prop::collection::vec("[abä]{1,4}", 0..6), cuts in prop::collection::vec(0usize..24, 0..6),
        ) {
            // The stop string that is complete first; of two that end together, the longer one.
            let matches = stops.iter().filter_map(|stop| text.find(stop.as_str()).map(|at| (at + stop.len(), at)));
            let end = matches.min().map(|(_, start)| start);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|at| text.is_char_boundary(*at) && *at <= text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (out, hit) = run(&stops, &pieces);
            prop_assert_eq!(hit, end.is_some());
            prop_assert_eq!(out, &text[..end.unwrap_or(text.len())]);
        }
    }
}
