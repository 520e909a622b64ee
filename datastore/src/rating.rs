//! Content ratings, ordered from the mildest to the strongest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The rating of a document, and the ceiling of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rating {
    /// For everyone.
    G,
    /// Parental guidance.
    PG,
    /// Restricted.
    R,
    /// Adults alone; also what bears no rating.
    X,
}

/// A string that is no rating.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rating: expected G, PG, R or X")]
pub struct RatingError(String);

impl Rating {
    /// All ratings, the mildest first.
    pub const ALL: [Rating; 4] = [Rating::G, Rating::PG, Rating::R, Rating::X];

    /// The name, as it stands in documents and requests.
    pub fn name(self) -> &'static str {
        match self {
            Rating::G => "G",
            Rating::PG => "PG",
            Rating::R => "R",
            Rating::X => "X",
        }
    }
}

impl fmt::Display for Rating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rating {
    type Err = RatingError;

    fn from_str(text: &str) -> Result<Rating, RatingError> {
        Rating::ALL.into_iter().find(|r| r.name() == text).ok_or_else(|| RatingError(text.to_owned()))
    }
}
