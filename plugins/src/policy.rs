//! What a policy is to the pipeline: native ones and components alike.

use serde::Serialize;

use crate::document::{Document, Passage};
use crate::hook::{Hook, Hooks};
use crate::request::RequestContext;
use crate::session::Session;
use crate::verdict::Judgement;

/// A safety policy. What a policy is asked is up to its hooks; at the others it is never called.
pub trait Policy: Send + Sync {
    /// The name by which answers, logs and configuration call it.
    fn name(&self) -> &str;

    /// What it is, for listings.
    fn about(&self) -> About;

    /// Where it is asked.
    fn hooks(&self) -> Hooks;

    /// Judges a prompt, or one text of a conversation, before the model sees it. `request` says who asks for what.
    fn screen_prompt(&self, request: &RequestContext, text: &str) -> Judgement {
        let _ = (request, text);
        Judgement::Allow
    }

    /// Judges passages before they stand in the context, each of them; a denied one is dropped.
    fn filter_passages(&self, request: &RequestContext, passages: &[Passage]) -> Vec<Judgement> {
        let _ = request;
        vec![Judgement::Allow; passages.len()]
    }

    /// Judges a whole answer; `sources` are the documents that had a part in it.
    fn review_response(&self, request: &RequestContext, text: &str, sources: &[Document]) -> Judgement {
        let _ = (request, text, sources);
        Judgement::Allow
    }

    /// Begins with an answer to `prompt`; none where the policy looks at none while they are written.
    fn session(&self, request: &RequestContext, prompt: &str) -> Option<Box<dyn Session>> {
        let _ = (request, prompt);
        None
    }

    /// Whether a call of the hook on so many bytes surely takes less than about 20 ms, so that no thread of its own is
    /// needed for it.
    fn is_quick(&self, hook: Hook, bytes: usize) -> bool {
        let _ = (hook, bytes);
        true
    }
}

/// What a policy says of itself, and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct About {
    /// Its name in the configuration.
    pub name: String,
    /// What it calls itself.
    pub policy: String,
    /// Semantic version.
    pub version: String,
    /// What it does.
    pub summary: String,
    /// Where it comes from: `built-in`, `bundled:NAME`, or a file.
    pub source: String,
    /// SHA-256 of the component, as `sha256:HEX`; none for built-in ones.
    pub digest: Option<String>,
    /// Where it is asked.
    pub hooks: Vec<Hook>,
    /// What it finds.
    pub categories: Vec<String>,
    /// Languages (ISO 639-1) that it judges; empty for any.
    pub languages: Vec<String>,
}
