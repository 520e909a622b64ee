//! A document on its way into a store.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::StoreSettings;
use crate::catalog::{DocumentRecord, id_hash};
use crate::document::{Document, DocumentError};
use crate::encoder::StoreEncoder;
use crate::files;
use crate::passages;
use crate::rating::Rating;

/// A document with what tells whether it is there already.
pub(super) struct Candidate {
    pub document: Document,
    /// Hash of its id.
    pub hash: [u8; 16],
    /// SHA-256 over all of it.
    pub content: [u8; 32],
}

impl Candidate {
    pub(super) fn new(document: Document) -> Candidate {
        let mut hash = Sha256::new();
        let permissions = document.permissions.unwrap_or_default();
        let rating = document.rating.map_or("", Rating::name);
        let flags = format!("{rating} {:?} {}", permissions.train, document.retrieve());
        let d = &document;
        let members: [&str; 11] = [
            &d.id,
            &d.text,
            d.license.expression(),
            &d.title,
            &d.author,
            &d.url,
            &d.lang,
            &flags,
            &d.rights_holder,
            &d.source,
            "1",
        ];
        for member in members {
            hash.update((member.len() as u64).to_le_bytes());
            hash.update(member.as_bytes());
        }
        let content = hash.finalize().into();
        Candidate { hash: id_hash(&document.id), content, document }
    }
}

/// A document with its tokens and passages.
pub(super) struct Encoded {
    pub record: DocumentRecord,
    pub text: String,
    pub tokens: Vec<u32>,
    /// The byte at which each token starts.
    pub offsets: Vec<u32>,
    pub passages: Vec<Range<usize>>,
}

impl Encoded {
    /// The text of each passage.
    pub(super) fn passage_texts(&self) -> impl Iterator<Item = &str> {
        self.passages.iter().map(|tokens| passage_text(&self.text, &self.offsets, tokens))
    }
}

/// The passages of a document, as ranges of its tokens. The end of a token is the start of the next one, here as when a
/// segment is rebuilt: both must cut alike.
pub(crate) fn cut_passages(text: &str, offsets: &[u32], settings: &StoreSettings) -> Vec<Range<usize>> {
    let ends = offsets.iter().skip(1).map(|o| *o as usize).chain([text.len()]);
    let ranges: Vec<Range<usize>> = offsets.iter().zip(ends).map(|(start, end)| *start as usize..end).collect();
    passages::cut(text, &ranges, settings.passage_tokens, settings.passage_stride)
}

/// The text under some tokens, widened to whole characters.
pub(crate) fn passage_text<'a>(text: &'a str, offsets: &[u32], tokens: &Range<usize>) -> &'a str {
    let place = |token: usize| offsets.get(token).map_or(text.len(), |o| (*o as usize).min(text.len()));
    let (mut start, mut end) = (place(tokens.start), place(tokens.end));
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    text.get(start..end).unwrap_or_default()
}

/// Tokenises a document and cuts its passages; of one that cannot enter, the hash of its id and why.
pub(super) fn tokenize(
    candidate: Candidate,
    encoder: &dyn StoreEncoder,
    settings: &StoreSettings,
) -> Result<Encoded, ([u8; 16], DocumentError)> {
    let Candidate { document, hash, content } = candidate;
    let refuse = |what: String| Err((hash, DocumentError::Refused { document: document.id.clone(), what }));
    let (tokens, ranges) = match encoder.tokenize(&document.text) {
        Ok(tokenized) => tokenized,
        Err(error) => return refuse(error.to_string()),
    };
    if tokens.is_empty() {
        return refuse("its text has no tokens".to_owned());
    }
    if let Some(token) = tokens.iter().find(|t| **t as usize >= settings.vocab_size) {
        return refuse(format!("the tokenizer gave token {token} of a vocabulary of {}", settings.vocab_size));
    }
    let ordered = ranges.windows(2).all(|pair| pair[0].start <= pair[1].start);
    let inside = ranges.last().is_none_or(|last| last.start <= document.text.len());
    if ranges.len() != tokens.len() || !ordered || !inside {
        return refuse("the tokenizer gave places of tokens that do not follow one another".to_owned());
    }
    let offsets: Vec<u32> = ranges.iter().map(|r| r.start as u32).collect();
    let passages = cut_passages(&document.text, &offsets, settings);
    let retrieve = document.retrieve();
    let record = DocumentRecord {
        // The commit sets it.
        sequence: 0,
        retrieve,
        tokens: tokens.len() as u64,
        sha256: files::hex(&content),
        id: document.id,
        title: document.title,
        author: document.author,
        rights_holder: document.rights_holder,
        url: document.url,
        lang: document.lang,
        source: document.source,
        license: document.license,
        // What bears no rating may be anything.
        rating: document.rating.unwrap_or(Rating::X),
    };
    Ok(Encoded { record, text: document.text, tokens, offsets, passages })
}
