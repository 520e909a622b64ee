//! Constrained decoding: grammars that a generated text must follow, as stages of the logits chain.
//!
//! The work is `llguidance`'s (Earley parser over a lexer of regex derivatives, walked along a trie of the vocabulary). A
//! grammar speaks of bytes, so that any spelling of the text in tokens is allowed, and the end-of-sequence tokens exactly
//! where the grammar may end.
//!
//! JSON is written compactly, with at most one space behind `,` and `:` and no other whitespace: a small model that may
//! write whitespace between tokens seldom stops doing so. Properties come in the schema's order. What
//! [`Grammars::json_schema`] takes is what it guarantees: a keyword that cannot be honoured is refused.

mod schema;
mod stage;
#[cfg(test)]
mod tests;
mod tool_calls;
mod vocabulary;

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory, panic_utils};
use serde_json::{Value, json};

use crate::logits::LogitsStage;
use crate::tokenizer::Tokenizer;

/// Why there is no grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The tokenizer cannot serve constrained decoding; no request can change that.
    #[error("this model's tokenizer cannot be constrained: {0}")]
    Tokenizer(String),
    /// The client's schema is wrong, asks what is not supported, or is too large. `at` is a JSON pointer into it, `""` for
    /// the whole.
    #[error("the JSON schema cannot be used{}: {reason}", if at.is_empty() { String::new() } else { format!(" at {at}") })]
    Schema {
        /// The part at fault.
        at: String,
        /// What is wrong with it and what is expected.
        reason: String,
    },
}

/// Bounds that keep a hostile schema from stalling the server (figures are those of one core).
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2000,
    initial_lexer_fuel: 1_000_000, // 20 ms
    step_lexer_fuel: 200_000,      // 15 ms for one token's mask
    step_max_items: 50_000,        // 3 ms
    max_lexer_states: 20_000,      // 40 MB for one sequence
    max_grammar_size: 100_000,
    precompute_large_lexemes: false, // would walk the whole vocabulary for each
    verbose_errors: false,
};

/// All grammars of one tokenizer: its vocabulary as a trie, built once.
pub struct Grammars {
    factory: ParserFactory,
    vocab_size: usize,
    /// The markers of tool calls that are control tokens, with their ids.
    control_markers: Vec<(String, u32)>,
}

impl Grammars {
    /// Builds the trie; `vocab_size` is the decoder's, which may be padded beyond the tokenizer's. Takes a fraction of a
    /// second for a large vocabulary.
    ///
    /// # Errors
    /// [`GrammarError::Tokenizer`]: no end-of-sequence token, or a decoder whose tokens have no text of their own.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Self, GrammarError> {
        let env = vocabulary::environment(tokenizer, vocab_size)?;
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let factory = guarded(|| ParserFactory::new(&env, toktrie::InferenceCapabilities::default(), &slices));
        let mut factory = factory.map_err(GrammarError::Tokenizer)?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        let marker_ids = tokenizer.tool_marker_ids().iter();
        let control_markers = marker_ids.filter_map(|&id| Some((tokenizer.token_text(id)?, id))).collect();
        Ok(Self { factory, vocab_size, control_markers })
    }

    /// Any JSON object.
    ///
    /// # Errors
    /// None that a request can cause.
    pub fn json_object(&self) -> Result<Grammar, GrammarError> {
        self.json_schema(&json!({"type": "object"}))
    }

    /// JSON that is valid under `schema`: draft 2020-12 and its predecessors without `not`, `if`, `dependent…`,
    /// `unevaluated…`, `contains`, `uniqueItems`, `propertyNames`, references out of the schema, and `oneOf` whose branches are
    /// not plainly disjoint. Numbers of `const` and `enum` may come in another spelling (`1.0` for `1`).
    ///
    /// # Errors
    /// [`GrammarError::Schema`].
    pub fn json_schema(&self, schema: &Value) -> Result<Grammar, GrammarError> {
        let prepared = schema::prepared(schema)?;
        let json = GrammarWithLexer::from_json_schema(prepared);
        let compiled = self.compile(TopLevelGrammar::from_grammar(json));
        compiled.map_err(|reason| schema::blamed(schema, reason))
    }

    /// Compiles, with the error's text on failure.
    fn compile(&self, grammar: TopLevelGrammar) -> Result<Grammar, String> {
        let parser = guarded(|| self.factory.create_parser(grammar))?;
        // No sequence may begin without a first token.
        let mut matcher = Matcher::new(Ok(parser));
        matcher.compute_mask_or_eos().map_err(|e| one_line(&e))?;
        Ok(Grammar { matcher: Arc::new(Mutex::new(matcher)), vocab_size: self.vocab_size })
    }
}

/// A compiled grammar. Cheap to clone; a clone is the same grammar.
#[derive(Clone)]
pub struct Grammar {
    /// At the start; the lock is held only while it is copied.
    matcher: Arc<Mutex<Matcher>>,
    vocab_size: usize,
}

impl Grammar {
    /// A fresh matcher for one sequence. It shares nothing with other sequences, so that none can slow another down.
    ///
    /// It ends the sequence with an error if a token was drawn that it had forbidden, if the limits of a mask's computation
    /// are exceeded, and if the logits are not those of the model. Behind the text's end it allows end-of-sequence tokens
    /// alone, however long the sequence goes on.
    pub fn stage(&self) -> Box<dyn LogitsStage> {
        let matcher = self.matcher.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        Box::new(stage::GrammarStage::new(matcher, self.vocab_size))
    }
}

/// Runs what may panic on input that its authors did not think of. `llguidance` itself guards a matcher's methods and the
/// making of a parser in this way, and not the rest.
fn guarded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> Result<T, String> {
    panic_utils::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|e| one_line(&e))
}

/// An error's causes in one line, without backtrace and parser state.
fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let text = text.split("\n<").next().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
