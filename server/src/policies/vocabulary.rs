//! What the ids of the model's tokens stand for, for policies that were granted it.

use std::sync::{Arc, OnceLock};

use safelmm_model::Checkpoint;
use safelmm_plugins::host::Vocabulary;

/// The vocabulary of a checkpoint; its bytes are spelled when they are first asked for.
pub struct ModelVocabulary {
    checkpoint: Arc<Checkpoint>,
    bytes: OnceLock<Vec<Vec<u8>>>,
}

impl ModelVocabulary {
    /// That of a checkpoint.
    pub fn new(checkpoint: Arc<Checkpoint>) -> Self {
        ModelVocabulary { checkpoint, bytes: OnceLock::new() }
    }
}

impl Vocabulary for ModelVocabulary {
    fn len(&self) -> u32 {
        u32::try_from(self.checkpoint.config().vocab_size).unwrap_or(u32::MAX)
    }

    fn piece(&self, id: u32) -> Option<Vec<u8>> {
        let bytes = self.bytes.get_or_init(|| {
            let spelled = self.checkpoint.tokenizer.token_bytes();
            spelled.inspect_err(|error| tracing::warn!(%error, "policies learn no token's bytes")).unwrap_or_default()
        });
        bytes.get(id as usize).filter(|bytes| !bytes.is_empty()).cloned()
    }

    fn tokenize(&self, text: &str) -> Vec<u32> {
        let tokens = self.checkpoint.tokenizer.encode(text, false);
        tokens.inspect_err(|error| tracing::warn!(%error, "a policy's text has no tokens")).unwrap_or_default()
    }
}
