//! One step of many sequences as one batch.

use candle_core::Tensor;
use rayon::prelude::*;

use super::sequence::{Branch, Generation, Row, Rows, Share};
use super::{GenerateError, Progress};
use crate::checkpoint::Checkpoint;
use crate::decoder::{KvCache, Segment};
use crate::logits::StageError;

/// A generation that takes part in a step, and how much of it.
pub struct Work<'a> {
    /// The sequence.
    pub generation: &'a mut Generation,
    /// How many tokens of each of its passes may be run, at least 1.
    pub tokens: usize,
}

/// One step of many sequences as one batch: pieces of prompts are run, sequences whose prompt is through get their next
/// token. Result `i` belongs to `work[i]`; no sequence may be finished. A sequence that was not
/// [started](Generation::start) gets memory of its own.
///
/// # Errors
/// Of the decoder: the generations of the batch are then in no defined state and must be dropped. What one sequence cannot
/// go on with, because nothing is left to choose from or a stage gave up, is its own result and hurts no other.
pub fn step_each(
    checkpoint: &Checkpoint,
    work: &mut [Work<'_>],
) -> Result<Vec<Result<Progress, GenerateError>>, GenerateError> {
    checkpoint.decoder.device().with_context(|| advance(checkpoint, work))
}

/// [`step_each`], for those who end all sequences when one cannot go on.
///
/// # Errors
/// The first failure.
pub fn step(checkpoint: &Checkpoint, work: &mut [Work<'_>]) -> Result<Vec<Progress>, GenerateError> {
    step_each(checkpoint, work)?.into_iter().collect()
}

fn advance(
    checkpoint: &Checkpoint,
    work: &mut [Work<'_>],
) -> Result<Vec<Result<Progress, GenerateError>>, GenerateError> {
    let generations = work.iter_mut().map(|work| &mut *work.generation).collect();
    let prepared = each(generations, |generation| generation, Generation::prepare);
    // Sequences that cannot go on have no share in the step.
    let shares: Vec<Result<Share, StageError>> = work
        .iter_mut()
        .zip(prepared)
        .map(|(Work { generation, tokens }, prepared)| {
            prepared?;
            for branch in generation.branches_mut().filter(|branch| branch.cache.is_none()) {
                branch.cache = Some(KvCache::unpooled(checkpoint.config(), branch.capacity));
            }
            Ok(generation.share((*tokens).max(1)))
        })
        .collect();
    let computed = Computed::new(checkpoint, work, &shares)?;
    let rows = computed.rows(work, shares)?;
    let jobs: Vec<_> = work.iter_mut().map(|work| &mut *work.generation).zip(rows).collect();
    let results = each(jobs, |(generation, _)| generation, |(generation, rows)| generation.take(rows?));
    Ok(results)
}

/// `f` of each job, side by side where more than one of their sequences takes its time. What comes of one does not depend
/// on the others.
fn each<T: Send, R: Send>(
    jobs: Vec<T>,
    generation: impl Fn(&T) -> &Generation,
    f: impl Fn(T) -> R + Sync + Send,
) -> Vec<R> {
    let costly = jobs.iter().filter(|job| generation(job).is_costly()).count();
    match costly {
        0 | 1 => jobs.into_iter().map(f).collect(),
        _ => jobs.into_par_iter().map(f).collect(),
    }
}

/// What the decoder gave for all sequences of a step, in their order.
struct Computed {
    /// [rows, hidden]; none when nothing was run.
    hidden: Option<Tensor>,
    /// Of the rows that are scored or drawn from.
    logits: Vec<Vec<f32>>,
    /// Of those of them of which the key is wanted.
    keys: Vec<Vec<f32>>,
}

impl Computed {
    fn new(
        checkpoint: &Checkpoint,
        work: &mut [Work<'_>],
        shares: &[Result<Share, StageError>],
    ) -> Result<Computed, GenerateError> {
        let (mut logits, mut keys) = (Vec::new(), Vec::new()); // rows of which they are needed
        let mut row = 0;
        for share in shares.iter().flatten() {
            let scored = row + share.unscored as u32..row + (share.unscored + share.scored) as u32;
            logits.extend(scored.clone());
            let last = row + share.portions[0] as u32;
            if share.keys {
                keys.extend(scored.chain(share.draws.then(|| last - 1)));
            }
            for portion in &share.portions {
                row += *portion as u32;
                logits.extend(share.draws.then(|| row - 1));
            }
        }
        if row == 0 {
            return Ok(Computed { hidden: None, logits: Vec::new(), keys: Vec::new() });
        }
        let mut segments = Vec::new();
        for (Work { generation, .. }, share) in work.iter_mut().zip(shares) {
            let Ok(share) = share else { continue };
            for (branch, portion) in generation.branches_mut().zip(&share.portions) {
                let Branch { tokens, cache: Some(cache), .. } = branch else { continue };
                if *portion > 0 {
                    let done = cache.len();
                    segments.push(Segment { tokens: &tokens[done..done + portion], cache, total: tokens.len() });
                }
            }
        }
        let decoder = &checkpoint.decoder;
        let (hidden, keys) = decoder.forward_cached_with_keys(&mut segments, &keys)?;
        let keys = keys.map_or(Ok(Vec::new()), |keys| keys.to_vec2())?;
        let logits = match logits.len() {
            0 => Vec::new(),
            n => decoder.logits(&hidden.index_select(&Tensor::from_vec(logits, n, hidden.device())?, 0)?)?.to_vec2()?,
        };
        Ok(Computed { hidden: Some(hidden), logits, keys })
    }

    /// Deals out the rows, and adds the hidden states of embeddings up.
    fn rows(
        self,
        work: &mut [Work<'_>],
        shares: Vec<Result<Share, StageError>>,
    ) -> Result<Vec<Result<Rows, StageError>>, GenerateError> {
        let (mut logits, mut keys) = (self.logits.into_iter(), self.keys.into_iter());
        let mut row = 0;
        let mut all = Vec::with_capacity(shares.len());
        for (Work { generation, .. }, share) in work.iter_mut().zip(shares) {
            let share = match share {
                Ok(share) => share,
                Err(error) => {
                    all.push(Err(error));
                    continue;
                }
            };
            if let (Some(sum), Some(hidden)) = (&mut generation.pooled, &self.hidden) {
                let own = hidden.narrow(0, row, share.portions[0])?.to_vec2::<f32>()?;
                // Row by row, so that the sum is the same however the text was cut into pieces.
                own.iter().for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
            }
            row += share.portions.iter().sum::<usize>();
            let mut next = || {
                let logits = logits.next()?;
                Some(Row { logits, key: if share.keys { keys.next() } else { None } })
            };
            let scored = std::iter::from_fn(&mut next).take(share.scored).collect();
            let drawn = if share.draws { next() } else { None };
            let second = share.draws && generation.passes() > 1;
            let unconditioned = if second { logits.next() } else { None };
            all.push(Ok(Rows { scored, drawn, unconditioned }));
        }
        Ok(all)
    }
}
