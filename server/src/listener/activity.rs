//! What a connection is doing: known to its socket, to its requests and to whoever needs its place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How long each part of a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the connection's beginning, or a request's first byte, to the end of the request's head.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Without the client taking a byte that is ready for it.
    pub write: Duration,
}

/// What one connection is doing, and since when.
#[derive(Debug)]
pub struct Activity {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Bytes of an answer wait for the client to take them.
    write_pending: bool,
    /// Another connection needs the place.
    gives_way: bool,
    /// The last request has a body that was not read to its end.
    body_unread: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing came yet.
    New,
    /// A part of a head came.
    Head,
    /// A request is answered.
    Busy,
    /// Between two requests.
    Idle,
}

impl Activity {
    /// A connection that was accepted now.
    pub fn new() -> Self {
        let state = State {
            phase: Phase::New,
            since: Instant::now(),
            write_pending: false,
            gives_way: false,
            body_unread: false,
        };
        Activity { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Bytes came.
    pub fn received(&self) {
        let mut state = self.lock();
        match state.phase {
            Phase::New => state.phase = Phase::Head,
            Phase::Idle => (state.phase, state.since) = (Phase::Head, Instant::now()),
            Phase::Head | Phase::Busy => {}
        }
    }

    /// When the client will have kept silent for too long; none while its request is answered.
    pub fn read_deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let state = self.lock();
        match state.phase {
            Phase::New | Phase::Head => Some(state.since + timeouts.head),
            Phase::Idle => Some(state.since + timeouts.idle),
            Phase::Busy => None,
        }
    }

    /// Whether the client has yet to take bytes that are ready for it.
    pub fn write_pending(&self, pending: bool) {
        self.lock().write_pending = pending;
    }

    /// The body of the request was read to its end.
    pub fn body_ended(&self) {
        self.lock().body_unread = false;
    }

    /// Whether the client may still be sending a body that nobody reads.
    pub fn body_unread(&self) -> bool {
        self.lock().body_unread
    }

    /// A request has come; it is answered when what is returned is dropped.
    pub fn begin(self: &Arc<Self>, has_body: bool) -> Busy {
        let mut state = self.lock();
        (state.phase, state.since, state.body_unread) = (Phase::Busy, Instant::now(), has_body);
        Busy(Arc::clone(self))
    }

    /// Since when the connection could be closed without cutting off a request or an answer; none if it cannot be.
    pub fn disposable_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.phase != Phase::Busy && !state.write_pending).then_some(state.since)
    }

    /// Asks the connection to give its place to another.
    pub fn ask_to_give_way(&self) {
        self.lock().gives_way = true;
        self.changed.notify_one();
    }

    /// Whether the connection was asked to give its place to another, and can.
    pub fn gives_way(&self) -> bool {
        let asked = std::mem::take(&mut self.lock().gives_way);
        asked && self.disposable_since().is_some()
    }

    /// Returns when the connection should be looked at: it is asked to give way, or a request has ended, so that the time
    /// until the next one begins to count.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    // No code that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.phase, state.since) = (Phase::Idle, Instant::now());
        drop(state);
        self.0.changed.notify_one();
    }
}
