//! The parameters of retrieval that suit a store: found on text that is not in it, kept in its manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use safelmm_datastore::gate::Group;
use safelmm_datastore::{StoreInfo, View};
use serde::{Deserialize, Serialize};

use super::gate::Gate;

/// How the nearest neighbours speak (kNN-LM, Khandelwal et al. 2020, equations 2 and 3).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourTuning {
    /// How many are asked.
    pub k: usize,
    /// Their share of the next token's probability, where it is fixed.
    pub lambda: f32,
    /// Divides their squared distances.
    pub temperature: f32,
}

/// The share of the n-gram index where it is fixed (infini-gram, Liu et al. 2024, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NgramTuning {
    /// Where the matched context always went on alike.
    pub sparse: f32,
    /// Where it went on in several ways.
    pub dense: f32,
}

/// Neighbours and n-grams together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HybridTuning {
    /// How many neighbours are asked, where they are asked.
    pub k: usize,
    /// Divides their squared distances.
    pub temperature: f32,
    /// The weights, and whether neighbours are asked at all.
    pub gate: Gate,
}

/// Perplexities for each token of the text that the parameters were found on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Its tokens.
    pub tokens: usize,
    /// Of the model alone.
    pub model: f64,
    /// With neighbours.
    pub neighbours: f64,
    /// With n-grams.
    pub ngram: f64,
    /// With both, by the gate.
    pub hybrid: f64,
    /// The share of tokens for which the gate asks the neighbours.
    pub searched: f64,
}

/// The parameters of one store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// The neighbours alone.
    pub neighbours: NeighbourTuning,
    /// The n-gram index alone.
    pub ngram: NgramTuning,
    /// Both together.
    pub hybrid: HybridTuning,
    /// How well they did; none for the defaults.
    #[serde(default)]
    pub evaluation: Option<Evaluation>,
}

impl Default for Tuning {
    /// Those of kNN-LM for the neighbours (section 4; the temperature is for keys behind a norm), and of caution for the
    /// rest.
    fn default() -> Self {
        Tuning {
            neighbours: NeighbourTuning { k: 1024, lambda: 0.25, temperature: 10.0 },
            ngram: NgramTuning { sparse: 0.3, dense: 0.2 },
            hybrid: HybridTuning { k: 64, temperature: 10.0, gate: Gate::default() },
            evaluation: None,
        }
    }
}

/// The parameters of one store for each set of documents that requests may use of it. Those that were found with the help
/// of other documents would carry something of them over, so that each set has its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tunings(pub BTreeMap<String, Tuning>);

impl Tunings {
    /// The parameters in a store's manifest.
    ///
    /// # Errors
    /// A manifest whose parameters are of another version.
    pub fn of(info: &StoreInfo) -> Result<Tunings, serde_json::Error> {
        info.tuning.clone().map_or_else(|| Ok(Tunings::default()), serde_json::from_value)
    }

    /// The parameters for what a request may use; the defaults where the store was not tuned for it.
    pub fn for_view(&self, view: &View) -> Arc<Tuning> {
        Arc::new(self.0.get(&set(view)).cloned().unwrap_or_default())
    }

    /// Whether there are parameters for what a request may use.
    pub fn has(&self, view: &View) -> bool {
        self.0.contains_key(&set(view))
    }

    /// Keeps the parameters for such a set of documents.
    pub fn insert(&mut self, view: &View, tuning: Tuning) {
        self.0.insert(set(view), tuning);
    }
}

/// The licenses and ratings of what a view holds.
fn set(view: &View) -> String {
    let group = |group: Group| format!("{} {}", group.license, group.rating);
    view.groups().into_iter().map(group).collect::<Vec<_>>().join(", ")
}
