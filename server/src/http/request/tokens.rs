//! The bodies of `POST /tokenize` and `POST /detokenize`.

use super::chat::{Message, Tool};
use super::objects;

objects! {
    /// A text, or a conversation, to turn into tokens: one of `prompt` and `messages`.
    pub struct TokenizeRequest {
        /// The model's id, as `/v1/models` tells it. May be left out.
        pub model: Option<String>,
        /// A text.
        pub prompt: Option<String>,
        /// A conversation, to be put through the chat template.
        pub messages: Option<Vec<Message>>,
        /// Functions that the conversation's model may call; with `messages`.
        pub tools: Option<Vec<Tool>>,
        /// Whether the beginning of the next answer stands behind the messages; true where nothing is said.
        pub add_generation_prompt: Option<bool>,
        /// Whether the tokenizer puts its own tokens around a text: true where nothing is said. A template writes its
        /// own, so that with `messages` only false is possible.
        pub add_special_tokens: Option<bool>,
        /// Whether the answer spells the tokens too.
        pub return_token_strs: Option<bool>,
    }

    /// Tokens to turn into text.
    pub struct DetokenizeRequest {
        /// The model's id, as `/v1/models` tells it. May be left out.
        pub model: Option<String>,
        /// Token ids.
        pub tokens: Vec<u32>,
    }
}
