//! Retrieval in context (Ram et al. 2023): the passages that fit best what was written last stand before the prompt, and
//! are chosen anew every few tokens.

use std::sync::Arc;

use safelmm_datastore::{DocumentKey, PassageHit, View};
use safelmm_model::{Checkpoint, ContextSource, StageError};
use safelmm_plugins::{Passage, Scope};

use super::encoder::PassageEncoder;
use super::evidence::{InContext, Recorder};
use crate::policies::document;

/// How many of the last tokens are searched for (Ram et al. 2023, section 5: short queries are the best ones).
const QUERY_TOKENS: usize = 64;

/// How passages are ranked.
#[derive(Clone)]
pub enum Ranking {
    /// By their words, BM25.
    Words,
    /// By their vectors.
    Vectors(PassageEncoder),
}

/// The passages of one sequence.
pub struct PassageContext {
    checkpoint: Arc<Checkpoint>,
    view: View,
    ranking: Ranking,
    passages: usize,
    stride: usize,
    most_tokens: usize,
    /// What separates passages from each other and from the text.
    separator: Vec<u32>,
    /// The documents whose passages stand in the context.
    current: Vec<DocumentKey>,
    recorder: Option<Recorder>,
    /// The policies that filter passages, where there are any.
    policies: Option<Scope>,
}

impl PassageContext {
    /// A context of up to `passages` passages and `most_tokens` tokens, chosen anew every `stride` tokens. `policies` say
    /// which of them may stand in it.
    pub fn new(
        checkpoint: Arc<Checkpoint>,
        view: View,
        ranking: Ranking,
        (passages, stride, most_tokens): (usize, usize, usize),
        recorder: Option<Recorder>,
        policies: Option<Scope>,
    ) -> Self {
        // A tokenizer that cannot spell an empty line gets along without.
        let separator = checkpoint.tokenizer.encode("\n\n", false).unwrap_or_default();
        let current = Vec::new();
        PassageContext {
            checkpoint,
            view,
            ranking,
            passages,
            stride,
            most_tokens,
            separator,
            current,
            recorder,
            policies,
        }
    }

    /// The passages that policies leave, with their tokens.
    fn filtered(&self, found: Vec<PassageHit>) -> Result<Vec<(PassageHit, Vec<u32>)>, StageError> {
        let tokens = |hit: PassageHit| self.view.passage_tokens(&hit).map(<[u32]>::to_vec).map(|tokens| (hit, tokens));
        let found: Vec<(PassageHit, Vec<u32>)> = found.into_iter().filter_map(tokens).collect();
        let Some(policies) = &self.policies else { return Ok(found) };
        let asked: Vec<Option<Passage>> = found.iter().map(|(hit, _)| self.passage(hit)).collect();
        // What no policy can be asked about does not stand in a context.
        let mut kept: Vec<(PassageHit, Vec<u32>)> =
            found.into_iter().zip(&asked).filter(|(_, passage)| passage.is_some()).map(|(hit, _)| hit).collect();
        let asked: Vec<Passage> = asked.into_iter().flatten().collect();
        let texts: Vec<String> = asked.iter().map(|passage| passage.text.clone()).collect();
        let mut filtered = Vec::with_capacity(kept.len());
        for (index, passage) in policies.filter_passages(asked) {
            let (hit, mut tokens) = (kept[index].0.clone(), std::mem::take(&mut kept[index].1));
            if passage.text != texts[index] {
                let encoded = self.checkpoint.tokenizer.encode(&passage.text, false);
                tokens = encoded.map_err(|error| failed(error.to_string()))?;
            }
            filtered.push((hit, tokens));
        }
        Ok(filtered)
    }

    fn passage(&self, hit: &PassageHit) -> Option<Passage> {
        let info = self.view.document(hit.document)?;
        let store = self.view.store_of(hit.document).unwrap_or_default();
        let text = self.view.passage_text(hit)?.to_owned();
        Some(Passage { source: document(info, store), score: hit.score, text })
    }

    fn search(&self, so_far: &[u32]) -> Result<Vec<PassageHit>, StageError> {
        let last = &so_far[so_far.len().saturating_sub(QUERY_TOKENS)..];
        let query = self.checkpoint.tokenizer.decode(last, true).map_err(|e| failed(e.to_string()))?;
        match &self.ranking {
            Ranking::Words => self.view.passages_bm25(&query, self.passages).map_err(|e| failed(e.to_string())),
            Ranking::Vectors(encoder) => {
                let vector = encoder.embed(&query).map_err(|e| failed(e.to_string()))?;
                self.view.passages_dense(&vector, self.passages).map_err(|e| failed(e.to_string()))
            }
        }
    }
}

fn failed(error: String) -> StageError {
    StageError::Failed(format!("no passages can be searched for: {error}"))
}

impl ContextSource for PassageContext {
    fn stride(&self) -> usize {
        self.stride
    }

    fn most_tokens(&self) -> usize {
        self.most_tokens
    }

    fn retrieve(&mut self, so_far: &[u32]) -> Result<Option<Vec<u32>>, StageError> {
        let passages = self.filtered(self.search(so_far)?)?;
        let mut blocks: Vec<Vec<u32>> = Vec::new();
        let mut documents = Vec::new();
        let mut room = self.most_tokens;
        for (passage, tokens) in &passages {
            let taken = tokens.len().min(room.saturating_sub(self.separator.len()));
            if taken == 0 {
                break;
            }
            room -= taken + self.separator.len();
            blocks.push([&tokens[..taken], &self.separator].concat());
            documents.push((passage.document, passage.score));
        }
        self.current = documents.iter().map(|(document, _)| *document).collect();
        if let Some(recorder) = &self.recorder {
            recorder.record(|evidence| evidence.passages.push(InContext { from: so_far.len(), documents }));
        }
        // The best one stands nearest to the text.
        blocks.reverse();
        Ok(Some(blocks.concat()))
    }

    fn stale(&mut self) -> bool {
        !self.current.iter().all(|document| self.view.is_live(*document))
    }
}
