//! What of an answer may leave: its text goes through the policies before anyone sees any of it.
//!
//! Log-probabilities spell tokens, so they would tell what a policy has not let pass. Where policies look at answers, those
//! of an answer come with its end, and only where its text is what the model wrote; where it was changed or cut off, there
//! are none. Attributions quote the answer: those stay whose text still stands in it.

use safelmm_model::{FinishReason, Progress, Step, TokenLogprob};
use safelmm_plugins::{Cleared, Document, Guard};

use crate::http::error::ApiError;
use crate::policies::{obligation, rating};
use crate::retrieval::Attribution;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model or a stop string ended it.
    Stop,
    /// The limit on tokens.
    Length,
    /// A policy ended it.
    ContentFilter,
}

impl Finish {
    /// The name in the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => FinishReason::Stop.as_str(),
            Finish::Length => FinishReason::Length.as_str(),
            Finish::ContentFilter => "content_filter",
        }
    }
}

impl From<FinishReason> for Finish {
    fn from(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => Finish::Stop,
            FinishReason::Length => Finish::Length,
        }
    }
}

/// What a choice gains.
#[derive(Default)]
pub struct Gain {
    /// Tokens of the prompt that were scored.
    pub scored: Vec<TokenLogprob>,
    /// Whether the prompt has been run to its end.
    pub begun: bool,
    /// Tokens of the answer whose log-probabilities may be told.
    pub tokens: Vec<TokenLogprob>,
    /// Text of the answer.
    pub text: String,
    /// Why it ended, if it has.
    pub finish: Option<Finish>,
}

/// What one choice's text goes through, and what waits for its end.
pub struct Clearing {
    /// None while a thread of its own has it.
    guard: Option<Guard>,
    held: Vec<TokenLogprob>,
    shown: String,
}

impl Clearing {
    /// A choice that begins.
    pub fn new(guard: Guard) -> Self {
        Clearing { guard: Some(guard), held: Vec::new(), shown: String::new() }
    }

    /// What of a step may leave; `attributions` say where an answer comes from that has ended.
    ///
    /// # Errors
    /// A thread that could not be had.
    pub async fn clear(&mut self, progress: Progress, attributions: &[Attribution]) -> Result<Gain, ApiError> {
        let Progress { scored, step, finish, embedding: _ } = progress;
        let begun = step.is_some() || finish.is_some();
        let (token, text) = step.map(|Step { token, text }| (token, text)).unzip();
        let (text, finish) = (text.unwrap_or_default(), finish.map(Finish::from));
        let gain = |tokens: Vec<_>, text, finish| Gain { scored, begun, tokens, text, finish };
        let lost = || ApiError::Internal("the policies of an answer are gone".into());
        if self.guard.as_ref().ok_or_else(lost)?.is_open() {
            return Ok(gain(token.into_iter().collect(), text, finish));
        }
        self.held.extend(token);
        let cleared = self.through(text, finish.map(|_| documents(attributions))).await?;
        self.shown += &cleared.text;
        let finish = if cleared.stopped { Some(Finish::ContentFilter) } else { finish };
        let unchanged = finish.is_some() && !self.guard.as_ref().ok_or_else(lost)?.has_changed();
        let tokens = if unchanged { std::mem::take(&mut self.held) } else { Vec::new() };
        Ok(gain(tokens, cleared.text, finish))
    }

    /// A call that may take long is made on a thread that may block.
    async fn through(&mut self, text: String, sources: Option<Vec<Document>>) -> Result<Cleared, ApiError> {
        let Some(mut guard) = self.guard.take() else { return Ok(Cleared::default()) };
        // The end of an answer is also the end of what policies hold for it.
        let quick = sources.is_none() && guard.is_quick(text.len());
        let call = move || {
            let cleared = match sources {
                Some(sources) => guard.finish(&text, &sources),
                None => guard.push(&text),
            };
            (guard, cleared)
        };
        let (guard, cleared) = match quick {
            true => call(),
            false => tokio::task::spawn_blocking(call)
                .await
                .map_err(|error| ApiError::Internal(format!("an answer cannot be judged: {error}")))?,
        };
        self.guard = Some(guard);
        Ok(cleared)
    }

    /// The attributions whose text still stands in the choice, where it stands now; `before` characters stand before what is
    /// generated.
    pub fn realign(&self, attributions: Vec<Attribution>, before: usize) -> Vec<Attribution> {
        match self.guard.as_ref().is_some_and(Guard::has_changed) {
            true => realigned(attributions, before, &self.shown),
            false => attributions,
        }
    }
}

/// Moves each attribution to the place nearest to its own at which its text stands; drops it where there is none.
fn realigned(attributions: Vec<Attribution>, before: usize, text: &str) -> Vec<Attribution> {
    let place = |attribution: Attribution| {
        let was = attribution.start.saturating_sub(before);
        let at = text.match_indices(&attribution.text).map(|(byte, _)| text[..byte].chars().count());
        let start = before + at.min_by_key(|at| at.abs_diff(was))?;
        let end = start + attribution.text.chars().count();
        Some(Attribution { start, end, ..attribution })
    };
    attributions.into_iter().filter_map(place).collect()
}

/// The documents that had a part in an answer, each once.
fn documents(attributions: &[Attribution]) -> Vec<Document> {
    let mut documents: Vec<Document> = Vec::new();
    for attribution in attributions {
        if documents.iter().any(|known| known.store == attribution.store && known.id == attribution.document) {
            continue;
        }
        documents.push(Document {
            id: attribution.document.clone(),
            store: attribution.store.clone(),
            title: attribution.title.clone(),
            author: attribution.author.clone(),
            license: attribution.license.clone(),
            url: attribution.url.clone(),
            language: Some(attribution.language.clone()).filter(|language| !language.is_empty()),
            rating: Some(rating(attribution.rating)),
            obligations: attribution.obligations.iter().copied().map(obligation).collect(),
        });
    }
    documents
}

#[cfg(test)]
mod tests {
    use safelmm_datastore::Rating;

    use super::*;
    use crate::retrieval::Kind;

    fn attribution(start: usize, text: &str) -> Attribution {
        Attribution {
            choice: 0,
            start,
            end: start + text.chars().count(),
            text: text.to_owned(),
            store: "s".into(),
            document: text.to_owned(),
            title: String::new(),
            author: String::new(),
            license: "CC-BY-4.0".into(),
            url: String::new(),
            language: "en".into(),
            rating: Rating::G,
            obligations: vec![],
            kind: Kind::Verbatim,
            weight: 1.0,
        }
    }

    #[test]
    fn attributions_stay_where_their_text_stands_and_quote_nothing_that_was_taken_out() {
        // "ab secret cd" became "ab [x] cd"; four characters stand before it.
        let before = vec![attribution(4, "ab"), attribution(7, "secret"), attribution(14, "cd"), attribution(6, " ")];
        let after = realigned(before, 4, "ab [x] cd");
        let places: Vec<_> = after.iter().map(|found| (found.start, found.end, &found.text[..])).collect();
        assert_eq!(places, [(4, 6, "ab"), (11, 13, "cd"), (6, 7, " ")]);
    }

    #[test]
    fn a_document_is_told_once() {
        let found = documents(&[attribution(0, "a"), attribution(5, "a"), attribution(9, "b")]);
        assert_eq!((found[0].language.as_deref(), found[0].rating), (Some("en"), Some(safelmm_plugins::Rating::G)));
        assert_eq!(found.iter().map(|document| &document.id[..]).collect::<Vec<_>>(), ["a", "b"]);
    }
}
