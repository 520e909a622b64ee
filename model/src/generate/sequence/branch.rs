//! One pass over a sequence.

use crate::decoder::KvCache;

/// A pass over the sequence.
pub struct Branch {
    /// All tokens: the start, passages, the prompt, and what was generated.
    pub tokens: Vec<u32>,
    /// Made when the sequence starts, so that a waiting one holds no memory.
    pub cache: Option<KvCache>,
    /// Tokens that are run at most.
    pub capacity: usize,
}

impl Branch {
    /// Tokens that have been run.
    pub fn done(&self) -> usize {
        self.cache.as_ref().map_or(0, KvCache::len)
    }

    /// Puts other passages behind the first `head` tokens and before `text`, and forgets what was run behind the old
    /// ones, from token `first` on at least. What both begin with is kept where `keeps` allows it.
    pub fn replace(
        &mut self,
        head: usize,
        passages: &[u32],
        text: &[u32],
        first: usize,
        keeps: impl Fn(usize) -> bool,
    ) {
        let tokens = [&self.tokens[..head], passages, text].concat();
        let common = tokens.iter().zip(&self.tokens).take_while(|(new, old)| new == old).count();
        let kept = if keeps(tokens.len().max(self.tokens.len())) { common.min(first) } else { 0 };
        if let Some(cache) = &mut self.cache {
            cache.truncate(kept);
        }
        self.tokens = tokens;
    }
}
