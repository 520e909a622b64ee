//! The byte-level BPE tokenizer of SafeLMM checkpoints, learnt from the training text or taken from a checkpoint.

use std::path::{Path, PathBuf};
use std::{fs, io};

use safelmm_model::Rating;
use safelmm_model::card::Card;
use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer};

/// Begins an untagged passage and ends every passage.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Begins a message of a conversation.
pub const MESSAGE_START: &str = "<|im_start|>";
/// Ends a message of a conversation.
pub const MESSAGE_END: &str = "<|im_end|>";

/// Words with their leading space, single digits, runs of punctuation, line breaks: the split of the Qwen models,
/// whose numbers stay readable because every digit is a token.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}[\p{L}\p{M}]*|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// ChatML, the template of the Qwen models.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
     message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}\
     {{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The control tokens, in the order of their ids.
pub fn control_tokens() -> Vec<&'static str> {
    let mut tokens = vec![END_OF_TEXT, MESSAGE_START, MESSAGE_END];
    tokens.extend(Rating::ALL.map(Rating::token));
    tokens
}

/// The id that [`train`] gives a control token.
pub fn control_id(token: &str) -> u32 {
    control_tokens().iter().position(|t| *t == token).map_or(0, |place| place as u32)
}

/// Learns `vocab_size` tokens from the texts, control tokens first.
///
/// # Errors
/// Those of the tokenizers library.
pub fn train(texts: impl Iterator<Item = String> + Send, vocab_size: usize) -> tokenizers::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(BPE::default());
    let split = Split::new(SplitPattern::Regex(SPLIT.to_owned()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, false, false);
    tokenizer
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(bytes),
        ])))
        .with_decoder(Some(ByteLevel::new(false, false, false)));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(control_tokens().into_iter().map(|t| AddedToken::from(t, true)).collect())
        .build()
        .into();
    tokenizer.train(&mut trainer, texts)?;
    Ok(tokenizer)
}

/// The tokenizer of a checkpoint.
pub struct Taken {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Its `tokenizer.json` as it stands.
    pub json: Vec<u8>,
    /// The checkpoint's name.
    pub model: String,
}

/// Why the tokenizer of a checkpoint cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// A file is missing, cannot be read, or does not say what it must.
    #[error("{file}: {source}: expected a checkpoint folder as `safelmm-train export` writes it")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no tokenizer, or one with which no run can be trained.
    #[error("{file}: {reason}")]
    Unfit {
        /// The file.
        file: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },
}

/// Takes the tokenizer of a checkpoint folder, which must have `vocab_size` tokens and the control tokens of [`train`].
///
/// # Errors
/// Names the file, and what was expected.
pub fn take(folder: &Path, vocab_size: usize) -> Result<Taken, TakeError> {
    let read = |file: &Path| fs::read(file).map_err(|source| TakeError::File { file: file.to_owned(), source });
    let card_file = folder.join("safelmm.json");
    let card: Card = serde_json::from_slice(&read(&card_file)?)
        .map_err(|e| TakeError::File { file: card_file, source: e.into() })?;
    let file = folder.join("tokenizer.json");
    let json = read(&file)?;
    let unfit = |reason: String| TakeError::Unfit { file: file.clone(), reason };
    let tokenizer = Tokenizer::from_bytes(&json).map_err(|e| unfit(e.to_string()))?;
    let size = tokenizer.get_vocab_size(true);
    if size != vocab_size {
        return Err(unfit(format!("{size} tokens, but tokenizer.vocab_size is {vocab_size}: set it to {size}")));
    }
    for token in control_tokens() {
        let expected = control_id(token);
        if tokenizer.token_to_id(token) != Some(expected) {
            let has = tokenizer.token_to_id(token).map_or("no id".to_owned(), |id| format!("the id {id}"));
            return Err(unfit(format!(
                "{token} has {has}: expected {expected}, as in a tokenizer that `safelmm-train data` has learnt"
            )));
        }
    }
    Ok(Taken { tokenizer, json, model: card.name })
}

/// `tokenizer_config.json`.
pub fn tokenizer_config(context: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": &control_tokens()[1..],
        "model_max_length": context,
        "clean_up_tokenization_spaces": false,
        "chat_template": CHAT_TEMPLATE,
    })
}
