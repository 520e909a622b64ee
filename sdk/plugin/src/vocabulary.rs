//! What the ids of tokens stand for. For policies that ask for [`Capability::Vocabulary`](crate::Capability) and
//! operators who grant it; a component imports it only where it is called.
//!
//! Natively there is no vocabulary but the one of [`testing::with_vocabulary`](crate::testing::with_vocabulary).

#[cfg(target_arch = "wasm32")]
pub use crate::bindings::safelmm::policy::vocabulary::{len, piece, tokenize};

#[cfg(not(target_arch = "wasm32"))]
pub use native::{len, piece, tokenize};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native {
    use std::cell::RefCell;

    thread_local! {
        pub(crate) static PIECES: RefCell<Vec<Option<Vec<u8>>>> = const { RefCell::new(Vec::new()) };
    }

    /// The number of ids.
    pub fn len() -> u32 {
        PIECES.with_borrow(|pieces| u32::try_from(pieces.len()).unwrap_or(u32::MAX))
    }

    /// The bytes of a token, perhaps a part of a character; none for control tokens and ids beyond the vocabulary.
    pub fn piece(id: u32) -> Option<Vec<u8>> {
        PIECES.with_borrow(|pieces| pieces.get(id as usize).cloned().flatten())
    }

    /// The text as tokens, the longest piece first at each place. Bytes that no piece begins with are left out.
    pub fn tokenize(text: &str) -> Vec<u32> {
        let mut rest = text.as_bytes();
        let mut ids = Vec::new();
        while !rest.is_empty() {
            let longest = PIECES.with_borrow(|pieces| {
                let fits = pieces.iter().enumerate().filter_map(|(id, piece)| {
                    let piece = piece.as_deref()?;
                    (!piece.is_empty() && rest.starts_with(piece)).then_some((piece.len(), id))
                });
                fits.max()
            });
            let Some((length, id)) = longest else {
                rest = &rest[1..];
                continue;
            };
            ids.extend(u32::try_from(id));
            rest = &rest[length..];
        }
        ids
    }
}
