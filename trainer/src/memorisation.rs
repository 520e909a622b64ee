//! Whether a checkpoint gives back its training text: the measurement of Carlini et al. 2022 (section 3.1). A training
//! passage is memorised when the checkpoint, given its first tokens, continues greedily with the very tokens that follow.

use candle_core::Device;
use safelmm_model::{Checkpoint, GenerateError, Generation, GenerationRequest, SamplingParams, Work, step};
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Passage, mix};
use crate::report::Report;

/// Tokens of the beginning that is given, and of the continuation that is compared, at most; half of a shorter passage
/// each.
const TOKENS: usize = 50;
/// Passages shorter than this are not measured: a few tokens come back by chance.
const SHORTEST: usize = 32;
/// Continuations that run at one time.
const BATCH: usize = 16;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memorisation {
    /// Training passages measured.
    pub passages: usize,
    /// Tokens of the given beginning, at most; the continuation has as many.
    pub tokens: usize,
    /// The share that came back whole, token for token.
    pub verbatim: f64,
    /// The share of a continuation that agrees before the first difference, in the mean.
    pub mean_agreement: f64,
    /// The longest agreement, in tokens.
    pub longest: usize,
    /// The same share on passages that were kept out: what agreement comes of a predictable text alone.
    pub heldout_verbatim: Option<f64>,
}

/// Continues `passages` of the training text, chosen by `seed`.
///
/// # Errors
/// Those of generation.
pub fn measure_memorisation(
    checkpoint: &Checkpoint,
    train: &Dataset,
    heldout: &Dataset,
    passages: usize,
    seed: u64,
    report: &mut Report,
) -> Result<Memorisation, GenerateError> {
    let of = agreements(checkpoint, &chosen(train, passages, seed), report)?;
    let kept_out = agreements(checkpoint, &chosen(heldout, passages, seed), report)?;
    let whole = |agreements: &[(usize, usize)]| {
        agreements.iter().filter(|(agreed, all)| agreed == all).count() as f64 / agreements.len().max(1) as f64
    };
    Ok(Memorisation {
        passages: of.len(),
        tokens: TOKENS,
        verbatim: whole(&of),
        mean_agreement: of.iter().map(|(agreed, all)| *agreed as f64 / *all as f64).sum::<f64>()
            / of.len().max(1) as f64,
        longest: of.iter().map(|(agreed, _)| *agreed).max().unwrap_or(0),
        heldout_verbatim: (!kept_out.is_empty()).then(|| whole(&kept_out)),
    })
}

fn chosen(data: &Dataset, count: usize, seed: u64) -> Vec<&Passage> {
    let long = data.passages.iter().enumerate().filter(|(_, p)| p.tokens.len() >= SHORTEST);
    let mut order: Vec<(u64, &Passage)> = long.map(|(i, p)| (mix(&[seed, i as u64]), p)).collect();
    order.sort_by_key(|(key, _)| *key);
    order.into_iter().take(count).map(|(_, p)| p).collect()
}

/// For each passage the tokens that agree before the first difference, and those compared.
fn agreements(
    checkpoint: &Checkpoint,
    passages: &[&Passage],
    report: &mut Report,
) -> Result<Vec<(usize, usize)>, GenerateError> {
    Device::Cpu.with_context(|| {
        let mut found = Vec::with_capacity(passages.len());
        for batch in passages.chunks(BATCH) {
            let mut running = batch
                .iter()
                .map(|passage| {
                    let given = passage.tokens.len().div_ceil(2).min(TOKENS);
                    let wanted = (passage.tokens.len() - given).min(TOKENS);
                    let request = GenerationRequest {
                        rating: checkpoint.rated().then_some(passage.rating),
                        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
                        ignore_eos: true,
                        ..GenerationRequest::new(passage.tokens[..given].to_vec(), wanted)
                    };
                    Ok((Generation::new(checkpoint, request)?, &passage.tokens[given..given + wanted], 0, true))
                })
                .collect::<Result<Vec<_>, GenerateError>>()?;
            loop {
                let mut live: Vec<_> =
                    running.iter_mut().filter(|(g, _, _, going)| *going && !g.is_finished()).collect();
                if live.is_empty() {
                    break;
                }
                let mut work: Vec<Work<'_>> =
                    live.iter_mut().map(|(generation, ..)| Work { generation, tokens: usize::MAX }).collect();
                let steps = step(checkpoint, &mut work)?;
                for ((_, wanted, agreed, going), progress) in live.into_iter().zip(steps) {
                    if let Some(step) = progress.step {
                        *going = wanted.get(*agreed) == Some(&step.token.token);
                        *agreed += usize::from(*going);
                    }
                }
            }
            found.extend(running.iter().map(|(_, wanted, agreed, _)| (*agreed, wanted.len())));
            report.progress(found.len(), passages.len(), "beginnings of passages continued");
        }
        Ok(found)
    })
}
