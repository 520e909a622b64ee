//! Where an answer comes from: the documents that had a part in its tokens, and those in which it stands word for word.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use safelmm_datastore::{DocumentInfo, DocumentKey, Obligation, Rating, View};
use safelmm_model::{Tokenizer, TokenizerError};
use serde::Serialize;
use utoipa::ToSchema;

use super::evidence::{Evidence, Kind, Share};

/// A document with less of a span's probability is not told, but one that may be used only where it is named.
const LEAST_WEIGHT: f32 = 0.1;
/// Matches of fewer tokens are not told, where the request does not say: fewer are common turns of phrase.
pub const VERBATIM_TOKENS: usize = 8;
/// The most documents that are told of one match.
pub const VERBATIM_DOCUMENTS: usize = 10;

/// A part of an answer with a document that it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Attribution {
    /// Which choice of the answer.
    pub choice: usize,
    /// Where the part begins in the choice's text, in characters. Calls of functions count as the model wrote them.
    pub start: usize,
    /// Where it ends, exclusive.
    pub end: usize,
    /// The part.
    pub text: String,
    /// The store; `training` stands for the text that the model was trained on.
    pub store: String,
    /// The document's id.
    pub document: String,
    /// Its title.
    pub title: String,
    /// Its author.
    pub author: String,
    /// Its license, as an SPDX expression.
    pub license: String,
    /// Where it can be found.
    pub url: String,
    /// Its language, as a BCP 47 tag; empty where it is not known.
    pub language: String,
    /// Its rating.
    #[schema(value_type = String)]
    pub rating: Rating,
    /// What the license asks of those who use the text.
    #[schema(value_type = Vec<String>)]
    pub obligations: Vec<Obligation>,
    /// In which way it took part.
    pub kind: Kind,
    /// How much of the probability of these tokens came from the document, from 0 to 1; 1 for what stands in it word for
    /// word, the score of the search for a passage.
    pub weight: f32,
}

/// How finely an answer is attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Runs of tokens with the same document.
    Spans,
    /// Each token.
    Tokens,
}

/// A text by its tokens.
pub struct Text {
    /// Its characters.
    characters: Vec<char>,
    /// The characters of each token.
    ranges: Vec<Range<usize>>,
    tokens: Vec<u32>,
}

impl Text {
    /// The text of generated tokens, as far as it was shown: `shown` characters.
    ///
    /// # Errors
    /// Tokens that cannot be shown.
    pub fn of_tokens(tokens: Vec<u32>, shown: usize, tokenizer: &Tokenizer) -> Result<Text, TokenizerError> {
        let mut detokenizer = tokenizer.detokenizer();
        let mut characters: Vec<char> = Vec::new();
        let mut ranges = Vec::with_capacity(tokens.len());
        for token in &tokens {
            let start = characters.len();
            characters.extend(detokenizer.push(tokenizer, *token)?.chars());
            ranges.push(start..characters.len());
        }
        characters.extend(detokenizer.finish(tokenizer)?.chars());
        let end = characters.len();
        if let Some(last) = ranges.last_mut() {
            last.end = end;
        }
        // The parts of a character belong to all of its tokens.
        let mut next = end;
        for range in ranges.iter_mut().rev() {
            if range.start == range.end {
                range.end = (range.start + 1).min(next.max(range.start));
            }
            next = range.end;
            (range.start, range.end) = (range.start.min(shown), range.end.min(shown));
        }
        characters.truncate(shown);
        Ok(Text { characters, ranges, tokens })
    }

    /// A text of a client, with its tokens and their places in bytes.
    pub fn of_bytes(text: &str, tokens: Vec<u32>, bytes: &[Range<usize>]) -> Text {
        let characters: Vec<char> = text.chars().collect();
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let character = |byte: usize| starts.partition_point(|start| *start < byte);
        let ranges = bytes.iter().map(|range| character(range.start)..character(range.end)).collect();
        Text { characters, ranges, tokens }
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    fn span(&self, tokens: Range<usize>) -> (Range<usize>, String) {
        let (first, last) = (&self.ranges[tokens.start], &self.ranges[tokens.end - 1]);
        let range = first.start..last.end.max(first.start);
        let text = self.characters[range.clone()].iter().collect();
        (range, text)
    }
}

/// Attributes a text: `evidence` is what the stages recorded for its tokens, in order.
pub fn attribute(
    text: &Text,
    evidence: &Evidence,
    prompt_tokens: usize,
    grain: Grain,
    view: &View,
) -> Vec<Attribution> {
    let mut found = Vec::new();
    let mut documents = Documents::new(view, None);
    let count = text.tokens.len();
    match grain {
        Grain::Tokens => {
            for (token, shares) in evidence.tokens.iter().take(count).enumerate() {
                for share in shares {
                    found.extend(documents.told(text, token..token + 1, share));
                }
            }
        }
        Grain::Spans => {
            let named = |document| view.must_be_named(document);
            for (tokens, share) in spans(&evidence.tokens[..evidence.tokens.len().min(count)], &named) {
                found.extend(documents.told(text, tokens, &share));
            }
        }
    }
    for (tokens, share) in in_context(evidence, prompt_tokens, count) {
        found.extend(documents.told(text, tokens, &share));
    }
    found
}

/// Runs of tokens in which a document had a part, with its mean weight. Those that must be `named` are, whatever it is.
fn spans(tokens: &[Vec<Share>], named: &dyn Fn(DocumentKey) -> bool) -> Vec<(Range<usize>, Share)> {
    let mut open: BTreeMap<(DocumentKey, Kind), (usize, usize, f32)> = BTreeMap::new();
    let mut closed = Vec::new();
    let mut close = |(document, kind), (start, end, sum): (usize, usize, f32)| {
        let weight = sum / (end - start) as f32;
        closed.push((start..end, Share { document, kind, weight }));
    };
    for (at, shares) in tokens.iter().enumerate() {
        for share in shares.iter().filter(|share| share.weight >= LEAST_WEIGHT || named(share.document)) {
            let key = (share.document, share.kind);
            match open.get_mut(&key) {
                Some((_, end, sum)) if *end == at => (*end, *sum) = (at + 1, *sum + share.weight),
                _ => {
                    if let Some(run) = open.insert(key, (at, at + 1, share.weight)) {
                        close(key, run);
                    }
                }
            }
        }
    }
    open.into_iter().for_each(|(key, run)| close(key, run));
    closed.sort_by(|(a, x), (b, y)| (a.start, b.end).cmp(&(b.start, a.end)).then(y.weight.total_cmp(&x.weight)));
    closed
}

/// The stretches of the answer that were written with a passage in view.
fn in_context(evidence: &Evidence, prompt_tokens: usize, count: usize) -> Vec<(Range<usize>, Share)> {
    let mut stretches: Vec<(Range<usize>, Share)> = Vec::new();
    for (i, context) in evidence.passages.iter().enumerate() {
        let place = |token: usize| token.saturating_sub(prompt_tokens).min(count);
        let end = evidence.passages.get(i + 1).map_or(count, |next| place(next.from));
        let start = place(context.from);
        for &(document, weight) in context.documents.iter().filter(|_| start < end) {
            let goes_on =
                stretches.iter_mut().find(|(tokens, share)| tokens.end == start && share.document == document);
            match goes_on {
                Some((tokens, share)) => (tokens.end, share.weight) = (end, share.weight.max(weight)),
                None => stretches.push((start..end, Share { document, kind: Kind::Passage, weight })),
            }
        }
    }
    stretches
}

/// What is known of the documents of a view, each looked up once.
struct Documents<'a> {
    view: &'a View,
    /// Replaces the names of the stores.
    name: Option<&'a str>,
    known: HashMap<DocumentKey, Option<DocumentInfo>>,
}

impl<'a> Documents<'a> {
    fn new(view: &'a View, name: Option<&'a str>) -> Self {
        Documents { view, name, known: HashMap::new() }
    }

    /// A document's part in some tokens; none for a document that was removed.
    fn told(&mut self, text: &Text, tokens: Range<usize>, share: &Share) -> Option<Attribution> {
        let Share { document, kind, weight } = *share;
        let store = self.name.or_else(|| self.view.store_of(document))?;
        // It may have been removed since it was looked up.
        let known = self.known.entry(document).or_insert_with(|| self.view.document(document));
        let info = known.as_ref().filter(|_| self.view.is_live(document))?;
        let (Range { start, end }, text) = text.span(tokens);
        Some(Attribution {
            choice: 0,
            start,
            end,
            text,
            store: store.to_owned(),
            document: info.id.clone(),
            title: info.title.clone(),
            author: info.author.clone(),
            license: info.license.to_string(),
            url: info.url.clone(),
            language: info.lang.clone(),
            rating: info.rating,
            obligations: info.obligations.clone(),
            kind,
            weight,
        })
    }
}

/// The stretches of at least `least` tokens of a text that stand word for word in the stores; `name` replaces those of the
/// stores.
pub fn verbatim(text: &Text, least: usize, view: &View, name: Option<&str>) -> Vec<Attribution> {
    let mut found = Vec::new();
    let mut known = Documents::new(view, name);
    for stretch in view.trace(text.tokens(), least, VERBATIM_DOCUMENTS) {
        let mut documents: Vec<DocumentKey> = stretch.occurrences.iter().map(|(document, _)| *document).collect();
        documents.sort_unstable();
        documents.dedup();
        for document in documents {
            found.extend(known.told(
                text,
                stretch.range.clone(),
                &Share { document, kind: Kind::Verbatim, weight: 1.0 },
            ));
        }
    }
    found
}
