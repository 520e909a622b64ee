//! The plots of each rating. Word choice keeps to the lexicon of the rule: a G plot holds no listed word, a PG
//! plot only words of severity PG, an R plot several of severity R, an X plot several of severity X.

mod g;
mod pg;
mod r;
mod x;

use safelmm_model::Rating;

/// A plot: titles, and paragraphs in order. The opening of the rating comes before the paragraphs.
#[derive(Debug)]
pub(super) struct Plot {
    pub title: &'static str,
    pub paragraphs: &'static [&'static str],
}

impl Plot {
    #[cfg(test)]
    pub fn templates(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.title).chain(self.paragraphs.iter().copied())
    }
}

/// The plots of a rating.
pub(super) fn of(rating: Rating) -> &'static [Plot] {
    match rating {
        Rating::G => g::PLOTS,
        Rating::PG => pg::PLOTS,
        Rating::R => r::PLOTS,
        Rating::X => x::PLOTS,
    }
}

/// What follows "Once upon a time" or another opening of the rating.
pub(super) fn openings(rating: Rating) -> (&'static str, &'static str) {
    match rating {
        Rating::G => (g::ONCE, g::OTHER),
        Rating::PG => (pg::ONCE, pg::OTHER),
        Rating::R => (r::ONCE, r::OTHER),
        Rating::X => (x::ONCE, x::OTHER),
    }
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = &'static Plot> {
    Rating::ALL.into_iter().flat_map(|rating| of(rating).iter())
}
