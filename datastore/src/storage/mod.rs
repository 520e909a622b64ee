//! A small key-value interface for the catalogue of a store, with one implementation on the disk and one in memory.

mod closed;
mod memory;
mod sled;

use std::path::Path;

pub(crate) use closed::Closed;
#[cfg(test)]
pub(crate) use memory::Memory;

use crate::error::StoreError;

/// The kinds of records; each has a tree of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    /// What is known of a document, by its number.
    Documents,
    /// Which documents were removed or replaced, by the number of the commit.
    Removals,
    /// Receipts, by the number of the commit.
    Receipts,
}

impl Tree {
    pub(crate) const ALL: [Tree; 3] = [Tree::Documents, Tree::Removals, Tree::Receipts];

    /// The name on the disk.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tree::Documents => "documents",
            Tree::Removals => "removals",
            Tree::Receipts => "receipts",
        }
    }
}

/// A change of one record: its key, and its new value or `None` to delete it.
pub(crate) type Change = (u64, Option<Vec<u8>>);

/// Trees of records with numbers as keys.
pub(crate) trait KeyValue: Send + Sync {
    /// The value of a key.
    fn get(&self, tree: Tree, key: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// Makes all changes, or none. They are durable after [`KeyValue::flush`].
    fn apply(&self, tree: Tree, changes: Vec<Change>) -> Result<(), StoreError>;

    /// Visits all records, ascending by key, until `visit` fails.
    fn scan(&self, tree: Tree, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Waits until all changes are durable.
    fn flush(&self) -> Result<(), StoreError>;
}

/// What is done with each record of a scan.
pub(crate) type Visit<'a> = dyn FnMut(u64, &[u8]) -> Result<(), StoreError> + 'a;

/// Opens the records in a folder, or begins them.
pub(crate) fn open(folder: &Path) -> Result<Box<dyn KeyValue>, StoreError> {
    Ok(Box::new(sled::Sled::open(folder)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(storage: &dyn KeyValue, tree: Tree) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        storage
            .scan(tree, &mut |key, value| {
                found.push((key, value.to_vec()));
                Ok(())
            })
            .unwrap();
        found
    }

    #[test]
    fn disk_and_memory_hold_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::default();
        let mut disk = open(folder.path()).unwrap();
        let mut state = 7_u64;
        for round in 0..20 {
            let mut changes = Vec::new();
            for _ in 0..40 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let (key, delete) = (state >> 57, state & 3 == 0);
                changes.push((key, (!delete).then(|| state.to_string().into_bytes())));
            }
            let tree = Tree::ALL[round % 3];
            memory.apply(tree, changes.clone()).unwrap();
            disk.apply(tree, changes).unwrap();
            disk.flush().unwrap();
            if round % 5 == 4 {
                drop(disk);
                disk = open(folder.path()).unwrap();
            }
            for tree in Tree::ALL {
                assert_eq!(records(&*disk, tree), records(&memory, tree));
            }
        }
        for key in 0..130 {
            assert_eq!(disk.get(Tree::Documents, key).unwrap(), memory.get(Tree::Documents, key).unwrap());
        }
    }
}
