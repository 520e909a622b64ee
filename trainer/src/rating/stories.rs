//! Writes short rated stories and chats in English, for training a small model that heeds rating tags.
//!
//! Stories of every rating open alike, half of them with "Once upon a time", so that what tells them apart is the
//! tag and not the prompt. The words are simple, a hero has a name, a place, a trouble, a companion and an ending,
//! and the sentences are combined from many shapes. What a story is rated is not taken on trust: the
//! [rule](super::rate) rates each story, and one that it rates otherwise is not given out.

mod cast;
mod dialogue;
mod grammar;
mod plots;
mod rng;

use safelmm_model::Rating;

use super::{rate, rating_of};
use cast::Cast;
use rng::Rng;

/// Shortest and longest story, in words.
const WORDS: std::ops::RangeInclusive<usize> = 120..=350;
/// Attempts before a story is taken with whatever rating the rule gives it.
const ATTEMPTS: usize = 64;

/// A story and its rating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// A title, not part of the text.
    pub title: String,
    /// Paragraphs with an empty line between them; 120 to 350 words.
    pub text: String,
    /// What the rule rates the text.
    pub rating: Rating,
}

/// Writes stories and chats; the same seed and calls give the same texts on every machine.
#[derive(Clone, Debug)]
pub struct StoryGenerator {
    rng: Rng,
    rejected: usize,
}

impl StoryGenerator {
    /// A generator for a seed.
    pub fn new(seed: u64) -> Self {
        StoryGenerator { rng: Rng::new(seed), rejected: 0 }
    }

    /// The next story, rated as asked.
    pub fn story(&mut self, rating: Rating) -> Story {
        self.cast_story(rating).1
    }

    /// A chat of one or two turns, as pairs of what the user says and what the assistant answers: requests for a
    /// story, answered with one of the rating that holds what was asked for, and questions about the assistant.
    pub fn dialogue(&mut self, rating: Rating) -> Vec<(String, String)> {
        dialogue::write(self, rating)
    }

    /// How many drafts were thrown away for their length or rating.
    pub fn rejected(&self) -> usize {
        self.rejected
    }

    fn cast_story(&mut self, rating: Rating) -> (Cast, Story) {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let cast = Cast::new(rating, &mut self.rng);
            let mut story = self.draft(rating, &cast);
            let judgement = rate(&story.text);
            let title_fits = rating_of(&story.title) <= rating;
            if (WORDS.contains(&judgement.words) && judgement.rating == rating && title_fits) || attempt == ATTEMPTS {
                story.rating = judgement.rating;
                return (cast, story);
            }
            self.rejected += 1;
        }
    }

    fn draft(&mut self, rating: Rating, cast: &Cast) -> Story {
        let plots = plots::of(rating);
        let plot = &plots[self.rng.below(plots.len())];
        let (once, other) = plots::openings(rating);
        let opening = if self.rng.one_in(2) { once.to_owned() } else { format!("{{{other}}}") };
        let mut template = opening;
        for (i, paragraph) in plot.paragraphs.iter().enumerate() {
            // the opening runs on into the first paragraph, or stands alone
            template.push(if i == 0 && self.rng.one_in(2) { ' ' } else { '\n' });
            template.push_str(paragraph);
        }
        Story {
            title: grammar::write(plot.title, cast, &mut self.rng),
            text: grammar::write(&template, cast, &mut self.rng),
            rating,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_story_has_the_rating_and_the_length_asked_for() {
        for seed in 0..1500 {
            let mut generator = StoryGenerator::new(seed);
            for rating in Rating::ALL {
                let story = generator.story(rating);
                let judgement = rate(&story.text);
                assert_eq!(judgement.rating, rating, "seed {seed}: {:?}\n{}", judgement.findings, story.text);
                assert_eq!(story.rating, rating);
                assert!(WORDS.contains(&judgement.words), "{} words", judgement.words);
                assert!(!story.text.contains(['{', '}', '|', '$']), "{}", story.text);
                if rating == Rating::G {
                    assert!(judgement.findings.is_empty(), "{:?}", judgement.findings);
                }
            }
        }
    }

    #[test]
    fn the_grammar_itself_keeps_the_rating() {
        let mut generator = StoryGenerator::new(7);
        for i in 0..2000 {
            generator.story(Rating::ALL[i % 4]);
        }
        assert_eq!(generator.rejected(), 0, "drafts thrown away");
    }

    #[test]
    fn a_seed_fixes_the_stories() {
        let stories = |seed| {
            let mut generator = StoryGenerator::new(seed);
            (0..8).map(|i| generator.story(Rating::ALL[i % 4])).collect::<Vec<_>>()
        };
        assert_eq!(stories(3), stories(3));
        assert_ne!(stories(3), stories(4));
    }

    #[test]
    fn half_of_each_rating_opens_with_once_upon_a_time_and_stories_differ() {
        for rating in Rating::ALL {
            let mut generator = StoryGenerator::new(11);
            let stories: Vec<Story> = (0..1000).map(|_| generator.story(rating)).collect();
            let once = stories.iter().filter(|s| s.text.starts_with("Once upon a time")).count();
            assert!((400..=600).contains(&once), "{rating}: {once} of 1000");
            let distinct: HashSet<&str> = stories.iter().map(|s| s.text.as_str()).collect();
            assert_eq!(distinct.len(), stories.len());
        }
    }
}
