//! The sampling parameters that completions and chat completions share.

use safelmm_model::{Checkpoint, SamplingParams};

use super::error::ApiError;
use super::request::{SharedFields, Stop};

/// The most answers to one prompt, and the most candidates for them.
pub const MAX_N: usize = 16;
/// The most log-probabilities in one place.
const MAX_TOP_LOGPROBS: usize = 20;
/// The most stop strings.
const MAX_STOP: usize = 4096;
/// The longest stop string: so much text may be held back until it is certain.
const MAX_STOP_BYTES: usize = 1024;
/// All stop strings together.
const MAX_STOP_BYTES_TOTAL: usize = 64 << 10;

/// How the choices of one request are sampled.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// The parameters of the first choice; the others differ in their seed.
    pub params: SamplingParams,
    /// How many choices each prompt gets.
    pub n: usize,
    /// The strings that end a choice; the choice ends before them.
    pub stop: Vec<String>,
    /// Whether a choice goes on behind the end-of-text token.
    pub ignore_eos: bool,
}

impl Sampling {
    /// Takes the sampling parameters out of the shared fields; what they leave open comes from the checkpoint's
    /// `generation_config.json`, then from the API's own defaults. Ranges are checked when the sequences are prepared.
    pub fn take(shared: &mut SharedFields, checkpoint: &Checkpoint) -> Result<Self, ApiError> {
        let defaults = &checkpoint.generation;
        let neutral = SamplingParams::default();
        let params = SamplingParams {
            temperature: shared.temperature.or(defaults.temperature).unwrap_or(neutral.temperature),
            top_k: shared.top_k.map(check_top_k).transpose()?.unwrap_or(defaults.top_k),
            top_p: shared.top_p.or(defaults.top_p).unwrap_or(neutral.top_p),
            min_p: shared.min_p.or(defaults.min_p).unwrap_or(neutral.min_p),
            repetition_penalty: shared
                .repetition_penalty
                .or(defaults.repetition_penalty)
                .unwrap_or(neutral.repetition_penalty),
            presence_penalty: shared.presence_penalty.unwrap_or_default(),
            frequency_penalty: shared.frequency_penalty.unwrap_or_default(),
            logit_bias: shared.logit_bias.take().unwrap_or_default().0,
            seed: shared.seed.map(|seed| seed.0),
        };
        let n = check_n("n", shared.n.unwrap_or(1))?;
        let ignore_eos = shared.ignore_eos.unwrap_or(false);
        refuse_bias_on_banned(&params.logit_bias, ignore_eos, checkpoint)?;
        Ok(Sampling { params, n, stop: check_stop(shared.stop.take())?, ignore_eos })
    }

    /// The parameters of the choice `index` of a prompt: its seed is the request's seed plus `index`, so that each
    /// choice can be made again alone.
    pub fn params_of(&self, index: usize) -> SamplingParams {
        let seed = self.params.seed.map(|seed| seed.wrapping_add(index as u64));
        SamplingParams { seed, ..self.params.clone() }
    }
}

/// A number of choices, or of candidates for them.
pub fn check_n(param: &str, n: usize) -> Result<usize, ApiError> {
    match n {
        1..=MAX_N => Ok(n),
        _ => Err(ApiError::parameter(param, format!("'{param}' must be at least 1 and at most {MAX_N}, found {n}"))),
    }
}

/// A number of log-probabilities in one place.
pub fn check_top_logprobs(param: &str, top: usize) -> Result<usize, ApiError> {
    match top {
        0..=MAX_TOP_LOGPROBS => Ok(top),
        _ => Err(ApiError::parameter(param, format!("'{param}' must be at most {MAX_TOP_LOGPROBS}, found {top}"))),
    }
}

/// `None` for the values that switch it off: 0 and -1.
fn check_top_k(k: i64) -> Result<Option<usize>, ApiError> {
    match (k, usize::try_from(k)) {
        (-1 | 0, _) => Ok(None),
        (_, Ok(k)) => Ok(Some(k)),
        (_, Err(_)) => {
            let message = format!("'top_k' must be at least 1, or 0 or -1 for all tokens, found {k}");
            Err(ApiError::parameter("top_k", message))
        }
    }
}

fn check_stop(stop: Option<Stop>) -> Result<Vec<String>, ApiError> {
    let stop = match stop {
        None => Vec::new(),
        Some(Stop::One(text)) => vec![text],
        Some(Stop::Many(list)) => list,
    };
    let refuse = |message: String| Err(ApiError::parameter("stop", format!("'stop' {message}")));
    if stop.len() > MAX_STOP {
        return refuse(format!("must have at most {MAX_STOP} strings, found {}", stop.len()));
    }
    if stop.iter().any(String::is_empty) {
        return refuse("has an empty string: expected at least one character".into());
    }
    if let Some(long) = stop.iter().find(|text| text.len() > MAX_STOP_BYTES) {
        return refuse(format!("has a string of {} bytes: at most {MAX_STOP_BYTES} are possible", long.len()));
    }
    let total: usize = stop.iter().map(String::len).sum();
    if total > MAX_STOP_BYTES_TOTAL {
        return refuse(format!("has {total} bytes in all: at most {MAX_STOP_BYTES_TOTAL} are possible"));
    }
    Ok(stop)
}

/// Control tokens are never sampled, so that making one more probable cannot be honoured.
fn refuse_bias_on_banned(bias: &[(u32, f32)], ignore_eos: bool, checkpoint: &Checkpoint) -> Result<(), ApiError> {
    let tokenizer = &checkpoint.tokenizer;
    let sampled =
        |token: &u32| !tokenizer.control_ids().contains(token) || (!ignore_eos && tokenizer.eos_ids().contains(token));
    match bias.iter().find(|(token, bias)| *bias > 0.0 && !sampled(token)) {
        Some((token, _)) => {
            let text = tokenizer.token_text(*token).unwrap_or_default();
            let message = format!("'logit_bias' names the control token {token} ({text}), which is never sampled");
            Err(ApiError::parameter("logit_bias", message))
        }
        None => Ok(()),
    }
}
