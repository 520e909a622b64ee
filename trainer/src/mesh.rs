//! The place of a worker among all workers of a run: which copy of the model it belongs to, which stage of it, and
//! which share of each layer (Narayanan et al. 2021, section 3).

use std::ops::Range;
use std::sync::Arc;

use safelmm_model::ops::TensorGroup;
use safelmm_model::{Config, Part as ModelPart, PartError};

use crate::buckets::Part;
#[cfg(feature = "nccl")]
use crate::comm::nccl::Nccl;
use crate::comm::{Comm, CommError, local};
use crate::config::{Backend, ParallelSection, TrainSection};

/// The groups that a worker belongs to. Those that share layers are neighbours by rank, since they talk most.
pub struct Mesh {
    /// All workers.
    pub world: Arc<dyn Comm>,
    /// Those that hold the same parameters, one in each copy of the model.
    pub data: Arc<dyn Comm>,
    /// Those that share the same layers.
    pub tensor: Arc<dyn Comm>,
    /// The stages of the same copy, first to last.
    pub pipeline: Arc<dyn Comm>,
    /// Those that hold one copy of the model together.
    pub model: Arc<dyn Comm>,
    /// Whether each of `data` keeps the optimiser's state of its pieces alone.
    pub zero: bool,
}

/// A layout that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A number that does not go with the others.
    #[error("{key} is {got}: expected {expected}")]
    Layout {
        /// The setting.
        key: &'static str,
        /// What it is.
        got: usize,
        /// What would be accepted.
        expected: String,
    },
    /// The program cannot use the GPUs' sums.
    #[cfg(not(feature = "nccl"))]
    #[error(
        "parallel.backend is nccl, and this safelmm-train was built without it: build it by \
         `cargo build --release -p safelmm-trainer --features mpi,nccl`, or take the backend mpi"
    )]
    WithoutNccl,
    /// The layers cannot be divided.
    #[error("parallel.tensor: {0}")]
    Part(#[from] PartError),
    /// The workers do not reach each other.
    #[error(transparent)]
    Comm(#[from] CommError),
}

/// The group that shares layers, as the decoder sees it.
struct Shared(Arc<dyn Comm>);

impl TensorGroup for Shared {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn all_reduce(&self, values: &mut [f32]) -> candle_core::Result<()> {
        self.0.all_reduce(values).map_err(candle_core::Error::wrap)
    }
}

impl Mesh {
    /// The worker that has no others.
    pub fn alone() -> Mesh {
        let group = local::alone;
        Mesh { world: group(), data: group(), tensor: group(), pipeline: group(), model: group(), zero: false }
    }

    /// This worker's place in `world`, in a run of the model `shape`.
    ///
    /// # Errors
    /// Names the setting that does not go with the number of processes, with the model or with the updates.
    pub fn new(
        world: &Arc<dyn Comm>,
        parallel: &ParallelSection,
        train: &TrainSection,
        shape: &Config,
    ) -> Result<Mesh, MeshError> {
        let world = &over(parallel.backend, world)?;
        let (size, rank) = (world.size(), world.rank());
        let ParallelSection { tensor, pipeline, zero, .. } = *parallel;
        let refuse = |key, got, expected| Err(MeshError::Layout { key, got, expected });
        let each = tensor.saturating_mul(pipeline).max(1);
        let data = parallel.data.unwrap_or(size / each);
        if data.saturating_mul(each) != size {
            let expected = format!(
                "{each}, the processes of one copy of the model, times the number of copies{}",
                match parallel.data {
                    Some(data) => format!(", parallel.data = {data}"),
                    None => String::new(),
                }
            );
            return refuse("the number of processes", size, expected);
        }
        if !train.micro_batches().is_multiple_of(data) {
            let expected = format!(
                "a divisor of the {} micro-batches of an update (train.batch_tokens over train.micro_batch_tokens)",
                train.micro_batches()
            );
            return refuse("the number of copies of the model", data, expected);
        }
        if pipeline > shape.n_layers {
            return refuse("parallel.pipeline", pipeline, format!("at most the {} layers", shape.n_layers));
        }
        ModelPart::check(shape, tensor)?;
        let (share, copy, stage) = (rank % tensor, rank / tensor % data, rank / (tensor * data));
        Ok(Mesh {
            world: Arc::clone(world),
            data: world.split(stage * tensor + share, rank)?,
            tensor: world.split(stage * data + copy, rank)?,
            pipeline: world.split(copy * tensor + share, rank)?,
            model: world.split(copy, rank)?,
            zero,
        })
    }

    /// Whether this worker writes the run's files.
    pub fn is_root(&self) -> bool {
        self.world.rank() == 0
    }

    /// Whether this worker has the embedding, and takes tokens in.
    pub fn is_first(&self) -> bool {
        self.pipeline.rank() == 0
    }

    /// Whether this worker has the output projection, and finds the loss.
    pub fn is_last(&self) -> bool {
        self.pipeline.rank() + 1 == self.pipeline.size()
    }

    /// The world's ranks that find the losses, in the order of their micro-batches.
    pub fn judges(&self) -> impl Iterator<Item = usize> {
        let (data, tensor, stage) = (self.data.size(), self.tensor.size(), self.pipeline.size() - 1);
        (0..data).map(move |copy| (stage * data + copy) * tensor)
    }

    /// The micro-batches of an update that are this worker's.
    pub fn own(&self, micro_batches: usize) -> Range<usize> {
        let each = micro_batches / self.data.size();
        self.data.rank() * each..(self.data.rank() + 1) * each
    }

    /// The part of a bucket of `length` values that the worker `rank` of [`data`](Self::data) keeps moments of.
    pub fn kept(&self, rank: usize, length: usize) -> Range<usize> {
        if self.zero { self.data.piece(rank, length) } else { 0..length }
    }

    /// The part of the decoder that a worker of [`model`](Self::model) holds.
    pub fn part(&self, rank: usize, layers: usize) -> ModelPart {
        let (stage, stages, shares) = (rank / self.tensor.size(), self.pipeline.size(), self.tensor.size());
        let tensor = match (shares, rank == self.model.rank()) {
            (1, _) => None,
            (_, true) => Some(Arc::new(Shared(Arc::clone(&self.tensor))) as Arc<dyn TensorGroup>),
            (size, false) => Some(Arc::new(Other { rank: rank % shares, size }) as Arc<dyn TensorGroup>),
        };
        ModelPart { layers: stage * layers / stages..(stage + 1) * layers / stages, tensor }
    }

    /// Whether a worker of [`model`](Self::model) is the one that counts for parameters that others have too.
    pub fn counts(&self, rank: usize, part: Part, divided: bool) -> bool {
        let (stage, share) = (rank / self.tensor.size(), rank % self.tensor.size());
        let first = part != Part::Embedding || stage == 0; // a tied embedding is at the last stage too
        first && (divided || share == 0)
    }
}

/// The same workers by what takes their sums.
fn over(backend: Backend, world: &Arc<dyn Comm>) -> Result<Arc<dyn Comm>, MeshError> {
    match backend {
        Backend::Mpi => Ok(Arc::clone(world)),
        #[cfg(feature = "nccl")]
        Backend::Nccl => Ok(Arc::new(Nccl::over(Arc::clone(world))?)),
        #[cfg(not(feature = "nccl"))]
        Backend::Nccl => Err(MeshError::WithoutNccl),
    }
}

/// Another worker's place, for what is asked of its shapes alone.
struct Other {
    rank: usize,
    size: usize,
}

impl TensorGroup for Other {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, _: &mut [f32]) -> candle_core::Result<()> {
        candle_core::bail!("the layers of another worker are not run here")
    }
}
