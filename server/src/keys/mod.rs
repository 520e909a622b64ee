//! API keys: who may ask, and for what.
//!
//! A key is a text that its holder sends with each request. The server keeps a file with the SHA-256 of each key's
//! secret and the rights that were given with it; from a request's key it makes a [`Principal`], which travels with the
//! request and answers every question about its rights.

mod file;
mod keyring;
mod limits;
mod principal;
mod secret;

pub use file::{Issued, KeyFileError, KeyRecord, add, date, list, revoke};
pub use keyring::{Keyring, Rejected};
pub use limits::{Admission, Charge, Limits, Refusal, Standing};
pub use principal::{Allowed, Principal, RatingRefusal, Rights, Use};
pub use secret::{KeyId, KeyText, MalformedKey};
