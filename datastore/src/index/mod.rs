//! Nearest neighbours of vectors: exact for few rows, a frozen graph for many, an inverted file for very many.
//!
//! A folder holds the vectors (`vectors.f16`) and, once built, the index over them. All of it is memory-mapped, immutable and
//! a function of the rows and the parameters alone: the same rows give the same files and the same answers.

mod beam;
mod calibrate;
mod codes;
mod description;
mod error;
mod exact;
mod file;
mod graph;
mod hnsw;
mod inverted;
mod kmeans;
mod params;
mod random;
mod refine;
mod scratch;
mod together;
mod top;
mod vectors;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use half::slice::HalfFloatSliceExt;

pub use self::error::IndexError;
pub use self::params::{IndexKind, IndexParams};
pub use self::together::{Found, Part, search_together};
pub use self::vectors::VectorWriter;

use self::codes::{Codes, Quantizer};
use self::description::{Description, Effort};
use self::graph::{Allowed, Graph};
use self::inverted::Inverted;
use self::refine::Lowest;
use self::scratch::Scratch;
use self::together::{First, Listed};
use self::vectors::Vectors;
use crate::kernels::code_len;

/// A row that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The row, from 0.
    pub row: u32,
    /// Its squared L2 distance from the query.
    pub distance: f32,
}

impl Hit {
    fn of(key: u64) -> Hit {
        Hit { row: top::row(key), distance: top::distance(key) }
    }
}

/// Memory that searches need; one for each thread, used again and again.
#[derive(Default)]
pub struct SearchScratch {
    /// Of the lists that are searched together.
    joint: Scratch,
    /// Of each index that is searched by itself.
    own: Vec<Scratch>,
}

/// Builds the index over the vectors that a [`VectorWriter`] finished in `dir`, replacing one that is there.
///
/// `progress` is told rows done and rows in all; while `stop` is set the work ends at the next opportunity. Until this returns
/// without an error the folder holds no index.
///
/// # Errors
/// Parameters out of range, damaged vectors, the file system's, and [`IndexError::Stopped`].
pub fn build(
    dir: &Path,
    params: &IndexParams,
    progress: &dyn Fn(usize, usize),
    stop: &AtomicBool,
) -> Result<IndexKind, IndexError> {
    params.check()?;
    remove_index(dir)?;
    let vectors = Vectors::open(dir)?;
    vectors.check_finite()?;
    let (kind, rows) = (params.kind(vectors.len()), vectors.len());
    let efforts = match kind {
        IndexKind::Exact if rows <= exact::FEW => Vec::new(),
        IndexKind::Exact | IndexKind::Inverted => build_codes(dir, &vectors, params, progress, stop)?,
        IndexKind::Graph => build_graph(dir, &vectors, params, progress, stop)?,
    };
    if stop.load(Ordering::Relaxed) {
        return Err(IndexError::Stopped);
    }
    progress(rows, rows);
    Description::new(kind, rows, vectors.dim(), params, efforts).write(dir)?;
    Ok(kind)
}

/// Codes with lists, with bounds on their errors, or with both.
fn build_codes(
    dir: &Path,
    vectors: &Vectors,
    params: &IndexParams,
    progress: &dyn Fn(usize, usize),
    stop: &AtomicBool,
) -> Result<Vec<Effort>, IndexError> {
    let rows = vectors.len();
    let quantizer = Quantizer::fit(vectors, params.seed);
    let lists = params.has_lists(rows);
    let tell = |done| progress(done, rows);
    let places = match lists {
        true => inverted::write(dir, vectors, &quantizer, params.seed, &tell, stop)?,
        false => Vec::new(),
    };
    let row = |place: usize| places.get(place).map_or(place as u32, |row| *row);
    codes::write(dir, vectors, &quantizer, params.seed, row, stop)?;
    if params.kind(rows) == IndexKind::Exact {
        exact::write_errors(dir, vectors, &quantizer, row)?;
    }
    if !lists {
        return Ok(Vec::new());
    }
    let structure = Structure::Inverted { codes: Codes::open(dir, vectors)?, inverted: Inverted::open(dir, vectors)? };
    calibrate::efforts(vectors, &structure, params.seed, stop)
}

fn build_graph(
    dir: &Path,
    vectors: &Vectors,
    params: &IndexParams,
    progress: &dyn Fn(usize, usize),
    stop: &AtomicBool,
) -> Result<Vec<Effort>, IndexError> {
    let rows = vectors.len();
    codes::write(dir, vectors, &Quantizer::fit(vectors, params.seed), params.seed, |i| i as u32, stop)?;
    let codes = Codes::open(dir, vectors)?;
    let (m, len) = (params.m, code_len(vectors.dim()));
    let tell = |done| progress(done, rows);
    let mut lists = hnsw::build(codes.all(), len, (m, params.ef_construction), params.seed, &tell, stop)?;
    // Written twice: the work on the lowest layer searches through the layers above.
    graph::write(dir, &lists, rows, m)?;
    let graph = Graph::open(dir, rows)?;
    let (arena, dim, entry) = (codes.arena(), codes.dim(), lists.entry);
    let mut lowest = Lowest { arena, len, dim, degree: 2 * m, graph: &graph, entry, lists: lists.lowest };
    lowest.connect(stop)?;
    lowest.rediversify(stop)?;
    lowest.connect(stop)?;
    lists.lowest = lowest.lists;
    drop(graph);
    graph::write(dir, &lists, rows, m)?;
    drop(lists.upper);
    let graph = Graph::open(dir, rows)?;
    let structure = Structure::Graph { codes, graph };
    calibrate::efforts(vectors, &structure, params.seed, stop)
}

/// Takes the index files, not the vectors, out of a folder.
fn remove_index(dir: &Path) -> Result<(), IndexError> {
    Description::remove(dir)?;
    [codes::FILE, exact::FILE, graph::FILE, inverted::FILE].iter().try_for_each(|file| remove_file(&dir.join(file)))
}

/// Removes a file that need not be there.
fn remove_file(path: &Path) -> Result<(), IndexError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(IndexError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// An index, memory-mapped and cheap to share.
#[derive(Clone)]
pub struct VectorIndex(Arc<Inner>);

struct Inner {
    description: Description,
    vectors: Vectors,
    structure: Structure,
}

/// The files of an index beside its vectors.
enum Structure {
    /// Without bounds where there are few rows.
    Exact {
        bounds: Option<exact::Bounds>,
        /// For searches together with other indexes.
        inverted: Option<Inverted>,
    },
    Graph {
        codes: Codes,
        graph: Graph,
    },
    Inverted {
        codes: Codes,
        inverted: Inverted,
    },
}

impl Structure {
    /// The least effort that makes sense for `k` neighbours.
    fn least_effort(&self, k: usize) -> usize {
        match self {
            Structure::Graph { .. } => k,
            Structure::Exact { .. } | Structure::Inverted { .. } => 1,
        }
    }

    /// The greatest effort that makes a difference among `rows` rows.
    fn most_effort(&self, rows: usize) -> usize {
        match self {
            Structure::Inverted { inverted, .. } => inverted.lists(),
            Structure::Exact { .. } | Structure::Graph { .. } => rows,
        }
    }

    /// Its codes and lists, where it has some.
    fn lists(&self) -> Option<(&Codes, &Inverted)> {
        match self {
            Structure::Exact { bounds, inverted } => Some((bounds.as_ref()?.codes(), inverted.as_ref()?)),
            Structure::Graph { .. } => None,
            Structure::Inverted { codes, inverted } => Some((codes, inverted)),
        }
    }

    /// Offers rows, with their exact distances, to `scratch.nearest`, which was started for the number wanted.
    fn search(
        &self,
        vectors: &Vectors,
        query: &[f32],
        (k, effort): (usize, usize),
        allowed: Allowed<'_>,
        scratch: &mut Scratch,
    ) {
        match self {
            Structure::Exact { bounds: None, .. } => exact::search(vectors, query, allowed, scratch),
            Structure::Exact { bounds: Some(bounds), inverted } => {
                bounds.search((vectors, inverted.as_ref().map(Inverted::rows)), query, k, allowed, scratch);
            }
            Structure::Graph { codes, graph } => {
                codes.quantizer().query(query, &mut scratch.query);
                graph.search(codes.arena(), effort.max(k), allowed, scratch);
                let Scratch { beam, ids, nearest, .. } = &mut *scratch;
                ids.clear();
                ids.extend(beam.finish(exact::rescored(k)).iter().map(|&key| top::row(key)));
                exact::rescore(&|row| vectors.row(row), query, ids, nearest);
            }
            Structure::Inverted { codes, inverted } => {
                let only = Listed { vectors, codes, inverted, allowed, number: 0, first: First::default() };
                together::search(&[only], query, effort, k, scratch);
            }
        }
    }
}

impl VectorIndex {
    /// Opens what [`build`] made.
    ///
    /// # Errors
    /// When there is no index, or when a file has another size or version than it should have.
    pub fn open(dir: &Path) -> Result<VectorIndex, IndexError> {
        let description = Description::open(dir)?;
        let vectors = Vectors::open(dir)?;
        if (vectors.len(), vectors.dim()) != (description.rows, description.dim) {
            let reason = format!(
                "its index has {} rows of {} components, the vectors are {} of {}",
                description.rows,
                description.dim,
                vectors.len(),
                vectors.dim()
            );
            return Err(IndexError::damaged(dir, reason));
        }
        let structure = match description.kind {
            IndexKind::Exact if vectors.len() <= exact::FEW => Structure::Exact { bounds: None, inverted: None },
            IndexKind::Exact => {
                let has_lists = description.params.has_lists(vectors.len());
                let inverted = has_lists.then(|| Inverted::open(dir, &vectors)).transpose()?;
                Structure::Exact { bounds: Some(exact::Bounds::open(dir, &vectors)?), inverted }
            }
            IndexKind::Inverted => {
                vectors.advise_random();
                let inverted = Inverted::open(dir, &vectors)?;
                Structure::Inverted { codes: Codes::open(dir, &vectors)?, inverted }
            }
            IndexKind::Graph => {
                let codes = Codes::open(dir, &vectors)?;
                vectors.advise_random();
                codes.advise_random();
                Structure::Graph { codes, graph: Graph::open(dir, vectors.len())? }
            }
        };
        Ok(VectorIndex(Arc::new(Inner { description, vectors, structure })))
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.0.vectors.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Components of a row.
    pub fn dim(&self) -> usize {
        self.0.vectors.dim()
    }

    /// The structure that answers searches.
    pub fn kind(&self) -> IndexKind {
        self.0.description.kind
    }

    /// Writes the components of a row into `out`, which has `dim` of them.
    ///
    /// # Panics
    /// When there is no such row, or `out` has another length.
    pub fn vector(&self, row: u32, out: &mut [f32]) {
        self.0.vectors.row(row).convert_to_f32_slice(out);
    }

    /// Puts into `out` the `k` nearest rows by squared L2 distance, ascending, equal ones by row. Distances are exact (of the
    /// stored 16-bit components), which rows are found depends on the structure: an exact index finds the nearest ones.
    ///
    /// Rows for which `allowed` says no are passed over when results are taken; fewer than `k` come back only where fewer are
    /// allowed or found. `effort` is the number of candidates of a graph (`ef`, raised to `k` where it is less) or of lists of
    /// an inverted file (`nprobe`); without it the one is taken that the build found to give a recall of about 0.95.
    ///
    /// # Errors
    /// A query of another dimension, or with components that are not finite.
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        effort: Option<usize>,
        allowed: Allowed<'_>,
        scratch: &mut SearchScratch,
        out: &mut Vec<Hit>,
    ) -> Result<(), IndexError> {
        let mut found = Vec::new();
        search_together(&[Part { index: self, allowed }], query, k, effort, scratch, &mut found)?;
        out.clear();
        out.extend(found.into_iter().map(|found| found.hit));
        Ok(())
    }

    /// Leaves the nearest rows that its structure finds in `scratch.nearest`.
    fn search_alone(
        &self,
        query: &[f32],
        k: usize,
        effort: Option<usize>,
        allowed: Allowed<'_>,
        scratch: &mut Scratch,
    ) {
        let Inner { vectors, structure, .. } = &*self.0;
        let k = k.min(vectors.len());
        scratch.nearest.start(k);
        if k > 0 {
            structure.search(vectors, query, (k, effort.unwrap_or_else(|| self.effort(k)).max(1)), allowed, scratch);
        }
    }

    /// The effort that the build found for `k` neighbours.
    fn effort(&self, k: usize) -> usize {
        self.0.description.effort(k)
    }

    /// Up to how many rows of all indexes that are searched together all are compared.
    fn exact_below(&self) -> usize {
        self.0.description.params.exact_below
    }

    /// Its vectors, codes and lists, where it has lists.
    fn lists(&self) -> Option<(&Vectors, &Codes, &Inverted)> {
        let Inner { vectors, structure, .. } = &*self.0;
        structure.lists().map(|(codes, inverted)| (vectors, codes, inverted))
    }
}

#[cfg(test)]
mod tests;
