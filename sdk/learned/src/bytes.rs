//! Reading the head of a model.

/// Why bytes are no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Another kind of file, or another version of it.
    #[error(
        "it begins with {found:?}, expected {expected:?}: no {kind} of this version; make one with `safelmm-train policy-models`"
    )]
    Kind {
        /// What was expected.
        kind: &'static str,
        /// How such a model begins.
        expected: String,
        /// How this one begins.
        found: String,
    },
    /// Cut short, or followed by something.
    #[error("it has {found} bytes, but its head says {expected}: it was cut or damaged; copy it again")]
    Length {
        /// By its head.
        expected: u64,
        /// What there is.
        found: usize,
    },
    /// A number of the head that cannot be.
    #[error("{what} is {value}, expected {expected}: the model is damaged; copy it again")]
    Value {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

/// A cursor over a model.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Checks the first eight bytes.
    pub fn new(bytes: &'a [u8], magic: &[u8; 8], kind: &'static str) -> Result<Self, ModelError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match bytes.get(..8) {
            Some(found) if found == magic => Ok(Reader { bytes, at: 8 }),
            found => Err(ModelError::Kind { kind, expected: text(magic), found: text(found.unwrap_or(bytes)) }),
        }
    }

    fn four(&mut self) -> Result<[u8; 4], ModelError> {
        let four = self.bytes.get(self.at..self.at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        self.at += 4;
        four.ok_or(ModelError::Length { expected: self.at as u64, found: self.bytes.len() })
    }

    /// An integer within bounds.
    pub fn count(
        &mut self,
        what: &'static str,
        least: u32,
        most: u32,
        expected: &'static str,
    ) -> Result<u32, ModelError> {
        let value = u32::from_le_bytes(self.four()?);
        match (least..=most).contains(&value) {
            true => Ok(value),
            false => Err(ModelError::Value { what, value: value.to_string(), expected }),
        }
    }

    /// A number from `least` to `most`.
    pub fn number(
        &mut self,
        what: &'static str,
        least: f32,
        most: f32,
        expected: &'static str,
    ) -> Result<f32, ModelError> {
        let value = f32::from_le_bytes(self.four()?);
        match (least..=most).contains(&value) {
            true => Ok(value),
            false => Err(ModelError::Value { what, value: value.to_string(), expected }),
        }
    }

    /// Where the head ends; exactly `rest` bytes must follow.
    pub fn end(self, rest: u64) -> Result<usize, ModelError> {
        let expected = self.at as u64 + rest;
        match expected == self.bytes.len() as u64 {
            true => Ok(self.at),
            false => Err(ModelError::Length { expected, found: self.bytes.len() }),
        }
    }
}
