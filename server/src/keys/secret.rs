//! The text of a key, `sk-safelmm-<id>-<secret>`, and the hash that stands for it on disk.

use std::fmt;
use std::io;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "sk-safelmm-";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// The public part of a key: it stands in the key file, in logs and in `safelmm key list`. 12 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; ID_BYTES]);

/// A whole key, its secret included. It is shown once, when it is made, and never kept.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText {
    id: KeyId,
    secret: [u8; SECRET_BYTES],
}

/// What the key file keeps of a secret: its SHA-256.
///
/// A fast hash suffices, unlike for passwords: the secret is 256 random bits, so that nobody who has the hash can find
/// it by trying, however fast a trial is. A slow hash would only let strangers keep the server busy.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash([u8; 32]);

/// A text that is no key or no part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedKey {
    /// Not the text of a key.
    #[error("expected a key of the form sk-safelmm-<id>-<secret>, as `safelmm key new` printed it")]
    Key,
    /// Not the id of a key.
    #[error("expected the id of a key: {} hexadecimal digits, as `safelmm key list` shows them", ID_BYTES * 2)]
    Id,
    /// Not a hash.
    #[error("expected a SHA-256: 64 hexadecimal digits")]
    Hash,
}

impl KeyText {
    /// A new key from the operating system's random numbers. Fails when the system gives none.
    pub fn random() -> io::Result<Self> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(KeyText { id: KeyId(id), secret })
    }

    /// The public part.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The whole text, the secret included: for the eyes of the key's holder alone.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}-{}", self.id, HEXLOWER.encode(&self.secret))
    }

    /// What may be kept of the secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret).into())
    }

    /// Whether this is the secret that was hashed. Takes the same time wherever the two differ, and as long for an
    /// unknown id (`None`), so that answers do not tell which ids exist.
    pub fn matches(&self, expected: Option<&SecretHash>) -> bool {
        let known = subtle::Choice::from(u8::from(expected.is_some()));
        let expected = expected.map_or([0; 32], |hash| hash.0);
        (self.hash().0.ct_eq(&expected) & known).into()
    }
}

impl FromStr for KeyText {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        let rest = text.strip_prefix(PREFIX).ok_or(MalformedKey::Key)?;
        let (id, secret) = rest.split_once('-').ok_or(MalformedKey::Key)?;
        let secret = bytes(secret).ok_or(MalformedKey::Key)?;
        Ok(KeyText { id: id.parse().map_err(|_| MalformedKey::Key)?, secret })
    }
}

impl FromStr for KeyId {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        bytes(text).map(KeyId).ok_or(MalformedKey::Id)
    }
}

impl TryFrom<String> for KeyId {
    type Error = MalformedKey;

    fn try_from(text: String) -> Result<Self, MalformedKey> {
        text.parse()
    }
}

impl TryFrom<String> for SecretHash {
    type Error = MalformedKey;

    fn try_from(text: String) -> Result<Self, MalformedKey> {
        bytes(&text).map(SecretHash).ok_or(MalformedKey::Hash)
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> String {
        id.to_string()
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> String {
        HEXLOWER.encode(&hash.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without the secret, wherever it is printed.
impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-…", self.id)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// Exactly this many bytes in lower-case hexadecimal digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    // Checked first, so that a long text is not decoded in vain.
    (text.len() == 2 * N).then(|| HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_is_never_printed_but_on_purpose() {
        let key = KeyText::random().unwrap();
        let text = key.reveal();
        let secret = text.rsplit('-').next().unwrap();
        assert_eq!(secret.len(), 64);
        assert!(!format!("{key:?} {:?} {}", key.hash(), String::from(key.hash())).contains(secret));
    }

    #[test]
    fn the_secret_alone_matches_its_hash() {
        let (key, other) = (KeyText::random().unwrap(), KeyText::random().unwrap());
        assert!(key.matches(Some(&key.hash())));
        assert!(!other.matches(Some(&key.hash())));
        assert!(!key.matches(None));
        assert!(!key.matches(Some(&SecretHash([0; 32]))));
    }

    proptest! {
        #[test]
        fn every_key_is_read_back_from_its_text(id: [u8; ID_BYTES], secret: [u8; SECRET_BYTES]) {
            let key = KeyText { id: KeyId(id), secret };
            prop_assert_eq!(key.reveal().parse::<KeyText>().unwrap(), key.clone());
            prop_assert_eq!(key.id().to_string().parse::<KeyId>().unwrap(), key.id());
            prop_assert_eq!(SecretHash::try_from(String::from(key.hash())).unwrap(), key.hash());
        }

        #[test]
        fn no_text_is_read_as_a_key_that_is_not_its_own_text(text in "\\PC*|sk-safelmm-[0-9a-fA-F-]{0,90}") {
            if let Ok(key) = text.parse::<KeyText>() {
                prop_assert_eq!(key.reveal(), text);
            }
        }

        #[test]
        fn a_key_with_one_character_changed_is_another_key_or_none(
            id: [u8; ID_BYTES], secret: [u8; SECRET_BYTES], at in 0_usize..88, with in any::<char>(),
        ) {
            let key = KeyText { id: KeyId(id), secret };
            let text = key.reveal();
            let changed: String = text.chars().enumerate().map(|(i, c)| if i == at { with } else { c }).collect();
            prop_assert!(changed == text || changed.parse::<KeyText>() != Ok(key));
        }
    }
}
