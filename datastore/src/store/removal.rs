//! Removal: durable first, then visible to everyone at once.

use super::commit::Change;
use super::{Inner, Selector};
use crate::catalog::{Addition, DocumentRecord};
use crate::error::StoreError;
use crate::receipt::{Event, Receipt, document_hash};

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

pub(super) fn remove(inner: &Inner, selector: &Selector) -> Result<Receipt, StoreError> {
    selector.check()?;
    let mut state = inner.write();
    let mut found = Vec::new();
    match selector {
        Selector::Id(id) => {
            if let Some(entry) = state.catalog.find(id) {
                let record = state.catalog.document(inner.folder(), entry.number)?;
                found.extend(record.map(|record| (entry.number, record)));
            }
        }
        _ => state.catalog.live(inner.folder(), &mut |number, record| {
            if selector.selects(&record) {
                found.push((number, record));
            }
        })?,
    }
    let (removed, gone): (Vec<u64>, Vec<DocumentRecord>) = found.into_iter().unzip();
    let hashes = gone.iter().map(|record| document_hash(&record.id)).collect();
    let mut change = Change::new(Addition { removed, ..Addition::default() });
    change.gone = gone;
    change.receipt = Some((Event::Removed, hashes));
    inner.commit(&mut state, change)?;
    let sequence = state.manifest.sequence;
    let receipt = state.catalog.receipt(inner.folder(), sequence)?;
    receipt.ok_or_else(|| crate::error::damaged(inner.folder(), "the receipt that was just written is not there"))
}
