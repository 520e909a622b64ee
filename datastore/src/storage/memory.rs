//! Records in memory: the twin that the one on the disk is tested against.
#![cfg(test)]

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Change, KeyValue, Tree, Visit};
use crate::error::StoreError;

type Trees = [BTreeMap<u64, Vec<u8>>; 3];

/// Records in memory.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Trees>);

impl Memory {
    fn trees(&self) -> MutexGuard<'_, Trees> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyValue for Memory {
    fn get(&self, tree: Tree, key: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.trees()[tree as usize].get(&key).cloned())
    }

    fn apply(&self, tree: Tree, changes: Vec<Change>) -> Result<(), StoreError> {
        let records = &mut self.trees()[tree as usize];
        for (key, value) in changes {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
        Ok(())
    }

    fn scan(&self, tree: Tree, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.trees()[tree as usize].iter().try_for_each(|(key, value)| visit(*key, value))
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
