//! The tokenizer's vocabulary as `toktrie` wants it: the bytes of each token.

use std::sync::Arc;

use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::{GrammarError, guarded};
use crate::tokenizer::Tokenizer;

/// Longer tokens are left out; the trie has room for paths of 1,024 bytes.
const LONGEST_TOKEN: usize = 512;

/// The trie of all text tokens. Tokens in it may be spelled in any way: nothing is forced to be canonical.
pub(super) fn environment(tokenizer: &Tokenizer, vocab_size: usize) -> Result<TokEnv, GrammarError> {
    let is_in_vocab = |id: &u32| (*id as usize) < vocab_size;
    let eos_ids: Vec<u32> = tokenizer.eos_ids().iter().copied().filter(is_in_vocab).collect();
    let Some(&first_eos) = eos_ids.first() else {
        let reason = "it names no end-of-sequence token, with which a constrained text ends";
        return Err(GrammarError::Tokenizer(reason.into()));
    };
    let mut words = tokenizer.token_bytes().map_err(|e| GrammarError::Tokenizer(e.to_string()))?;
    words.resize(vocab_size, Vec::new());
    for word in &mut words {
        // 0xFF marks special tokens in `toktrie`, and is in no UTF-8.
        if word.len() > LONGEST_TOKEN || word.contains(&TokTrie::SPECIAL_TOKEN_MARKER) {
            word.clear();
        }
    }
    guarded(|| {
        let info = TokRxInfo::new(u32::try_from(vocab_size)?, first_eos);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&eos_ids);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        Ok(env)
    })
    .map_err(GrammarError::Tokenizer)
}
