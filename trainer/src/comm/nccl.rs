//! Workers whose sums are taken by GPUs: NCCL, over processes that find each other by another group (MPI). Values come from
//! this machine's memory and go back to it. NCCL takes sums in an order of its own, so that another number of workers gives
//! the same numbers to rounding alone.

use std::env;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use cudarc::nccl::{Comm as Ring, Id, ReduceOp, group_end, group_start};

use super::{Comm, CommError};

/// What the thread that owns the GPU's side of a group is asked for.
type Task = Box<dyn FnOnce(&Ring, &Arc<CudaStream>) + Send>;

/// A group with a GPU for each worker.
pub struct Nccl {
    /// The same workers by other means.
    link: Arc<dyn Comm>,
    device: usize,
    tasks: Sender<Task>,
}

/// Where launchers tell a process its number on its machine.
const LOCAL_RANKS: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];

impl Nccl {
    /// The workers of `link`, each with the GPU of its number on its machine.
    ///
    /// # Errors
    /// There is no such GPU, or the libraries of CUDA or NCCL cannot be loaded.
    pub fn over(link: Arc<dyn Comm>) -> Result<Nccl, CommError> {
        let local = LOCAL_RANKS.iter().find_map(|name| env::var(name).ok()?.parse().ok());
        let device = local.unwrap_or_else(|| link.rank());
        Nccl::on(link, device)
    }

    fn on(link: Arc<dyn Comm>, device: usize) -> Result<Nccl, CommError> {
        let (rank, size) = (link.rank(), link.size());
        let error = |reason: String| CommError { operation: "NCCL".to_owned(), peer: rank, size, reason };
        // Everyone learns the group's number from the first: its bytes, which f32 holds exactly.
        let mut bytes = [0.0_f32; 128];
        if rank == 0 {
            // In a thread, since cudarc panics where there is no library.
            let id = thread::spawn(Id::new).join().map_err(|_| error(no_library("NCCL")))?;
            let id = id.map_err(|e| error(format!("{e:?}")))?;
            bytes.iter_mut().zip(id.internal()).for_each(|(to, from)| *to = f32::from(*from as u8));
        }
        link.broadcast(0, &mut bytes)?;
        let (tasks, todo) = channel::<Task>();
        let (ready, started) = channel::<Result<(), String>>();
        thread::spawn(move || {
            let id = Id::uninit(bytes.map(|byte| byte as u8 as std::ffi::c_char));
            let begun = CudaContext::new(device)
                .map_err(|e| format!("GPU {device}: {e:?}"))
                .map(|context| context.default_stream())
                .and_then(|stream| {
                    let ring = Ring::from_rank(Arc::clone(&stream), rank, size, id).map_err(|e| format!("{e:?}"))?;
                    Ok((ring, stream))
                });
            match begun {
                Ok((ring, stream)) => {
                    let _ = ready.send(Ok(()));
                    todo.into_iter().for_each(|task| task(&ring, &stream));
                }
                Err(reason) => drop(ready.send(Err(reason))),
            }
        });
        match started.recv() {
            Ok(Ok(())) => Ok(Nccl { link, device, tasks }),
            Ok(Err(reason)) => Err(error(reason)),
            Err(_) => Err(error(no_library("CUDA or NCCL"))),
        }
    }

    /// Copies `values` to the GPU, does the work there, and copies them back.
    fn with(
        &self,
        operation: &str,
        peer: usize,
        values: &mut [f32],
        work: impl FnOnce(&Ring, &mut CudaSlice<f32>) -> Result<(), cudarc::nccl::result::NcclError> + Send + 'static,
    ) -> Result<(), CommError> {
        let error = |reason: String| CommError { operation: operation.to_owned(), peer, size: self.size(), reason };
        if values.is_empty() {
            return Ok(());
        }
        let (back, result) = channel();
        let host = values.to_vec();
        let task: Task = Box::new(move |ring, stream| {
            let run = || {
                let mut device = stream.clone_htod(&host).map_err(|e| format!("{e:?}"))?;
                work(ring, &mut device).map_err(|e| format!("{e:?}"))?;
                stream.clone_dtoh(&device).map_err(|e| format!("{e:?}"))
            };
            let _ = back.send(run());
        });
        let gone = || error("its thread has ended".to_owned());
        self.tasks.send(task).map_err(|_| gone())?;
        values.copy_from_slice(&result.recv().map_err(|_| gone())?.map_err(error)?);
        Ok(())
    }
}

fn no_library(which: &str) -> String {
    format!("the library of {which} cannot be loaded: expected libcuda.so and libnccl.so in LD_LIBRARY_PATH")
}

impl Comm for Nccl {
    fn rank(&self) -> usize {
        self.link.rank()
    }

    fn size(&self) -> usize {
        self.link.size()
    }

    fn in_process(&self) -> bool {
        self.link.in_process()
    }

    fn send(&self, to: usize, values: &[f32]) -> Result<(), CommError> {
        self.with("send", to, &mut values.to_vec(), move |ring, device| ring.send(device, to as i32))
    }

    fn recv(&self, from: usize, values: &mut [f32]) -> Result<(), CommError> {
        self.with("recv", from, values, move |ring, device| ring.recv(device, from as i32).map(|_| ()))
    }

    fn exchange(&self, to: usize, sent: &[f32], from: usize, received: &mut [f32]) -> Result<(), CommError> {
        let split = sent.len();
        let mut both = [sent, received].concat();
        self.with("exchange", from, &mut both, move |ring, device| {
            let (outgoing, mut incoming) = device.split_at_mut(split);
            group_start()?;
            ring.send(&outgoing, to as i32)?;
            ring.recv(&mut incoming, from as i32)?;
            group_end().map(|_| ())
        })?;
        received.copy_from_slice(&both[split..]);
        Ok(())
    }

    fn split(&self, color: usize, key: usize) -> Result<Arc<dyn Comm>, CommError> {
        Ok(Arc::new(Nccl::on(self.link.split(color, key)?, self.device)?))
    }

    fn reduce_scatter(&self, values: &mut [f32]) -> Result<(), CommError> {
        let pieces: Vec<_> = (0..self.size()).map(|rank| self.piece(rank, values.len())).collect();
        self.with("reduce_scatter", self.rank(), values, move |ring, device| {
            for (root, piece) in pieces.into_iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
                ring.reduce_in_place(&mut device.slice_mut(piece), &ReduceOp::Sum, root as i32)?;
            }
            Ok(())
        })
    }

    fn all_gather(&self, values: &mut [f32]) -> Result<(), CommError> {
        let pieces: Vec<_> = (0..self.size()).map(|rank| self.piece(rank, values.len())).collect();
        self.with("all_gather", self.rank(), values, move |ring, device| {
            for (root, piece) in pieces.into_iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
                ring.broadcast_in_place(&mut device.slice_mut(piece), root as i32)?;
            }
            Ok(())
        })
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CommError> {
        self.with("all_reduce", self.rank(), values, |ring, device| {
            ring.all_reduce_in_place(device, &ReduceOp::Sum).map(|_| ())
        })
    }

    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), CommError> {
        self.with("broadcast", root, values, move |ring, device| {
            ring.broadcast_in_place(device, root as i32).map(|_| ())
        })
    }

    fn as_comm(&self) -> &dyn Comm {
        self
    }
}
