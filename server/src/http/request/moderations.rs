//! The body of `POST /v1/moderations`.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::ContentPart;
use crate::http::json::objects;

objects! {
    /// Texts to judge.
    pub struct ModerationRequest {
        /// A text, a list of texts, or a list of text parts, which are judged as one text; up to 1024.
        pub input: ModerationInput,
        /// `safelmm-policies`, or one of the OpenAI API's own names for it. May be left out.
        pub model: Option<String>,
    }
}

/// Texts to judge.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum ModerationInput {
    /// One text.
    Text(String),
    /// Several texts, each judged by itself.
    Texts(Vec<String>),
    /// The parts of one text.
    Parts(Vec<ContentPart>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or a text part")]
enum Element {
    Text(String),
    Part(ContentPart),
}

impl<'de> Deserialize<'de> for ModerationInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = ModerationInput;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a list of strings or a list of text parts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ModerationInput, E> {
                Ok(ModerationInput::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ModerationInput, A::Error> {
                let (mut texts, mut parts) = (Vec::new(), Vec::new());
                while let Some(element) = seq.next_element()? {
                    match element {
                        Element::Text(text) => texts.push(text),
                        Element::Part(part) => parts.push(part),
                    }
                }
                match (texts.is_empty(), parts.is_empty()) {
                    (false, false) => Err(de::Error::custom("strings and parts in one list: expected one kind")),
                    (true, false) => Ok(ModerationInput::Parts(parts)),
                    _ => Ok(ModerationInput::Texts(texts)),
                }
            }
        }

        deserializer.deserialize_any(Form)
    }
}
