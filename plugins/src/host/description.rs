//! What a component says of itself, as JSON in a custom section: readable without running it.
//!
//! `safelmm plugin describe FILE --write` asks a component and writes the section. A component whose section says
//! something else than the component itself is not loaded.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::component::Component;
use crate::hook::Hook;

/// The section's name.
pub const SECTION: &str = "safelmm:policy";

/// How a component begins: magic, version 13, layer 1 (component model, `Binary.md`).
const PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";
const CUSTOM: u8 = 0;

/// What a component says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What it calls itself.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// What it does.
    pub summary: String,
    /// Where it can be asked.
    pub hooks: Vec<String>,
    /// What it can find.
    pub categories: Vec<String>,
    /// Languages that it judges; empty for any.
    pub languages: Vec<String>,
    /// What it asks for beside texts.
    pub capabilities: Vec<String>,
    /// The JSON Schema of its settings.
    pub settings_schema: Value,
}

/// Why no description can be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// It is no component.
    #[error("it is no WebAssembly component")]
    NotAComponent,
    /// A section does not end within the file.
    #[error("it is a damaged WebAssembly component: the section at byte {0} does not end within it")]
    Damaged(usize),
    /// The section holds something else.
    #[error("its section '{SECTION}' cannot be read: {0}: write it anew with `safelmm plugin describe FILE --write`")]
    Json(#[from] serde_json::Error),
}

impl Description {
    /// That of a component which was asked.
    pub fn of(component: &Component) -> Self {
        let capabilities = if component.wants_vocabulary { vec!["vocabulary".to_owned()] } else { Vec::new() };
        Description {
            name: component.name.clone(),
            version: component.version.clone(),
            summary: component.summary.clone(),
            hooks: component.hooks.iter().map(|hook: Hook| hook.as_str().to_owned()).collect(),
            categories: component.categories.clone(),
            languages: component.languages.clone(),
            capabilities,
            // It was read as JSON when the component was loaded.
            settings_schema: serde_json::from_str(&component.settings_schema).unwrap_or_default(),
        }
    }

    /// What the section of a component says; none where it has none.
    ///
    /// # Errors
    /// [`DescriptionError`].
    pub fn read(component: &[u8]) -> Result<Option<Self>, DescriptionError> {
        match sections(component)?.into_iter().find(Section::is_ours) {
            Some(section) => Ok(Some(serde_json::from_slice(section.contents)?)),
            None => Ok(None),
        }
    }

    /// The component with a section that says this, in place of the one that it may have.
    ///
    /// # Errors
    /// [`DescriptionError`].
    pub fn write(&self, component: &[u8]) -> Result<Vec<u8>, DescriptionError> {
        let contents = serde_json::to_vec(self)?;
        let mut payload = Vec::with_capacity(SECTION.len() + contents.len() + 1);
        push_length(&mut payload, SECTION.len());
        payload.extend(SECTION.as_bytes());
        payload.extend(contents);
        let mut written = Self::erase(component)?;
        written.push(CUSTOM);
        push_length(&mut written, payload.len());
        written.extend(payload);
        Ok(written)
    }

    /// The component without the section.
    ///
    /// # Errors
    /// [`DescriptionError`].
    pub fn erase(component: &[u8]) -> Result<Vec<u8>, DescriptionError> {
        let mut kept = PREAMBLE.to_vec();
        for section in sections(component)?.iter().filter(|section| !section.is_ours()) {
            kept.extend(&component[section.range.clone()]);
        }
        Ok(kept)
    }
}

/// A section of a component; those of what is nested in it belong to its contents.
struct Section<'a> {
    range: Range<usize>,
    /// Of a custom section.
    name: Option<&'a [u8]>,
    contents: &'a [u8],
}

impl Section<'_> {
    fn is_ours(&self) -> bool {
        self.name == Some(SECTION.as_bytes())
    }
}

fn sections(component: &[u8]) -> Result<Vec<Section<'_>>, DescriptionError> {
    let mut rest = component.strip_prefix(PREAMBLE).ok_or(DescriptionError::NotAComponent)?;
    let mut sections = Vec::new();
    while let Some((&id, behind)) = rest.split_first() {
        let start = component.len() - rest.len();
        let damaged = || DescriptionError::Damaged(start);
        let (payload, behind) = take(behind).ok_or_else(damaged)?;
        let (name, contents) = match id {
            CUSTOM => take(payload).map(|(name, contents)| (Some(name), contents)).ok_or_else(damaged)?,
            _ => (None, payload),
        };
        sections.push(Section { range: start..component.len() - behind.len(), name, contents });
        rest = behind;
    }
    Ok(sections)
}

/// As many bytes as a length in front of them says (LEB128), and what is behind them.
fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_u64;
    for (i, byte) in bytes.iter().enumerate().take(5) {
        length |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return bytes[i + 1..].split_at_checked(usize::try_from(length).ok()?);
        }
    }
    None
}

fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(length as u8 & 0x7f | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn description(summary: &str) -> Description {
        let of = |text: &str| text.to_owned();
        Description {
            name: of("p"),
            version: of("1.0.0"),
            summary: of(summary),
            hooks: vec![of("screen-prompt")],
            categories: vec![of("c")],
            languages: Vec::new(),
            capabilities: Vec::new(),
            settings_schema: serde_json::json!({"type": "object"}),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_taken_out_again(
            others in prop::collection::vec((1_u8..12, prop::collection::vec(any::<u8>(), 0..300)), 0..5),
            summaries in ["\\PC{0,200}", "\\PC{0,200}"],
        ) {
            let mut component = PREAMBLE.to_vec();
            for (id, payload) in &others {
                component.push(*id);
                push_length(&mut component, payload.len());
                component.extend(payload);
            }
            prop_assert_eq!(Description::read(&component).unwrap(), None);
            let mut written = component.clone();
            for summary in &summaries {
                written = description(summary).write(&written).unwrap();
                prop_assert_eq!(Description::read(&written).unwrap(), Some(description(summary)));
            }
            prop_assert_eq!(Description::erase(&written).unwrap(), component);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), is_component: bool) {
            if is_component {
                bytes.splice(0..0, PREAMBLE.iter().copied());
            }
            let refused = Description::read(&bytes).is_err();
            prop_assert!(is_component || refused || bytes.starts_with(PREAMBLE));
        }
    }
}
