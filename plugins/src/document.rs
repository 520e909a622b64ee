//! What policies are told of stores: documents and their passages.

use crate::request::Rating;

/// What a license asks of whoever passes a text on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obligation {
    /// To name the author.
    Attribution,
    /// To share under the same terms.
    ShareAlike,
    /// Not to earn money.
    NonCommercial,
    /// Not to change it.
    NoDerivatives,
}

/// A document of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its id in its store.
    pub id: String,
    /// The store.
    pub store: String,
    /// Its title.
    pub title: String,
    /// Who wrote it.
    pub author: String,
    /// SPDX identifier or expression.
    pub license: String,
    /// Where it came from.
    pub url: String,
    /// ISO 639-1, where it is known.
    pub language: Option<String>,
    /// Its rating, where it has one.
    pub rating: Option<Rating>,
    /// What its license asks.
    pub obligations: Vec<Obligation>,
}

/// A passage that is to stand in the context.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// Where it comes from.
    pub source: Document,
    /// How well it fits, the more the better.
    pub score: f32,
    /// The passage.
    pub text: String,
}
