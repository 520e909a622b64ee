//! The `moderation` of a chat: what the policies find in the conversation and in each answer, told with the answers.
//!
//! The policies that hold for the request decide of its texts anyway. Moderation tells besides what they find in each text
//! by itself: in the conversation as the client sent it, and in the answers as the client gets them.

use std::sync::Arc;

use safelmm_model::TokenLogprob;
use safelmm_plugins::{Denial, Scope};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Finish, Gain};
use super::error::ApiError;
use super::generation::blocking;
use super::moderations::{MODEL, ModerationResult, check_model};
use super::request::{DirectionPolicy, InlineModerationFields, ModerationMode, ModerationPolicy};
use super::screener::Screener;

/// What was found in a conversation and in its answers.
#[derive(Serialize, ToSchema)]
pub struct InlineModeration {
    /// The conversation: one result, the worst of all its texts.
    input: ModerationResults,
    /// The answers: a result for each choice, in their order.
    output: ModerationResults,
}

/// What was found in texts.
#[derive(Clone, Serialize, ToSchema)]
struct ModerationResults {
    /// `moderation_results`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// `safelmm-policies`.
    model: &'static str,
    /// One for each text.
    results: Vec<InlineModerationResult>,
}

/// What was found in one text.
#[derive(Clone, Serialize, ToSchema)]
struct InlineModerationResult {
    /// `moderation_result`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// `safelmm-policies`.
    model: &'static str,
    #[serde(flatten)]
    result: ModerationResult,
}

impl ModerationResults {
    fn new(results: impl IntoIterator<Item = ModerationResult>) -> Self {
        let result = |result| InlineModerationResult { kind: "moderation_result", model: MODEL, result };
        let results = results.into_iter().map(result).collect();
        ModerationResults { kind: "moderation_results", model: MODEL, results }
    }
}

/// Who judges a conversation and its answers.
#[derive(Clone)]
pub struct Moderator {
    scope: Scope,
    input: Arc<ModerationResult>,
    /// Whether flagged answers are held back.
    blocks: bool,
}

impl Moderator {
    /// Judges a conversation.
    ///
    /// # Errors
    /// A model that does not moderate; a flagged conversation that the client does not want answered.
    pub fn new(fields: InlineModerationFields, texts: &[String], screener: &Screener) -> Result<Self, ApiError> {
        let InlineModerationFields { model, policy } = fields;
        check_model(&model)?;
        let ModerationPolicy { input, output } = policy.unwrap_or(ModerationPolicy { input: None, output: None });
        let blocks = |policy: Option<DirectionPolicy>| {
            policy.map_or_else(ModerationMode::default, |DirectionPolicy { mode }| mode) == ModerationMode::Block
        };
        let scope = screener.scope().clone();
        let result = ModerationResult::of(&scope, texts.iter().map(String::as_str));
        if blocks(input) && result.is_flagged() {
            let denial = Denial {
                plugin: MODEL.to_owned(),
                category: result.category().unwrap_or_default().to_owned(),
                reason: "the request asks that flagged conversations are not answered".to_owned(),
            };
            return Err(ApiError::Policy { denial, param: "messages" });
        }
        Ok(Moderator { scope, input: Arc::new(result), blocks: blocks(output) })
    }

    /// What is told when all answers have ended, in the order of the choices.
    pub fn told<'a>(&self, answers: impl IntoIterator<Item = &'a Moderated>) -> InlineModeration {
        let output = answers.into_iter().filter_map(|answer| answer.result.clone());
        InlineModeration {
            input: ModerationResults::new([ModerationResult::clone(&self.input)]),
            output: ModerationResults::new(output),
        }
    }
}

/// One answer, as far as it has been written.
#[derive(Default)]
pub struct Moderated {
    text: String,
    /// What is held back of its log-probabilities.
    tokens: Vec<TokenLogprob>,
    result: Option<ModerationResult>,
}

impl Moderated {
    /// What of a gain may leave; judges an answer that has ended.
    ///
    /// # Errors
    /// A thread that could not be had.
    pub async fn pass(&mut self, moderator: &Moderator, mut gain: Gain) -> Result<Gain, ApiError> {
        self.text += &gain.text;
        if moderator.blocks {
            gain.text.clear();
            self.tokens.append(&mut gain.tokens);
        }
        if gain.finish.is_none() {
            return Ok(gain);
        }
        let (text, scope) = (std::mem::take(&mut self.text), moderator.scope.clone());
        let judged = move || {
            let result = ModerationResult::of(&scope, [&text[..]]);
            Ok((text, result))
        };
        let (text, result) = blocking(judged).await?;
        if moderator.blocks && result.is_flagged() {
            gain.finish = Some(Finish::ContentFilter);
        } else if moderator.blocks {
            (gain.text, gain.tokens) = (text, std::mem::take(&mut self.tokens));
        }
        self.result = Some(result);
        Ok(gain)
    }

    /// Whether the answer was emptied.
    pub fn is_blocked(&self, moderator: &Moderator) -> bool {
        moderator.blocks && self.result.as_ref().is_some_and(ModerationResult::is_flagged)
    }
}
