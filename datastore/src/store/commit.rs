//! Commits: records first, then the manifest, then what is in memory.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::{Inner, State, folder};
use crate::catalog::{Addition, CatalogDigest, DocumentRecord};
use crate::error::StoreError;
use crate::manifest::Manifest;
use crate::receipt::{Event, Statement};
use crate::segment::Segment;

/// Version of receipts.
const RECEIPT_VERSION: u32 = 1;

/// What a commit changes.
pub(super) struct Change {
    /// Records that are added.
    pub addition: Addition,
    /// The records of the documents that are removed or replaced.
    pub gone: Vec<DocumentRecord>,
    /// Segments that are added.
    pub segments: Vec<Arc<Segment>>,
    /// Numbers of segments that are replaced.
    pub replaced: HashSet<u64>,
    /// What happened to which documents, for a receipt.
    pub receipt: Option<(Event, Vec<String>)>,
    /// New results of tuning.
    pub tuning: Option<Option<String>>,
    /// Numbers in a passage's vector, once they are known.
    pub passage_dim: Option<usize>,
    /// A new catalogue: its generation, and its digest without the receipt of this commit.
    pub generation: Option<(u64, CatalogDigest)>,
}

impl Change {
    pub(super) fn new(addition: Addition) -> Change {
        Change {
            addition,
            gone: Vec::new(),
            segments: Vec::new(),
            replaced: HashSet::new(),
            receipt: None,
            tuning: None,
            passage_dim: None,
            generation: None,
        }
    }
}

impl Inner {
    /// The manifest after a change, and the change with its receipt.
    pub(super) fn manifest_after(&self, before: &Manifest, change: &mut Change) -> Result<Manifest, StoreError> {
        let mut manifest = before.clone();
        manifest.sequence += 1;
        manifest.next_document = self.next_document.load(Ordering::SeqCst);
        manifest.next_segment = self.next_segment.load(Ordering::SeqCst);
        manifest.segments.retain(|s| !change.replaced.contains(&s.number));
        manifest.segments.extend(change.segments.iter().map(|s| s.entry.clone()));
        if !change.gone.is_empty() {
            // What was found with the help of a document goes with it.
            manifest.tuning = None;
        }
        if let Some(tuning) = &change.tuning {
            manifest.tuning = tuning.clone();
        }
        if let Some(dim) = change.passage_dim {
            manifest.passage_dim = Some(dim);
        }
        for record in &change.gone {
            if let Some(count) = manifest.licenses.get_mut(record.license.expression()) {
                *count = count.saturating_sub(1);
            }
        }
        for (_, record) in &change.addition.documents {
            *manifest.licenses.entry(record.license.to_string()).or_default() += 1;
        }
        manifest.licenses.retain(|_, count| *count > 0);
        let base = match change.generation {
            Some((generation, digest)) => {
                manifest.generation = generation;
                digest
            }
            None => before.catalogue,
        };
        manifest.catalogue = base.with(manifest.sequence, &change.addition)?;
        if let Some((event, mut documents)) = change.receipt.take() {
            documents.sort();
            let statement = Statement {
                format_version: RECEIPT_VERSION,
                event,
                store: self.settings.name.clone(),
                documents,
                time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
                sequence: manifest.sequence,
                manifest: manifest.state_digest().map_err(|e| StoreError::Settings(e.to_string()))?,
            };
            change.addition.receipt = Some(self.signatory.sign(statement));
            manifest.catalogue = base.with(manifest.sequence, &change.addition)?;
        }
        Ok(manifest)
    }

    /// Makes a change durable and visible, or leaves everything as it was.
    pub(super) fn commit(&self, state: &mut State, mut change: Change) -> Result<(), StoreError> {
        state.check_writable()?;
        let manifest = self.manifest_after(&state.manifest, &mut change)?;
        let sequence = manifest.sequence;
        if let Err(e) = state.catalog.write(sequence, &change.addition) {
            self.take_back(state, sequence, &change.addition, &e);
            return Err(e);
        }
        if let Err(e) = manifest.write(&self.folder) {
            self.take_back(state, sequence, &change.addition, &e);
            return Err(e);
        }
        state.catalog.settle(manifest.catalogue, change.addition, &change.gone);
        self.install(state, manifest, change.segments, &change.replaced);
        Ok(())
    }

    /// Takes the segments of a new manifest into use, and buries the dead in all that anyone may hold.
    pub(super) fn install(
        &self,
        state: &mut State,
        manifest: Manifest,
        segments: Vec<Arc<Segment>>,
        replaced: &HashSet<u64>,
    ) {
        state.manifest = manifest;
        state.segments.extend(segments);
        let (replaced, segments): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.segments).into_iter().partition(|s| replaced.contains(&s.entry.number));
        state.segments = segments;
        state.retired.extend(replaced.iter().map(Arc::downgrade));
        state.retired.retain(|segment| segment.strong_count() > 0);
        state.bury();
        for segment in replaced {
            // What stays behind is deleted at the next opening; views that use it have it mapped.
            let _ = folder::remove(segment.folder());
        }
    }

    /// After a failure: takes the records back, if the manifest on the disk is still the old one.
    fn take_back(&self, state: &mut State, sequence: u64, addition: &Addition, error: &StoreError) {
        let unchanged = Manifest::read(&self.folder).is_ok_and(|on_disk| on_disk == state.manifest);
        if !unchanged || state.catalog.undo(sequence, addition).is_err() {
            state.poisoned = Some(error.to_string());
        }
    }
}

impl State {
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        match (&self.poisoned, self.closed) {
            (Some(reason), _) => Err(StoreError::Poisoned(reason.clone())),
            (None, true) => Err(StoreError::Poisoned("the store was closed".to_owned())),
            (None, false) => Ok(()),
        }
    }

    /// Marks the dead in all segments, those included that only views hold any more.
    pub(super) fn bury(&self) {
        let retired: Vec<Arc<Segment>> = self.retired.iter().filter_map(|segment| segment.upgrade()).collect();
        for segment in self.segments.iter().chain(&retired) {
            segment.bury_all(self.catalog.dead());
        }
    }
}
