//! Rated texts to learn from and to measure on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safelmm_learned::hash::{START, mix};
use safelmm_model::Rating;

use super::{PolicyModelError, languages, sources};
use crate::report::Report;

/// Where the texts come from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// A folder of JSON-lines files of documents. Those whose license is not permissive are left out.
    pub corpora: PathBuf,
    /// A folder with a file of rated sentences for each language, named `de.txt`.
    pub sentences: PathBuf,
    /// Labelled tweets (Davidson et al. 2017, "Automated Hate Speech Detection and the Problem of Offensive Language").
    pub tweets: Option<PathBuf>,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// Where a text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A sentence of a document, rated by the rule.
    Documents,
    /// Written for the purpose, with its rating.
    Sentences,
    /// A piece of an innocent sentence with terms of the rule's word lists.
    Terms,
    /// A sentence of a generated story, rated by the rule.
    Stories,
    /// A tweet; hate and offensive language are R, the others what the rule says, at most PG.
    Tweets,
}

impl Source {
    /// All of them.
    pub const ALL: [Source; 5] = [Source::Documents, Source::Sentences, Source::Terms, Source::Stories, Source::Tweets];

    /// Of a hundred texts, how many calibrate the scores and how many are held out.
    fn shares(self) -> (u64, u64) {
        match self {
            Source::Documents | Source::Stories => (5, 10),
            Source::Sentences => (5, 20),
            // The same terms stand in all parts: nothing to measure.
            Source::Terms => (5, 0),
            Source::Tweets => (5, 50),
        }
    }
}

/// What a text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Weights are learned from it.
    Train,
    /// Scores are calibrated on it.
    Calibrate,
    /// Nothing is learned from it.
    HeldOut,
}

/// A rated text of one sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The text.
    pub text: String,
    /// ISO 639-1.
    pub language: &'static str,
    /// Its rating.
    pub rating: Rating,
    /// Where it comes from.
    pub source: Source,
    /// What it is for.
    pub part: Part,
}

impl Example {
    /// An example; its part follows from the hash of its text.
    pub fn new(text: String, language: &'static str, rating: Rating, source: Source) -> Self {
        let part = part_of(&text, source);
        Example { text, language, rating, source, part }
    }
}

/// The part that a text of a source belongs to.
pub fn part_of(text: &str, source: Source) -> Part {
    let hash = text.chars().fold(START, |hash, c| mix(hash, c as u32));
    let place = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 100;
    let (calibrate, held_out) = source.shares();
    match place {
        place if place < held_out => Part::HeldOut,
        place if place < held_out + calibrate => Part::Calibrate,
        _ => Part::Train,
    }
}

/// The most sentences of documents in one language; drawn at random where there are more.
const MOST_SENTENCES: usize = 30_000;
/// Texts made from the word lists, for each language and rating; for English, whose list is the longest by far, more.
const TERM_TEXTS: usize = 300;
const ENGLISH_TERM_TEXTS: usize = 2000;
/// Stories for each rating.
const STORIES: usize = 150;

/// Everything that the recipe gives, in an order that depends on nothing but files and seed.
///
/// # Errors
/// When a file cannot be read or a language has no text.
pub fn gather(recipe: &Recipe, report: &mut Report) -> Result<Vec<Example>, PolicyModelError> {
    let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
    let mut documents = sources::documents(&recipe.corpora, report)?;
    let mut examples = sources::sentences(&recipe.sentences)?;
    for language in languages::all() {
        let sentences = documents.remove(language).unwrap_or_default();
        let innocent: Vec<&str> = sentences.iter().filter(|e| e.rating == Rating::G).map(|e| e.text.as_str()).collect();
        if innocent.is_empty() {
            return Err(PolicyModelError::Data(format!(
                "{}: no permissive document in '{language}': each of the 31 languages needs some innocent text, such as the \
                 Universal Declaration of Human Rights",
                recipe.corpora.display()
            )));
        }
        let count = if language == "en" { ENGLISH_TERM_TEXTS } else { TERM_TEXTS };
        examples.extend(sources::terms(language, &innocent, count, &mut random));
        examples.extend(draw(sentences, MOST_SENTENCES, &mut random));
    }
    examples.extend(sources::stories(recipe.seed, STORIES));
    if let Some(tweets) = &recipe.tweets {
        examples.extend(sources::tweets(tweets)?);
    }
    Ok(examples)
}

/// At most `most` of them, in their order.
fn draw(mut examples: Vec<Example>, most: usize, random: &mut ChaCha8Rng) -> Vec<Example> {
    let (mut left, mut wanted) = (examples.len(), most.min(examples.len()));
    examples.retain(|_| {
        let taken = random.random_range(0..left) < wanted;
        left -= 1;
        wanted -= usize::from(taken);
        taken
    });
    examples
}

/// How many texts there are, by source, language and rating.
pub fn counts(examples: &[Example]) -> BTreeMap<(Source, &'static str, Rating), usize> {
    let mut counts = BTreeMap::new();
    for example in examples {
        *counts.entry((example.source, example.language, example.rating)).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_their_shares_and_are_fixed() {
        let count = |source, part| (0..2000).filter(|i| part_of(&format!("text {i}"), source) == part).count();
        assert!((900..1100).contains(&count(Source::Tweets, Part::HeldOut)));
        assert!((320..480).contains(&count(Source::Sentences, Part::HeldOut)));
        assert_eq!(count(Source::Terms, Part::HeldOut), 0);
        assert_eq!(part_of("abc", Source::Tweets), part_of("abc", Source::Tweets));
    }

    #[test]
    fn drawing_keeps_the_order_and_the_number() {
        let examples: Vec<_> =
            (0..100).map(|i| Example::new(format!("{i:03}"), "en", Rating::G, Source::Documents)).collect();
        let drawn = draw(examples, 30, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(drawn.len(), 30);
        assert!(drawn.is_sorted_by(|a, b| a.text < b.text));
    }
}
