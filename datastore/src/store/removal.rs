//! Removal: durable first, then visible to everyone at once.

use std::sync::RwLockWriteGuard;

use super::commit::Change;
use super::{Inner, Selector, State};
use crate::catalog::{Addition, DocumentRecord, Snapshot};
use crate::error::{StoreError, damaged};
use crate::receipt::{Event, Receipt, document_hash};

/// How often documents are looked for without a lock, when commits come between; then with it.
pub(super) const ATTEMPTS: usize = 3;

impl Selector {
    fn selects(&self, record: &DocumentRecord) -> bool {
        match self {
            Selector::Id(id) => record.id == *id,
            Selector::Author(author) => record.author == *author,
            Selector::RightsHolder(holder) => record.rights_holder == *holder,
            Selector::Url(url) => record.url == *url,
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let (Selector::Id(value) | Selector::Author(value) | Selector::RightsHolder(value) | Selector::Url(value)) =
            self;
        match value.is_empty() {
            // It would select everything that does not say.
            true => Err(StoreError::Settings("a removal needs an id, author, rights holder or url".to_owned())),
            false => Ok(()),
        }
    }
}

/// A document with its record.
type Found = (u64, DocumentRecord);

pub(super) fn remove(inner: &Inner, selector: &Selector) -> Result<Option<Receipt>, StoreError> {
    selector.check()?;
    if let Selector::Id(id) = selector {
        let state = inner.write();
        let record = match state.catalog.find(id) {
            Some(entry) => state.catalog.document(inner.folder(), entry.number)?.map(|record| (entry.number, record)),
            None => None,
        };
        return bury(inner, state, record.into_iter().collect());
    }
    let search = |snapshot: &Snapshot| {
        let mut found: Vec<Found> = Vec::new();
        snapshot.live(inner.folder(), &mut |number, record| {
            if selector.selects(&record) {
                found.push((number, record));
            }
        })?;
        Ok::<_, StoreError>(found)
    };
    for _ in 0..ATTEMPTS {
        let snapshot = inner.read().snapshot();
        let found = search(&snapshot)?;
        let state = inner.write();
        if state.manifest.sequence == snapshot.sequence() {
            return bury(inner, state, found);
        }
    }
    let state = inner.write();
    let found = search(&state.snapshot())?;
    bury(inner, state, found)
}

fn bury(
    inner: &Inner,
    mut state: RwLockWriteGuard<'_, State>,
    found: Vec<Found>,
) -> Result<Option<Receipt>, StoreError> {
    if found.is_empty() {
        return Ok(None);
    }
    let (removed, gone): (Vec<u64>, Vec<DocumentRecord>) = found.into_iter().unzip();
    let hashes = gone.iter().map(|record| document_hash(&record.id)).collect();
    let mut change = Change::new(Addition { removed, ..Addition::default() });
    change.gone = gone;
    change.receipt = Some((Event::Removed, hashes));
    inner.commit(&mut state, change)?;
    let receipt = state.catalog.receipt(inner.folder(), state.manifest.sequence)?;
    let missing = || damaged(inner.folder(), "the receipt that was just written is not there");
    receipt.map(Some).ok_or_else(missing)
}
