//! The field `safelmm` of requests.

use safelmm_model::Rating;
use serde::Deserialize;
use utoipa::ToSchema;

use super::objects;
use crate::keys::Use;

/// How stores take part in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Not at all.
    Off,
    /// By the nearest neighbours of each token's context.
    Knn,
    /// By passages in front of the prompt.
    Ric,
    /// By the continuations of the longest matching context.
    Ngram,
    /// By neighbours and passages.
    Hybrid,
}

/// How finely the answer says where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Attribution {
    /// Not at all.
    None,
    /// By spans of text.
    Spans,
    /// By tokens.
    Tokens,
}

objects! {
    /// What is SafeLMM's own.
    #[derive(Default)]
    pub struct ExtensionFields {
        /// The ceiling of the answer; the server's default where none is named.
        #[schema(schema_with = rating)]
        pub rating: Option<Rating>,
        /// How strongly the rating steers; more than 1 costs a second pass.
        #[schema(minimum = 1, maximum = 10)]
        pub guidance: Option<f32>,
        /// What the answer will be used for.
        #[serde(rename = "use")]
        pub declared_use: Option<Use>,
        /// The stores to attach.
        pub stores: Option<Vec<String>>,
        /// How stores take part.
        pub retrieval: Option<Retrieval>,
        /// Whether the answer says where it comes from.
        pub attribution: Option<Attribution>,
        /// Documents that must not take part.
        pub exclude_documents: Option<Vec<String>>,
    }

    /// How stores take part in an answer.
    #[derive(Default)]
    pub struct Retrieval {
        /// By neighbours, passages, n-grams, or not at all.
        pub mode: Option<Mode>,
        /// How many neighbours.
        pub k: Option<usize>,
        /// The neighbours' share of each token's probability.
        #[schema(minimum = 0, maximum = 1)]
        pub lambda: Option<f32>,
        /// The temperature of the neighbours' distances.
        pub temperature: Option<f32>,
        /// How many passages.
        pub passages: Option<usize>,
    }
}

/// The schema of a rating, which the model crate defines.
pub fn rating() -> utoipa::openapi::Object {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::Type::String)
        .enum_values(Some(Rating::ALL.map(Rating::as_str)))
        .description(Some("The ceiling of the answer; the server's default where none is named."))
        .build()
}
