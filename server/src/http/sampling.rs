//! The sampling parameters that completions and chat completions share.

use safelmm_model::{Checkpoint, SamplingParams};
use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::{Fields, describe, finite};

/// The most answers to one prompt.
const MAX_N: usize = 16;
/// The most stop strings.
const MAX_STOP: usize = 64;
/// The longest stop string: the end of every answer is compared with it.
const MAX_STOP_BYTES: usize = 256;
/// The most tokens with a bias.
const MAX_LOGIT_BIAS: usize = 1024;

/// How the choices of one request are sampled.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// The parameters of the first choice; the others differ in their seed.
    pub params: SamplingParams,
    /// How many choices are made for each prompt.
    pub n: usize,
    /// The strings that end a choice; the choice ends before them.
    pub stop: Vec<String>,
    /// Whether a choice goes on behind the end-of-text token.
    pub ignore_eos: bool,
}

impl Sampling {
    /// Takes the shared parameters out of a body; what it leaves open comes from the checkpoint's
    /// `generation_config.json`, then from the API's own defaults. Ranges are checked when the sequences are prepared.
    pub fn take(body: &mut Fields, checkpoint: &Checkpoint) -> Result<Self, ApiError> {
        let defaults = &checkpoint.generation;
        let neutral = SamplingParams::default();
        let penalty = |body: &mut Fields, name| body.number(name).map(Option::unwrap_or_default);
        let params = SamplingParams {
            temperature: body.number("temperature")?.or(defaults.temperature).unwrap_or(neutral.temperature),
            top_k: take_top_k(body)?.unwrap_or(defaults.top_k),
            top_p: body.number("top_p")?.or(defaults.top_p).unwrap_or(neutral.top_p),
            min_p: body.number("min_p")?.or(defaults.min_p).unwrap_or(neutral.min_p),
            repetition_penalty: body
                .number("repetition_penalty")?
                .or(defaults.repetition_penalty)
                .unwrap_or(neutral.repetition_penalty),
            presence_penalty: penalty(body, "presence_penalty")?,
            frequency_penalty: penalty(body, "frequency_penalty")?,
            logit_bias: take_logit_bias(body)?,
            seed: take_seed(body)?,
        };
        let n = body.count("n", 1)?.unwrap_or(1);
        if n > MAX_N {
            return Err(body.error("n", format!("must be at most {MAX_N}, found {n}")));
        }
        let ignore_eos = body.boolean("ignore_eos")?.unwrap_or(false);
        refuse_bias_on_banned(&params.logit_bias, ignore_eos, checkpoint)?;
        Ok(Sampling { params, n, stop: take_stop(body)?, ignore_eos })
    }

    /// The parameters of the choice `index` of a prompt: its seed is the request's seed plus `index`, so that each
    /// choice can be made again alone.
    pub fn params_of(&self, index: usize) -> SamplingParams {
        let seed = self.params.seed.map(|seed| seed.wrapping_add(index as u64));
        SamplingParams { seed, ..self.params.clone() }
    }
}

/// `Some(None)` for the values that switch it off: 0 and -1.
fn take_top_k(body: &mut Fields) -> Result<Option<Option<usize>>, ApiError> {
    match body.integer("top_k")? {
        None => Ok(None),
        Some(-1 | 0) => Ok(Some(None)),
        Some(k) => match usize::try_from(k) {
            Ok(k) => Ok(Some(Some(k))),
            Err(_) => Err(body.error("top_k", format!("must be at least 1, or 0 or -1 for all tokens, found {k}"))),
        },
    }
}

/// Any integer of 64 bits, signed or not; a negative one is its two's complement.
fn take_seed(body: &mut Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = body.take("seed") else { return Ok(None) };
    match value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)) {
        Some(seed) => Ok(Some(seed)),
        None => Err(body.error("seed", format!("must be an integer of 64 bits, found {}", describe(&value)))),
    }
}

fn take_stop(body: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stop = match body.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(single) => vec![single],
    };
    if stop.len() > MAX_STOP {
        return Err(body.error("stop", format!("must have at most {MAX_STOP} strings, found {}", stop.len())));
    }
    stop.into_iter()
        .map(|value| match value {
            Value::String(text) if text.len() > MAX_STOP_BYTES => {
                let found = text.len();
                Err(body.error("stop", format!("has a string of {found} bytes: at most {MAX_STOP_BYTES} are possible")))
            }
            Value::String(text) if !text.is_empty() => Ok(text),
            other => {
                let message =
                    format!("must be a string that is not empty, or a list of them, found {}", describe(&other));
                Err(body.error("stop", message))
            }
        })
        .collect()
}

fn take_logit_bias(body: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let path = body.path("logit_bias");
    let expected = "must map token ids, as strings, to numbers";
    let Some(value) = body.take("logit_bias") else { return Ok(Vec::new()) };
    let Value::Object(map) = value else {
        return Err(body.error("logit_bias", format!("{expected}, found {}", describe(&value))));
    };
    if map.len() > MAX_LOGIT_BIAS {
        let found = map.len();
        return Err(body.error("logit_bias", format!("must name at most {MAX_LOGIT_BIAS} tokens, found {found}")));
    }
    map.into_iter()
        .map(|(key, value)| match (key.parse::<u32>(), finite(&value)) {
            // "5" and "005" would be two biases on one token.
            (Ok(token), Some(bias)) if token.to_string() == key => Ok((token, bias)),
            _ => {
                let found = format!("{}: {}", describe(&json!(key)), describe(&value));
                Err(ApiError::parameter(path.clone(), format!("'{path}' {expected}, found {found}")))
            }
        })
        .collect()
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
