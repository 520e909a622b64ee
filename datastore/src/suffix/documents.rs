//! Which document a position belongs to.

use std::ops::Range;

use super::SuffixError;

/// Positions that share one entry of the table that search starts from: 2^8.
const BLOCK_BITS: u32 = 8;

/// The first token of each document, with a table that makes the search for a document a short one.
pub(crate) struct Documents {
    starts: Vec<u32>,
    /// Documents that start at or before the first position of each block.
    blocks: Vec<u32>,
    tokens: u32,
}

impl Documents {
    /// Checks that `starts` begins at 0, never falls and stays within `tokens`.
    pub(crate) fn new(starts: &[u32], tokens: usize) -> Result<Documents, SuffixError> {
        let tokens = u32::try_from(tokens).map_err(|_| SuffixError::TooLong {
            tokens,
            documents: starts.len(),
            most: i32::MAX as usize,
        })?;
        if starts.first().is_some_and(|&first| first != 0) || (starts.is_empty() && tokens > 0) {
            return Err(SuffixError::Starts("the first document must start at token 0".into()));
        }
        if let Some(at) = (1..starts.len()).find(|&d| starts[d] < starts[d - 1]) {
            return Err(SuffixError::Starts(format!(
                "document {at} starts at token {}, before its predecessor at {}",
                starts[at],
                starts[at - 1]
            )));
        }
        if let Some(&last) = starts.last().filter(|&&last| last > tokens) {
            return Err(SuffixError::Starts(format!("the last starts at token {last}, but there are {tokens} tokens")));
        }
        let mut blocks = Vec::with_capacity((tokens >> BLOCK_BITS) as usize + 2);
        let mut document = 0;
        for block in 0..=(tokens >> BLOCK_BITS) {
            while document < starts.len() && starts[document] <= block << BLOCK_BITS {
                document += 1;
            }
            blocks.push(document as u32);
        }
        blocks.push(starts.len() as u32);
        Ok(Documents { starts: starts.to_vec(), blocks, tokens })
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The document of a position that is less than the number of tokens.
    pub(crate) fn of(&self, position: u32) -> u32 {
        let block = (position >> BLOCK_BITS) as usize;
        let (Some(&low), Some(&high)) = (self.blocks.get(block), self.blocks.get(block + 1)) else { return 0 };
        let (low, high) = (low as usize, high as usize);
        let after = low + self.starts[low..high.max(low)].partition_point(|&start| start <= position);
        after.saturating_sub(1) as u32
    }

    /// The token after the last one of a document.
    pub(crate) fn end(&self, document: u32) -> u32 {
        self.starts.get(document as usize + 1).copied().unwrap_or(self.tokens)
    }

    /// The positions of a document.
    pub(crate) fn range(&self, document: u32) -> Range<u32> {
        self.starts.get(document as usize).map_or(0..0, |&start| start..self.end(document))
    }
}
