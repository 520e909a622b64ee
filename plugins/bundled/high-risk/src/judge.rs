//! The judgement itself, apart from the contract with the server.

use std::ops::Range;

use safelmm_intent::{Language, Lexicon, LexiconError, Normal, Rules, RulesError};

/// The terms of all languages.
const TERMS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/terms.bin"));

/// Rules for what people ask.
const PROMPT_RULES: &str = include_str!("rules.txt");

/// Why the policy's own data cannot be used; a fault of the build.
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
    pub language: Option<Language>,
    /// The rule that held, counted from 0.
    pub rule: usize,
}

/// Judges texts.
pub struct Judge {
    lexicon: Lexicon,
    prompts: Rules,
}

impl Judge {
    /// Loads the compiled data.
    ///
    /// # Errors
    /// Data that this build should not have.
    pub fn new() -> Result<Self, DataError> {
        let lexicon = Lexicon::new(TERMS)?;
        let prompts = Rules::new(PROMPT_RULES, &lexicon)?;
        Ok(Self { lexicon, prompts })
    }

    /// What a prompt asks for, the surest first; one finding for each rule that holds.
    pub fn prompt(&self, text: &str, known: Option<Language>) -> Vec<Found> {
        let normal = Normal::of(text);
        let reading = self.lexicon.read(text, &normal, known);
        let found = self.prompts.matches(&normal, &reading);
        let of = |m: safelmm_intent::Match<'_>| Found {
            category: m.category.into(),
            score: m.score,
            span: m.span,
            language: reading.language.or(Some(m.language)),
            rule: m.rule,
        };
        found.into_iter().map(of).collect()
    }
}
