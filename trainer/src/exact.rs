//! Numbers in JSON that come back with the same bits: as text, which the standard library reads exactly.

use serde::{Deserialize, Deserializer, Serializer, de};

/// Writes a number in its shortest exact form.
///
/// # Errors
/// Those of the serialiser.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Reads such a number.
///
/// # Errors
/// Text that is no number.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| de::Error::custom(format!("'{text}' is no number")))
}
