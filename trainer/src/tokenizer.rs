//! The byte-level BPE tokenizer of SafeLMM checkpoints, learnt from the training text.

use safelmm_model::Rating;
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
