//! Sentence encoders: text to a vector, for embeddings and semantic search.
//!
//! BERT and (XLM-)RoBERTa as `candle-transformers` has them, opened from folders in the layout of Hugging Face and
//! sentence-transformers. `candle-transformers` trusts its files; [`folder`] checks them before.

mod folder;
mod pooling;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, xlm_roberta};

use crate::tokenizer::{Tokenizer, TokenizerError};
use folder::{Folder, Kind};
use pooling::Pooling;

/// Tokens of a text at most, whatever the folder allows: attention holds the scores of all pairs at once.
const MOST_TOKENS: usize = 2048;

/// Tokens that go through the encoder together, but for a single longer text.
const BATCH_TOKENS: usize = 2048;

/// Why an encoder cannot be opened, or a text not be embedded.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// The folder does not exist or is no folder.
    #[error("no encoder folder at {0}: expected a folder with config.json, model.safetensors and tokenizer.json")]
    NoFolder(PathBuf),
    /// A file is missing, cannot be read, or says what cannot be used.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it and what was expected.
        reason: String,
    },
    /// The tokenizer was refused, or cannot encode a text.
    #[error("the encoder's tokenizer: {0}")]
    Tokenizer(#[from] TokenizerError),
    /// A text without tokens.
    #[error("text {index} has no tokens: expected at least one")]
    Empty {
        /// Its place in the list.
        index: usize,
    },
    /// A text that does not fit.
    #[error("text {index} has {tokens} tokens: this encoder takes at most {maximum}; shorten it or cut it into parts")]
    TooLong {
        /// Its place in the list.
        index: usize,
        /// Its tokens, special ones included.
        tokens: usize,
        /// Tokens that fit.
        maximum: usize,
    },
    /// A token id that the encoder has no row for.
    #[error("text {index} holds the token id {token}, outside the vocabulary of {vocab_size} tokens")]
    TokenOutOfRange {
        /// Its place in the list.
        index: usize,
        /// The id.
        token: u32,
        /// Ids run from 0 to this, exclusive.
        vocab_size: usize,
    },
    /// The encoder failed.
    #[error("the encoder failed: {0}")]
    Forward(#[from] candle_core::Error),
}

enum Model {
    Bert(bert::BertModel),
    Roberta(xlm_roberta::XLMRobertaModel),
}

/// An encoder ready to run.
pub struct Encoder {
    name: String,
    model: Model,
    tokenizer: Tokenizer,
    pooling: Pooling,
    is_normalized: bool,
    vocab_size: usize,
    max_tokens: usize,
    dimensions: usize,
}

impl Encoder {
    /// Opens a folder: `config.json`, `model.safetensors`, `tokenizer.json`, and where it has them `tokenizer_config.json`,
    /// `modules.json` with the pooling it names, and `sentence_bert_config.json`. Without `modules.json` the tokens' mean is
    /// taken, as sentence-transformers does.
    ///
    /// # Errors
    /// An [`EncoderError`] names the file and what was expected.
    pub fn open(path: &Path) -> Result<Self, EncoderError> {
        let folder = Folder::open(path)?;
        let config = folder.config()?;
        let (pooling, is_normalized) = folder.pooling(config.hidden_size)?;
        let tokenizer = folder.tokenizer(config.vocab_size)?;
        let tensors = folder.tensors(&config)?;
        let parameters = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let model = match config.kind {
            Kind::Bert => Model::Bert(bert::BertModel::load(parameters, &config.to_bert())?),
            Kind::Roberta => Model::Roberta(xlm_roberta::XLMRobertaModel::new(&config.to_roberta(), parameters)?),
        };
        let max_tokens = folder.max_tokens(config.positions())?.min(MOST_TOKENS);
        Ok(Self {
            name: folder.name(),
            model,
            tokenizer,
            pooling,
            is_normalized,
            vocab_size: config.vocab_size,
            max_tokens,
            dimensions: config.hidden_size,
        })
    }

    /// The folder's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tokens of a text at most, special ones included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Numbers in an embedding.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The tokenizer, whose special tokens no text can spell.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A text as [`Self::embed`] takes it: its tokens between the special ones. Nothing is cut.
    ///
    /// # Errors
    /// [`EncoderError::Tokenizer`].
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, EncoderError> {
        Ok(self.tokenizer.encode(text, true)?)
    }

    /// The embedding `[dimensions]` of each text, in the order of `texts`. Texts do not see each other: whatever stands
    /// beside a text, its embedding is the same up to rounding (1e-5).
    ///
    /// # Errors
    /// [`EncoderError::Empty`], [`EncoderError::TooLong`] and [`EncoderError::TokenOutOfRange`] name the first text that
    /// cannot be embedded.
    pub fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, EncoderError> {
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, text) in texts.iter().enumerate() {
            let (tokens, maximum, vocab_size) = (text.len(), self.max_tokens, self.vocab_size);
            if tokens == 0 {
                return Err(EncoderError::Empty { index });
            }
            if tokens > maximum {
                return Err(EncoderError::TooLong { index, tokens, maximum });
            }
            if let Some(&token) = text.iter().find(|&&token| token as usize >= vocab_size) {
                return Err(EncoderError::TokenOutOfRange { index, token, vocab_size });
            }
            by_length.entry(tokens).or_default().push(index);
        }
        let mut embeddings = vec![Vec::new(); texts.len()];
        for (length, indices) in by_length {
            // Texts of one length need no padding.
            for batch in indices.chunks((BATCH_TOKENS / length).max(1)) {
                let ids: Vec<u32> = batch.iter().flat_map(|&index| texts[index].iter().copied()).collect();
                let ids = Tensor::from_vec(ids, (batch.len(), length), &Device::Cpu)?; // [texts, tokens]
                let states = Device::Cpu.with_context(|| self.forward(&ids))?; // [texts, tokens, dimensions]
                for (&index, states) in batch.iter().zip(states.to_vec3::<f32>()?) {
                    embeddings[index] = self.pooling.pooled(&states);
                    if self.is_normalized {
                        pooling::normalize(&mut embeddings[index]);
                    }
                }
            }
        }
        Ok(embeddings)
    }

    fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let token_types = ids.zeros_like()?;
        match &self.model {
            Model::Bert(model) => model.forward(ids, &token_types, None),
            Model::Roberta(model) => model.forward(ids, &ids.ones_like()?, &token_types, None, None, None),
        }
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("name", &self.name)
            .field("dimensions", &self.dimensions)
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}
