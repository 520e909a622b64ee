//! Signed statements of removal and of erasure (Ed25519, RFC 8032).

use std::path::Path;

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{StoreError, damaged, io_error};
use crate::files;

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Of this form.
    pub format_version: u32,
    /// What happened.
    pub event: Event,
    /// Name of the store.
    pub store: String,
    /// SHA-256 of each document's id in hexadecimal digits, ascending.
    pub documents: Vec<String>,
    /// When, in UTC (RFC 3339).
    pub time: String,
    /// Number of the commit that did it; later ones are larger.
    pub sequence: u64,
    /// SHA-256 over the manifest in force afterwards, in hexadecimal digits.
    pub manifest: String,
}

/// What happened to the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// They influence nothing any more.
    Removed,
    /// Their bytes are gone from the store's folder.
    Erased,
}

/// A statement, signed by the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// What it says.
    pub statement: Statement,
    /// The public key, in hexadecimal digits.
    pub public_key: String,
    /// Signature over the statement as canonical JSON, in hexadecimal digits.
    pub signature: String,
}

/// Why a receipt does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The key is none.
    #[error("the public key is none: expected 64 hexadecimal digits")]
    Key,
    /// The receipt names another key.
    #[error("the receipt was signed with another key")]
    OtherKey,
    /// The signature is none, or of something else.
    #[error("the signature does not fit the statement")]
    Signature,
}

/// SHA-256 of a document's id, as receipts name it.
pub fn document_hash(id: &str) -> String {
    files::hex(&Sha256::digest(id.as_bytes()))
}

impl Statement {
    /// Canonical JSON (RFC 8785): members in the order of their names, no white space.
    fn canonical(&self) -> Vec<u8> {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let event = match self.event {
            Event::Removed => "removed",
            Event::Erased => "erased",
        };
        let documents: Vec<String> = self.documents.iter().map(|d| text(d)).collect();
        format!(
            r#"{{"documents":[{}],"event":"{event}","format_version":{},"manifest":{},"sequence":{},"store":{},"time":{}}}"#,
            documents.join(","),
            self.format_version,
            text(&self.manifest),
            self.sequence,
            text(&self.store),
            text(&self.time),
        )
        .into_bytes()
    }
}

impl Receipt {
    /// Whether this is what the holder of the key signed. `public_key` is 64 hexadecimal digits; get it from someone
    /// you trust, not from the receipt.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn verify(&self, public_key: &str) -> Result<(), ReceiptError> {
        let bytes: [u8; 32] = files::unhex(public_key).and_then(|b| b.try_into().ok()).ok_or(ReceiptError::Key)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| ReceiptError::Key)?;
        if !self.public_key.eq_ignore_ascii_case(public_key) {
            return Err(ReceiptError::OtherKey);
        }
        let signature: [u8; 64] =
            files::unhex(&self.signature).and_then(|b| b.try_into().ok()).ok_or(ReceiptError::Signature)?;
        key.verify(&self.statement.canonical(), &Signature::from_bytes(&signature)).map_err(|_| ReceiptError::Signature)
    }
}

/// The key that a store signs with.
pub(crate) struct Signatory(SigningKey);

impl Signatory {
    /// A new key, written to `file` for its owner's eyes alone.
    pub(crate) fn create(file: &Path) -> Result<Signatory, StoreError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| io_error(file)(std::io::Error::other(e.to_string())))?;
        files::write_secret(file, format!("{}\n", files::hex(&seed)).as_bytes())?;
        Ok(Signatory(SigningKey::from_bytes(&seed)))
    }

    /// The key in `file`, which must be the one that belongs to `public_key`.
    pub(crate) fn open(file: &Path, public_key: &str) -> Result<Signatory, StoreError> {
        let text = std::fs::read_to_string(file).map_err(io_error(file))?;
        let seed = text.strip_suffix('\n').and_then(files::unhex).and_then(|b| <[u8; 32]>::try_from(b).ok());
        let seed = seed.ok_or_else(|| damaged(file, "expected 64 hexadecimal digits and a line end"))?;
        let signatory = Signatory(SigningKey::from_bytes(&seed));
        if signatory.public_key() != public_key {
            return Err(damaged(file, "this is not the key that the manifest names"));
        }
        Ok(signatory)
    }

    pub(crate) fn public_key(&self) -> String {
        files::hex(self.0.verifying_key().as_bytes())
    }

    pub(crate) fn sign(&self, statement: Statement) -> Receipt {
        let signature = files::hex(&self.0.sign(&statement.canonical()).to_bytes());
        Receipt { statement, public_key: self.public_key(), signature }
    }
}
