//! What `/v1/stores` answers.

use std::collections::BTreeMap;

use safelmm_datastore::{License, LicenseClass, Obligation, Receipt};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::http::attachment::access;
use crate::keys::{Principal, Use};
use crate::retrieval::Attached;

/// The stores that the key may ask.
#[derive(Serialize, ToSchema)]
pub struct StoreList {
    /// `list`.
    pub(super) object: &'static str,
    /// Each of them.
    pub(super) data: Vec<StoreAnswer>,
}

/// A store.
#[derive(Serialize, ToSchema)]
pub struct StoreAnswer {
    /// The name under which requests attach it.
    pub(super) id: String,
    /// `store`.
    pub(super) object: &'static str,
    /// Documents in it, as far as the key may use or change them.
    pub(super) documents: usize,
    /// Their tokens.
    pub(super) tokens: u64,
    /// How many documents are under which license.
    pub(super) licenses: Vec<LicenseCount>,
    /// Removed documents whose bytes will be erased by compaction; for those who may change the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) awaiting_erasure: Option<usize>,
    /// Whether parameters of retrieval were found for what the key may use of it.
    pub(super) tuned: bool,
    /// The key that its receipts are signed with (Ed25519), in hexadecimal digits.
    pub(super) public_key: String,
}

/// The documents under one license.
#[derive(Serialize, ToSchema)]
pub(super) struct LicenseCount {
    /// The SPDX expression.
    pub(super) license: String,
    /// What it asks, roughly.
    #[schema(value_type = String)]
    pub(super) class: LicenseClass,
    /// How many there are.
    pub(super) documents: usize,
}

/// What came of documents.
#[derive(Serialize, ToSchema)]
pub struct AddedAnswer {
    /// New documents.
    pub(super) added: usize,
    /// Documents that replaced one with the same id.
    pub(super) replaced: usize,
    /// Documents that were there already, just so.
    pub(super) unchanged: usize,
    /// Tokens added.
    pub(super) tokens: u64,
}

/// What compaction did.
#[derive(Serialize, ToSchema)]
pub struct CompactedAnswer {
    /// Documents whose bytes were erased.
    pub(super) erased: usize,
    /// The signed statement that they were.
    #[schema(value_type = Option<Object>)]
    pub(super) receipt: Option<Receipt>,
}

/// Passages that were found.
#[derive(Serialize, ToSchema)]
pub struct FoundPassages {
    /// `list`.
    pub(super) object: &'static str,
    /// Each of them, the best first.
    pub(super) data: Vec<FoundPassage>,
}

/// A passage that was found.
#[derive(Serialize, ToSchema)]
pub(super) struct FoundPassage {
    /// How well it fits; comparable within one answer.
    pub(super) score: f32,
    /// The passage.
    pub(super) text: String,
    /// The document's id.
    pub(super) document: String,
    /// Its title.
    pub(super) title: String,
    /// Its author.
    pub(super) author: String,
    /// Its license, as an SPDX expression.
    pub(super) license: String,
    /// Where it can be found.
    pub(super) url: String,
    /// What the license asks of those who use the text.
    #[schema(value_type = Vec<String>)]
    pub(super) obligations: Vec<Obligation>,
}

impl StoreAnswer {
    /// The store as this key may see it: whoever may not change it is told of the documents that its requests may use.
    pub(super) fn of(attached: &Attached, app: &App, principal: &Principal) -> Self {
        let info = attached.store.info();
        let declared = if principal.may_use(Use::NonCommercial) { Use::NonCommercial } else { Use::Commercial };
        let access = access(app, declared, principal.rating_ceiling(app.rating_ceiling()), true);
        let view = attached.store.view(&access, &[]);
        let manages = principal.may_manage_stores();
        let licenses: BTreeMap<License, usize> = match manages {
            true => info.licenses.iter().filter_map(|(license, n)| Some((license.parse().ok()?, *n))).collect(),
            false => view.documents_by_license(),
        };
        let count = |(license, documents): (License, usize)| LicenseCount {
            class: license.class(),
            license: license.to_string(),
            documents,
        };
        StoreAnswer {
            id: info.settings.name.clone(),
            object: "store",
            documents: licenses.values().sum(),
            tokens: if manages { info.tokens } else { view.tokens() },
            licenses: licenses.into_iter().filter(|(_, documents)| *documents > 0).map(count).collect(),
            awaiting_erasure: manages.then_some(info.dead),
            tuned: attached.is_tuned(&view),
            public_key: info.public_key,
        }
    }
}
