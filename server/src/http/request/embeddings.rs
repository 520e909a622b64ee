//! The body of `POST /v1/embeddings`.

use serde::Deserialize;
use utoipa::ToSchema;

use super::Prompt;
use super::objects;

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// The little-endian bytes of the f32 numbers, in base64.
    Base64,
}

objects! {
    /// Texts to embed.
    pub struct EmbeddingRequest {
        /// A text, a list of texts, a list of token ids, or a list of such lists; up to 2048.
        pub input: Prompt,
        /// The model's id, as `/v1/models` tells it. May be left out.
        pub model: Option<String>,
        /// How vectors are written; `"float"` where nothing is named.
        pub encoding_format: Option<Encoding>,
        /// The length of the vectors, which is the model's own: no other is possible.
        pub dimensions: Option<usize>,
        /// The client's own name for its user, up to 256 bytes: the log records it.
        #[schema(max_length = 256)]
        pub user: Option<String>,
    }
}
