//! `index.json`: what an index is, written last, so that a folder without it holds no finished index.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{IndexError, IndexKind, IndexParams};

const FILE: &str = "index.json";
const VERSION: u32 = 3;

/// The effort that reaches the intended recall for this many neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effort {
    pub k: usize,
    pub effort: usize,
}

/// The contents of `index.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    pub version: u32,
    pub kind: IndexKind,
    pub rows: usize,
    pub dim: usize,
    pub params: IndexParams,
    /// Ascending in `k`.
    pub efforts: Vec<Effort>,
}

impl Description {
    pub fn new(kind: IndexKind, rows: usize, dim: usize, params: &IndexParams, efforts: Vec<Effort>) -> Description {
        Description { version: VERSION, kind, rows, dim, params: params.clone(), efforts }
    }

    pub fn open(dir: &Path) -> Result<Description, IndexError> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(IndexError::io("read", &path))?;
        let description: Description =
            serde_json::from_str(&text).map_err(|e| IndexError::damaged(&path, e.to_string()))?;
        if description.version != VERSION {
            let reason = format!("its version is {}, expected {VERSION}", description.version);
            return Err(IndexError::damaged(&path, reason));
        }
        if !description.efforts.is_sorted_by(|a, b| a.k < b.k) {
            return Err(IndexError::damaged(&path, "its efforts do not ascend in k"));
        }
        Ok(description)
    }

    /// Written beside its place and moved there, so that it is whole or absent.
    pub fn write(&self, dir: &Path) -> Result<(), IndexError> {
        let (path, partial) = (dir.join(FILE), dir.join("index.json.partial"));
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&partial, &path)?;
            // The entry in the folder must be durable too; where folders cannot be opened, it is as far as one can go.
            File::open(dir).map_or(Ok(()), |folder| folder.sync_all())
        };
        write().map_err(IndexError::io("write", &path))
    }

    /// The effort for `k` neighbours: between two entries of the table a straight line, beyond them the nearest entry's
    /// share of `k`.
    pub fn effort(&self, k: usize) -> usize {
        let after = self.efforts.partition_point(|e| e.k < k);
        match (after.checked_sub(1).map(|i| self.efforts[i]), self.efforts.get(after)) {
            (Some(low), Some(high)) => {
                let (span, step) = (high.k - low.k, k - low.k);
                let weighted = low.effort.saturating_mul(span - step).saturating_add(high.effort.saturating_mul(step));
                weighted.div_ceil(span)
            }
            (None, Some(high)) => high.effort,
            (Some(low), None) => low.effort.saturating_mul(k).div_ceil(low.k.max(1)),
            (None, None) => k,
        }
    }

    pub fn remove(dir: &Path) -> Result<(), IndexError> {
        super::remove_file(&dir.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efforts_between_the_entries_of_the_table() {
        let efforts = [(10, 40), (100, 220)].map(|(k, effort)| Effort { k, effort }).to_vec();
        let description = Description::new(IndexKind::Graph, 1, 1, &IndexParams::default(), efforts);
        assert_eq!([1, 10, 55, 100, 200].map(|k| description.effort(k)), [40, 40, 130, 220, 440]);
    }

    #[test]
    fn damage_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Description::open(folder.path()), Err(IndexError::Io { .. })));
        let description = Description::new(IndexKind::Exact, 3, 2, &IndexParams::default(), Vec::new());
        description.write(folder.path()).unwrap();
        assert_eq!(Description::open(folder.path()).unwrap(), description);
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in [&text[..text.len() / 2], &text.replacen("3", "7", 1), &text.replace("exact", "exakt")] {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(Description::open(folder.path()), Err(IndexError::Damaged { .. })), "{damaged}");
        }
    }
}
