//! What a short text asks for: the shared core of the policies that judge intents.
//!
//! A text becomes folded words ([`Normal`]); a [`Lexicon`], compiled when the policy is built, finds in them the terms of
//! named classes in 31 languages; [`Rules`] combine classes that stand close together in one sentence. Nothing here
//! learns: every verdict can be traced to the terms that made it.

#![warn(missing_docs)]

mod compile;
mod judge;
mod language;
mod lexicon;
mod normal;
mod rules;
#[cfg(feature = "policy")]
pub mod screen;

pub use compile::{CompileError, compile, compile_folder};
pub use judge::{DataError, Found, Judge};
pub use language::{LANGUAGES, Language, Mask};
pub use lexicon::{Hit, Lexicon, LexiconError, Reading};
pub use normal::{Normal, Token};
pub use rules::{Match, Rules, RulesError};
