//! The stores of this server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use safelmm_datastore::{Store, StoreEncoder, StoreError, StoreSettings, View};
use safelmm_model::Checkpoint;

use super::encoder::ModelEncoder;
use super::tuning::{Tuning, Tunings};

/// The longest passage, in tokens (SILO, section 5.1), and the share of the model's context that one may take.
const PASSAGE_TOKENS: usize = 1024;
const PASSAGE_SHARE: usize = 4;

/// Why the stores cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// A store cannot be opened or written.
    #[error("the store '{name}': {source}")]
    Store {
        /// Its name.
        name: String,
        /// Why.
        source: Box<StoreError>,
    },
    /// Two folders hold stores of one name.
    #[error("two stores are called '{0}': rename one of them by making it anew, or leave one out")]
    Twice(String),
    /// The parameters of retrieval in a manifest are of another version.
    #[error(
        "the store '{name}' was tuned by another version of this program ({source}): run `safelmm store tune` again"
    )]
    Tuning {
        /// Its name.
        name: String,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// The vectors of passages come from elsewhere.
    #[error(
        "the vectors of passages in the store '{name}' were made by {expected}, and those here are by {found}: name that \
         encoder with --embeddings, or make a new store from the documents"
    )]
    OtherPassages {
        /// The store.
        name: String,
        /// What made those of the store.
        expected: String,
        /// What would be compared with them.
        found: String,
    },
    /// The folder of stores cannot be read.
    #[error("[stores] folder {}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A store is to be made, and there is no place for it.
    #[error("this server has no folder for stores: start it with --stores DIR")]
    NoFolder,
    /// There is a store of this name.
    #[error("a store '{0}' exists already")]
    Exists(String),
}

/// One store, with the parameters that suit it.
#[derive(Clone)]
pub struct Attached {
    /// The store.
    pub store: Store,
    tunings: Arc<Tunings>,
}

impl Attached {
    /// A store with the parameters that its manifest has.
    ///
    /// # Errors
    /// Parameters of another version.
    pub fn new(store: Store) -> Result<Attached, StoresError> {
        let name = || store.settings().name.clone();
        let tunings = Tunings::of(&store.info()).map_err(|source| StoresError::Tuning { name: name(), source })?;
        Ok(Attached { store, tunings: Arc::new(tunings) })
    }

    /// Whether the vectors of the store's passages are comparable with those of this encoder.
    ///
    /// # Errors
    /// [`StoresError::OtherPassages`] when they are not.
    pub fn check_passages(&self, encoder: &ModelEncoder) -> Result<(), StoresError> {
        let StoreSettings { name, passage_encoder, .. } = self.store.settings();
        let found = encoder.passages().name();
        if *passage_encoder == found {
            return Ok(());
        }
        Err(StoresError::OtherPassages { name: name.clone(), expected: passage_encoder.clone(), found })
    }

    /// The parameters that suit what a request may use of the store. They go when a document goes that they were found with.
    pub fn tuning(&self, view: &View) -> Arc<Tuning> {
        match self.store.is_tuned() {
            true => self.tunings.for_view(view),
            false => Arc::default(),
        }
    }

    /// Whether there are parameters for what a request may use of the store.
    pub fn is_tuned(&self, view: &View) -> bool {
        self.store.is_tuned() && self.tunings.has(view)
    }
}

/// The stores of a server, by name.
pub struct Stores {
    folder: Option<PathBuf>,
    encoder: ModelEncoder,
    stores: RwLock<BTreeMap<String, Attached>>,
    /// An index of the training text, which answers are compared with and which informs none.
    training: Option<Store>,
}

fn passage_tokens(checkpoint: &Checkpoint) -> usize {
    PASSAGE_TOKENS.min(checkpoint.context_length() / PASSAGE_SHARE).max(2)
}

/// The settings of a new store for this model.
pub fn settings(name: &str, encoder: &ModelEncoder) -> StoreSettings {
    let passage_tokens = passage_tokens(encoder.checkpoint());
    let layers = encoder.checkpoint().config().n_layers;
    StoreSettings {
        passage_tokens,
        passage_stride: passage_tokens / 2,
        passage_encoder: encoder.passages().name(),
        ..StoreSettings::new(name, encoder.fingerprint(), layers.saturating_sub(1), encoder.dim(), encoder.vocab_size())
    }
}

/// Opens a store for a model.
///
/// # Errors
/// Those of [`Store::open`], and a store of another model.
pub fn open(folder: &Path, encoder: &ModelEncoder) -> Result<Attached, StoresError> {
    let name = folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into());
    let failed = |source: StoreError| StoresError::Store { name: name.clone(), source: Box::new(source) };
    let store = Store::open(folder).map_err(failed)?;
    store.check_model(encoder.fingerprint(), encoder.dim(), encoder.vocab_size()).map_err(failed)?;
    Attached::new(store)
}

impl Stores {
    /// Opens every store in `folder`, and the index of the training text.
    ///
    /// # Errors
    /// A store that cannot be opened, or that belongs to another model.
    pub fn open(folder: Option<PathBuf>, training: Option<&Path>, encoder: ModelEncoder) -> Result<Self, StoresError> {
        let mut stores = BTreeMap::new();
        if let Some(folder) = &folder {
            let failed = |source| StoresError::Folder { folder: folder.clone(), source };
            std::fs::create_dir_all(folder).map_err(failed)?;
            let mut entries =
                std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries.iter().filter(|entry| entry.path().join("manifest.json").is_file()) {
                let attached = open(&entry.path(), &encoder)?;
                let name = attached.store.settings().name.clone();
                if stores.insert(name.clone(), attached).is_some() {
                    return Err(StoresError::Twice(name));
                }
            }
        }
        let training = training.map(|folder| open(folder, &encoder)).transpose()?.map(|attached| attached.store);
        Ok(Stores { folder, encoder, stores: RwLock::new(stores), training })
    }

    /// The store of this name.
    pub fn get(&self, name: &str) -> Option<Attached> {
        self.stores.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All stores, by name.
    pub fn all(&self) -> Vec<Attached> {
        self.stores.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Closes every store: what was acknowledged is on the disk already, and the next one who opens a store finds the digests
    /// of all its files.
    pub fn close(&self) {
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *stores).into_values().map(|attached| attached.store);
        for store in all.chain(self.training.clone()) {
            let name = store.settings().name.clone();
            if let Err(error) = store.close() {
                tracing::warn!(store = name, cause = error.to_string(), "a store was not closed cleanly");
            }
        }
    }

    /// The index of the training text.
    pub fn training(&self) -> Option<&Store> {
        self.training.as_ref()
    }

    /// The tokens of the longest passage.
    pub fn passage_tokens(&self) -> usize {
        passage_tokens(self.encoder.checkpoint())
    }

    /// What documents are encoded with.
    pub fn encoder(&self) -> &ModelEncoder {
        &self.encoder
    }

    /// Makes an empty store.
    ///
    /// # Errors
    /// A name that is taken or none, or a folder that cannot be written.
    pub fn create(&self, name: &str, settings: StoreSettings) -> Result<Attached, StoresError> {
        let folder = self.folder.as_ref().ok_or(StoresError::NoFolder)?;
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        if stores.contains_key(name) {
            return Err(StoresError::Exists(name.to_owned()));
        }
        let failed = |source| StoresError::Store { name: name.to_owned(), source: Box::new(source) };
        // The store checks the name before it makes the folder, so that no name leads out of it.
        let store = Store::create(&folder.join(name), settings).map_err(failed)?;
        let attached = Attached::new(store)?;
        stores.insert(name.to_owned(), attached.clone());
        Ok(attached)
    }
}
