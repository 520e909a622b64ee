//! The engine that all components share.

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::cache::Cache;
use super::limits::{SandboxLimits, TICK};
use super::state::{CORE_INSTANCES, MEMORIES, TABLE_ELEMENTS, TABLES};

/// Core instances that a component has on average: small ones have three or four, an interpreter twenty.
const USUAL_CORE_INSTANCES: u32 = 8;
const USUAL_MEMORIES: u32 = 2;
const USUAL_TABLES: u32 = 4;
/// Slots whose memory is given back to the operating system at once.
const DECOMMIT_BATCH: usize = 32;
/// What the host keeps of an instance beside its memory: an interpreter has large ones.
const INSTANCE_BYTES: usize = 2 << 20;

/// Why no component can run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The address space, or a limit, does not suffice.
    #[error(
        "cannot reserve the address space of {instances} instances: {reason}. Allow fewer with [policy.sandbox] instances, \
         or lift the limit on virtual memory (ulimit -v)"
    )]
    Engine {
        /// As many as were asked for.
        instances: u32,
        /// What the runtime says.
        reason: String,
    },
    /// The operating system gives no thread.
    #[error("cannot start the clock of the policies: {0}")]
    Clock(io::Error),
    /// The folder of compiled components cannot be used.
    #[error("the folder of compiled policies {}: {reason}", folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
}

/// The engine that all components share, with the clock that ends calls which take too long. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) engine: Engine,
    pub(crate) limits: SandboxLimits,
    pub(crate) cache: Option<Cache>,
}

impl Sandbox {
    /// What all components together may take.
    pub fn limits(&self) -> &SandboxLimits {
        &self.limits
    }

    /// An engine with these limits. `cache`: a folder for compiled code.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub fn new(limits: SandboxLimits, cache: Option<PathBuf>) -> Result<Sandbox, SandboxError> {
        let instances = limits.instances;
        let engine = Engine::new(&config(&limits))
            .map_err(|error| SandboxError::Engine { instances, reason: format!("{error:#}") })?;
        let cache = cache.map(|folder| Cache::new(folder, &engine)).transpose()?;
        let weak = engine.weak();
        let tick = move || {
            // Ends with the last handle on the engine.
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        };
        std::thread::Builder::new().name("policy-clock".into()).spawn(tick).map_err(SandboxError::Clock)?;
        Ok(Sandbox { engine, limits, cache })
    }
}

fn config(limits: &SandboxLimits) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    let instances = limits.instances;
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(USUAL_CORE_INSTANCES))
        .total_memories(instances.saturating_mul(USUAL_MEMORIES))
        .total_tables(instances.saturating_mul(USUAL_TABLES))
        .max_core_instances_per_component(CORE_INSTANCES as u32)
        .max_memories_per_component(MEMORIES as u32)
        .max_memories_per_module(MEMORIES as u32)
        .max_tables_per_component(TABLES as u32)
        .max_component_instance_size(INSTANCE_BYTES)
        .max_core_instance_size(INSTANCE_BYTES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(limits.memory_bytes)
        .max_unused_warm_slots(instances.min(64))
        // Nothing of one request stays in the memory that another instance gets.
        .linear_memory_keep_resident(0)
        .table_keep_resident(0)
        .decommit_batch_size(DECOMMIT_BATCH);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack_bytes)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_backtrace_max_frames(None::<NonZeroUsize>)
        .wasm_memory64(false)
        .wasm_multi_memory(true)
        .relaxed_simd_deterministic(true);
    config
}
