//! Workers that are threads of one process. One of them alone is the run of a single process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Comm, Group, Transport};

/// Everyone's messages that have not been taken yet.
#[derive(Default)]
struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By sender, receiver and tag.
    messages: HashMap<(usize, usize, u32), VecDeque<Vec<f32>>>,
    /// Workers that have ended.
    gone: Vec<usize>,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Thread {
    hub: Arc<Hub>,
    rank: usize,
}

/// Who waits for a thread that ended learns of it.
impl Drop for Thread {
    fn drop(&mut self) {
        self.hub.state().gone.push(self.rank);
        self.hub.changed.notify_all();
    }
}

impl Transport for Thread {
    fn send(&self, to: usize, tag: u32, values: &[f32]) -> Result<(), String> {
        let mut state = self.hub.state();
        if state.gone.contains(&to) {
            return Err("its thread has ended".to_owned());
        }
        state.messages.entry((self.rank, to, tag)).or_default().push_back(values.to_vec());
        self.hub.changed.notify_all();
        Ok(())
    }

    fn recv(&self, from: usize, tag: u32, values: &mut [f32]) -> Result<(), String> {
        let mut state = self.hub.state();
        loop {
            let waiting = state.messages.get_mut(&(from, self.rank, tag)).and_then(VecDeque::pop_front);
            match waiting {
                Some(message) if message.len() == values.len() => {
                    values.copy_from_slice(&message);
                    return Ok(());
                }
                Some(message) => return Err(format!("{} values came: expected {}", message.len(), values.len())),
                None if state.gone.contains(&from) => return Err("its thread has ended".to_owned()),
                None => state = self.hub.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn exchange(&self, to: usize, from: usize, tag: u32, sent: &[f32], received: &mut [f32]) -> Result<(), String> {
        self.send(to, tag, sent).and_then(|()| self.recv(from, tag, received))
    }

    fn in_process(&self) -> bool {
        true
    }
}

/// `size` workers, one for each thread that takes one.
pub fn world(size: usize) -> Vec<Arc<dyn Comm>> {
    let hub = Arc::new(Hub::default());
    (0..size)
        .map(|rank| {
            let transport = Arc::new(Thread { hub: Arc::clone(&hub), rank });
            Arc::new(Group::world(transport, rank, size)) as Arc<dyn Comm>
        })
        .collect()
}

/// A worker that has no others.
pub fn alone() -> Arc<dyn Comm> {
    let transport = Arc::new(Thread { hub: Arc::default(), rank: 0 });
    Arc::new(Group::world(transport, 0, 1))
}
