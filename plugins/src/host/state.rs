//! What belongs to one instance on the host's side: its limits, its log, and the vocabulary where it was granted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

use super::bindings::safelmm::policy::{log, types, vocabulary};
use super::limits::Limits;

/// Lines that one call may write to the log; what lies beyond is dropped.
const LOG_LINES: u32 = 32;
/// The longest line, in bytes; longer ones are cut.
const LOG_BYTES: usize = 1024;
/// Calls of the host that one call of a policy may make: they cost the host time, and the policy no fuel.
const HOST_CALLS: u32 = 1_000_000;
/// The longest text to be turned into tokens, and the most bytes of them in one call.
const TOKENIZE_BYTES: usize = 1 << 20;

/// What the ids of tokens stand for.
pub trait Vocabulary: Send + Sync {
    /// How many ids there are.
    fn len(&self) -> u32;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes of a token, perhaps a part of a character; none for control tokens and ids beyond the vocabulary.
    fn piece(&self, id: u32) -> Option<Vec<u8>>;
    /// The tokens of a text.
    fn tokenize(&self, text: &str) -> Vec<u32>;
}

/// Lines that a policy may write to the log at once, in all its instances, and each second.
const LOG_BURST: f64 = 100.0;
const LOG_PER_SECOND: f64 = 10.0;

/// The lines that one policy may still write to the log, in all its instances: a busy server would else have a log of
/// nothing but what a talkative policy says of each token.
pub(crate) struct LogBudget(Mutex<(f64, Instant)>);

impl LogBudget {
    pub fn new() -> Self {
        LogBudget(Mutex::new((LOG_BURST, Instant::now())))
    }

    /// Takes a line from the budget, if there is one left.
    fn take(&self) -> bool {
        let mut budget = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let left = (budget.0 + (now - budget.1).as_secs_f64() * LOG_PER_SECOND).min(LOG_BURST);
        let may = left >= 1.0;
        *budget = (if may { left - 1.0 } else { left }, now);
        may
    }
}

/// What one instance may take. All its memories together have `memory_bytes`: wasmtime's own limit is for each of them.
pub(crate) struct InstanceLimits {
    each: StoreLimits,
    memory_bytes: usize,
    taken: usize,
    /// The growth that was allowed last, and may still fail.
    growing: usize,
}

impl InstanceLimits {
    fn new(memory_bytes: usize) -> Self {
        let each = StoreLimitsBuilder::new()
            .memory_size(memory_bytes)
            .table_elements(TABLE_ELEMENTS)
            .instances(CORE_INSTANCES)
            .memories(MEMORIES)
            .tables(TABLES)
            .build();
        InstanceLimits { each, memory_bytes, taken: 0, growing: 0 }
    }
}

impl ResourceLimiter for InstanceLimits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let growing = desired.saturating_sub(current);
        let taken = self.taken.saturating_add(growing);
        let may = taken <= self.memory_bytes && self.each.memory_growing(current, desired, maximum)?;
        self.growing = if may { growing } else { 0 };
        self.taken += self.growing;
        Ok(may)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.taken = self.taken.saturating_sub(std::mem::take(&mut self.growing));
        self.each.memory_grow_failed(error)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.each.table_growing(current, desired, maximum)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.each.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.each.instances()
    }

    fn tables(&self) -> usize {
        self.each.tables()
    }

    fn memories(&self) -> usize {
        self.each.memories()
    }
}

/// What belongs to one instance.
pub(crate) struct State {
    pub limits: InstanceLimits,
    plugin: Arc<str>,
    vocabulary: Option<Arc<dyn Vocabulary>>,
    log: Arc<LogBudget>,
    lines: u32,
    calls: u32,
    tokenized: usize,
}

impl State {
    pub fn new(
        plugin: Arc<str>,
        limits: &Limits,
        vocabulary: Option<Arc<dyn Vocabulary>>,
        log: Arc<LogBudget>,
    ) -> Self {
        let limits = InstanceLimits::new(limits.memory_bytes);
        State { limits, plugin, vocabulary, log, lines: 0, calls: 0, tokenized: 0 }
    }

    /// A call begins.
    pub fn begin(&mut self) {
        (self.lines, self.calls, self.tokenized) = (0, 0, 0);
    }

    fn count(&mut self) -> wasmtime::Result<()> {
        self.calls += 1;
        if self.calls > HOST_CALLS {
            return Err(wasmtime::Error::msg(format!("it called the host more than {HOST_CALLS} times")));
        }
        Ok(())
    }

    fn vocabulary(&mut self) -> wasmtime::Result<Arc<dyn Vocabulary>> {
        self.count()?;
        // Linked only where it was granted.
        self.vocabulary.clone().ok_or_else(|| wasmtime::Error::msg("the vocabulary was not granted"))
    }
}

/// Elements of all tables of an instance: functions that are called through pointers.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;
/// Core modules of a component: a Python interpreter and its extensions are about twenty.
pub(crate) const CORE_INSTANCES: usize = 64;
/// A JavaScript engine, the adapter beside it and what that replaces have one each.
pub(crate) const MEMORIES: usize = 4;
pub(crate) const TABLES: usize = 8;

impl types::Host for State {}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.count()?;
        self.lines += 1;
        let policy = &*self.plugin;
        if self.lines > LOG_LINES {
            if self.lines == LOG_LINES + 1 {
                tracing::warn!(policy, "a policy writes too much to the log: the rest of this call is dropped");
            }
            return Ok(());
        }
        if !self.log.take() {
            return Ok(());
        }
        let mut end = message.len().min(LOG_BYTES);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let message = &message[..end];
        match level {
            log::Level::Debug => tracing::debug!(policy, message, "policy"),
            log::Level::Info => tracing::info!(policy, message, "policy"),
            log::Level::Warn => tracing::warn!(policy, message, "policy"),
            log::Level::Error => tracing::error!(policy, message, "policy"),
        }
        Ok(())
    }
}

impl vocabulary::Host for State {
    fn len(&mut self) -> wasmtime::Result<u32> {
        Ok(self.vocabulary()?.len())
    }

    fn piece(&mut self, id: u32) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.vocabulary()?.piece(id))
    }

    fn tokenize(&mut self, text: String) -> wasmtime::Result<Vec<u32>> {
        let vocabulary = self.vocabulary()?;
        self.tokenized += text.len();
        if self.tokenized > TOKENIZE_BYTES {
            return Err(wasmtime::Error::msg(format!("it had more than {TOKENIZE_BYTES} bytes turned into tokens")));
        }
        Ok(vocabulary.tokenize(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_talkative_policy_is_cut_short() {
        let budget = LogBudget::new();
        let lines = (0..1000).filter(|_| budget.take()).count();
        assert!((100..110).contains(&lines), "{lines}");
    }
}
