//! Documents, their licenses and provenance, and stores of them that are searched while a model writes.

mod catalog;
pub mod document;
pub mod encoder;
pub mod error;
mod files;
pub mod gate;
pub mod index;
mod kernels;
pub mod license;
mod manifest;
mod mapping;
pub mod passages;
pub mod rating;
pub mod receipt;
mod segment;
pub mod sources;
mod storage;
pub mod store;
pub mod suffix;
#[doc(hidden)]
pub mod testing;
pub mod view;

pub use document::{Document, DocumentError, Permissions};
pub use encoder::{EncodeError, StoreEncoder, Tokenized};
pub use error::StoreError;
pub use gate::{Access, ClassRules, GateTable, Group, Rule, Use};
pub use license::{License, LicenseClass, LicenseError, Obligation};
pub use rating::{Rating, RatingError};
pub use receipt::{Receipt, ReceiptError, Statement};
pub use sources::SourceDefaults;
pub use store::{
    AddOptions, AddProgress, Added, CompactProgress, Compacted, Selector, Store, StoreInfo, StoreSettings, VerifyReport,
};
pub use view::{
    Continuations, DocumentInfo, DocumentKey, Neighbour, Occurrence, PassageHit, Scratch, TraceMatch, View, ViewCursor,
};
