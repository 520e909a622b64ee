//! Passages in context (in-context retrieval-augmented language models, Ram et al. 2023): text between the start of a
//! sequence and its prompt, retrieved anew every `stride` tokens.

use crate::logits::StageError;

/// Where passages come from. They stand between the start of the sequence (its rating token or beginning-of-sequence
/// token) and the prompt, in every pass; when they change, the sequence is run anew behind them.
pub trait ContextSource: Send {
    /// After how many tokens of the text [`retrieve`](Self::retrieve) is asked again: s in Ram et al. 2023, section 3.2.
    /// 0 counts as 1. Read once, when the sequence is made.
    fn stride(&self) -> usize;

    /// The most tokens that [`retrieve`](Self::retrieve) ever returns. Memory and context are reserved for so many. Read
    /// once, when the sequence is made.
    fn most_tokens(&self) -> usize;

    /// The tokens to put before the prompt, given those of the text so far: prompt and answer, without the start and
    /// without passages. `None` keeps what is there. Called before the first token of the sequence is run and after every
    /// `stride` tokens drawn.
    ///
    /// Where a prompt is scored, it is scored in windows of `stride` tokens, each behind passages for the text before it;
    /// the passages of the answer are then retrieved for the whole prompt, as without scores.
    ///
    /// # Errors
    /// A [`StageError`] ends the sequence with an error; the text is for the log.
    fn retrieve(&mut self, so_far: &[u32]) -> Result<Option<Vec<u32>>, StageError>;

    /// Whether the passages that are there may no longer be used; asked before each step. If so,
    /// [`retrieve`](Self::retrieve) is asked at once, and `None` then takes them out.
    fn stale(&mut self) -> bool {
        false
    }
}

/// The source of a sequence, and what of it is there.
pub(super) struct Context {
    source: Box<dyn ContextSource>,
    stride: usize,
    pub most_tokens: usize,
    /// Tokens that are there.
    pub tokens: usize,
    /// The length of the text, drawn or scored, at which they have served.
    pub until: usize,
    /// Why the next step cannot be made.
    pub failed: Option<StageError>,
    vocab_size: usize,
}

impl Context {
    pub fn new(source: Box<dyn ContextSource>, vocab_size: usize) -> Self {
        let (stride, most_tokens) = (source.stride().max(1), source.most_tokens());
        Context { source, stride, most_tokens, tokens: 0, until: 0, failed: None, vocab_size }
    }

    pub fn is_stale(&mut self) -> bool {
        self.source.stale()
    }

    /// The passages for a text of which `so_far` stands behind the start and whose length with it is `at`; `None` leaves
    /// those that are there.
    pub fn retrieve(&mut self, so_far: &[u32], at: usize, stale: bool) -> Result<Option<Vec<u32>>, StageError> {
        let passages = self.source.retrieve(so_far)?.or_else(|| stale.then(Vec::new));
        self.until = at + self.stride;
        let Some(passages) = passages else { return Ok(None) };
        if passages.len() > self.most_tokens {
            let (got, most) = (passages.len(), self.most_tokens);
            return Err(StageError::Failed(format!(
                "the source of passages gave {got} tokens: it had announced at most {most}"
            )));
        }
        if let Some(token) = passages.iter().find(|token| **token as usize >= self.vocab_size) {
            let vocab = self.vocab_size;
            return Err(StageError::Failed(format!(
                "the source of passages gave token {token}: the vocabulary has {vocab}"
            )));
        }
        self.tokens = passages.len();
        Ok(Some(passages))
    }
}
