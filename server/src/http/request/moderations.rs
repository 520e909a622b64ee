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

objects! {
    /// What is to be judged of a chat, and told with its answer.
    pub struct InlineModerationFields {
        /// `safelmm-policies`, or one of the OpenAI API's own names for it.
        pub model: String,
        /// What follows from it. What is left out is judged and told.
        pub policy: Option<ModerationPolicy>,
    }

    /// What follows from moderation.
    pub struct ModerationPolicy {
        /// For the conversation.
        pub input: Option<DirectionPolicy>,
        /// For the answers.
        pub output: Option<DirectionPolicy>,
    }

    /// What follows from moderation of what goes one way.
    pub struct DirectionPolicy {
        /// `score` tells what was found. `block` also refuses the conversation, or holds answers back until their end and
        /// empties those that are flagged, with `finish_reason` `content_filter`.
        pub mode: ModerationMode,
    }
}

/// What follows from moderation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModerationMode {
    /// It is told.
    #[default]
    Score,
    /// What is flagged goes no further.
    Block,
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
