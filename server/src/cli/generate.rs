//! `safelmm generate`.

use std::io::{self, Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use safelmm_model::{Checkpoint, CheckpointError, GenerateError, Generation, GenerationRequest, SamplingParams};
use safelmm_model::{Rating, StopError, StopStrings, TokenizerError, Work, step};

use super::args::GenerateArgs;
use super::interrupt;
use super::load::load;
use crate::config::DEFAULT_RATING;

/// The most tokens when the user names no number.
const DEFAULT_MAX_TOKENS: usize = 128;

/// Tokens of the prompt that are run between two looks at Ctrl-C.
const PREFILL_CHUNK: usize = 128;

/// Why nothing, or not everything, was generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateFailure {
    /// The checkpoint cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The prompt cannot be turned into tokens.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model refuses the request, or failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The stop strings cannot be used.
    #[error("--stop: {0}")]
    Stop(#[from] StopError),
    /// The text cannot be written, or no signals can be had.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How the generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The text is complete.
    Complete,
    /// By Ctrl-C.
    Interrupted,
}

/// Writes the continuation of a text to standard output as it is generated. A reader that closes the pipe ends it
/// quietly.
pub fn generate(args: GenerateArgs) -> Result<Ending, GenerateFailure> {
    let checkpoint = load(args.model.as_deref(), args.adapter.as_deref(), args.quantize)?;
    // Not before: while the model loads, Ctrl-C ends the program as usual.
    let interrupted = Arc::new(AtomicBool::new(false));
    interrupt::watch(&interrupted)?;
    let mut generation = Generation::new(&checkpoint, request(args, &checkpoint)?)?;
    let written = write_steps(&checkpoint, &mut generation, &interrupted);
    match written {
        Err(GenerateFailure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ending::Complete),
        other => other,
    }
}

fn write_steps(
    checkpoint: &Checkpoint,
    generation: &mut Generation,
    interrupted: &AtomicBool,
) -> Result<Ending, GenerateFailure> {
    let mut out = stdout().lock();
    while !generation.is_finished() && !interrupted.load(Ordering::Relaxed) {
        let work = Work { generation: &mut *generation, tokens: PREFILL_CHUNK };
        for step in step(checkpoint, &mut [work])?.into_iter().filter_map(|progress| progress.step) {
            out.write_all(step.text.as_bytes())?;
        }
        out.flush()?;
    }
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(if generation.is_finished() { Ending::Complete } else { Ending::Interrupted })
}

fn request(args: GenerateArgs, checkpoint: &Checkpoint) -> Result<GenerationRequest, GenerateFailure> {
    let defaults = &checkpoint.generation;
    let neutral = SamplingParams::default();
    // The sequences of a rated model begin with the rating, so that the tokenizer need not add a beginning.
    let prompt = checkpoint.tokenizer.encode(&args.prompt, !checkpoint.rated())?;
    let rating: Option<Rating> = args.rating.or(checkpoint.rated().then_some(DEFAULT_RATING));
    let room = checkpoint.context_length().saturating_sub(prompt.len() + usize::from(rating.is_some()));
    Ok(GenerationRequest {
        rating,
        guidance: args.guidance,
        sampling: SamplingParams {
            temperature: args.temperature.or(defaults.temperature).unwrap_or(neutral.temperature),
            top_p: args.top_p.or(defaults.top_p).unwrap_or(neutral.top_p),
            top_k: args.top_k.map_or(defaults.top_k, |k| Some(k).filter(|k| *k > 0)),
            min_p: args.min_p.or(defaults.min_p).unwrap_or(neutral.min_p),
            repetition_penalty: defaults.repetition_penalty.unwrap_or(neutral.repetition_penalty),
            seed: args.seed,
            ..neutral
        },
        stop: StopStrings::new(args.stop)?,
        ..GenerationRequest::new(prompt, args.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.min(room).max(1)))
    })
}
