//! A store: licensed documents with everything that is searched in them.
//!
//! One manifest names what exists; writing it, by renaming, is the moment of every commit. Segments and records of the
//! catalogue are durable before the manifest that names them is written, and what no manifest names is deleted when a
//! store is opened. So a store that was killed at any moment holds what was acknowledged, and nothing else.

mod commit;
mod compact;
mod folder;
mod ingest;
mod options;
mod prepare;
mod removal;
mod verify;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

pub use options::{
    AddOptions, AddProgress, Added, CompactProgress, Compacted, Selector, StoreInfo, StoreSettings, VerifyReport,
};

use crate::catalog::{Addition, Catalog, Snapshot};
use crate::document::{Document, DocumentError};
use crate::encoder::StoreEncoder;
use crate::error::{StoreError, damaged};
use crate::gate::Access;
use crate::manifest::{Manifest, SegmentEntry};
use crate::receipt::{Receipt, Signatory};
use crate::segment::Segment;
use crate::view::{DocumentInfo, View};

use folder::Lock;
pub(crate) use prepare::{cut_passages, passage_text};

/// A store on the disk, open for this process alone. Cheap to clone, and shared by threads: views are made while
/// documents are added and removed. The store is closed when the last clone and the last view are dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    folder: PathBuf,
    settings: StoreSettings,
    signatory: Signatory,
    state: RwLock<State>,
    /// Held by what writes segments: adding and compaction. Removals do not wait for it.
    maintenance: Mutex<()>,
    next_document: AtomicU64,
    next_segment: AtomicU64,
    /// Released last.
    _lock: Lock,
}

/// What the last manifest says, opened.
pub(crate) struct State {
    pub manifest: Manifest,
    pub catalog: Catalog,
    pub segments: Vec<Arc<Segment>>,
    /// Segments that were replaced; views may still hold them, and removals must reach those.
    retired: Vec<Weak<Segment>>,
    /// Set when a failed write left disk and memory in a state that only opening resolves.
    poisoned: Option<String>,
    /// The catalogue's files may not be what the last digests say.
    closed: bool,
}

impl State {
    /// The records as they are now, to be looked through without the lock.
    fn snapshot(&self) -> Snapshot {
        self.catalog.snapshot(self.manifest.sequence)
    }
}

impl Inner {
    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn maintain(&self) -> MutexGuard<'_, ()> {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn segment_folder(&self, number: u64) -> PathBuf {
        folder::segment(&self.folder, number)
    }

    fn next_segment(&self) -> u64 {
        self.next_segment.fetch_add(1, Ordering::SeqCst)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without the digests of the catalogue's files the next opening relies on those of the records alone.
        let _ = self.close();
    }
}

impl Store {
    /// A new store in a folder that is empty or does not exist.
    ///
    /// # Errors
    /// When there is something already, when the settings make no sense, or when it cannot be written.
    pub fn create(folder: &Path, settings: StoreSettings) -> Result<Store, StoreError> {
        settings.check()?;
        let lock = folder::prepare(folder)?;
        let signatory = Signatory::create(&folder.join(folder::KEY))?;
        let manifest = Manifest::new(settings, signatory.public_key());
        let generation = folder::generation(folder, manifest.generation);
        let storage = crate::storage::open(&generation)?;
        storage.flush()?;
        drop(storage);
        folder::mark_open(folder, manifest.generation)?;
        manifest.write(folder)?;
        Store::start(folder, manifest, Vec::new(), signatory, lock)
    }

    /// Opens a store, for this process alone.
    ///
    /// # Errors
    /// When there is none, when another process has it open, or when it is damaged.
    pub fn open(folder: &Path) -> Result<Store, StoreError> {
        let (manifest, lock) = folder::open(folder)?;
        let signatory = Signatory::open(&folder.join(folder::KEY), &manifest.public_key)?;
        folder::check_closed(folder, manifest.generation)?;
        // Before anything is written, so that a store with a damaged segment keeps the digests of its catalogue.
        let open = |entry: &SegmentEntry| Segment::open(&folder::segment(folder, entry.number), entry).map(Arc::new);
        let segments = manifest.segments.iter().map(open).collect::<Result<_, _>>()?;
        folder::mark_open(folder, manifest.generation)?;
        folder::tidy(folder, &manifest)?;
        Store::start(folder, manifest, segments, signatory, lock)
    }

    fn start(
        folder: &Path,
        manifest: Manifest,
        segments: Vec<Arc<Segment>>,
        signatory: Signatory,
        lock: Lock,
    ) -> Result<Store, StoreError> {
        let generation = folder::generation(folder, manifest.generation);
        let catalog = Catalog::load(crate::storage::open(&generation)?, &generation, manifest.sequence)?;
        if catalog.digest() != manifest.catalogue {
            return Err(damaged(&generation, "the records of the catalogue are not those that the manifest counts"));
        }
        segments.iter().for_each(|segment| segment.bury_all(catalog.dead()));
        let inner = Inner {
            folder: folder.to_owned(),
            settings: manifest.settings.clone(),
            signatory,
            next_document: AtomicU64::new(manifest.next_document),
            next_segment: AtomicU64::new(manifest.next_segment),
            state: RwLock::new(State {
                manifest,
                catalog,
                segments,
                retired: Vec::new(),
                poisoned: None,
                closed: false,
            }),
            maintenance: Mutex::new(()),
            _lock: lock,
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// What it was made with.
    pub fn settings(&self) -> &StoreSettings {
        &self.inner.settings
    }

    /// What it holds.
    pub fn info(&self) -> StoreInfo {
        let state = self.inner.read();
        StoreInfo {
            settings: self.inner.settings.clone(),
            documents: state.catalog.len(),
            tokens: state.catalog.tokens(),
            segments: state.segments.len(),
            licenses: state.catalog.licenses().clone(),
            dead: state.catalog.dead().len(),
            sequence: state.manifest.sequence,
            public_key: state.manifest.public_key.clone(),
            tuning: state.manifest.tuning.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        }
    }

    /// The public key of its receipts, in hexadecimal digits.
    pub fn public_key(&self) -> String {
        self.inner.signatory.public_key()
    }

    /// All documents that were not removed, by their ids.
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    pub fn documents(&self) -> Result<Vec<DocumentInfo>, StoreError> {
        let mut found = Vec::new();
        self.inner.read().snapshot().live(&self.inner.folder, &mut |_, record| found.push(record.into_info()))?;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// The document with this id.
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    pub fn document(&self, id: &str) -> Result<Option<DocumentInfo>, StoreError> {
        let state = self.inner.read();
        let Some(entry) = state.catalog.find(id) else { return Ok(None) };
        let record = state.catalog.document(&self.inner.folder, entry.number)?;
        Ok(record.map(|record| record.into_info()))
    }

    /// All receipts, the oldest first.
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    pub fn receipts(&self) -> Result<Vec<Receipt>, StoreError> {
        self.inner.read().snapshot().receipts(&self.inner.folder)
    }

    /// Whether there is something that tuning has found; a removal takes it away.
    pub fn is_tuned(&self) -> bool {
        self.inner.read().manifest.tuning.is_some()
    }

    /// Records what tuning has found, for those who open the store later.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_tuning(&self, tuning: Option<serde_json::Value>) -> Result<(), StoreError> {
        let mut state = self.inner.write();
        let mut change = commit::Change::new(Addition::default());
        change.tuning = Some(tuning.map(|value| value.to_string()));
        self.inner.commit(&mut state, change)
    }

    /// Whether the store takes keys of this model.
    ///
    /// # Errors
    /// [`StoreError::OtherModel`] when it does not.
    pub fn check_model(&self, fingerprint: &str, dim: usize, vocab_size: usize) -> Result<(), StoreError> {
        let settings = &self.inner.settings;
        let different = |what, expected: &str, found: &str| {
            let (expected, found) = (expected.to_owned(), found.to_owned());
            Err(StoreError::OtherModel { store: settings.name.clone(), what, expected, found })
        };
        if fingerprint != settings.model_fingerprint {
            return different("fingerprint", &settings.model_fingerprint, fingerprint);
        }
        if dim != settings.dim {
            return different("numbers in a key", &settings.dim.to_string(), &dim.to_string());
        }
        if vocab_size != settings.vocab_size {
            return different("vocabulary", &settings.vocab_size.to_string(), &vocab_size.to_string());
        }
        Ok(())
    }

    /// Adds documents. One that is there already, just so, changes nothing and costs no work of the model; one that is
    /// there with other content is replaced. Documents count as added when the commit that holds them is durable.
    ///
    /// # Errors
    /// When the model is another one, when a document cannot enter (with [`AddOptions::skip_bad`] the others go on), or
    /// when something cannot be read or written. What came before it is committed.
    pub fn add(
        &self,
        documents: &mut dyn Iterator<Item = Result<Document, DocumentError>>,
        encoder: &dyn StoreEncoder,
        options: &AddOptions,
        progress: &dyn Fn(AddProgress),
        stop: &AtomicBool,
    ) -> Result<Added, StoreError> {
        self.check_model(encoder.fingerprint(), encoder.dim(), encoder.vocab_size())?;
        ingest::add(&self.inner, documents, encoder, options, progress, stop)
    }

    /// Removes documents: when it returns, they influence nothing any more, views that were handed out before included.
    /// Their bytes leave the folder at the next [`Store::compact`]. `None` when there is no such document; then nothing
    /// happens.
    ///
    /// # Errors
    /// When the removal cannot be made durable.
    pub fn remove(&self, selector: &Selector) -> Result<Option<Receipt>, StoreError> {
        removal::remove(&self.inner, selector)
    }

    /// Rebuilds the segments that hold removed documents, or that are many, from what is stored, and erases the bytes
    /// of removed documents. Afterwards the store answers exactly like one that never held them.
    ///
    /// # Errors
    /// When it is stopped or cannot write; the store is then as it was before.
    pub fn compact(&self, progress: &dyn Fn(CompactProgress), stop: &AtomicBool) -> Result<Compacted, StoreError> {
        compact::compact(&self.inner, progress, stop)
    }

    /// Reads everything, and holds it against its checksums.
    ///
    /// # Errors
    /// When there is no store, or another process has it open. Damage is no error, but stands in the report.
    pub fn verify(folder: &Path) -> Result<VerifyReport, StoreError> {
        verify::verify(folder)
    }

    /// The same for a store that is open: everything but the files that change while it is.
    ///
    /// # Errors
    /// When the check itself fails.
    pub fn verify_open(&self) -> Result<VerifyReport, StoreError> {
        verify::verify_open(&self.inner)
    }

    /// What a request may use, without the documents whose ids are in `exclude`.
    pub fn view(&self, access: &Access, exclude: &[String]) -> View {
        View::new(self.inner.clone(), access, exclude)
    }

    /// Closes the store; the same as dropping it, but for the error. Later writes through clones fail.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn close(self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

/// Numbers of documents.
type Numbers = HashSet<u64>;
