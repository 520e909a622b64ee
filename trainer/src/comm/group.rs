//! Groups of workers over a transport that knows all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Comm, CommError, all_numbers};

/// Messages between all workers of a run, by number. A tag keeps the messages of one group apart from those of another;
/// messages of a tag between two workers arrive in order.
pub trait Transport: Send + Sync {
    /// Sends.
    ///
    /// # Errors
    /// Says why it cannot.
    fn send(&self, to: usize, tag: u32, values: &[f32]) -> Result<(), String>;

    /// Waits for a message.
    ///
    /// # Errors
    /// Says why there will be none, or that it has another length.
    fn recv(&self, from: usize, tag: u32, values: &mut [f32]) -> Result<(), String>;

    /// Both at the same time.
    ///
    /// # Errors
    /// Those of both.
    fn exchange(&self, to: usize, from: usize, tag: u32, sent: &[f32], received: &mut [f32]) -> Result<(), String>;

    /// Whether the others are threads of this process.
    fn in_process(&self) -> bool;
}

/// Some workers of a run.
pub struct Group {
    transport: Arc<dyn Transport>,
    members: Vec<usize>, // their numbers in the run
    rank: usize,
    tag: u32,
    next_tag: Arc<AtomicU32>, // of this worker
}

impl Group {
    /// All `size` workers of a run, of which this one is `rank`.
    pub fn world(transport: Arc<dyn Transport>, rank: usize, size: usize) -> Group {
        Group { transport, members: (0..size).collect(), rank, tag: 0, next_tag: Arc::new(AtomicU32::new(1)) }
    }

    fn error(&self, operation: &str, peer: usize) -> impl FnOnce(String) -> CommError {
        let (operation, size) = (operation.to_owned(), self.members.len());
        move |reason| CommError { operation, peer, size, reason }
    }

    fn member(&self, operation: &str, peer: usize) -> Result<usize, CommError> {
        let outside = || self.error(operation, peer)("there is no such rank".to_owned());
        self.members.get(peer).copied().ok_or_else(outside)
    }
}

impl Comm for Group {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn in_process(&self) -> bool {
        self.transport.in_process()
    }

    fn send(&self, to: usize, values: &[f32]) -> Result<(), CommError> {
        let member = self.member("send", to)?;
        self.transport.send(member, self.tag, values).map_err(self.error("send", to))
    }

    fn recv(&self, from: usize, values: &mut [f32]) -> Result<(), CommError> {
        let member = self.member("recv", from)?;
        self.transport.recv(member, self.tag, values).map_err(self.error("recv", from))
    }

    fn exchange(&self, to: usize, sent: &[f32], from: usize, received: &mut [f32]) -> Result<(), CommError> {
        let (target, source) = (self.member("exchange", to)?, self.member("exchange", from)?);
        self.transport.exchange(target, source, self.tag, sent, received).map_err(self.error("exchange", from))
    }

    fn split(&self, color: usize, key: usize) -> Result<Arc<dyn Comm>, CommError> {
        let free = self.next_tag.load(Ordering::Relaxed);
        let all = all_numbers(self, &[color as f64, key as f64, f64::from(free)]).map_err(|e| e.within("split"))?;
        // A tag that nobody of the group has used. Groups of other colors take it too, but no two workers share both.
        let tag = all.iter().map(|numbers| numbers[2] as u32).fold(free, u32::max);
        self.next_tag.store(tag + 1, Ordering::Relaxed);
        let mut chosen: Vec<(usize, usize)> = all
            .iter()
            .enumerate()
            .filter(|(_, numbers)| numbers[0] as usize == color)
            .map(|(rank, numbers)| (numbers[1] as usize, rank))
            .collect();
        chosen.sort_unstable();
        let rank = chosen.iter().position(|(_, rank)| *rank == self.rank).unwrap_or(0);
        let members = chosen.iter().map(|(_, rank)| self.members[*rank]).collect();
        let (transport, next_tag) = (Arc::clone(&self.transport), Arc::clone(&self.next_tag));
        Ok(Arc::new(Group { transport, members, rank, tag, next_tag }))
    }

    fn as_comm(&self) -> &dyn Comm {
        self
    }
}
