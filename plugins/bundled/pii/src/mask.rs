//! What stands in the place of what was found.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::kind::Kind;

/// `[EMAIL]`.
pub fn redacted(kind: Kind) -> String {
    format!("[{}]", kind.label())
}

/// `[EMAIL-4X7QC]`: the same for the same thing within a request, whatever spaces and hyphens it is written with, and
/// another in the next request.
pub fn pseudonym(kind: Kind, text: &str, request: &str) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut hasher = DefaultHasher::new();
    request.hash(&mut hasher);
    kind.hash(&mut hasher);
    let keeps_case = kind == Kind::Secret;
    for c in text
        .chars()
        .filter(|c| keeps_case || c.is_alphanumeric() || matches!(c, '@' | '.' | '_') && kind == Kind::Email)
    {
        if keeps_case { c.hash(&mut hasher) } else { c.to_lowercase().for_each(|c| c.hash(&mut hasher)) }
    }
    let hash = hasher.finish();
    let letters = (0..5).map(|place| char::from(LETTERS[(hash >> (5 * place)) as usize % 32]));
    format!("[{}-{}]", kind.label(), letters.collect::<String>())
}
