//! What a component may take.

use std::time::Duration;

/// Between two ticks of the clock that ends calls which take too long.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Calls of so much fuel take less than about 20 ms.
const QUICK_FUEL: u64 = 20_000_000;

/// How fast a component surely runs: ten times slower than is usual.
const FUEL_PER_MS: u64 = 100_000;

/// What all components together may take. Memory is address space until it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxLimits {
    /// The largest file, in bytes.
    pub file_bytes: u64,
    /// The most instances at once, of all policies.
    pub instances: u32,
    /// The most linear memory of one instance, in bytes.
    pub memory_bytes: usize,
    /// The stack of a call, in bytes.
    pub stack_bytes: usize,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        SandboxLimits { file_bytes: 32 << 20, instances: 256, memory_bytes: 64 << 20, stack_bytes: 512 << 10 }
    }
}

/// What one policy may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instructions of a call, roughly.
    pub fuel: u64,
    /// And so many more for each byte of its input.
    pub fuel_per_byte: u64,
    /// Instructions until it is configured, and of each golden vector.
    pub startup_fuel: u64,
    /// Wall-clock time of a call beside that which its fuel is worth. It ends calls that burn time without fuel.
    pub deadline: Duration,
    /// The most linear memory of an instance, all its memories together, in bytes.
    pub memory_bytes: usize,
    /// The most instances of this policy at once.
    pub instances: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            fuel: 10_000_000,
            fuel_per_byte: 5_000,
            startup_fuel: 1_000_000_000,
            deadline: Duration::from_millis(250),
            memory_bytes: 64 << 20,
            instances: 64,
        }
    }
}

impl Limits {
    /// The fuel of a call on so many bytes.
    pub(crate) fn fuel_for(&self, bytes: usize) -> u64 {
        self.fuel.saturating_add(self.fuel_per_byte.saturating_mul(bytes as u64))
    }

    /// Whether a call on so many bytes takes less than about 20 ms, however it ends.
    pub(crate) fn is_quick(&self, bytes: usize) -> bool {
        self.fuel_for(bytes) <= QUICK_FUEL
    }

    /// After how many ticks a call with so much fuel is ended.
    pub(crate) fn ticks_for(&self, fuel: u64) -> u64 {
        let ms = (self.deadline.as_millis() as u64).saturating_add(fuel / FUEL_PER_MS);
        // One more, since the current tick is partly over.
        ms.div_ceil(TICK.as_millis() as u64) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_grow_with_the_input_and_never_wrap() {
        let limits = Limits { fuel: 10, fuel_per_byte: 2, deadline: Duration::from_millis(25), ..Limits::default() };
        assert_eq!((limits.fuel_for(0), limits.fuel_for(5), limits.fuel_for(usize::MAX)), (10, 20, u64::MAX));
        assert_eq!((limits.ticks_for(0), limits.ticks_for(FUEL_PER_MS * 100)), (4, 14));
        assert!(limits.is_quick(5) && !limits.is_quick(usize::MAX));
        assert!(Limits::default().is_quick(100), "a streamed piece needs no thread of its own");
    }
}
