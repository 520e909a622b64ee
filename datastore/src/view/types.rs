//! What views answer with.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::license::{License, Obligation};
use crate::rating::Rating;

/// A document within one [`View`]; keys of one view mean nothing to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    /// Number of the segment in the view.
    pub segment: u32,
    /// Number of the document in the segment.
    pub document: u32,
}

/// What is known of a document, without its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentInfo {
    /// Unique within its store.
    pub id: String,
    /// Title of the work.
    pub title: String,
    /// Author of the work.
    pub author: String,
    /// Who holds the rights, where that is not the author.
    pub rights_holder: String,
    /// Where it can be found.
    pub url: String,
    /// Language code.
    pub lang: String,
    /// Where the collection came from.
    pub source: String,
    /// The license.
    pub license: License,
    /// What the license asks of those who use the text.
    pub obligations: Vec<Obligation>,
    /// The rating; X where the document bears none.
    pub rating: Rating,
    /// Whether the rights holder allows retrieval.
    pub retrieve: bool,
    /// Tokens of the text.
    pub tokens: u64,
    /// SHA-256 over text and provenance, in hexadecimal digits.
    pub sha256: String,
}

/// A token whose context resembles the one searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Squared Euclidean distance of the keys.
    pub distance: f32,
    /// The token that followed.
    pub token: u32,
    /// Where.
    pub document: DocumentKey,
    /// Its place in the document's tokens.
    pub position: u32,
}

/// A place where a context occurred, and the token that followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occurrence {
    /// The token that followed.
    pub token: u32,
    /// Where.
    pub document: DocumentKey,
    /// The place of `token` in the document's tokens.
    pub position: u32,
}

/// What followed the longest suffix of a context that occurs in the view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Continuations {
    /// Tokens of the suffix; 0 when not even the last token occurs.
    pub matched: usize,
    /// All its occurrences; empty when there are too many.
    pub occurrences: Vec<Occurrence>,
    /// More occurrences than are counted: so common a context is left to the model.
    pub too_many: bool,
}

/// A passage that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct PassageHit {
    /// Its document.
    pub document: DocumentKey,
    /// Number of the passage in the document's segment.
    pub passage: u32,
    /// Tokens of the document that it covers.
    pub tokens: Range<u32>,
    /// The larger, the better; comparable within one way of searching.
    pub score: f32,
}

/// A stretch of tokens that stands verbatim in documents of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceMatch {
    /// Which of the tokens asked about.
    pub range: Range<usize>,
    /// Where it stands: document, and place of its first token there.
    pub occurrences: Vec<(DocumentKey, u32)>,
    /// How often it stands in the view; `occurrences` may list fewer.
    pub count: u64,
}
