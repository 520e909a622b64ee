//! Communication between the workers of a run: processes (MPI, NCCL), or threads of one process.
//!
//! Sums are taken in one fixed order: a binary tree over the ranks (`tree.rs`). MPI's own reductions leave the order to
//! the library, so that the same run would not have the same bits with another number of workers.

mod collectives;
mod group;
pub mod launch;
pub mod local;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
pub mod nccl;
mod tree;

use std::ops::Range;
use std::sync::Arc;

pub use group::{Group, Transport};
pub use tree::{halvings, tree_sum};

/// Values that are never divided between two ranks: what sums over pieces are taken in, too.
pub const BLOCK: usize = 1 << 12;

/// A group of workers, seen by one of them. Everyone in the group makes the same calls in the same order; several
/// threads of a worker may use different groups at the same time.
pub trait Comm: Send + Sync {
    /// This worker's number in the group, from 0.
    fn rank(&self) -> usize;

    /// Workers of the group.
    fn size(&self) -> usize;

    /// Whether the others are threads of this process.
    fn in_process(&self) -> bool;

    /// Sends values to a rank, which calls [`recv`](Self::recv) with room for as many. May wait until it does.
    ///
    /// # Errors
    /// Names the peer: it is gone.
    fn send(&self, to: usize, values: &[f32]) -> Result<(), CommError>;

    /// Waits for values of a rank.
    ///
    /// # Errors
    /// Names the peer: it is gone, or sent another number of values.
    fn recv(&self, from: usize, values: &mut [f32]) -> Result<(), CommError>;

    /// Sends and receives at the same time.
    ///
    /// # Errors
    /// Those of [`send`](Self::send) and [`recv`](Self::recv).
    fn exchange(&self, to: usize, sent: &[f32], from: usize, received: &mut [f32]) -> Result<(), CommError>;

    /// The group of those who give the same color, ordered by key, then by rank.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange).
    fn split(&self, color: usize, key: usize) -> Result<Arc<dyn Comm>, CommError>;

    /// The part of `length` values that is `rank`'s: whole blocks of [`BLOCK`], in the order of ranks.
    fn piece(&self, rank: usize, length: usize) -> Range<usize> {
        let (blocks, size) = (length.div_ceil(BLOCK), self.size());
        let at = |rank: usize| (rank * blocks / size * BLOCK).min(length);
        at(rank)..at(rank + 1)
    }

    /// Sums over all ranks; afterwards the rank's own [`piece`](Self::piece) holds the sum, the rest nothing of use.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange).
    fn reduce_scatter(&self, values: &mut [f32]) -> Result<(), CommError> {
        collectives::reduce_scatter(self.as_comm(), values).map_err(|e| e.within("reduce_scatter"))
    }

    /// Everyone gives its own [`piece`](Self::piece), and has all of them afterwards.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange).
    fn all_gather(&self, values: &mut [f32]) -> Result<(), CommError> {
        let piece = |rank| self.piece(rank, values.len());
        let pieces: Vec<Range<usize>> = (0..self.size()).map(piece).collect();
        collectives::all_gather(self.as_comm(), values, &pieces).map_err(|e| e.within("all_gather"))
    }

    /// Sums over all ranks, for all of them.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange).
    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CommError> {
        self.reduce_scatter(values).and_then(|()| self.all_gather(values)).map_err(|e| e.within("all_reduce"))
    }

    /// Everyone has the values of `root` afterwards.
    ///
    /// # Errors
    /// Those of [`send`](Self::send) and [`recv`](Self::recv).
    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), CommError> {
        collectives::broadcast(self.as_comm(), root, values).map_err(|e| e.within("broadcast"))
    }

    /// Waits for everyone.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange).
    fn barrier(&self) -> Result<(), CommError> {
        all_numbers(self.as_comm(), &[]).map(|_| ()).map_err(|e| e.within("barrier"))
    }

    /// This group, as what the algorithms over [`send`](Self::send) and [`recv`](Self::recv) take.
    fn as_comm(&self) -> &dyn Comm;
}

/// A worker did not get through to another one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} with rank {peer} of {size}: {reason}")]
pub struct CommError {
    /// What was being done.
    pub operation: String,
    /// With whom.
    pub peer: usize,
    /// Workers of the group.
    pub size: usize,
    /// Why it failed.
    pub reason: String,
}

impl CommError {
    fn within(mut self, operation: &str) -> CommError {
        if !self.operation.starts_with(operation) {
            self.operation = format!("{operation}: {}", self.operation);
        }
        self
    }
}

/// The numbers of all ranks, each as many, to the last bit.
///
/// # Errors
/// Those of [`Comm::exchange`].
pub fn all_numbers(comm: &dyn Comm, own: &[f64]) -> Result<Vec<Vec<f64>>, CommError> {
    // Four whole numbers of 16 bits each: f32 holds them exactly, and no bits look like a NaN to anybody on the way.
    const PARTS: usize = 4;
    // One more value, so that everyone waits for everyone even where there are no numbers.
    let length = own.len() * PARTS + 1;
    let pieces: Vec<Range<usize>> = (0..comm.size()).map(|rank| rank * length..(rank + 1) * length).collect();
    let mut values = vec![0.0; length * comm.size()];
    let parts = own.iter().flat_map(|n| (0..PARTS).map(|part| f32::from((n.to_bits() >> (16 * part)) as u16)));
    values[pieces[comm.rank()].clone()].iter_mut().zip(parts).for_each(|(value, part)| *value = part);
    collectives::all_gather(comm, &mut values, &pieces)?;
    let number =
        |parts: &[f32]| f64::from_bits(parts.iter().rev().fold(0, |bits, part| (bits << 16) | u64::from(*part as u16)));
    Ok(values.chunks(length).map(|all| all.chunks_exact(PARTS).map(number).collect()).collect())
}

#[cfg(test)]
mod tests;
