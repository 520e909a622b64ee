//! Keys of contexts for nearest-neighbour language models (Khandelwal et al. 2020): the input of the last feed-forward
//! layer behind its norm, which their table 5 finds to be the best one.
//!
//! Where norms stand behind the blocks (OLMo 2) it is the input as it goes into the feed-forward.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::cache::KvCache;
use super::{Decoder, Result, Segment};

/// Rows that are run at once.
const ROWS: usize = 1024;

impl Decoder {
    /// Which state of the network a key is: what a store of keys records, and compares when it is opened.
    pub fn key_layer(&self) -> String {
        format!("model.layers.{}.mlp.input", self.config.n_layers.saturating_sub(1))
    }

    /// As [`forward_cached`](Self::forward_cached), and beside the hidden states the keys of some of their rows, in the
    /// order asked for: [rows, hidden] and [wanted, hidden]; `None` where no row is wanted. A row's key has the same bits
    /// in any company and in any pieces of its sequence, once the weights are packed.
    ///
    /// # Errors
    /// Those of [`forward_cached`](Self::forward_cached), and a wanted row that there is not.
    pub fn forward_cached_with_keys(
        &self,
        segments: &mut [Segment<'_>],
        wanted: &[u32],
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (last, x, input) = self.attended_cached(segments)?;
        let keys = match wanted {
            [] => None,
            rows => Some(input.index_select(&Tensor::from_slice(rows, rows.len(), input.device())?, 0)?),
        };
        Ok((self.finish(last, &x, &input)?, keys))
    }

    /// The keys of whole sequences, [rows, hidden], where rows counts the tokens of all sequences in order: row `p` of a
    /// sequence is the state behind its token `p`, which predicts token `p + 1`. The bits are those that a generation
    /// sees at that place behind the same tokens; under a scaling of RoPE that looks at the length of a sequence, as long
    /// as both lie within [`fixed_positions`](crate::Config::fixed_positions).
    ///
    /// Sequences of any number and length may come at once: they are run a few at a time. Keys and values of one sequence
    /// at a time, and of those that are run beside it, are in memory.
    ///
    /// # Errors
    /// A sequence without tokens or longer than the context, a token outside the vocabulary, or no sequence at all.
    pub fn keys(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        let longest = self.config.context_length();
        if let Some(tokens) = sequences.iter().map(|tokens| tokens.len()).find(|tokens| *tokens > longest) {
            candle_core::bail!("a sequence of {tokens} tokens does not fit the context of {longest}: cut it");
        }
        let mut waiting: VecDeque<(&[u32], Option<KvCache>)> = sequences.iter().map(|tokens| (*tokens, None)).collect();
        let mut keys = Vec::new();
        while !waiting.is_empty() {
            let mut running: Vec<(&[u32], KvCache, usize)> = Vec::new(); // with the number of tokens to run
            let mut room = ROWS;
            while room > 0
                && let Some((tokens, cache)) = waiting.pop_front()
            {
                let cache = cache.unwrap_or_else(|| KvCache::unpooled(&self.config, tokens.len()));
                let portion = (tokens.len() - cache.len()).min(room);
                room -= portion;
                running.push((tokens, cache, portion));
            }
            let mut segments: Vec<Segment<'_>> = running
                .iter_mut()
                .map(|(tokens, cache, portion)| {
                    let first = cache.len();
                    Segment { tokens: &tokens[first..first + *portion], cache, total: tokens.len() }
                })
                .collect();
            keys.push(self.attended_cached(&mut segments)?.2);
            // Only the last one can be unfinished.
            if let Some((tokens, cache, _)) = running.pop()
                && cache.len() < tokens.len()
            {
                waiting.push_front((tokens, Some(cache)));
            }
        }
        Tensor::cat(&keys, 0)
    }
}
