//! Content ratings for text: the rule that rates a passage, and a generator of rated stories.
//!
//! # The rule
//!
//! A model that heeds rating tags needs every training passage tagged, and the tag has to come from a rule that can be
//! read, repeated and argued with. [`rate`] judges what a text *contains*, in the manner of film ratings:
//!
//! - **G**: nothing of concern.
//! - **PG**: mild peril, mild insults, a sword drawn, a tavern, somebody's death mentioned.
//! - **R**: killing told, strong profanity, drugs, sexual references.
//! - **X**: gore and cruelty in detail, or explicit matter.
//!
//! It looks words and turns of phrase up in a lexicon of six categories ([`Category`]), each term with a severity of
//! PG, R or X. The lexicon is fullest for English, with its inflections; thirty other languages ([`languages`])
//! have shorter lists of strong words. Case, soft hyphens and zero-width characters make no difference. A word that
//! is innocent in another of the languages counts only in a text whose commonest small words are of its own
//! language; a text without any of these is taken for English. Known innocent phrases ("shooting star") count for nothing.
//!
//! A text of up to 500 words is one passage; a longer one is cut into passages of about 300 words and has the
//! rating of its strongest. A passage of *n* words (counted as 100 if shorter) is
//!
//! - **X** if it holds an X term for every 150 words and at least three different terms of severity R or X;
//! - else **R** if it holds any X term, or an R term for every 150 words, where six PG terms beside an R term weigh as
//!   one more R term;
//! - else **PG** if it holds any R term, or a PG term for every 150 words;
//! - else **G**.
//!
//! Density decides because single words mislead: one "killed" in 300 words of a fable or a report is a mention and
//! PG, the same word in a line of dialogue, or three of them in a page, is what the text is about. One "wine" in a page does not
//! make a children's book PG. X asks for several different terms because a
//! single "mutilation" is as likely to stand in a law or a news report as in a horror story.
//!
//! # Limits
//!
//! A lexicon is not a judge of meaning. It cannot tell a threat from a joke, a report or a textbook from a thriller;
//! it misses cruelty told in plain words, misspelt words, words split by signs, and any language it has no
//! list for, which it rates G. Text should be in Unicode normal form C: a list holds composed letters only. The short lists miss
//! inflected forms. Use the rating as a training tag and a first filter, never as the only guard of a product.
//!
//! # Stories
//!
//! [`StoryGenerator`] writes stories whose rating under this rule is known, and chats that stay at or below theirs, in
//! equal number for each rating, which no natural corpus offers: most of what is free to train on is G or PG.

mod scan;

mod lexicon;
mod rule;
mod stories;

pub use lexicon::{Category, ListedTerm, languages, terms};
pub use rule::{Finding, Judgement, PASSAGE_WORDS, rate, rating_of};
pub use stories::{Story, StoryGenerator};
