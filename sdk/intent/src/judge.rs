//! Terms and rules put together: what a text asks for.

use std::ops::Range;

use crate::{Language, Lexicon, LexiconError, Normal, Rules, RulesError};

/// Why a policy's own data cannot be used; a fault of its build.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The terms.
    #[error(transparent)]
    Terms(#[from] LexiconError),
    /// The rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
}

/// What was found in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its category, such as `illicit/violent`.
    pub category: String,
    /// How sure the rule is, from 0 to 1.
    pub score: f32,
    /// The bytes from the first to the last term.
    pub span: Range<usize>,
    /// The language of the text.
    pub language: Language,
    /// The rule that held, counted from 0.
    pub rule: usize,
}

/// Judges texts by one lexicon and one list of rules.
pub struct Judge {
    lexicon: Lexicon,
    rules: Rules,
}

impl Judge {
    /// Loads terms that [`crate::compile`] wrote, and rules.
    ///
    /// # Errors
    /// Damaged terms, or rules that are none.
    pub fn new(terms: &'static [u8], rules: &str) -> Result<Self, DataError> {
        let lexicon = Lexicon::new(terms)?;
        let rules = Rules::new(rules, &lexicon)?;
        Ok(Self { lexicon, rules })
    }

    /// The rules that hold in a text, the surest first, each once; `known` is the language that is likeliest without the
    /// text.
    pub fn findings(&self, text: &str, known: Option<Language>) -> Vec<Found> {
        let normal = Normal::of(text);
        let reading = self.lexicon.read(text, &normal, known);
        let found = self.rules.matches(&normal, &reading);
        // The language of the terms that made a rule hold speaks louder than the guess.
        let of = |m: crate::Match<'_>| Found {
            category: m.category.into(),
            score: m.score,
            span: m.span,
            language: m.language,
            rule: m.rule,
        };
        found.into_iter().map(of).collect()
    }

    /// A message in a language, or in English where that language has none.
    pub fn message(&self, language: Language, key: &str) -> Option<&'static str> {
        self.lexicon.message(Some(language), key)
    }

    /// The terms.
    pub fn lexicon(&self) -> &Lexicon {
        &self.lexicon
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }
}
