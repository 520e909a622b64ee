//! A bounded first-in-first-out queue between the request handlers and the engine thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Whether the queue still takes and gives entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes and gives entries.
    Open,
    /// Takes no more entries; gives those it has.
    Closed,
    /// Takes and gives nothing: what runs and waits is to be abandoned.
    Aborted,
}

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// As much waits already as may.
    Full,
    /// The queue is closed or aborted.
    Closed,
}

/// What may wait at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// Entries.
    pub(super) entries: usize,
    /// The sum of their costs; a single entry may cost more, if nothing else waits.
    pub(super) cost: usize,
}

/// The queue. An own type instead of a channel, because entries whose client has left are to make room for others.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: Capacity,
}

struct State<T> {
    /// Each with its cost.
    entries: VecDeque<(T, usize)>,
    cost: usize,
    phase: Phase,
}

impl<T> State<T> {
    fn has_room(&self, capacity: Capacity, cost: usize) -> bool {
        self.entries.is_empty()
            || (self.entries.len() < capacity.entries && self.cost.saturating_add(cost) <= capacity.cost)
    }

    fn pop(&mut self) -> Option<T> {
        let (entry, cost) = self.entries.pop_front()?;
        self.cost -= cost;
        Some(entry)
    }
}

impl<T> Queue<T> {
    /// An open queue.
    pub(super) fn new(capacity: Capacity) -> Self {
        let state = State { entries: VecDeque::new(), cost: 0, phase: Phase::Open };
        Queue { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    /// Adds an entry at the end. When the queue is full, entries of which `is_dead` holds are dropped first.
    pub(super) fn push(&self, entry: T, cost: usize, is_dead: impl Fn(&T) -> bool) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(Refused::Closed);
        }
        if !state.has_room(self.capacity, cost) {
            state.entries.retain(|(waiting, _)| !is_dead(waiting));
            state.cost = state.entries.iter().map(|(_, cost)| cost).sum();
        }
        if !state.has_room(self.capacity, cost) {
            return Err(Refused::Full);
        }
        state.cost = state.cost.saturating_add(cost);
        state.entries.push_back((entry, cost));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The first entry, if one waits now.
    pub(super) fn try_pop(&self) -> Option<T> {
        let mut state = self.lock();
        if state.phase == Phase::Aborted { None } else { state.pop() }
    }

    /// The first entry, as soon as there is one; `None` when the queue is closed and empty, or aborted.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            match state.phase {
                Phase::Aborted => return None,
                Phase::Closed if state.entries.is_empty() => return None,
                _ => {}
            }
            if let Some(entry) = state.pop() {
                return Some(entry);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Moves to a later phase; a queue never goes back to an earlier one.
    pub(super) fn advance(&self, phase: Phase) {
        let mut state = self.lock();
        if phase as u8 > state.phase as u8 {
            state.phase = phase;
        }
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Takes everything that waits, whatever the phase.
    pub(super) fn drain(&self) -> Vec<T> {
        let mut state = self.lock();
        state.cost = 0;
        state.entries.drain(..).map(|(entry, _)| entry).collect()
    }

    /// What the waiting entries cost together.
    pub(super) fn cost(&self) -> usize {
        self.lock().cost
    }

    /// How many entries wait.
    pub(super) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    // No code that can panic runs under the lock, except `is_dead`; even then the entries are intact.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(entries: usize, cost: usize) -> Queue<u32> {
        Queue::new(Capacity { entries, cost })
    }

    #[test]
    fn a_full_queue_refuses_unless_a_dead_entry_makes_room() {
        let queue = queue(2, 100);
        assert_eq!(queue.push(1, 1, |_| false), Ok(()));
        assert_eq!(queue.push(2, 1, |_| false), Ok(()));
        assert_eq!(queue.push(3, 1, |_| false), Err(Refused::Full));
        assert_eq!(queue.push(3, 1, |n| *n == 1), Ok(()));
        assert_eq!((queue.try_pop(), queue.try_pop(), queue.try_pop()), (Some(2), Some(3), None));
    }

    #[test]
    fn what_waits_is_bounded_by_its_cost_too() {
        let queue = queue(10, 100);
        assert_eq!(queue.push(1, 1000, |_| false), Ok(()), "alone, any cost may wait");
        assert_eq!(queue.push(2, 1, |_| false), Err(Refused::Full));
        assert_eq!(queue.try_pop(), Some(1));
        assert_eq!(queue.push(3, 60, |_| false), Ok(()));
        assert_eq!(queue.push(4, 41, |_| false), Err(Refused::Full));
        assert_eq!(queue.push(5, 40, |_| false), Ok(()));
        assert_eq!(queue.cost(), 100);
        assert_eq!(queue.push(6, 90, |n| *n == 3), Err(Refused::Full));
        assert_eq!((queue.cost(), queue.drain()), (40, vec![5]));
        assert_eq!(queue.cost(), 0);
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_an_aborted_one_nothing() {
        let queue = queue(4, 4);
        for n in [1, 2] {
            assert_eq!(queue.push(n, 1, |_| false), Ok(()));
        }
        queue.advance(Phase::Closed);
        assert_eq!(queue.push(3, 1, |_| false), Err(Refused::Closed));
        assert_eq!(queue.pop(), Some(1));
        queue.advance(Phase::Aborted);
        queue.advance(Phase::Open);
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.drain(), [2]);
    }
}
