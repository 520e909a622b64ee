//! The body of `POST /v1/chat/completions`.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::{InlineModerationFields, generation_request, objects};
use crate::http::json::{Any, Object};

generation_request! {
    /// A conversation to go on with.
    pub struct ChatRequest {
        /// What was said up to now.
        pub messages: Vec<Message>,
        /// Tokens of an answer, at most; what the context has room for where nothing is named.
        pub max_completion_tokens: Option<usize>,
        /// The older name of `max_completion_tokens`.
        #[schema(deprecated)]
        pub max_tokens: Option<usize>,
        /// Whether the answer tells the log-probabilities of its tokens.
        pub logprobs: Option<bool>,
        /// And of this many of the most probable ones in each place; needs `logprobs`.
        #[schema(minimum = 0, maximum = 20)]
        pub top_logprobs: Option<usize>,
        /// What form the answer must have.
        pub response_format: Option<ResponseFormat>,
        /// Functions that the model may call.
        pub tools: Option<Vec<Tool>>,
        /// Whether the model may, must or must not call them.
        pub tool_choice: Option<ToolChoice>,
        /// Whether the model may call several functions in one answer.
        pub parallel_tool_calls: Option<bool>,
        /// Has the policies judge the conversation and the answers, and the answer say what they found.
        pub moderation: Option<InlineModerationFields>,
        /// Not supported: only null. `tools` does the same.
        #[schema(deprecated)]
        pub functions: Option<Any>,
        /// Not supported: only null. `tool_choice` does the same.
        #[schema(deprecated)]
        pub function_call: Option<Any>,
        /// Not supported: only `"none"`. The model does not reason before it answers.
        pub reasoning_effort: Option<Any>,
        /// Not supported: only false. Nothing is kept.
        pub store: Option<Any>,
        /// Not supported: only empty. Nothing is kept.
        pub metadata: Option<Any>,
        /// Not supported: only `"auto"` or `"default"`.
        pub service_tier: Option<Any>,
        /// Not supported: only `["text"]`.
        pub modalities: Option<Any>,
        /// Not supported: only null.
        pub audio: Option<Any>,
        /// Not supported: only null.
        pub prediction: Option<Any>,
        /// Not supported: only null. The model searches nothing.
        pub web_search_options: Option<Any>,
    }
}

objects! {
    /// One message of a conversation.
    pub struct Message {
        /// Who speaks: `system`, `user`, `assistant`, `tool`, or another role that the model's template knows.
        pub role: String,
        /// What is said. May be null where an assistant calls tools.
        pub content: Option<Content>,
        /// The speaker's name, for templates that show it.
        pub name: Option<String>,
        /// The functions that an assistant called.
        pub tool_calls: Option<Vec<ToolCall>>,
        /// Which call a message of the role `tool` answers.
        pub tool_call_id: Option<String>,
        /// Not supported: only null.
        pub refusal: Option<Any>,
        /// Not supported: only null.
        pub audio: Option<Any>,
        /// Not supported: only null.
        #[schema(deprecated)]
        pub function_call: Option<Any>,
        /// Not supported: only empty.
        pub annotations: Option<Any>,
    }

    /// A part of a message.
    pub struct ContentPart {
        /// What the part is: this server reads text.
        #[serde(rename = "type")]
        pub kind: PartKind,
        /// The text.
        pub text: String,
    }

    /// A function that an assistant called.
    pub struct ToolCall {
        /// The call's id, which its answer names.
        pub id: String,
        /// What was called.
        #[serde(rename = "type")]
        pub kind: Option<ToolKind>,
        /// The function and its arguments.
        pub function: FunctionCall,
        /// The place of the call, as streams have it; without meaning here.
        pub index: Option<usize>,
    }

    /// A function and its arguments.
    pub struct FunctionCall {
        /// The function's name.
        pub name: String,
        /// The arguments, as a text of JSON.
        pub arguments: String,
    }

    /// Something that the model may call.
    pub struct Tool {
        /// What it is.
        #[serde(rename = "type")]
        pub kind: ToolKind,
        /// The function.
        pub function: Function,
    }

    /// A function that the model may call.
    pub struct Function {
        /// Its name: up to 64 letters, digits, `_` and `-`.
        #[schema(max_length = 64, pattern = "^[a-zA-Z0-9_-]{1,64}$")]
        pub name: String,
        /// What it does, for the model.
        pub description: Option<String>,
        /// A JSON Schema of its arguments.
        pub parameters: Option<Any>,
        /// Whether the arguments must follow the schema; they do whenever a call is required.
        pub strict: Option<bool>,
    }

    /// The one function that the model must call.
    pub struct NamedTool {
        /// What it is.
        #[serde(rename = "type")]
        pub kind: ToolKind,
        /// Which.
        pub function: FunctionName,
    }

    /// A function's name.
    pub struct FunctionName {
        /// As `tools` has it.
        pub name: String,
    }

    /// What form an answer must have.
    pub struct ResponseFormat {
        /// Free text, any JSON object, or JSON of a schema.
        #[serde(rename = "type")]
        pub kind: FormatKind,
        /// The schema, with the type `json_schema`.
        pub json_schema: Option<JsonSchema>,
    }

    /// A named JSON Schema.
    pub struct JsonSchema {
        /// Its name: up to 64 letters, digits, `_` and `-`.
        #[schema(max_length = 64, pattern = "^[a-zA-Z0-9_-]{1,64}$")]
        pub name: String,
        /// What it is for, for the reader.
        pub description: Option<String>,
        /// The schema; any object where there is none.
        pub schema: Option<Any>,
        /// Whether the answer must follow the schema; it always does.
        pub strict: Option<bool>,
    }
}

/// What a part of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// Text.
    Text,
}

/// What a tool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolKind {
    /// A function.
    Function,
}

/// What form an answer must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatKind {
    /// Free text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema,
}

/// What a message says.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts, which are put together as they are.
    Parts(Vec<ContentPart>),
}

impl Content {
    /// All of it as one text.
    pub fn text(&self) -> String {
        match self {
            Content::Text(text) => text.clone(),
            Content::Parts(parts) => parts.iter().map(|part| &part.text[..]).collect(),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of text parts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }

        deserializer.deserialize_any(Form)
    }
}

/// Whether the model calls functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolMode {
    /// As it sees fit.
    #[default]
    Auto,
    /// Not.
    None,
    /// At least one.
    Required,
}

/// Whether the model calls functions, or which.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum ToolChoice {
    /// Whether.
    Mode(ToolMode),
    /// Which.
    Named(NamedTool),
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = ToolChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\", \"none\", \"required\" or an object that names a function")
            }

            fn visit_str<E: de::Error>(self, mode: &str) -> Result<ToolChoice, E> {
                match mode {
                    "auto" => Ok(ToolChoice::Mode(ToolMode::Auto)),
                    "none" => Ok(ToolChoice::Mode(ToolMode::None)),
                    "required" => Ok(ToolChoice::Mode(ToolMode::Required)),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoice, A::Error> {
                NamedTool::of_map(map).map(ToolChoice::Named)
            }
        }

        deserializer.deserialize_any(Form)
    }
}
