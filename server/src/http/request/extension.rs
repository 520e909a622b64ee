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
    /// By neighbours and continuations, weighted for each token by what was found; with `passages` by these too.
    Hybrid,
}

/// How passages are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PassageRanking {
    /// By their words.
    Bm25,
    /// By their vectors.
    Dense,
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
        /// How the answer says where it comes from: `spans` where stores are named, unless it says otherwise.
        pub attribution: Option<Attribution>,
        /// Ids of documents that must not take part: the answer is as if the stores did not hold them.
        pub exclude_documents: Option<Vec<String>>,
    }

    /// How stores take part in an answer.
    #[derive(Default)]
    pub struct Retrieval {
        /// By neighbours, passages, n-grams, or not at all; where stores are named, `hybrid` unless it says otherwise.
        pub mode: Option<Mode>,
        /// How many neighbours; for `knn` and `hybrid`.
        #[schema(minimum = 1, maximum = 1024)]
        pub k: Option<usize>,
        /// The stores' share of each token's probability; for `knn` and `ngram`. `hybrid` chooses it for each token.
        #[schema(minimum = 0, maximum = 1)]
        pub lambda: Option<f32>,
        /// The temperature of the neighbours' squared distances, above 0; for `knn` and `hybrid`.
        pub temperature: Option<f32>,
        /// How many passages stand before the prompt; for `ric` (1 unless it says otherwise) and `hybrid` (none).
        #[schema(minimum = 1, maximum = 16)]
        pub passages: Option<usize>,
        /// How passages are ranked, `bm25` unless it says otherwise; where there are passages.
        pub ranking: Option<PassageRanking>,
        /// After how many tokens the passages are chosen anew, 64 unless it says otherwise; where there are passages.
        #[schema(minimum = 1, maximum = 4096)]
        pub stride: Option<usize>,
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
