//! Documents of stores, as policies are told of them.

use safelmm_datastore::{DocumentInfo, Obligation, Rating};
use safelmm_plugins::{self as plugins, Document};

/// A document of a store.
pub fn document(info: DocumentInfo, store: &str) -> Document {
    Document {
        id: info.id,
        store: store.to_owned(),
        title: info.title,
        author: info.author,
        license: info.license.to_string(),
        url: info.url,
        language: Some(info.lang).filter(|language| !language.is_empty()),
        rating: Some(rating(info.rating)),
        obligations: info.obligations.into_iter().map(obligation).collect(),
    }
}

/// The rating of a document.
pub fn rating(rating: Rating) -> plugins::Rating {
    match rating {
        Rating::G => plugins::Rating::G,
        Rating::PG => plugins::Rating::PG,
        Rating::R => plugins::Rating::R,
        Rating::X => plugins::Rating::X,
    }
}

/// What a license asks.
pub fn obligation(obligation: Obligation) -> plugins::Obligation {
    match obligation {
        Obligation::Attribution => plugins::Obligation::Attribution,
        Obligation::ShareAlike => plugins::Obligation::ShareAlike,
        Obligation::NonCommercial => plugins::Obligation::NonCommercial,
        Obligation::NoDerivatives => plugins::Obligation::NoDerivatives,
    }
}
