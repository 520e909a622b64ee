//! How a sequence goes on: its share in a step, the passages before its text, its scores and its next token.

use super::Generation;
use crate::generate::{FinishReason, GenerateError, Progress, Step, TokenLogprob};
use crate::logits::{History, StageError, apply_all};

/// What a step does for one sequence.
pub struct Share {
    /// Tokens of each pass that are run.
    pub portions: Vec<usize>,
    /// The first rows of the first pass that are not scored.
    pub unscored: usize,
    /// The rows behind them that are.
    pub scored: usize,
    /// Whether a token is drawn, from the last row of each pass.
    pub draws: bool,
    /// Whether the keys of the scored rows and of the first pass's last row are wanted.
    pub keys: bool,
}

/// A row of the first pass: what predicts a token.
pub struct Row {
    /// [vocab_size]
    pub logits: Vec<f32>,
    /// [hidden_size]
    pub key: Option<Vec<f32>>,
}

/// What a step computed for one sequence.
pub struct Rows {
    pub scored: Vec<Row>,
    pub drawn: Option<Row>,
    /// Logits of the second pass beside `drawn`, [vocab_size].
    pub unconditioned: Option<Vec<f32>>,
}

impl Generation {
    /// What a step runs of this sequence that may run `most` tokens of each pass. The passes come to their ends in the
    /// same step, so that their logits meet.
    pub(in crate::generate) fn share(&self, most: usize) -> Share {
        let pending: Vec<usize> = self.branches().map(|branch| self.pending_of(branch)).collect();
        let ends = pending.iter().all(|pending| *pending <= most);
        let portions: Vec<usize> = pending.iter().map(|p| p.saturating_sub(usize::from(!ends)).min(most)).collect();
        let done = self.conditioned.done();
        let whole = self.conditioned.tokens.len();
        let passages = self.context.as_ref().map_or(0, |context| context.tokens);
        // The row of a token scores the one behind it.
        let (first, end) = (passages + self.next_score - 1, passages + self.prompt_tokens - 1);
        Share {
            unscored: first.saturating_sub(done).min(portions[0]),
            scored: end.min(done + portions[0]).saturating_sub(first.max(done)),
            draws: ends && self.goal() == whole && self.max_tokens > 0,
            keys: self.wants_key,
            portions,
        }
    }

    /// Sees to it that the right passages are there. To be called before each step.
    ///
    /// # Errors
    /// Those of the source.
    pub(in crate::generate) fn prepare(&mut self) -> Result<(), StageError> {
        let Some(context) = &mut self.context else { return Ok(()) };
        if let Some(error) = context.failed.take() {
            return Err(error);
        }
        let stale = context.is_stale();
        if stale || self.passages_have_served() { self.retrieve(stale) } else { Ok(()) }
    }

    /// How much of the text has been scored or drawn.
    fn position(&self) -> usize {
        if self.is_scoring() { self.next_score } else { self.text.len() }
    }

    fn passages_have_served(&self) -> bool {
        self.context.as_ref().is_some_and(|context| context.until <= self.position())
    }

    /// Asks for passages for the text so far. When they differ from those that are there, the sequence runs anew.
    fn retrieve(&mut self, stale: bool) -> Result<(), StageError> {
        let (at, head, fixed) = (self.position(), self.head, self.fixed_positions);
        let (scoring, prompt_tokens) = (self.is_scoring(), self.prompt_tokens);
        let Some(context) = &mut self.context else { return Ok(()) };
        let passages = context.retrieve(&self.text[head..at], at, stale)?;
        if scoring {
            // The answer gets passages for the whole prompt.
            context.until = context.until.min(prompt_tokens);
        }
        let Some(passages) = passages else { return Ok(()) };
        let (first, text) = (passages.len() + at - 1, &self.text[head..]);
        for branch in std::iter::once(&mut self.conditioned).chain(&mut self.unconditioned) {
            branch.replace(head, &passages, text, first, |tokens| tokens <= fixed);
        }
        Ok(())
    }

    /// Goes on with what a step computed for this sequence.
    pub(in crate::generate) fn take(&mut self, rows: Rows) -> Result<Progress, GenerateError> {
        let mut scored = Vec::with_capacity(rows.scored.len());
        for row in rows.scored {
            scored.push(self.score(row)?);
        }
        let mut progress = match rows.drawn {
            Some(row) => self.draw(row, rows.unconditioned.as_deref())?,
            None if self.max_tokens == 0 && self.is_through() => self.end(),
            None => Progress::default(),
        };
        if self.finish.is_none()
            && self.passages_have_served()
            && let Err(error) = self.retrieve(false)
            && let Some(context) = &mut self.context
        {
            context.failed = Some(error); // what came of this step is still good
        }
        progress.scored = scored;
        Ok(progress)
    }

    /// Whether nothing is left to be run of a sequence of which nothing is generated.
    fn is_through(&self) -> bool {
        let all_scored = self.context.is_some() && self.score_prompt && !self.is_scoring();
        all_scored || self.branches().all(|branch| branch.done() == branch.tokens.len())
    }

    /// The score of the next token of the prompt.
    fn score(&mut self, Row { mut logits, key }: Row) -> Result<TokenLogprob, GenerateError> {
        let history = History { prompt: &self.text[..self.next_score], key: key.as_deref(), ..History::default() };
        apply_all(&mut self.distribution, &mut logits, &history)?;
        let score = TokenLogprob::of(&logits, self.text[self.next_score], self.top_logprobs);
        self.distribution.iter_mut().for_each(|stage| stage.drawn(score.token, score.logprob));
        self.next_score += 1;
        Ok(score)
    }

    /// Draws the next token from the logits of this sequence's passes.
    fn draw(&mut self, Row { mut logits, key }: Row, unconditioned: Option<&[f32]>) -> Result<Progress, GenerateError> {
        let (prompt, generated) = self.text.split_at(self.prompt_tokens);
        let history = History { prompt, generated, unconditioned, key: key.as_deref() };
        apply_all(&mut self.distribution, &mut logits, &history)?;
        let distribution = logits.clone();
        apply_all(&mut self.choice, &mut logits, &history)?;
        let token = self.sampler.sample(&logits)?;
        self.text.push(token);
        self.branches_mut().for_each(|branch| branch.tokens.push(token));
        let generated = self.text.len() - self.prompt_tokens;
        let (mut text, mut finish) = (String::new(), None);
        if self.eos.contains(&token) {
            finish = Some(FinishReason::Stop);
        } else {
            let new = self.detokenizer.push(&self.tokenizer, token)?;
            if self.stops.push(&new, &mut text) {
                finish = Some(FinishReason::Stop);
            } else if generated == self.max_tokens {
                finish = Some(FinishReason::Length);
            }
        }
        if finish.is_some() {
            let tail = self.detokenizer.finish(&self.tokenizer)?;
            if self.stops.finish(&tail, &mut text) {
                finish = Some(FinishReason::Stop);
            }
            self.finish = finish;
        }
        let token = TokenLogprob::of(&distribution, token, self.top_logprobs);
        let stages = self.distribution.iter_mut().chain(&mut self.choice);
        stages.for_each(|stage| stage.drawn(token.token, token.logprob));
        Ok(Progress { step: Some(Step { token, text }), finish, ..Progress::default() })
    }

    /// Ends a sequence of which nothing is generated.
    fn end(&mut self) -> Progress {
        self.finish = Some(FinishReason::Length);
        let embedding = self.pooled.take().map(|mut sum| {
            let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            sum.iter_mut().for_each(|x| *x /= norm);
            sum
        });
        Progress { finish: self.finish, embedding, ..Progress::default() }
    }
}
