//! How answers spell single tokens.

use std::sync::Arc;

use safelmm_model::Tokenizer;

/// The bytes of every token.
pub struct Spellings {
    tokenizer: Arc<Tokenizer>,
    /// By id; empty for control tokens.
    bytes: Vec<Vec<u8>>,
}

impl Spellings {
    /// Spells the whole vocabulary, once for all requests. Where the decoder does not say what single tokens add to a
    /// text, they are spelled as the vocabulary writes them.
    pub fn new(tokenizer: &Arc<Tokenizer>) -> Self {
        let bytes = tokenizer.token_bytes().unwrap_or_else(|error| {
            tracing::warn!(error = error.to_string(), "tokens are spelled as the vocabulary writes them");
            Vec::new()
        });
        Spellings { tokenizer: Arc::clone(tokenizer), bytes }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What the token adds to a text; a control token's own spelling.
    pub fn bytes(&self, token: u32) -> Vec<u8> {
        match self.bytes.get(token as usize) {
            Some(bytes) if !bytes.is_empty() => bytes.clone(),
            _ => self.tokenizer.token_text(token).unwrap_or_default().into_bytes(),
        }
    }

    /// The same as a text; `bytes:\x..` for part of a character, so that no two of them look alike.
    pub fn text(&self, token: u32) -> String {
        let spell = |error: std::string::FromUtf8Error| {
            error.as_bytes().iter().fold("bytes:".to_owned(), |text, byte| text + &format!("\\x{byte:02x}"))
        };
        String::from_utf8(self.bytes(token)).unwrap_or_else(spell)
    }
}
