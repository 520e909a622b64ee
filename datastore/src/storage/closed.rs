//! What stands in for records once they are closed.

use std::path::PathBuf;

use super::{Change, KeyValue, Tree, Visit};
use crate::error::StoreError;

/// Storage that was closed: everything fails.
pub(crate) struct Closed;

impl KeyValue for Closed {
    fn get(&self, _tree: Tree, _key: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Err(closed())
    }

    fn apply(&self, _tree: Tree, _changes: Vec<Change>) -> Result<(), StoreError> {
        Err(closed())
    }

    fn scan(&self, _tree: Tree, _visit: &mut Visit<'_>) -> Result<(), StoreError> {
        Err(closed())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Err(closed())
    }
}

fn closed() -> StoreError {
    StoreError::Storage { folder: PathBuf::new(), what: "the store was closed".to_owned() }
}
