//! Documents, their licenses and provenance.

pub mod document;
pub mod license;

pub use document::{Document, DocumentError};
pub use license::{License, LicenseClass, LicenseError};
