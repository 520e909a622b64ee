//! Content ratings: what a text may contain, as an ordered scale.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A content rating. The order is the order of what a text may contain: `G < PG < R < X`.
///
/// A request's rating is a ceiling; a passage's rating is what the passage holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rating {
    /// Suitable for everyone, young children included.
    G,
    /// Mild peril, mild language: suitable with parental guidance.
    PG,
    /// Violence, strong language, drugs or sexual references: for adults and older teenagers.
    R,
    /// Extreme or explicit content: for adults alone.
    X,
}

impl Rating {
    /// All ratings, lowest first.
    pub const ALL: [Rating; 4] = [Rating::G, Rating::PG, Rating::R, Rating::X];

    /// The name used in requests, in configuration and in control tokens: `"G"`, `"PG"`, `"R"`, `"X"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Rating::G => "G",
            Rating::PG => "PG",
            Rating::R => "R",
            Rating::X => "X",
        }
    }

    /// The control token that stands before a text of this rating, `<|rating:G|>` and so on.
    pub fn token(self) -> &'static str {
        match self {
            Rating::G => "<|rating:G|>",
            Rating::PG => "<|rating:PG|>",
            Rating::R => "<|rating:R|>",
            Rating::X => "<|rating:X|>",
        }
    }
}

impl fmt::Display for Rating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A string that names no rating.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown rating {0:?}: expected one of \"G\", \"PG\", \"R\", \"X\"")]
pub struct UnknownRating(pub String);

impl FromStr for Rating {
    type Err = UnknownRating;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Rating::ALL.into_iter().find(|r| r.as_str() == s).ok_or_else(|| UnknownRating(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_are_ordered_and_parse_their_own_names() {
        assert!(Rating::G < Rating::PG && Rating::PG < Rating::R && Rating::R < Rating::X);
        for rating in Rating::ALL {
            assert_eq!(rating.as_str().parse(), Ok(rating));
            assert!(rating.token().contains(rating.as_str()));
        }
        let error = "pg".parse::<Rating>().unwrap_err().to_string();
        assert!(error.contains("\"pg\"") && error.contains("\"PG\""));
    }
}
