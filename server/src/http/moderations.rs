//! `POST /v1/moderations`: what the policies find in texts.

use std::collections::BTreeMap;

use axum::extract::State;
use safelmm_plugins::{Judgement, Scope, Verdict};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::generation::blocking;
use super::json::{Json, shortened};
use super::request::{ContentPart, ModerationInput, ModerationRequest};
use super::screener::Screener;
use crate::app::App;
use crate::keys::Principal;

/// The most texts of one request.
const MAX_INPUTS: usize = 1024;

/// What answers are said to come from, and the names by which clients of the OpenAI API ask for it.
pub const MODEL: &str = "safelmm-policies";
const ALIASES: [&str; 5] = [
    "omni-moderation-latest",
    "omni-moderation-2024-09-26",
    "text-moderation-latest",
    "text-moderation-stable",
    "text-moderation-007",
];

/// The categories of the OpenAI API, which every answer names.
const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

/// What was found in texts.
#[derive(Serialize, ToSchema)]
pub struct Moderation {
    /// The answer's id.
    id: String,
    /// `safelmm-policies`.
    model: &'static str,
    /// One for each text, in their order.
    results: Vec<ModerationResult>,
}

/// What was found in one text.
#[derive(Clone, Serialize, ToSchema)]
pub struct ModerationResult {
    /// Whether anything was.
    flagged: bool,
    /// For each category whether it was: those of the OpenAI API, and those of this server's policies.
    categories: BTreeMap<String, bool>,
    /// How sure the policies are, from 0 to 1.
    category_scores: BTreeMap<String, f32>,
    /// What it was found in.
    category_applied_input_types: BTreeMap<String, Vec<&'static str>>,
}

/// Judges texts by the policies that screen prompts, without a model.
#[utoipa::path(
    post, path = "/v1/moderations", tag = "policies",
    request_body = ModerationRequest,
    responses((status = 200, description = "What was found", body = Moderation), ApiError),
)]
pub async fn moderations(
    State(app): State<App>,
    principal: Principal,
    Json(request): Json<ModerationRequest>,
) -> Result<axum::Json<Moderation>, ApiError> {
    blocking(move || judged(request, &app, &principal)).await.map(axum::Json)
}

fn judged(request: ModerationRequest, app: &App, principal: &Principal) -> Result<Moderation, ApiError> {
    let ModerationRequest { input, model } = request;
    model.map_or(Ok(()), |model| check_model(&model))?;
    let texts = match input {
        ModerationInput::Text(text) => vec![text],
        ModerationInput::Texts(texts) => texts,
        ModerationInput::Parts(parts) => {
            vec![parts.into_iter().map(|ContentPart { kind: _, text }| text).collect::<Vec<_>>().join("\n")]
        }
    };
    if texts.is_empty() {
        return Err(ApiError::parameter("input", "'input' is an empty list: expected at least one text"));
    }
    if texts.len() > MAX_INPUTS {
        let message = format!("'input' has {} texts: at most {MAX_INPUTS} are possible", texts.len());
        return Err(ApiError::parameter("input", message));
    }
    let scope = Screener::new(app, principal, "/v1/moderations", None).into_scope();
    let results = texts.iter().map(|text| ModerationResult::of(&scope, [&text[..]])).collect();
    Ok(Moderation { id: format!("modr-{}", uuid::Uuid::new_v4().simple()), model: MODEL, results })
}

/// Refuses every name but those of the policies.
///
/// # Errors
/// [`ApiError::UnknownModel`].
pub fn check_model(asked: &str) -> Result<(), ApiError> {
    if asked == MODEL || ALIASES.contains(&asked) {
        return Ok(());
    }
    Err(ApiError::UnknownModel { requested: shortened(asked), served: Some(MODEL.to_owned()) })
}

impl ModerationResult {
    /// What the policies that screen prompts find in texts, each judged by itself.
    pub fn of<'t>(scope: &Scope, texts: impl IntoIterator<Item = &'t str>) -> Self {
        let mut category_scores: BTreeMap<String, f32> = CATEGORIES.map(|category| (category.to_owned(), 0.0)).into();
        category_scores.extend(scope.categories().into_iter().map(|category| (category, 0.0)));
        let mut categories: BTreeMap<String, bool> = category_scores.keys().map(|name| (name.clone(), false)).collect();
        let found = |judgement: &Judgement| !matches!(judgement.verdict(), Verdict::Allow | Verdict::Abstain);
        let mut flagged = false;
        for judgement in texts.into_iter().flat_map(|text| scope.judge_prompt(text)).filter(found) {
            flagged = true;
            for finding in judgement.findings() {
                categories.insert(finding.category.clone(), true);
                let score = category_scores.entry(finding.category.clone()).or_default();
                *score = score.max(finding.score);
            }
        }
        let applied = |(name, found): (&String, &bool)| (name.clone(), if *found { vec!["text"] } else { vec![] });
        let category_applied_input_types = categories.iter().map(applied).collect();
        ModerationResult { flagged, categories, category_scores, category_applied_input_types }
    }

    /// Whether anything was found.
    pub fn is_flagged(&self) -> bool {
        self.flagged
    }

    /// The surest category that was found.
    pub fn category(&self) -> Option<&str> {
        let found = self.category_scores.iter().filter(|(name, _)| self.categories.get(*name) == Some(&true));
        found.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(name, _)| &name[..])
    }
}
