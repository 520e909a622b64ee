//! The field `safelmm` of requests and answers: rating, guidance, declared use, and what stores would add.

use safelmm_model::Rating;
use safelmm_plugins::{Entry, Verdict};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::ApiError;
use super::json::shortened;
use super::request::{Attribution, ExtensionFields, Mode, Retrieval};
use crate::app::App;
use crate::keys::{Principal, Use};

/// The guidance strengths γ a request may ask for: less than 1 would weaken the rating.
const GUIDANCE: std::ops::RangeInclusive<f32> = 1.0..=10.0;
const UNRATED: &str = "cannot be honoured: this model was trained without ratings";

/// What a request asks for under `safelmm`, checked.
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// The ceiling for this answer; none for a model without ratings.
    pub rating: Option<Rating>,
    /// Guidance strength γ: 1 is off.
    pub guidance: f32,
    /// The declared use.
    pub declared_use: Use,
}

/// What an answer says under `safelmm`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Report {
    /// The ceiling of the answer; null for a model without ratings.
    #[schema(value_type = Option<String>)]
    rating: Option<Rating>,
    /// The strength of the rating.
    guidance: f32,
    /// What the request declared.
    #[serde(rename = "use")]
    declared_use: Use,
    /// The stores that took part.
    stores: Vec<Value>,
    /// Where the answer comes from.
    attributions: Vec<Value>,
    /// What the policies found.
    policy: Vec<Finding>,
}

/// What a policy found in a text.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Finding {
    /// The policy.
    plugin: String,
    /// When it spoke.
    hook: &'static str,
    /// What it decided.
    #[schema(value_type = String)]
    verdict: Verdict,
    /// What it found.
    category: &'static str,
    /// How sure it is, from 0 to 1.
    score: f32,
}

impl Report {
    /// What was asked for, and what the policies found.
    pub fn new(Extension { rating, guidance, declared_use }: Extension, policy: Vec<Entry>) -> Self {
        let finding =
            |Entry { plugin, hook, verdict, category, score }| Finding { plugin, hook, verdict, category, score };
        let policy = policy.into_iter().map(finding).collect();
        Report { rating, guidance, declared_use, stores: vec![], attributions: vec![], policy }
    }

    /// The declared use.
    pub fn declared_use(&self) -> Use {
        self.declared_use
    }
}

impl Extension {
    /// Checks what a request asks for against the rights of who asks. Everything that would need a store is refused, since
    /// this server has none.
    pub fn new(fields: Option<ExtensionFields>, app: &App, principal: &Principal) -> Result<Self, ApiError> {
        let ceiling = app.rating_ceiling();
        let ExtensionFields { rating, guidance, declared_use, stores, retrieval, attribution, exclude_documents } =
            fields.unwrap_or_default();
        let extension = Extension {
            rating: principal.rating_for(rating, ceiling, app.default_rating())?,
            guidance: check_guidance(guidance.unwrap_or(1.0), ceiling.is_some())?,
            declared_use: declared_use.unwrap_or_default(),
        };
        check_use(principal, extension.declared_use)?;
        if let Some(name) = stores.unwrap_or_default().first() {
            return Err(ApiError::UnknownStore(shortened(name)));
        }
        let Retrieval { mode, k, lambda, temperature, passages } = retrieval.unwrap_or_default();
        for (name, asked) in [
            ("retrieval.mode", mode.is_some_and(|mode| mode != Mode::Off)),
            ("retrieval.k", k.is_some()),
            ("retrieval.lambda", lambda.is_some()),
            ("retrieval.temperature", temperature.is_some()),
            ("retrieval.passages", passages.is_some()),
            ("attribution", attribution.is_some_and(|attribution| attribution != Attribution::None)),
            ("exclude_documents", exclude_documents.is_some_and(|documents| !documents.is_empty())),
        ] {
            if asked {
                return Err(refusal(name, "is not supported: no store is configured on this server"));
            }
        }
        Ok(extension)
    }
}

/// Refuses a use to which the key has no right.
fn check_use(principal: &Principal, declared: Use) -> Result<(), ApiError> {
    if principal.may_use(declared) {
        return Ok(());
    }
    Err(ApiError::UseNotAllowed { declared, other_allowed: principal.may_use(declared.other()) })
}

fn check_guidance(guidance: f32, rated: bool) -> Result<f32, ApiError> {
    if !GUIDANCE.contains(&guidance) {
        let (low, high) = (GUIDANCE.start(), GUIDANCE.end());
        return Err(refusal("guidance", &format!("must be between {low} and {high}, found {guidance}")));
    }
    if guidance != 1.0 && !rated {
        return Err(refusal("guidance", UNRATED));
    }
    Ok(guidance)
}

fn refusal(name: &str, message: &str) -> ApiError {
    let param = format!("safelmm.{name}");
    ApiError::parameter(&param, format!("'{param}' {message}"))
}
