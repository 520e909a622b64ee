//! The bodies of requests about stores.

use safelmm_model::Rating;

use super::extension::{PassageRanking, rating};
use super::objects;
use crate::keys::Use;

objects! {
    /// A store to make.
    pub struct StoreRequest {
        /// Its name: letters, digits, `-`, `_` and `.`.
        #[schema(min_length = 1, max_length = 64)]
        pub name: String,
    }

    /// Documents for a store.
    pub struct DocumentsRequest {
        /// The documents. One that is there already, just so, changes nothing; another one with its id replaces it.
        pub documents: Vec<DocumentFields>,
    }

    /// A text with its license and provenance.
    pub struct DocumentFields {
        /// Unique within the store.
        #[schema(min_length = 1)]
        pub id: String,
        /// The text.
        #[schema(min_length = 1)]
        pub text: String,
        /// The license, as an SPDX expression: without one there is no entry.
        pub license: String,
        /// Title of the work.
        pub title: Option<String>,
        /// Author of the work.
        pub author: Option<String>,
        /// Where it can be found.
        pub url: Option<String>,
        /// Language code.
        pub lang: Option<String>,
        /// Content rating; a document without one is for requests up to X alone.
        #[schema(schema_with = rating)]
        pub rating: Option<Rating>,
        /// Who holds the rights, where that is not the author.
        pub rights_holder: Option<String>,
        /// What the rights holder allows, where the license does not say it.
        pub permissions: Option<PermissionFields>,
        /// Where the collection came from.
        pub source: Option<String>,
    }

    /// What the rights holder of a document allows.
    pub struct PermissionFields {
        /// Whether a model may be trained on it.
        pub train: Option<bool>,
        /// Whether it may inform answers.
        pub retrieve: Option<bool>,
    }

    /// Words to look for in a store.
    pub struct SearchRequest {
        /// The words.
        #[schema(min_length = 1)]
        pub query: String,
        /// How passages are ranked, `bm25` unless it says otherwise.
        pub ranking: Option<PassageRanking>,
        /// How many passages, 10 unless it says otherwise.
        #[schema(minimum = 1, maximum = 100)]
        pub n: Option<usize>,
        /// What the passages will be used for, `commercial` unless it says otherwise.
        #[serde(rename = "use")]
        pub declared_use: Option<Use>,
        /// The ceiling of the passages; the server's default where none is named.
        #[schema(schema_with = rating)]
        pub rating: Option<Rating>,
        /// Ids of documents that must not be found.
        pub exclude_documents: Option<Vec<String>>,
    }

    /// A text whose origin is asked for.
    pub struct AttributionRequest {
        /// The text.
        #[schema(min_length = 1)]
        pub text: String,
        /// The stores to compare it with. The index of the training text, where there is one, is looked at in any case.
        pub stores: Option<Vec<String>>,
        /// The shortest stretch that is told, in tokens, 8 unless it says otherwise.
        #[schema(minimum = 2, maximum = 1024)]
        pub min_tokens: Option<usize>,
        /// What the answer will be used for, `commercial` unless it says otherwise.
        #[serde(rename = "use")]
        pub declared_use: Option<Use>,
        /// The ceiling of the documents; the server's default where none is named.
        #[schema(schema_with = rating)]
        pub rating: Option<Rating>,
        /// Ids of documents that must not be told.
        pub exclude_documents: Option<Vec<String>>,
    }
}
