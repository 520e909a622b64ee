//! Workers that are processes: MPI (MPI-4.0, chapter 3). Groups are told apart by tags of the one communicator that
//! there is, so that this file needs nothing of MPI but messages between two processes.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mpi::Threading;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source, Status};
use mpi::request::{Request, Scope, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, Equivalence};

use super::{Comm, Group, Transport};

/// Values of one message: MPI counts them in 31 bits.
const LARGEST: usize = 1 << 28;

/// Begins to take part; `None` where MPI has begun before, or lets no two threads of a process send at the same time.
/// The run ends with the universe.
pub fn begin() -> Option<(Universe, Arc<dyn Comm>)> {
    let (universe, threading) = mpi::initialize_with_threading(Threading::Multiple)?;
    if threading != Threading::Multiple {
        return None;
    }
    let world = universe.world();
    let (rank, size) = (world.rank() as usize, world.size() as usize);
    Some((universe, Arc::new(Group::world(Arc::new(Processes), rank, size))))
}

/// Ends all processes: the others would wait for this one for ever.
pub fn abort() -> ! {
    SimpleCommunicator::world().abort(1)
}

/// All processes. Where one of them is gone, MPI ends the others itself.
struct Processes;

impl Transport for Processes {
    fn send(&self, to: usize, tag: u32, values: &[f32]) -> Result<(), String> {
        let world = SimpleCommunicator::world();
        let peer = world.process_at_rank(to as i32);
        for part in values.chunks(LARGEST) {
            scope(|scope| wait(peer.immediate_send_with_tag(scope, part, tag as i32)));
        }
        Ok(())
    }

    fn recv(&self, from: usize, tag: u32, values: &mut [f32]) -> Result<(), String> {
        let world = SimpleCommunicator::world();
        let peer = world.process_at_rank(from as i32);
        for part in values.chunks_mut(LARGEST) {
            let expected = part.len();
            came(scope(|scope| wait(peer.immediate_receive_into_with_tag(scope, part, tag as i32))), expected)?;
        }
        Ok(())
    }

    fn exchange(&self, to: usize, from: usize, tag: u32, sent: &[f32], received: &mut [f32]) -> Result<(), String> {
        let world = SimpleCommunicator::world();
        let (target, source) = (world.process_at_rank(to as i32), world.process_at_rank(from as i32));
        let (mut outgoing, mut incoming) = (sent.chunks(LARGEST), received.chunks_mut(LARGEST));
        loop {
            match (outgoing.next(), incoming.next()) {
                (None, None) => return Ok(()),
                (Some(part), None) => {
                    scope(|scope| wait(target.immediate_send_with_tag(scope, part, tag as i32)));
                }
                (None, Some(part)) => {
                    let expected = part.len();
                    let status = scope(|scope| wait(source.immediate_receive_into_with_tag(scope, part, tag as i32)));
                    came(status, expected)?;
                }
                (Some(out), Some(part)) => {
                    let expected = part.len();
                    let status = scope(|scope| {
                        let sending = target.immediate_send_with_tag(scope, out, tag as i32);
                        let status = wait(source.immediate_receive_into_with_tag(scope, part, tag as i32));
                        wait(sending);
                        status
                    });
                    came(status, expected)?;
                }
            }
        }
    }

    fn in_process(&self) -> bool {
        false
    }
}

/// Waits without taking the processor from who computes, as MPI's own waiting does.
fn wait<'a, D: ?Sized, S: Scope<'a>>(mut request: Request<'a, D, S>) -> Status {
    const PATIENCE: usize = 200; // attempts before the thread sleeps
    let mut attempts = 0;
    loop {
        match request.test() {
            Ok(status) => return status,
            Err(unfinished) => request = unfinished,
        }
        attempts += 1;
        match attempts < PATIENCE {
            true => thread::yield_now(),
            false => thread::sleep(Duration::from_micros(50)),
        }
    }
}

fn came(status: Status, expected: usize) -> Result<(), String> {
    match status.count(f32::equivalent_datatype()) as usize {
        count if count == expected => Ok(()),
        count => Err(format!("{count} values came: expected {expected}")),
    }
}
