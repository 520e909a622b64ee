//! Parameters of an index, with the names of the papers they come from.

use serde::{Deserialize, Serialize};

use super::IndexError;
use super::exact::FEW;

/// How an index is built. The defaults suit the keys of a language model and passages alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexParams {
    /// Neighbours of a node in the upper layers of the graph, twice as many in the lowest (Malkov and Yashunin 2018,
    /// section 4.1). 2 to 64.
    pub m: usize,
    /// Candidates looked at when a node is inserted (Malkov and Yashunin 2018, algorithm 1). At least `m`.
    pub ef_construction: usize,
    /// Up to this many rows, those of all indexes that are searched together, every search looks at all of them.
    pub exact_below: usize,
    /// From this many rows on there is an inverted file. Beyond `exact_below` it stands in for the graph, which takes
    /// twenty times as long to build; below, it serves where several indexes are searched together.
    pub inverted_above: usize,
    /// Seed of everything that is drawn: the rotation of codes, the order of insertion, the first centroids.
    pub seed: u64,
}

impl Default for IndexParams {
    fn default() -> Self {
        IndexParams { m: 16, ef_construction: 200, exact_below: 50_000, inverted_above: 250_000, seed: 0 }
    }
}

impl IndexParams {
    /// For keys of language models. They lie in clusters, one for what the context ends with, so that a search of an
    /// inverted file takes a third of one of a graph at the same recall.
    pub fn for_keys() -> IndexParams {
        IndexParams { inverted_above: FEW, ..IndexParams::default() }
    }

    pub(super) fn check(&self) -> Result<(), IndexError> {
        let error = |name, value, expected| Err(IndexError::Parameter { name, value, expected });
        if !(2..=64).contains(&self.m) {
            return error("m", self.m, "2 to 64");
        }
        if !(self.m..=10_000).contains(&self.ef_construction) {
            return error("ef_construction", self.ef_construction, "m to 10000");
        }
        Ok(())
    }

    /// Whether `rows` rows are grouped into lists.
    pub(super) fn has_lists(&self, rows: usize) -> bool {
        match self.kind(rows) {
            IndexKind::Exact => rows > FEW && rows >= self.inverted_above,
            IndexKind::Graph => false,
            IndexKind::Inverted => true,
        }
    }

    pub(super) fn kind(&self, rows: usize) -> IndexKind {
        if rows <= self.exact_below {
            IndexKind::Exact
        } else if rows < self.inverted_above {
            IndexKind::Graph
        } else {
            IndexKind::Inverted
        }
    }
}

/// The structure that answers searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexKind {
    /// Every row is compared.
    Exact,
    /// A navigable small-world graph, built once and frozen.
    Graph,
    /// Rows grouped around centroids, of which the nearest are searched.
    Inverted,
}
