//! The catalogue: records of documents, removals and receipts. Records are never changed, only added; each bears the
//! number of the commit that it belongs to, so that opening can drop those of a commit that never happened.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{StoreError, damaged};
use crate::files::{hex, unhex};
use crate::gate::Group;
use crate::license::License;
use crate::rating::Rating;
use crate::receipt::Receipt;
use crate::storage::{Change, Closed, KeyValue, Tree};
use crate::view::DocumentInfo;

/// The pause before it is asked again whether a scan has ended.
const RETIRING: Duration = Duration::from_millis(5);

/// What is known of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DocumentRecord {
    /// The commit that added it.
    pub sequence: u64,
    pub id: String,
    pub title: String,
    pub author: String,
    pub rights_holder: String,
    pub url: String,
    pub lang: String,
    pub source: String,
    pub license: License,
    pub rating: Rating,
    pub retrieve: bool,
    pub tokens: u64,
    /// SHA-256 over the whole document, in hexadecimal digits.
    pub sha256: String,
}

impl DocumentRecord {
    pub(crate) fn group(&self) -> Group {
        Group { license: self.license.clone(), rating: self.rating, retrieve: self.retrieve }
    }

    pub(crate) fn into_info(self) -> DocumentInfo {
        DocumentInfo {
            id: self.id,
            title: self.title,
            author: self.author,
            rights_holder: self.rights_holder,
            url: self.url,
            lang: self.lang,
            source: self.source,
            obligations: self.license.obligations(),
            license: self.license,
            rating: self.rating,
            retrieve: self.retrieve,
            tokens: self.tokens,
            sha256: self.sha256,
        }
    }
}

/// Documents that were removed or replaced by one commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemovalRecord {
    sequence: u64,
    documents: Vec<u64>,
}

/// Number of the records of one tree, and a digest that does not depend on their order: the sum of the SHA-256 of each,
/// modulo 2^256 (Bellare and Micciancio 1997, AdHash). It is there to find damage, not to resist forgery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TreeDigestText", into = "TreeDigestText")]
pub(crate) struct TreeDigest {
    pub records: u64,
    sum: [u64; 4],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeDigestText {
    records: u64,
    sum: String,
}

impl From<TreeDigest> for TreeDigestText {
    fn from(digest: TreeDigest) -> TreeDigestText {
        TreeDigestText { records: digest.records, sum: hex(&digest.sum.map(u64::to_be_bytes).concat()) }
    }
}

impl From<TreeDigestText> for TreeDigest {
    fn from(text: TreeDigestText) -> TreeDigest {
        // What is no digest fits no records: it need not be told apart.
        let bytes = unhex(&text.sum).filter(|b| b.len() == 32).unwrap_or_else(|| vec![0xff; 32]);
        TreeDigest { records: text.records, sum: words(&bytes) }
    }
}

fn words(bytes: &[u8]) -> [u64; 4] {
    std::array::from_fn(|i| bytes[8 * i..8 * i + 8].iter().fold(0, |word, b| word << 8 | u64::from(*b)))
}

impl TreeDigest {
    fn add(&mut self, key: u64, value: &[u8]) {
        let hash = Sha256::new().chain_update(key.to_be_bytes()).chain_update(value).finalize();
        self.records += 1;
        let mut carry = false;
        for (sum, word) in self.sum.iter_mut().zip(words(&hash)).rev() {
            let (partial, first) = sum.overflowing_add(word);
            let (total, second) = partial.overflowing_add(u64::from(carry));
            (*sum, carry) = (total, first || second);
        }
    }
}

/// Number and digest of all records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CatalogDigest {
    pub documents: TreeDigest,
    pub removals: TreeDigest,
    pub receipts: TreeDigest,
}

impl CatalogDigest {
    /// The digest after an addition.
    pub(crate) fn with(mut self, sequence: u64, addition: &Addition) -> Result<CatalogDigest, StoreError> {
        for (tree, changes) in changes(sequence, addition)? {
            for (key, value) in &changes {
                self.tree(tree).add(*key, value.as_deref().unwrap_or_default());
            }
        }
        Ok(self)
    }

    fn tree(&mut self, tree: Tree) -> &mut TreeDigest {
        match tree {
            Tree::Documents => &mut self.documents,
            Tree::Removals => &mut self.removals,
            Tree::Receipts => &mut self.receipts,
        }
    }
}

/// A live document, as it is found by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub number: u64,
    /// SHA-256 over the whole document.
    pub content: [u8; 32],
    pub tokens: u64,
}

/// The records of a store with what is looked up in them often.
pub(crate) struct Catalog {
    storage: Arc<dyn KeyValue>,
    digest: CatalogDigest,
    /// Live documents by the hash of their id.
    ids: HashMap<[u8; 16], Entry>,
    dead: HashSet<u64>,
    licenses: BTreeMap<String, usize>,
}

/// What a commit adds.
#[derive(Default)]
pub(crate) struct Addition {
    /// New documents with their numbers.
    pub documents: Vec<(u64, DocumentRecord)>,
    /// Numbers of the documents that are removed or replaced.
    pub removed: Vec<u64>,
    pub receipt: Option<Receipt>,
}

/// The hash by which a document is found.
pub(crate) fn id_hash(id: &str) -> [u8; 16] {
    let hash = Sha256::digest(id.as_bytes());
    std::array::from_fn(|i| hash[i])
}

impl Catalog {
    /// Reads all records; those of commits after `sequence` never happened and are deleted.
    pub(crate) fn load(storage: Box<dyn KeyValue>, folder: &Path, sequence: u64) -> Result<Catalog, StoreError> {
        let mut catalog = Catalog {
            storage: Arc::from(storage),
            digest: CatalogDigest::default(),
            ids: HashMap::new(),
            dead: HashSet::new(),
            licenses: BTreeMap::new(),
        };
        let mut never = [const { Vec::new() }; 3];
        let Catalog { storage, digest, dead, .. } = &mut catalog;
        storage.scan(Tree::Receipts, &mut |key, value| {
            match key > sequence {
                true => never[Tree::Receipts as usize].push((key, None)),
                false => digest.receipts.add(key, value),
            }
            Ok(())
        })?;
        storage.scan(Tree::Removals, &mut |key, value| {
            let removal: RemovalRecord = parse(folder, key, value)?;
            match removal.sequence > sequence {
                true => never[Tree::Removals as usize].push((key, None)),
                false => {
                    digest.removals.add(key, value);
                    dead.extend(removal.documents);
                }
            }
            Ok(())
        })?;
        let mut live = Vec::new();
        storage.scan(Tree::Documents, &mut |number, value| {
            let record: DocumentRecord = parse(folder, number, value)?;
            if record.sequence > sequence {
                never[Tree::Documents as usize].push((number, None));
                return Ok(());
            }
            digest.documents.add(number, value);
            if !dead.contains(&number) {
                let content = unhex(&record.sha256).and_then(|b| b.try_into().ok());
                let content = content.ok_or_else(|| damaged(folder, format!("document {number} has no digest")))?;
                live.push((id_hash(&record.id), Entry { number, content, tokens: record.tokens }, record.license));
            }
            Ok(())
        })?;
        for (hash, entry, license) in live {
            *catalog.licenses.entry(license.to_string()).or_default() += 1;
            if catalog.ids.insert(hash, entry).is_some() {
                return Err(damaged(folder, format!("document {} is there twice", entry.number)));
            }
        }
        let undo = never.iter().any(|changes| !changes.is_empty());
        for (tree, changes) in Tree::ALL.into_iter().zip(never).filter(|(_, changes)| !changes.is_empty()) {
            catalog.storage.apply(tree, changes)?;
        }
        if undo {
            catalog.storage.flush()?;
        }
        Ok(catalog)
    }

    pub(crate) fn digest(&self) -> CatalogDigest {
        self.digest
    }

    /// Documents for each license.
    pub(crate) fn licenses(&self) -> &BTreeMap<String, usize> {
        &self.licenses
    }

    /// How many documents are live.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Tokens of the live documents.
    pub(crate) fn tokens(&self) -> u64 {
        self.ids.values().map(|entry| entry.tokens).sum()
    }

    /// The live document with this id.
    pub(crate) fn find(&self, id: &str) -> Option<Entry> {
        self.ids.get(&id_hash(id)).copied()
    }

    /// Documents that are removed or replaced and not yet erased.
    pub(crate) fn dead(&self) -> &HashSet<u64> {
        &self.dead
    }

    /// What is known of a document, live or dead.
    pub(crate) fn document(&self, folder: &Path, number: u64) -> Result<Option<DocumentRecord>, StoreError> {
        let value = self.storage.get(Tree::Documents, number)?;
        value.map(|value| parse(folder, number, &value)).transpose()
    }

    /// The records as they are after the commit `sequence`, the last one.
    pub(crate) fn snapshot(&self, sequence: u64) -> Snapshot {
        Snapshot { storage: self.storage.clone(), dead: self.dead.clone(), sequence }
    }

    /// Closes a catalogue that another one has replaced, when the last scan of a snapshot has ended.
    pub(crate) fn retire(self) {
        while Arc::strong_count(&self.storage) > 1 {
            std::thread::sleep(RETIRING);
        }
    }

    /// The receipt of a commit.
    pub(crate) fn receipt(&self, folder: &Path, sequence: u64) -> Result<Option<Receipt>, StoreError> {
        let value = self.storage.get(Tree::Receipts, sequence)?;
        value.map(|value| parse(folder, sequence, &value)).transpose()
    }

    /// The digest of the records as they stand in storage.
    pub(crate) fn recount(&self) -> Result<CatalogDigest, StoreError> {
        let mut digest = CatalogDigest::default();
        for tree in Tree::ALL {
            self.storage.scan(tree, &mut |key, value| {
                digest.tree(tree).add(key, value);
                Ok(())
            })?;
        }
        Ok(digest)
    }

    /// Writes an addition durably. It counts once a manifest names its number; until then [`Catalog::undo`] takes it back.
    pub(crate) fn write(&self, sequence: u64, addition: &Addition) -> Result<(), StoreError> {
        Catalog::write_to(&*self.storage, sequence, addition)
    }

    /// Writes an addition durably into some storage.
    pub(crate) fn write_to(storage: &dyn KeyValue, sequence: u64, addition: &Addition) -> Result<(), StoreError> {
        for (tree, changes) in changes(sequence, addition)?.into_iter().filter(|(_, changes)| !changes.is_empty()) {
            storage.apply(tree, changes)?;
        }
        storage.flush()
    }

    /// Closes the storage; reading and writing fail afterwards.
    pub(crate) fn close(&mut self) {
        self.storage = Arc::new(Closed);
    }

    /// Takes back what [`Catalog::write`] wrote.
    pub(crate) fn undo(&self, sequence: u64, addition: &Addition) -> Result<(), StoreError> {
        for (tree, changes) in changes(sequence, addition)? {
            self.storage.apply(tree, changes.into_iter().map(|(key, _)| (key, None)).collect())?;
        }
        self.storage.flush()
    }

    /// Takes note of an addition that is committed. `gone`: the records of the documents it removes.
    pub(crate) fn settle(&mut self, digest: CatalogDigest, addition: Addition, gone: &[DocumentRecord]) {
        self.digest = digest;
        self.dead.extend(addition.removed);
        for record in gone {
            self.ids.remove(&id_hash(&record.id));
            if let Some(count) = self.licenses.get_mut(record.license.expression()) {
                *count -= 1;
            }
        }
        for (number, record) in addition.documents {
            *self.licenses.entry(record.license.to_string()).or_default() += 1;
            let content = unhex(&record.sha256).and_then(|b| b.try_into().ok()).unwrap_or_default();
            self.ids.insert(id_hash(&record.id), Entry { number, content, tokens: record.tokens });
        }
        self.licenses.retain(|_, count| *count > 0);
    }
}

/// The records after some commit. A scan of them takes its time, and no lock has to be held while it does.
pub(crate) struct Snapshot {
    storage: Arc<dyn KeyValue>,
    dead: HashSet<u64>,
    /// Records with a larger number are those of a commit that is being made.
    sequence: u64,
}

impl Snapshot {
    /// Documents that were removed or replaced by then.
    pub(crate) fn dead(&self) -> &HashSet<u64> {
        &self.dead
    }

    /// The number of its last commit.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Visits the live documents, the oldest first.
    pub(crate) fn live(&self, folder: &Path, visit: &mut dyn FnMut(u64, DocumentRecord)) -> Result<(), StoreError> {
        self.storage.scan(Tree::Documents, &mut |number, value| {
            if !self.dead.contains(&number) {
                let record: DocumentRecord = parse(folder, number, value)?;
                if record.sequence <= self.sequence {
                    visit(number, record);
                }
            }
            Ok(())
        })
    }

    /// All receipts, the oldest first.
    pub(crate) fn receipts(&self, folder: &Path) -> Result<Vec<Receipt>, StoreError> {
        let mut found = Vec::new();
        self.storage.scan(Tree::Receipts, &mut |key, value| {
            if key <= self.sequence {
                found.push(parse(folder, key, value)?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Copies what stays into new storage: all receipts, the live documents, and those of the dead that `keep` names. No
    /// document may be added meanwhile.
    pub(crate) fn copy(
        &self,
        folder: &Path,
        to: &dyn KeyValue,
        keep: &HashSet<u64>,
    ) -> Result<CatalogDigest, StoreError> {
        const BATCH: usize = 4096;
        let mut digest = CatalogDigest::default();
        let mut batch: Vec<Change> = Vec::new();
        self.storage.scan(Tree::Documents, &mut |number, value| {
            if !self.dead.contains(&number) || keep.contains(&number) {
                digest.documents.add(number, value);
                batch.push((number, Some(value.to_vec())));
            }
            match batch.len() < BATCH {
                true => Ok(()),
                false => to.apply(Tree::Documents, std::mem::take(&mut batch)),
            }
        })?;
        to.apply(Tree::Documents, batch)?;
        let mut removals = Vec::new();
        self.storage.scan(Tree::Removals, &mut |key, value| {
            let mut removal: RemovalRecord = parse(folder, key, value)?;
            if key > self.sequence {
                return Ok(());
            }
            removal.documents.retain(|number| keep.contains(number));
            if !removal.documents.is_empty() {
                let value = json(&removal)?;
                digest.removals.add(key, &value);
                removals.push((key, Some(value)));
            }
            Ok(())
        })?;
        to.apply(Tree::Removals, removals)?;
        let mut receipts = Vec::new();
        self.storage.scan(Tree::Receipts, &mut |key, value| {
            if key <= self.sequence {
                digest.receipts.add(key, value);
                receipts.push((key, Some(value.to_vec())));
            }
            Ok(())
        })?;
        to.apply(Tree::Receipts, receipts)?;
        to.flush()?;
        Ok(digest)
    }
}

/// The records of an addition.
fn changes(sequence: u64, addition: &Addition) -> Result<[(Tree, Vec<Change>); 3], StoreError> {
    let documents = addition.documents.iter().map(|(number, record)| Ok((*number, Some(json(record)?))));
    let mut removals = Vec::new();
    if !addition.removed.is_empty() {
        removals.push((sequence, Some(json(&RemovalRecord { sequence, documents: addition.removed.clone() })?)));
    }
    let receipts = addition.receipt.iter().map(|receipt| Ok((sequence, Some(json(receipt)?))));
    Ok([
        (Tree::Documents, documents.collect::<Result<_, StoreError>>()?),
        (Tree::Removals, removals),
        (Tree::Receipts, receipts.collect::<Result<_, StoreError>>()?),
    ])
}

fn json<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|e| StoreError::Settings(format!("a record cannot be written: {e}")))
}

fn parse<T: DeserializeOwned>(folder: &Path, key: u64, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|e| damaged(folder, format!("record {key} of the catalogue: {e}")))
}
