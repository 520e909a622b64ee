//! Threads that share out the work of one step.
//!
//! A step of decoding hands over a few pieces of work for each layer, microseconds apart: threads wait for the next one by
//! spinning for a moment, then by giving way to others, and at last asleep. Tasks are taken one by one, so that a thread
//! whose core is busy with something else holds up no more than the task it has begun.
#![allow(unsafe_code)] // a borrowed closure is lent to other threads for as long as a call lasts

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

/// Looks at the place where work comes from before a thread gives way: some microseconds.
const SPINS: usize = 300;
/// Times that a thread gives way before it sleeps.
const YIELDS: usize = 60;

/// A fixed number of threads, the calling one included.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while work is shared out. Who comes meanwhile works alone.
    caller: Mutex<()>,
}

type Call = unsafe fn(*const (), usize);

struct Shared {
    /// Which work it is (32 bits), and the next task of it.
    ticket: AtomicU64,
    tasks: AtomicUsize,
    /// Tasks that are done.
    done: AtomicUsize,
    /// The closure, and the function that calls it.
    closure: AtomicPtr<()>,
    call: AtomicPtr<()>,
    stop: AtomicBool,
    asleep: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const WORK: u64 = 1 << 32;
/// A ticket of which no task can be taken: what is being set up.
const CLOSED: u64 = WORK - 1;

impl Pool {
    /// A pool of `threads` threads, at least 1.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(CLOSED),
            tasks: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            closure: AtomicPtr::default(),
            call: AtomicPtr::default(),
            stop: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            panic: Mutex::new(None),
        });
        let worker = |i| {
            let shared = Arc::clone(&shared);
            // A system that gives no more threads is worked with as it is.
            thread::Builder::new().name(format!("decode-{i}")).spawn(move || shared.work()).ok()
        };
        let workers = (1..threads).map_while(worker).collect();
        Pool { shared, workers, caller: Mutex::new(()) }
    }

    /// The pool of this process: of as many threads as `SAFELMM_THREADS` says, or as the process may use processors.
    pub fn global() -> &'static Pool {
        static GLOBAL: OnceLock<Pool> = OnceLock::new();
        GLOBAL.get_or_init(|| {
            let asked = std::env::var("SAFELMM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
            Pool::new(asked.unwrap_or_else(|| thread::available_parallelism().map_or(1, |n| n.get())))
        })
    }

    /// Calls `task` with 0, 1, … `tasks` − 1, on all threads, each number once, and returns when all have returned.
    ///
    /// # Panics
    /// When one of them did.
    pub fn run<F: Fn(usize) + Sync>(&self, tasks: usize, task: &F) {
        let alone = self.workers.is_empty() || tasks <= 1 || tasks >= CLOSED as usize;
        let caller = match (!alone).then(|| self.caller.try_lock()) {
            Some(Ok(guard)) => guard,
            Some(Err(TryLockError::Poisoned(guard))) => guard.into_inner(),
            Some(Err(TryLockError::WouldBlock)) | None => return (0..tasks).for_each(task),
        };
        // SAFETY: `data` is the address of `task`, which outlives the call; see `Shared::help`.
        unsafe fn call<F: Fn(usize)>(data: *const (), index: usize) {
            // SAFETY: as above.
            unsafe { (*data.cast::<F>())(index) }
        }
        let shared = &*self.shared;
        let work = (shared.ticket.load(Ordering::Relaxed) & !CLOSED).wrapping_add(WORK);
        shared.closure.store(std::ptr::from_ref(task).cast_mut().cast(), Ordering::Relaxed);
        shared.call.store(call::<F> as Call as *mut (), Ordering::Relaxed);
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.done.store(0, Ordering::Relaxed);
        shared.ticket.store(work, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            let _bed = lock(&shared.bed);
            shared.bell.notify_all();
        }
        shared.help();
        let mut waited = 0;
        while shared.done.load(Ordering::Acquire) < tasks {
            pause(&mut waited);
        }
        shared.ticket.store(work | CLOSED, Ordering::Relaxed);
        let panic = lock(&shared.panic).take();
        drop(caller);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.bed));
        self.shared.bell.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join(); // workers catch every panic
        }
    }
}

impl Shared {
    /// Takes tasks until there are none left.
    fn help(&self) {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        loop {
            let index = (ticket & CLOSED) as usize;
            let tasks = self.tasks.load(Ordering::Relaxed);
            let (closure, call) = (self.closure.load(Ordering::Relaxed), self.call.load(Ordering::Relaxed));
            if index >= tasks || ticket & CLOSED == CLOSED {
                return;
            }
            match self.ticket.compare_exchange_weak(ticket, ticket + 1, Ordering::AcqRel, Ordering::Acquire) {
                Err(now) => ticket = now,
                Ok(_) => {
                    // SAFETY: the ticket has named this work since before `closure` and `call` were read, or the exchange
                    // had failed, so they belong to it; and `run` does not return, so that the closure is there, before
                    // `done` has counted this task.
                    let called = catch_unwind(AssertUnwindSafe(|| unsafe {
                        std::mem::transmute::<*mut (), Call>(call)(closure, index);
                    }));
                    if let Err(panic) = called {
                        *lock(&self.panic) = Some(panic);
                    }
                    self.done.fetch_add(1, Ordering::Release);
                    ticket = self.ticket.load(Ordering::Acquire);
                }
            }
        }
    }

    /// What a thread of the pool does.
    fn work(&self) {
        let mut waited = 0;
        let mut seen = self.ticket.load(Ordering::Acquire);
        while !self.stop.load(Ordering::Relaxed) {
            let now = self.ticket.load(Ordering::Acquire);
            if now & !CLOSED != seen & !CLOSED {
                seen = now;
                waited = 0;
                self.help();
            } else if waited < SPINS + YIELDS {
                pause(&mut waited);
            } else {
                let mut bed = lock(&self.bed);
                self.asleep.fetch_add(1, Ordering::SeqCst);
                while self.ticket.load(Ordering::SeqCst) & !CLOSED == seen & !CLOSED
                    && !self.stop.load(Ordering::SeqCst)
                {
                    bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
                }
                self.asleep.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

/// Waits a moment: at first for the shortest time there is, later by letting another thread run.
fn pause(waited: &mut usize) {
    *waited += 1;
    if *waited < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whoever_asks() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            thread::scope(|scope| {
                for asker in 0..3 {
                    let pool = &pool;
                    scope.spawn(move || {
                        for round in 0..300 {
                            let counts: Vec<AtomicUsize> = (0..round % 17).map(|_| AtomicUsize::new(0)).collect();
                            pool.run(counts.len(), &|i| {
                                counts[i].fetch_add(1, Ordering::Relaxed);
                            });
                            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{asker} {round}");
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn a_pool_that_slept_wakes_up_and_work_is_spread() {
        let pool = Pool::new(2);
        thread::sleep(std::time::Duration::from_millis(50));
        let threads = Mutex::new(std::collections::HashSet::new());
        pool.run(20, &|_| {
            threads.lock().unwrap().insert(thread::current().id());
            thread::sleep(std::time::Duration::from_millis(5));
        });
        assert_eq!(threads.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for _ in 0..3 {
            let panic = catch_unwind(AssertUnwindSafe(|| pool.run(50, &|i| assert!(i != 20, "task {i}"))));
            assert_eq!(panic.unwrap_err().downcast_ref::<String>().unwrap(), "task 20");
            pool.run(50, &|_| {});
        }
    }
}
