//! Retrieval as one request asks for it: what it may use, how, and what its sequences get in their logits chains and
//! contexts.

use std::sync::Arc;

use safelmm_datastore::View;
use safelmm_model::{Checkpoint, ContextSource, LogitsStage};
use safelmm_plugins::{Hook, Scope};

use super::evidence::Recorder;
use super::gate::Gate;
use super::interpolation::{Interpolation, Mixing, NeighbourSettings};
use super::passages::{PassageContext, Ranking};

/// Passages, as a request wants them.
#[derive(Clone)]
pub struct PassageSettings {
    /// How many stand in the context.
    pub count: usize,
    /// How they are ranked.
    pub ranking: Ranking,
    /// After how many tokens they are chosen anew.
    pub stride: usize,
    /// The tokens of the longest one.
    pub tokens: usize,
}

/// Retrieval for one request. Cheap to clone.
#[derive(Clone)]
pub struct Retrieval {
    /// What the request may use.
    pub view: View,
    /// How the stores change the distribution of the next token, if they do.
    pub mixing: Option<(Mixing, NeighbourSettings)>,
    /// The passages before the prompt, if there are any.
    pub passages: Option<PassageSettings>,
    /// Whether it is recorded what came from where.
    pub recorded: bool,
}

/// What retrieval adds to one sequence.
#[derive(Default)]
pub struct Added {
    /// Stages that make the distribution.
    pub distribution: Vec<Box<dyn LogitsStage>>,
    /// Passages before the prompt.
    pub context: Option<Box<dyn ContextSource>>,
    /// Where it is recorded what came from where.
    pub recorder: Option<Recorder>,
}

impl Retrieval {
    /// The most tokens that passages take before a prompt, where the context has room for them.
    pub fn passage_tokens(&self) -> usize {
        self.passages.as_ref().map_or(0, |passages| passages.count.saturating_mul(passages.tokens))
    }

    /// What a sequence gets that has `room` tokens of context left for passages, of which `policies` leave some,
    /// where there are any.
    pub fn add(&self, checkpoint: &Arc<Checkpoint>, room: usize, policies: Option<&Scope>) -> Added {
        let recorder = self.recorded.then(Recorder::default);
        // Where there is nothing to use, an answer is that of a request without stores, bit for bit.
        if self.view.is_empty() {
            return Added { recorder, ..Added::default() };
        }
        let interpolation = self.mixing.as_ref().map(|(mixing, neighbours)| {
            let (view, mixing) = (self.view.clone(), mixing.clone());
            Box::new(Interpolation::new(view, mixing, *neighbours, recorder.clone())) as Box<dyn LogitsStage>
        });
        let context = self.passages.as_ref().map(|passages| {
            let sizes = (passages.count, passages.stride, self.passage_tokens().min(room));
            let (checkpoint, ranking) = (Arc::clone(checkpoint), passages.ranking.clone());
            let policies = policies.filter(|policies| policies.hooks().has(Hook::FilterPassages)).cloned();
            let view = self.view.clone();
            let context = PassageContext::new(checkpoint, view, ranking, sizes, recorder.clone(), policies);
            Box::new(context) as Box<dyn ContextSource>
        });
        Added { distribution: interpolation.into_iter().collect(), context, recorder }
    }

    /// Tells apart what may inform two requests: the licenses and documents in force.
    pub fn domain(&self) -> String {
        match self.view.is_empty() {
            true => String::new(),
            false => self.view.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// The weights of the mixture for neighbours and n-grams together.
pub fn gated(gate: &Gate) -> Mixing {
    Mixing::Gated(Arc::new(gate.clone()))
}
