//! What callers say to a store, and what it answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::index::IndexParams;
use crate::receipt::Receipt;

/// What a store is made with; it stays so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// Name, of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Fingerprint of the model whose keys it takes.
    pub model_fingerprint: String,
    /// Layer whose last feed-forward block's input, after its norm, is the key.
    pub key_layer: usize,
    /// Numbers in a key.
    pub dim: usize,
    /// Token ids are less than this.
    pub vocab_size: usize,
    /// Tokens of a passage.
    pub passage_tokens: usize,
    /// Tokens from the start of one passage to the start of the next.
    pub passage_stride: usize,
    /// What makes the vectors of passages, as its user calls it: those of two makers are not comparable.
    pub passage_encoder: String,
    /// Tokens that compaction puts into one segment, about.
    pub segment_tokens: u64,
    /// How keys are indexed.
    pub keys: IndexParams,
    /// How the vectors of passages are.
    pub passages: IndexParams,
}

/// The longest name of a store.
const MAX_NAME: usize = 64;

impl StoreSettings {
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let refuse = |what: String| Err(StoreError::Settings(what));
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty()
            || self.name.len() > MAX_NAME
            || self.name.starts_with('.')
            || !self.name.chars().all(allowed)
        {
            return refuse(format!(
                "{:?} is no name of a store: expected up to {MAX_NAME} letters, digits, '-', '_' and '.', the first not a point",
                self.name
            ));
        }
        if self.dim == 0 || self.vocab_size == 0 {
            return refuse("a store needs keys of at least one number, and a vocabulary".to_owned());
        }
        if self.passage_stride == 0 || self.passage_tokens < self.passage_stride {
            return refuse(format!(
                "passages of {} tokens every {}: expected a stride from 1 to the size of a passage",
                self.passage_tokens, self.passage_stride
            ));
        }
        match (1..=1 << 30).contains(&self.segment_tokens) {
            true => Ok(()),
            false => refuse(format!("segments of {} tokens: expected 1 to 2^30", self.segment_tokens)),
        }
    }

    /// Settings for a model, with passages of 1,024 tokens every 512.
    pub fn new(name: &str, model_fingerprint: &str, key_layer: usize, dim: usize, vocab_size: usize) -> StoreSettings {
        StoreSettings {
            name: name.to_owned(),
            model_fingerprint: model_fingerprint.to_owned(),
            key_layer,
            dim,
            vocab_size,
            passage_tokens: 1024,
            passage_stride: 512,
            passage_encoder: String::new(),
            segment_tokens: 1 << 24,
            keys: IndexParams::for_keys(),
            passages: IndexParams::default(),
        }
    }
}

/// How documents are added.
#[derive(Clone, Debug)]
pub struct AddOptions {
    /// Tokens after which documents are committed: work that is lost at most when the program is killed.
    pub commit_every_tokens: usize,
    /// Tokens whose keys are computed at a time, about: bounds memory.
    pub batch_tokens: usize,
    /// The largest document, in bytes of text. All keys of a document are in memory at once, 4 bytes for each number.
    pub max_document_bytes: usize,
    /// When a document cannot enter, none does that was not committed before.
    pub all_or_none: bool,
    /// Go on after documents that cannot enter, instead of stopping at the first.
    pub skip_bad: bool,
}

impl Default for AddOptions {
    fn default() -> AddOptions {
        AddOptions {
            commit_every_tokens: 1 << 18,
            batch_tokens: 1 << 13,
            max_document_bytes: 8 << 20,
            all_or_none: false,
            skip_bad: false,
        }
    }
}

/// How far adding has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddProgress {
    /// Documents read so far.
    pub read: usize,
    /// Documents whose keys are made.
    pub encoded: usize,
    /// Tokens whose keys are made.
    pub tokens: u64,
    /// Documents that are durable, those that were there before included.
    pub committed: usize,
    /// Documents that could not enter.
    pub skipped: usize,
}

/// What adding did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// New documents.
    pub added: usize,
    /// Documents that replaced one with the same id.
    pub replaced: usize,
    /// Documents that were there already, just so.
    pub unchanged: usize,
    /// Why documents did not enter; at most 1,000 are told.
    pub skipped: Vec<String>,
    /// How many did not enter.
    pub skipped_count: usize,
    /// Tokens added.
    pub tokens: u64,
    /// Whether the caller stopped it before the end; what is counted here is committed nevertheless.
    pub stopped: bool,
}

/// Which documents to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// The one with this id.
    Id(String),
    /// Those of this author.
    Author(String),
    /// Those of this rights holder.
    RightsHolder(String),
    /// Those found at this address.
    Url(String),
}

/// How far compaction has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactProgress {
    /// Tokens of segments that are rebuilt or left as they are.
    pub done: u64,
    /// Tokens of all segments.
    pub total: u64,
}

/// What compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments before.
    pub segments_before: usize,
    /// Segments after.
    pub segments_after: usize,
    /// Documents whose bytes were erased.
    pub erased: usize,
    /// The statement that they were.
    pub receipt: Option<Receipt>,
}

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreInfo {
    /// What it was made with.
    pub settings: StoreSettings,
    /// Documents that were not removed.
    pub documents: usize,
    /// Their tokens.
    pub tokens: u64,
    /// Segments.
    pub segments: usize,
    /// Documents for each license.
    pub licenses: BTreeMap<String, usize>,
    /// Documents that are removed or replaced, and whose bytes compaction will erase.
    pub dead: usize,
    /// Number of the last commit.
    pub sequence: u64,
    /// The public key of its receipts, in hexadecimal digits.
    pub public_key: String,
    /// What tuning has found.
    pub tuning: Option<serde_json::Value>,
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Files that were read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Documents whose records were read.
    pub documents: usize,
    /// What is wrong; nothing, when the store is as it was written.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}
