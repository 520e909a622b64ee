//! The manifest: what a store is and holds. Whatever it does not name does not exist; writing it is the one moment in
//! which a commit happens.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::catalog::CatalogDigest;
use crate::error::{StoreError, damaged, io_error};
use crate::files;
use crate::gate::Group;
use crate::store::StoreSettings;

/// Version of the whole folder's format.
pub(crate) const FORMAT_VERSION: u32 = 2;
/// Name of the file.
pub(crate) const FILE: &str = "manifest.json";

/// What a store is and holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub format_version: u32,
    pub settings: StoreSettings,
    /// Public key of the receipts, in hexadecimal digits.
    pub public_key: String,
    /// Number of the last commit. Records of the catalogue with a larger number belong to commits that never happened.
    pub sequence: u64,
    /// Folder of the catalogue, `meta/N`. Compaction writes a new one, so that no old byte stays.
    pub generation: u64,
    pub next_document: u64,
    pub next_segment: u64,
    /// Number and digest of the catalogue's records.
    pub catalogue: CatalogDigest,
    /// Documents for each license.
    pub licenses: BTreeMap<String, usize>,
    pub segments: Vec<SegmentEntry>,
    /// Numbers in a passage's vector, 0 for a store without them; the first documents decide.
    pub passage_dim: Option<usize>,
    /// What tuning has found, as JSON in a string: numbers that are read and written again may differ in the last place,
    /// and the checksum is over what is written.
    pub tuning: Option<String>,
}

/// A segment of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentEntry {
    /// Its folder, `segments/N`.
    pub number: u64,
    pub group: Group,
    pub documents: u32,
    pub tokens: u32,
    /// SHA-256 of its `segment.json`, which has those of its other files.
    pub sha256: String,
    /// For segments that compaction made: (bucket, buckets) of the ids in it.
    pub bucket: Option<(u32, u32)>,
    /// Whether its keys are indexed as the settings say; the segments in the middle of an addition are not.
    pub indexed: bool,
}

impl Manifest {
    /// That of a new store.
    pub(crate) fn new(settings: StoreSettings, public_key: String) -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            settings,
            public_key,
            sequence: 0,
            generation: 1,
            next_document: 1,
            next_segment: 1,
            catalogue: CatalogDigest::default(),
            licenses: BTreeMap::new(),
            segments: Vec::new(),
            passage_dim: None,
            tuning: None,
        }
    }

    /// Reads and checks the manifest of a store.
    pub(crate) fn read(folder: &Path) -> Result<Manifest, StoreError> {
        let file = folder.join(FILE);
        match file.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(StoreError::NoStore(folder.to_owned())),
            Err(e) => return Err(io_error(&file)(e)),
        }
        // Another version may have other members: look at its number first.
        let bytes = std::fs::read(&file).map_err(io_error(&file))?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| damaged(&file, e.to_string()))?;
        let version = value.pointer("/content/format_version").and_then(|v| v.as_u64());
        let version = version.ok_or_else(|| damaged(&file, "it has no format_version"))?;
        if version != u64::from(FORMAT_VERSION) {
            let found = u32::try_from(version).unwrap_or(u32::MAX);
            return Err(StoreError::Version { file, found, expected: FORMAT_VERSION });
        }
        files::read_sealed(&file)
    }

    /// Writes the manifest: with this the commit has happened.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), StoreError> {
        files::write_sealed(&folder.join(FILE), self)
    }

    /// SHA-256 over everything but the receipts, which name it.
    pub(crate) fn state_digest(&self) -> Result<String, serde_json::Error> {
        let mut state = self.clone();
        state.catalogue.receipts = Default::default();
        Ok(files::hex(&Sha256::digest(serde_json::to_vec(&state)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rating::Rating;

    /// A manifest as version 2 writes it. Whoever must change this text has made a new format: raise [`FORMAT_VERSION`], so
    /// that older programs say what they met instead of calling it damaged.
    const VERSION_2: &str = concat!(
        r#"{"format_version":2,"settings":{"name":"books","model_fingerprint":"f1","key_layer":2,"dim":8,"#,
        r#""vocab_size":100,"passage_tokens":1024,"passage_stride":512,"passage_encoder":"","#,
        r#""segment_tokens":16777216,"keys":{"m":16,"ef_construction":200,"exact_below":50000,"#,
        r#""inverted_above":2048,"seed":0},"passages":{"m":16,"ef_construction":200,"exact_below":50000,"#,
        r#""inverted_above":250000,"seed":0}},"public_key":"aa","sequence":0,"generation":1,"next_document":1,"#,
        r#""next_segment":1,"catalogue":{"documents":{"records":0,"#,
        r#""sum":"0000000000000000000000000000000000000000000000000000000000000000"},"removals":{"records":0,"#,
        r#""sum":"0000000000000000000000000000000000000000000000000000000000000000"},"receipts":{"records":0,"#,
        r#""sum":"0000000000000000000000000000000000000000000000000000000000000000"}},"#,
        r#""licenses":{"CC-BY-4.0":2},"segments":[{"number":1,"group":{"license":"CC-BY-4.0","rating":"PG","#,
        r#""retrieve":true},"documents":2,"tokens":3,"sha256":"bb","bucket":[0,4],"indexed":true}],"#,
        r#""passage_dim":null,"tuning":null}"#,
    );

    #[test]
    fn the_format_is_that_of_its_version() {
        let mut manifest = Manifest::new(StoreSettings::new("books", "f1", 2, 8, 100), "aa".to_owned());
        let group = Group { license: "CC-BY-4.0".parse().unwrap(), rating: Rating::PG, retrieve: true };
        manifest.segments.push(SegmentEntry {
            number: 1,
            group,
            documents: 2,
            tokens: 3,
            sha256: "bb".to_owned(),
            bucket: Some((0, 4)),
            indexed: true,
        });
        manifest.licenses.insert("CC-BY-4.0".to_owned(), 2);
        assert_eq!(serde_json::to_string(&manifest).unwrap(), VERSION_2);
        assert_eq!(serde_json::from_str::<Manifest>(VERSION_2).unwrap(), manifest);
    }
}
