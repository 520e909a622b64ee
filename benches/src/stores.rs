//! Stores that measurements are made with: built once in a folder, and used again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use safelmm_datastore::gate::{GateTable, Use};
use safelmm_datastore::{Access, AddOptions, Document, EncodeError, Store, StoreEncoder, StoreSettings, Tokenized};
use safelmm_model::Checkpoint;
use safelmm_server::retrieval::ModelEncoder;

/// What a request may use that declares a non-commercial use and names its sources.
pub fn access() -> Access {
    Access { declared_use: Use::NonCommercial, rating_ceiling: None, attributed: true, table: GateTable::default() }
}

/// The checkpoint in a folder, or the embedded demo.
///
/// # Errors
/// When the folder holds none.
pub fn checkpoint(folder: Option<&Path>) -> anyhow::Result<Arc<Checkpoint>> {
    let opened = folder.map_or_else(safelmm_server::demo::open, Checkpoint::open);
    Ok(Arc::new(opened.with_context(|| format!("the model {}", folder.unwrap_or(Path::new("demo")).display()))?))
}

/// A model as stores see it that makes keys and no vectors of passages: where nothing is searched by them, a store is built
/// in a third of the time.
pub struct KeysOnly<'a>(pub &'a ModelEncoder);

impl StoreEncoder for KeysOnly<'_> {
    fn fingerprint(&self) -> &str {
        self.0.fingerprint()
    }

    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn tokenize(&self, text: &str) -> Result<Tokenized, EncodeError> {
        self.0.tokenize(text)
    }

    fn keys(&self, documents: &[&[u32]]) -> Result<Vec<f32>, EncodeError> {
        self.0.keys(documents)
    }

    fn embed(&self, _texts: &[&str]) -> Result<Option<Vec<Vec<f32>>>, EncodeError> {
        Ok(None)
    }
}

/// A store of these documents. What a folder of an earlier run holds already costs nothing.
///
/// # Errors
/// When the folder holds a store of another model, or cannot be written.
pub fn build(
    folder: &Path,
    settings: StoreSettings,
    documents: impl Iterator<Item = Document>,
    encoder: &dyn StoreEncoder,
) -> anyhow::Result<Store> {
    let store = match folder.join("manifest.json").is_file() {
        true => Store::open(folder)?,
        false => Store::create(folder, settings)?,
    };
    let name = store.settings().name.clone();
    // Nothing is lost by a kill: the next run goes on from the last commit.
    store.add(
        &mut documents.map(Ok),
        encoder,
        &AddOptions::default(),
        &|at| eprintln!("{name}: {} tokens, {} documents committed", at.tokens, at.committed),
        &AtomicBool::new(false),
    )?;
    Ok(store)
}
