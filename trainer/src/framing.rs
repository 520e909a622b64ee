//! What stands before and after a passage in training: `[rating token | end-of-text] text… end-of-text`.

use safelmm_model::Rating;

use crate::tokenizer::{END_OF_TEXT, control_id};

/// What stands before a passage: its rating token, or, where it goes untagged, the neutral start.
pub fn start(rating: Option<Rating>) -> u32 {
    control_id(rating.map_or(END_OF_TEXT, Rating::token))
}

/// What stands after it.
pub fn end() -> u32 {
    control_id(END_OF_TEXT)
}

/// Inputs and targets of a passage: start, text → text, end.
pub fn frame(tokens: &[u32], rating: Option<Rating>) -> (Vec<u32>, Vec<u32>) {
    let inputs = [start(rating)].into_iter().chain(tokens.iter().copied()).collect();
    let targets = tokens.iter().copied().chain([end()]).collect();
    (inputs, targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_inputs_one_place_on() {
        let (inputs, targets) = frame(&[50, 51], Some(Rating::R));
        assert_eq!(
            (inputs[0], &inputs[1..], &targets[..2], targets[2]),
            (start(Some(Rating::R)), &[50, 51][..], &[50, 51][..], end())
        );
        assert_eq!(frame(&[50], None).0, [end(), 50]);
        assert_ne!(start(Some(Rating::G)), start(Some(Rating::X)));
    }
}
