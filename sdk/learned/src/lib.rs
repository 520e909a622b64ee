//! What the learned policies (`rating`, `perplexity`) and the trainer that makes their weights share.
//!
//! Features are extracted here and nowhere else, so that a model meets in service what it met in training. Models are plain
//! bytes with a head that says how to read them; reading checks everything and never panics.

pub mod fold;
pub mod hash;

pub mod features;
pub mod sentences;

mod bytes;
pub mod contrast;
pub mod language_model;
pub mod rating_model;

pub use bytes::ModelError;
pub use language_model::LanguageModel;
pub use rating_model::RatingModel;
