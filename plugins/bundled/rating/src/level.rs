//! Ratings as an ordered scale.

use safelmm_plugin::Rating;
use schemars::JsonSchema;
use serde::Deserialize;

/// How mature content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
pub enum Level {
    /// For everyone.
    G,
    /// Mild.
    PG,
    /// Mature: violence, strong language, drugs, sexual references.
    R,
    /// Explicit.
    X,
}

impl Level {
    /// The levels that can be above a ceiling.
    pub const ABOVE: [Level; 3] = [Level::PG, Level::R, Level::X];

    /// The category of a finding.
    pub fn category(self) -> &'static str {
        match self {
            Level::G => "rating/g",
            Level::PG => "rating/pg",
            Level::R => "rating/r",
            Level::X => "rating/x",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Level::G => "G",
            Level::PG => "PG",
            Level::R => "R",
            Level::X => "X",
        }
    }
}

impl From<Rating> for Level {
    fn from(rating: Rating) -> Self {
        match rating {
            Rating::G => Level::G,
            Rating::Pg => Level::PG,
            Rating::R => Level::R,
            Rating::X => Level::X,
        }
    }
}
