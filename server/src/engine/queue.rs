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
    /// `capacity` entries wait already.
    Full,
    /// The queue is closed or aborted.
    Closed,
}

/// The queue. An own type instead of a channel, because entries whose client has left are to make room for others.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

struct State<T> {
    entries: VecDeque<T>,
    phase: Phase,
}

impl<T> Queue<T> {
    /// An open queue in which at most `capacity` entries wait.
    pub(super) fn new(capacity: usize) -> Self {
        let state = State { entries: VecDeque::new(), phase: Phase::Open };
        Queue { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    /// Adds an entry at the end. When the queue is full, entries of which `is_dead` holds are dropped first.
    pub(super) fn push(&self, entry: T, is_dead: impl Fn(&T) -> bool) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(Refused::Closed);
        }
        if state.entries.len() >= self.capacity {
            state.entries.retain(|waiting| !is_dead(waiting));
        }
        if state.entries.len() >= self.capacity {
            return Err(Refused::Full);
        }
        state.entries.push_back(entry);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The first entry, if one waits now.
    pub(super) fn try_pop(&self) -> Option<T> {
        let mut state = self.lock();
        if state.phase == Phase::Aborted { None } else { state.entries.pop_front() }
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
            if let Some(entry) = state.entries.pop_front() {
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
        self.lock().entries.drain(..).collect()
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

    #[test]
    fn a_full_queue_refuses_unless_a_dead_entry_makes_room() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(1, |_| false), Ok(()));
        assert_eq!(queue.push(2, |_| false), Ok(()));
        assert_eq!(queue.push(3, |_| false), Err(Refused::Full));
        assert_eq!(queue.push(3, |n| *n == 1), Ok(()));
        assert_eq!((queue.try_pop(), queue.try_pop(), queue.try_pop()), (Some(2), Some(3), None));
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_an_aborted_one_nothing() {
        let queue = Queue::new(4);
        for n in [1, 2] {
            assert_eq!(queue.push(n, |_| false), Ok(()));
        }
        queue.advance(Phase::Closed);
        assert_eq!(queue.push(3, |_| false), Err(Refused::Closed));
        assert_eq!(queue.pop(), Some(1));
        queue.advance(Phase::Aborted);
        queue.advance(Phase::Open);
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.drain(), [2]);
    }
}
