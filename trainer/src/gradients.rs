//! The gradients of an update: summed over its micro-batches, and over the workers that share them.
//!
//! The sum is a binary tree over the numbers of the micro-batches (`comm/tree.rs`), within workers and between them, so
//! that it has the same bits for one worker and for every power of two of them. A worker of n micro-batches keeps as
//! many unfinished sums as n can be halved. In the last micro-batch, a bucket goes to the other workers as soon as it
//! is whole, in a thread of its own, while the layers before it are still in backward (Li et al. 2020, section 3.2.3).

use std::mem;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use candle_core::backprop::GradStore;
use candle_core::{Storage, Tensor};
use rayon::prelude::*;
use safelmm_model::ops::{add_to, squares};

use crate::buckets::{Buckets, Buffers, Part, Place, common};
use crate::comm::{BLOCK, CommError, all_numbers, halvings};
use crate::mesh::Mesh;
use crate::parameters::Parameters;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// Takes the gradients of a backward pass as they come.
pub trait Sink {
    /// Adds what a part of the pass found.
    ///
    /// # Errors
    /// Those of candle.
    fn add(&mut self, parameters: &Parameters, grads: &GradStore) -> Result<()>;

    /// No more gradients of this part will come from this pass.
    fn complete(&mut self, part: Part);
}

/// The sums of one update after another.
pub struct Gradients {
    buckets: Buckets,
    /// Whether the embedding is the output projection too.
    tied: bool,
    /// The sums, once they are finished; before that, of the micro-batches since the last unfinished sum.
    current: Buffers,
    /// Unfinished sums of 2^level leaves, the largest first.
    waiting: Vec<(u32, Buffers)>,
    spare: Vec<Buffers>,
    /// In the order of names, where the parameters lie on a device: sums in the order of the micro-batches, which never
    /// go through the host. One worker alone has them.
    on_device: Option<Vec<Option<Tensor>>>,
}

/// The sums of an update.
#[derive(Clone, Copy)]
pub enum Sums<'a> {
    /// By bucket.
    Host(&'a Buffers),
    /// By parameter, in the order of names; none where no gradient came.
    Device(&'a [Option<Tensor>]),
}

/// Why there are no sums.
#[derive(Debug, thiserror::Error)]
pub enum GradientError {
    /// The decoder or its gradients failed.
    #[error(transparent)]
    Pass(#[from] candle_core::Error),
    /// Another worker is out of reach.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// The thread that talks to the other workers ended without an answer.
    #[error("the thread that exchanges gradients panicked")]
    Thread,
}

impl Gradients {
    /// For these parameters of a model whose embedding is `tied` to its output projection, or not.
    pub fn new(parameters: &Parameters, tied: bool) -> Gradients {
        let buckets = Buckets::new(parameters);
        let on_device = (!parameters.device().is_cpu()).then(|| vec![None; buckets.places().len()]);
        let current = if on_device.is_some() { Buffers::new() } else { buckets.zeros() };
        Gradients { current, buckets, tied, waiting: Vec::new(), spare: Vec::new(), on_device }
    }

    /// Where they lie.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// The sums; of a worker that keeps a part of the optimiser's state, those of its pieces.
    pub fn sums(&self) -> Sums<'_> {
        match &self.on_device {
            Some(sums) => Sums::Device(sums),
            None => Sums::Host(&self.current),
        }
    }

    /// Room of the same shape, for who has used the sums.
    pub fn room(&mut self) -> &mut Buffers {
        &mut self.current
    }

    /// Sums over the `count` micro-batches of this worker, which `passes` runs, and over all workers that share an
    /// update.
    ///
    /// # Errors
    /// Those of the passes and of the exchange.
    pub fn sum<T>(
        &mut self,
        mesh: &Mesh,
        count: usize,
        passes: impl FnOnce(&mut Summing<'_>) -> Result<T>,
    ) -> Result<T, GradientError> {
        self.current.iter_mut().for_each(|bucket| bucket.fill(0.0));
        self.on_device.iter_mut().flatten().for_each(|sum| *sum = None);
        let leaf = count >> halvings(count);
        let mut summing = Summing { gradients: self, leaf, count, index: 0, queue: None, finished: Vec::new() };
        let (result, finished) = if mesh.data.size() == 1 {
            (passes(&mut summing)?, mem::take(&mut summing.finished))
        } else {
            thread::scope(|scope| {
                let (queue, buckets) = channel::<(usize, Vec<f32>)>();
                let exchange = scope.spawn(move || {
                    let mut finished = Vec::new();
                    for (number, mut values) in buckets {
                        match mesh.zero {
                            true => mesh.data.reduce_scatter(&mut values)?,
                            false => mesh.data.all_reduce(&mut values)?,
                        }
                        finished.push((number, values));
                    }
                    Ok::<_, CommError>(finished)
                });
                summing.queue = Some(queue);
                let result = passes(&mut summing);
                summing.queue = None; // the thread ends when it is through
                let finished = exchange.join().map_err(|_| GradientError::Thread)??;
                Ok::<_, GradientError>((result?, finished))
            })?
        };
        for (number, values) in finished {
            self.current[number] = values;
        }
        self.tie(mesh)?;
        self.spare.extend(self.waiting.drain(..).map(|(_, buffers)| buffers));
        Ok(result)
    }

    /// A tied embedding is at the first stage and, as the output projection, at the last one: both get the sum of their
    /// gradients.
    fn tie(&mut self, mesh: &Mesh) -> Result<(), CommError> {
        let embedding = self.buckets.parts().iter().position(|part| *part == Part::Embedding);
        let (first, last) = (0, mesh.pipeline.size() - 1);
        let Some(number) = embedding.filter(|_| last > first && self.tied) else {
            return Ok(());
        };
        let other = if mesh.is_first() { last } else { first };
        let bucket = &mut self.current[number];
        let kept = mesh.kept(mesh.data.rank(), bucket.len());
        if kept.is_empty() {
            return Ok(());
        }
        let mut theirs = vec![0.0; kept.len()];
        mesh.pipeline.exchange(other, &bucket[kept.clone()], other, &mut theirs)?;
        add(&mut bucket[kept], &theirs);
        Ok(())
    }

    /// The sum of the squares of all gradients, of parameters that several workers have once.
    ///
    /// # Errors
    /// Those of the exchange.
    pub fn total(&self, squares: &[f64], mesh: &Mesh) -> Result<f64, CommError> {
        let buckets = self.buckets.parts().iter().zip(self.buckets.divided()).zip(squares);
        let counting = buckets.filter(|((part, divided), _)| mesh.counts(mesh.model.rank(), **part, **divided));
        let own = counting.map(|(_, square)| square).sum::<f64>();
        Ok(all_numbers(&*mesh.model, &[own])?.iter().map(|numbers| numbers[0]).sum())
    }

    /// The sum of the squares of each bucket, over blocks of [`BLOCK`] values and then over these: the same bits for
    /// any number of workers.
    ///
    /// # Errors
    /// Those of the exchange.
    pub fn squares(&self, mesh: &Mesh) -> Result<Vec<f64>, GradientError> {
        if let Some(sums) = &self.on_device {
            let mut all = vec![0.0; self.buckets.lengths().len()];
            for (place, square) in self.buckets.places().iter().zip(squares_on_device(sums)?) {
                all[place.bucket] += square;
            }
            return Ok(all);
        }
        let square = |block: &[f32]| block.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>();
        let blocks = |rank: usize| -> Vec<usize> {
            self.current.iter().map(|bucket| mesh.kept(rank, bucket.len()).len().div_ceil(BLOCK)).collect()
        };
        let own: Vec<Vec<f64>> = self
            .current
            .iter()
            .map(|bucket| bucket[mesh.kept(mesh.data.rank(), bucket.len())].par_chunks(BLOCK).map(square).collect())
            .collect();
        if !mesh.zero {
            return Ok(own.iter().map(|blocks| blocks.iter().sum()).collect());
        }
        let most = (0..mesh.data.size()).map(|rank| blocks(rank).iter().sum::<usize>()).max().unwrap_or(0);
        let mut own = own.concat();
        own.resize(most, 0.0);
        let all = all_numbers(&*mesh.data, &own)?;
        let mut sums = vec![0.0; self.current.len()];
        for (rank, squares) in all.iter().enumerate() {
            let mut squares = squares.iter();
            for (sum, count) in sums.iter_mut().zip(blocks(rank)) {
                *sum = squares.by_ref().take(count).fold(*sum, |sum, square| sum + square);
            }
        }
        Ok(sums)
    }

    /// Whether each parameter has a gradient that is not zero everywhere, in the order of names.
    ///
    /// # Errors
    /// Those of the exchange.
    pub fn reached(&self, mesh: &Mesh) -> Result<Vec<bool>, GradientError> {
        if let Some(sums) = &self.on_device {
            return Ok(squares_on_device(sums)?.iter().map(|square| *square != 0.0).collect());
        }
        let reached = |place: &Place| {
            let bucket = &self.current[place.bucket];
            let kept = common(&place.range, &mesh.kept(mesh.data.rank(), bucket.len()));
            f64::from(u8::from(bucket[kept].iter().any(|g| *g != 0.0)))
        };
        let own: Vec<f64> = self.buckets.places().iter().map(reached).collect();
        let all = all_numbers(&*mesh.data, &own)?;
        Ok((0..own.len()).map(|i| all.iter().any(|numbers| numbers[i] != 0.0)).collect())
    }
}

/// The sums of an update while its micro-batches run.
pub struct Summing<'a> {
    gradients: &'a mut Gradients,
    /// Micro-batches that are added up in order: an odd number.
    leaf: usize,
    count: usize,
    index: usize,
    /// To the thread that exchanges buckets.
    queue: Option<Sender<(usize, Vec<f32>)>>,
    finished: Vec<(usize, Vec<f32>)>,
}

impl Summing<'_> {
    /// A micro-batch is through, all of its parts complete.
    pub fn end(&mut self) {
        self.index += 1;
        if self.gradients.on_device.is_some() || self.index == self.count || !self.index.is_multiple_of(self.leaf) {
            return;
        }
        let Gradients { buckets, current, waiting, spare, .. } = &mut *self.gradients;
        let mut level = 0;
        while let Some((_, before)) = waiting.pop_if(|(at, _)| *at == level) {
            current.iter_mut().zip(&before).for_each(|(sum, values)| add(sum, values));
            spare.push(before);
            level += 1;
        }
        let next = match spare.pop() {
            // A bucket that went to the other workers came back as the other buffer's.
            Some(mut zeros) => {
                zeros.iter_mut().zip(buckets.lengths()).for_each(|(values, length)| {
                    values.clear();
                    values.resize(*length, 0.0);
                });
                zeros
            }
            None => buckets.zeros(),
        };
        waiting.push((level, mem::replace(current, next)));
    }
}

impl Sink for Summing<'_> {
    fn add(&mut self, parameters: &Parameters, grads: &GradStore) -> Result<()> {
        let Gradients { buckets, current, on_device, .. } = &mut *self.gradients;
        if let Some(sums) = on_device {
            for ((_, var), sum) in parameters.iter().zip(sums) {
                match (grads.get(var), &mut *sum) {
                    (None, _) => {}
                    (Some(gradient), None) => *sum = Some(gradient.detach()),
                    (Some(gradient), Some(sum)) => add_to(sum, gradient)?,
                }
            }
            return Ok(());
        }
        for ((_, var), place) in parameters.iter().zip(buckets.places()) {
            if let Some(gradient) = grads.get(var) {
                accumulate(&mut current[place.bucket][place.range.clone()], gradient)?;
            }
        }
        Ok(())
    }

    fn complete(&mut self, part: Part) {
        if self.index + 1 < self.count || self.gradients.on_device.is_some() {
            return;
        }
        let Gradients { buckets, current, waiting, .. } = &mut *self.gradients;
        for number in (0..current.len()).filter(|number| buckets.parts()[*number] == part) {
            let mut values = mem::take(&mut current[number]);
            waiting.iter().rev().for_each(|(_, before)| add(&mut values, &before[number]));
            match &self.queue {
                // Where the thread has ended, its error says why.
                Some(queue) => drop(queue.send((number, values))),
                None => self.finished.push((number, values)),
            }
        }
    }
}

/// The sum of the squares of each sum.
fn squares_on_device(sums: &[Option<Tensor>]) -> Result<Vec<f64>> {
    let there: Vec<&Tensor> = sums.iter().flatten().collect();
    let mut found = squares(&there)?.into_iter();
    Ok(sums.iter().map(|sum| sum.as_ref().and_then(|_| found.next()).unwrap_or(0.0)).collect())
}

/// Adds a gradient, which must be on the CPU in f32, to a running sum.
fn accumulate(sum: &mut [f32], gradient: &Tensor) -> Result<()> {
    let gradient = gradient.contiguous()?;
    let (storage, layout) = gradient.storage_and_layout();
    let (Storage::Cpu(cpu), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        candle_core::bail!("a gradient is not on the CPU");
    };
    add(sum, &cpu.as_slice::<f32>()?[start..end]);
    Ok(())
}

fn add(sum: &mut [f32], values: &[f32]) {
    const TASK: usize = 1 << 14; // values handed to one parallel task
    sum.par_chunks_mut(TASK).zip(values.par_chunks(TASK)).for_each(|(sum, values)| {
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    });
}
