//! Log-probabilities in the shapes of the two endpoints.

use std::sync::Arc;

use safelmm_model::{Detokenizer, TokenLogprob, TokenizerError};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::spelling::Spellings;

/// What stands for log-probabilities that JSON cannot write: as good as impossible.
const LEAST: f32 = -9999.0;

/// The one place where a log-probability becomes the number of the answer, so that the same one is always printed alike.
fn number(logprob: f32) -> f32 {
    logprob.max(LEAST)
}

/// Log-probabilities of a completion: lists of one length, an entry for each token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct TextLogprobs {
    /// The tokens' texts; `bytes:\\x..` for tokens that are part of a character.
    pub tokens: Vec<String>,
    /// Their natural log-probabilities; null for a prompt's first token, which nothing predicts.
    pub token_logprobs: Vec<Option<f32>>,
    /// In each place the most probable tokens and the one that stands there; null for a prompt's first token, and as a
    /// whole where none were asked for.
    pub top_logprobs: Option<Vec<Option<TopLogprobs>>>,
    /// Where each token begins in the text, in characters.
    pub text_offset: Vec<usize>,
}

/// From token texts to log-probabilities, best first.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[schema(value_type = std::collections::HashMap<String, f32>)]
pub struct TopLogprobs(pub Vec<(String, f32)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}

impl TopLogprobs {
    /// Of two tokens with the same text the more probable one stays: a reader that compares a token with the greatest
    /// entry must not be told of a lesser one.
    fn new(scored: &TokenLogprob, spellings: &Spellings) -> Self {
        let own = (scored.token, scored.logprob);
        let own = Some(own).filter(|_| !scored.top.iter().any(|(token, _)| *token == scored.token));
        let mut entries: Vec<(String, f32)> = Vec::with_capacity(scored.top.len() + 1);
        for (token, logprob) in scored.top.iter().copied().chain(own) {
            let (text, logprob) = (spellings.text(token), number(logprob));
            match entries.iter_mut().find(|(known, _)| *known == text) {
                Some((_, known)) => *known = known.max(logprob),
                None => entries.push((text, logprob)),
            }
        }
        TopLogprobs(entries)
    }
}

impl TextLogprobs {
    /// Puts other entries behind these.
    pub fn append(&mut self, mut other: TextLogprobs) {
        self.tokens.append(&mut other.tokens);
        self.token_logprobs.append(&mut other.token_logprobs);
        match (&mut self.top_logprobs, other.top_logprobs) {
            (Some(these), Some(mut others)) => these.append(&mut others),
            (these @ None, others) => *these = others,
            (Some(_), None) => {}
        }
        self.text_offset.append(&mut other.text_offset);
    }
}

/// Makes the entries of one choice, text by text: that of the prompt, that of the answer.
pub struct TextScores {
    spellings: Arc<Spellings>,
    /// How many of the most probable tokens were asked for in each place.
    top: usize,
    detokenizer: Detokenizer,
    characters: usize,
}

impl TextScores {
    /// For a text that begins.
    pub fn new(spellings: Arc<Spellings>, top: usize) -> Self {
        TextScores { spellings, top, detokenizer: Detokenizer::default(), characters: 0 }
    }

    /// The entries of a prompt of which `text` is what the client sees: the first token without a score, those behind it
    /// with the last ones of `scored`. What follows begins behind the text.
    pub fn prompt(&mut self, ids: &[u32], text: &str, scored: &[TokenLogprob]) -> Result<TextLogprobs, TokenizerError> {
        let mut entries = TextLogprobs { top_logprobs: (self.top > 0).then(Vec::new), ..TextLogprobs::default() };
        // A rating token in front scores the first token too.
        let surplus = (scored.len() + 1).saturating_sub(ids.len());
        let scores = std::iter::once(None).chain(scored.iter().skip(surplus).map(Some)).chain(std::iter::repeat(None));
        for (id, score) in ids.iter().zip(scores) {
            self.push(&mut entries, *id, score)?;
        }
        self.detokenizer = Detokenizer::default();
        self.characters = text.chars().count();
        Ok(entries)
    }

    /// The entry of a generated token.
    pub fn token(&mut self, scored: &TokenLogprob) -> Result<TextLogprobs, TokenizerError> {
        let mut entries = TextLogprobs { top_logprobs: (self.top > 0).then(Vec::new), ..TextLogprobs::default() };
        self.push(&mut entries, scored.token, Some(scored))?;
        Ok(entries)
    }

    fn push(
        &mut self,
        entries: &mut TextLogprobs,
        token: u32,
        score: Option<&TokenLogprob>,
    ) -> Result<(), TokenizerError> {
        let top = score.map(|score| TopLogprobs::new(score, &self.spellings));
        let text = self.spellings.text(token);
        // The entry of its own text: greater where another token is written alike, which `top` shows.
        entries.token_logprobs.push(score.map(|score| number(score.logprob)));
        entries.tokens.push(text);
        if let Some(tops) = &mut entries.top_logprobs {
            tops.push(top);
        }
        entries.text_offset.push(self.characters);
        self.characters += self.detokenizer.push(self.spellings.tokenizer(), token)?.chars().count();
        Ok(())
    }
}

/// Log-probabilities of a chat's answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// Each token of the answer.
    pub content: Vec<ChatToken>,
    /// Always null.
    #[schema(value_type = Option<Vec<ChatToken>>)]
    pub refusal: (),
}

/// A token of a chat's answer, and what could have stood in its place.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ChatToken {
    #[serde(flatten)]
    token: Scored,
    /// The most probable tokens in its place, best first.
    top_logprobs: Vec<Scored>,
}

/// A token and its log-probability.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Scored {
    /// Its text; part of a character is shown as U+FFFD.
    token: String,
    /// Its natural log-probability.
    logprob: f32,
    /// Its text as UTF-8.
    bytes: Vec<u8>,
}

impl ChatToken {
    /// The entry of a generated token.
    pub fn new(scored: &TokenLogprob, spellings: &Spellings) -> Self {
        let entry = |token: u32, logprob: f32| {
            let bytes = spellings.bytes(token);
            Scored { token: String::from_utf8_lossy(&bytes).into_owned(), logprob: number(logprob), bytes }
        };
        let top_logprobs = scored.top.iter().map(|(token, logprob)| entry(*token, *logprob)).collect();
        ChatToken { token: entry(scored.token, scored.logprob), top_logprobs }
    }
}
