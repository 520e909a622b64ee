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
const MODEL: &str = "safelmm-policies";
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
#[derive(Serialize, ToSchema)]
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
    if let Some(asked) = model.filter(|asked| asked != MODEL && !ALIASES.contains(&&asked[..])) {
        return Err(ApiError::UnknownModel { requested: shortened(&asked), served: Some(MODEL.to_owned()) });
    }
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
    let mut known: BTreeMap<String, f32> = CATEGORIES.map(|category| (category.to_owned(), 0.0)).into();
    known.extend(scope.categories().into_iter().map(|category| (category, 0.0)));
    let results = texts.iter().map(|text| result(&scope, text, known.clone())).collect();
    Ok(Moderation { id: format!("modr-{}", uuid::Uuid::new_v4().simple()), model: MODEL, results })
}

fn result(scope: &Scope, text: &str, mut scores: BTreeMap<String, f32>) -> ModerationResult {
    let judgements = scope.judge_prompt(text);
    let found = |judgement: &&Judgement| !matches!(judgement.verdict(), Verdict::Allow | Verdict::Abstain);
    let mut categories: BTreeMap<String, bool> = scores.keys().map(|category| (category.clone(), false)).collect();
    for finding in judgements.iter().filter(found).flat_map(Judgement::findings) {
        categories.insert(finding.category.clone(), true);
        let score = scores.entry(finding.category.clone()).or_default();
        *score = score.max(finding.score);
    }
    let applied =
        categories.iter().map(|(category, found)| (category.clone(), if *found { vec!["text"] } else { vec![] }));
    ModerationResult {
        flagged: judgements.iter().any(|judgement| found(&judgement)),
        category_applied_input_types: applied.collect(),
        categories,
        category_scores: scores,
    }
}
