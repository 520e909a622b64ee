//! One instance of a component: a call with its budget.

use wasmtime::Store;

use super::bindings::PolicyWithVocabulary;
use super::failure::Failure;
use super::limits::Limits;
use super::state::State;

/// Data that may come back from one call or go out with one call of the host, in bytes.
const HOSTCALL_BYTES: usize = 4 << 20;
/// Handles that an instance may have at once.
const HANDLES: usize = 1000;

/// What was called, and what it cost.
pub(crate) struct Called<T> {
    pub answer: Result<T, Failure>,
    /// Instructions, roughly.
    pub fuel: u64,
}

/// One instance. After a failed call it must not be called again.
pub(crate) struct Instance {
    store: Store<State>,
    bindings: PolicyWithVocabulary,
    /// Calls so far.
    pub uses: u32,
}

impl Instance {
    pub fn new(store: Store<State>, bindings: PolicyWithVocabulary) -> Self {
        Instance { store, bindings, uses: 0 }
    }

    /// Prepares a store for an instance, which is not there yet: its start costs fuel too.
    pub fn store(engine: &wasmtime::Engine, state: State, limits: &Limits) -> Result<Store<State>, wasmtime::Error> {
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.set_max_component_handles(HANDLES);
        store.set_fuel(limits.startup_fuel)?;
        store.set_epoch_deadline(limits.ticks_for(limits.startup_fuel));
        Ok(store)
    }

    /// Calls the component with this much fuel.
    pub fn call<T>(
        &mut self,
        limits: &Limits,
        fuel: u64,
        call: impl FnOnce(&PolicyWithVocabulary, &mut Store<State>) -> wasmtime::Result<T>,
    ) -> Called<T> {
        self.uses = self.uses.saturating_add(1);
        self.store.data_mut().begin();
        if let Err(error) = self.store.set_fuel(fuel) {
            return Called { answer: Err(Failure::of(&error, fuel)), fuel: 0 };
        }
        self.store.set_epoch_deadline(limits.ticks_for(fuel));
        let answer = call(&self.bindings, &mut self.store).map_err(|error| Failure::of(&error, fuel));
        let left = self.store.get_fuel().unwrap_or(0);
        Called { answer, fuel: fuel.saturating_sub(left) }
    }
}
