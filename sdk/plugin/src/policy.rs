//! The trait that a policy implements.

use crate::{Action, Biases, Candidates, Description, Document, Passage, Request, SettingError, Vector, Verdict};

/// A safety policy.
///
/// An instance is configured once and then asked at the hooks that [`Policy::describe`] names, in any order, about one
/// request after another. What one answer needs to remember is in its [`Session`].
pub trait Policy: Sized + 'static {
    /// What an operator may set. Missing settings take their defaults with `#[serde(default)]`; with
    /// `#[serde(deny_unknown_fields)]` a misspelt one is refused.
    type Settings: serde::de::DeserializeOwned + schemars::JsonSchema;

    /// What is remembered of an answer while it is written; `()` where nothing is.
    type Session: Session<Self>;

    /// What the policy is. An empty `settings_schema` is filled with the schema of [`Policy::Settings`].
    fn describe() -> Description;

    /// A policy with these settings.
    ///
    /// # Errors
    /// What is wrong with the settings beyond their types, each with a JSON pointer ([`SettingError::new`]).
    fn configure(settings: Self::Settings) -> Result<Self, Vec<SettingError>>;

    /// Examples with their right answers. Each is tried before the policy serves, and by
    /// [`testing::assert_vectors`](crate::testing::assert_vectors).
    fn vectors() -> Vec<Vector>;

    /// The beginning of an answer.
    fn session(&self, request: &Request, prompt: &str) -> Self::Session;

    /// Judges a text of a request before the model sees it.
    fn screen_prompt(&self, request: &Request, text: &str) -> Verdict {
        let _ = (request, text);
        Verdict::Allow
    }

    /// Judges passages of stores before they stand in the context: one verdict for each, and `Deny` drops it.
    fn filter_passages(&self, request: &Request, passages: &[Passage]) -> Vec<Verdict> {
        let _ = request;
        vec![Verdict::Allow; passages.len()]
    }

    /// Judges a whole answer. `sources` are the documents that had a part in it.
    fn review_response(&self, request: &Request, text: &str, sources: &[Document]) -> Verdict {
        let _ = (request, text, sources);
        Verdict::Allow
    }
}

/// An answer that is being written.
pub trait Session<P>: 'static {
    /// What is added to the logits of the next token. `drawn` is the token before, none at the beginning; `candidates`
    /// are the most probable, best first.
    fn adjust_logits(&mut self, policy: &P, drawn: Option<u32>, candidates: &Candidates) -> Biases {
        let _ = (policy, drawn, candidates);
        Biases::none()
    }

    /// Judges new text. `pending` is all that this policy has not let pass: what was held comes again, with what
    /// follows. The last call has `sources`; then nothing can be held.
    fn inspect_stream(&mut self, policy: &P, pending: &str, sources: Option<&[Document]>) -> Action {
        let _ = (policy, pending, sources);
        Action::Pass
    }
}

impl<P> Session<P> for () {}
