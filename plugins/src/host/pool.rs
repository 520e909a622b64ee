//! Configured instances, each lent to one call or one answer at a time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::Store;

use super::bindings::PolicyWithVocabulary;
use super::component::{Component, LoadError};
use super::failure::Failure;
use super::instance::{Called, Instance};
use super::state::State;

/// Calls after which an instance is replaced, so that what leaks in it stays small.
const MOST_USES: u32 = 1024;
/// Instances that are kept while nobody needs them.
const MOST_IDLE: usize = 16;
/// New instances that may follow failed ones: so many at once, and so many more each second. A policy that fails each time
/// costs no more than that.
const BURST: f64 = 32.0;
const PER_SECOND: f64 = 16.0;

/// Configured instances of one component.
pub(crate) struct Pool {
    component: Component,
    /// JSON.
    settings: String,
    inner: Mutex<Inner>,
    returned: Condvar,
}

struct Inner {
    idle: Vec<Instance>,
    /// Idle ones and those that are lent.
    live: u32,
    /// Failures that may still happen before new instances are made more slowly.
    credit: f64,
    counted: Instant,
}

impl Inner {
    /// Time mends.
    fn recover(&mut self) {
        let now = Instant::now();
        let gained = (now - self.counted).as_secs_f64() * PER_SECOND;
        (self.credit, self.counted) = ((self.credit + gained).min(BURST), now);
    }
}

impl Pool {
    /// A pool of instances with these settings, one of which is made at once.
    pub fn new(component: Component, settings: String) -> Result<Arc<Pool>, LoadError> {
        let first = component.configured(&settings)?;
        let inner = Inner { idle: vec![first], live: 1, credit: BURST, counted: Instant::now() };
        Ok(Arc::new(Pool { component, settings, inner: Mutex::new(inner), returned: Condvar::new() }))
    }

    /// Lends an instance; waits for one, for as long as a call may take, where none is free. Where none is there, one is
    /// made, which takes as long as configuring takes.
    pub fn lease(self: &Arc<Self>) -> Result<Lease, Failure> {
        let until = Instant::now() + self.component.limits().deadline;
        let mut inner = self.lock();
        loop {
            if let Some(instance) = inner.idle.pop() {
                return Ok(Lease { pool: Arc::clone(self), instance: Some(instance) });
            }
            inner.recover();
            let now = Instant::now();
            let wait = match inner.live < self.component.limits().instances {
                true if inner.credit >= 1.0 => {
                    inner.live += 1;
                    drop(inner);
                    return self.make();
                }
                true => Duration::from_secs_f64((1.0 - inner.credit) / PER_SECOND),
                false => until.saturating_duration_since(now),
            };
            if now >= until {
                return Err(Failure::Busy);
            }
            let wait = wait.min(until.saturating_duration_since(now)).max(Duration::from_millis(1));
            (inner, _) = self.returned.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A new instance, which has been counted already.
    fn make(self: &Arc<Self>) -> Result<Lease, Failure> {
        match self.component.configured(&self.settings) {
            Ok(instance) => Ok(Lease { pool: Arc::clone(self), instance: Some(instance) }),
            Err(error) => {
                self.gone(true);
                Err(match error {
                    LoadError::Start(failure) => failure,
                    // It took these settings before.
                    other => Failure::Answer(other.to_string()),
                })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance is there no more.
    fn gone(&self, failed: bool) {
        let mut inner = self.lock();
        inner.live = inner.live.saturating_sub(1);
        if failed {
            inner.recover();
            inner.credit -= 1.0;
        }
        drop(inner);
        self.returned.notify_one();
    }

    fn take_back(&self, instance: Instance) {
        let mut inner = self.lock();
        if instance.uses < MOST_USES && inner.idle.len() < MOST_IDLE {
            inner.idle.push(instance);
            drop(inner);
            self.returned.notify_one();
        } else {
            drop(inner);
            drop(instance);
            self.gone(false);
        }
    }
}

/// An instance that is lent; it goes back when this is dropped, unless it failed.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    instance: Option<Instance>,
}

impl Lease {
    /// Calls the instance on an input of so many bytes. After a failure it is gone: later calls fail too.
    pub fn call<T>(
        &mut self,
        bytes: usize,
        call: impl FnOnce(&PolicyWithVocabulary, &mut Store<State>) -> wasmtime::Result<T>,
    ) -> Called<T> {
        let limits = self.pool.component.limits();
        let Some(instance) = &mut self.instance else {
            return Called { answer: Err(Failure::Trap("it failed before".to_owned())), fuel: 0 };
        };
        let called = instance.call(limits, limits.fuel_for(bytes), call);
        if called.answer.is_err() {
            self.fail();
        }
        called
    }

    /// The instance answered something impossible: it is not to be trusted again.
    pub fn fail(&mut self) {
        if self.instance.take().is_some() {
            self.pool.gone(true);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.pool.take_back(instance);
        }
    }
}
