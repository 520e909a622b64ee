//! The field `safelmm` of requests and answers: rating, guidance, declared use, stores and where an answer comes from.

use std::sync::Arc;

use safelmm_model::Rating;
use safelmm_plugins::{Entry, Hook, Scope, Verdict};
use serde::Serialize;
use utoipa::ToSchema;

use super::attachment::{Asked, Attachment, StoreInForce};
use super::error::ApiError;
use super::request::ExtensionFields;
use crate::app::App;
use crate::keys::{Principal, Use};
use crate::retrieval::Attribution;

/// The guidance strengths γ a request may ask for: less than 1 would weaken the rating.
const GUIDANCE: std::ops::RangeInclusive<f32> = 1.0..=10.0;
const UNRATED: &str = "cannot be honoured: this model was trained without ratings";

/// What a request asks for under `safelmm`, checked.
#[derive(Clone)]
pub struct Extension {
    /// The ceiling for this answer; none for a model without ratings.
    pub rating: Option<Rating>,
    /// Guidance strength γ: 1 is off.
    pub guidance: f32,
    /// The declared use.
    pub declared_use: Use,
    /// The stores, and whether the answer says where it comes from; none where neither is asked for.
    pub attachment: Option<Arc<Attachment>>,
}

/// What an answer says under `safelmm`.
#[derive(Clone, Serialize, ToSchema)]
pub struct Report {
    /// The policies of the request, who have not yet found everything.
    #[serde(skip)]
    scope: Scope,
    /// The ceiling of the answer; null for a model without ratings.
    #[schema(value_type = Option<String>)]
    rating: Option<Rating>,
    /// The strength of the rating.
    guidance: f32,
    /// What the request declared.
    #[serde(rename = "use")]
    declared_use: Use,
    /// The stores that took part, with the licenses in force.
    stores: Vec<StoreInForce>,
    /// Where the answer comes from.
    attributions: Vec<Attribution>,
    /// What the policies found.
    policy: Vec<Finding>,
}

/// What a policy found in a text.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Finding {
    /// The policy.
    plugin: String,
    /// When it spoke.
    #[schema(value_type = String)]
    hook: Hook,
    /// What it decided.
    #[schema(value_type = String)]
    verdict: Verdict,
    /// What it found.
    category: String,
    /// How sure it is, from 0 to 1.
    score: f32,
}

impl Report {
    /// What was asked for; the policies are still at it.
    pub fn new(Extension { rating, guidance, declared_use, attachment }: &Extension, scope: Scope) -> Self {
        let stores = attachment.as_ref().map(|attachment| attachment.stores.clone()).unwrap_or_default();
        let (rating, guidance, declared_use) = (*rating, *guidance, *declared_use);
        let (attributions, policy) = Default::default();
        Report { scope, rating, guidance, declared_use, stores, attributions, policy }
    }

    /// The report with where the answer, or a choice of it, comes from, and with what the policies have found by now.
    pub fn with(&self, attributions: Vec<Attribution>) -> Self {
        let finding =
            |Entry { plugin, hook, verdict, category, score }| Finding { plugin, hook, verdict, category, score };
        let policy = self.scope.entries().into_iter().map(finding).collect();
        Report { attributions, policy, ..self.clone() }
    }
}

impl Extension {
    /// Checks what a request asks for against the rights of who asks.
    pub fn new(fields: Option<ExtensionFields>, app: &App, principal: &Principal) -> Result<Self, ApiError> {
        let ceiling = app.rating_ceiling();
        let ExtensionFields { rating, guidance, declared_use, stores, retrieval, attribution, exclude_documents } =
            fields.unwrap_or_default();
        let rating = principal.rating_for(rating, ceiling, app.default_rating())?;
        let guidance = check_guidance(guidance.unwrap_or(1.0), ceiling.is_some())?;
        let declared_use = declared_use.unwrap_or_default();
        check_use(principal, declared_use)?;
        let asked = Asked { stores, retrieval, attribution, exclude_documents };
        let attachment = Attachment::new(asked, app, principal, declared_use, rating)?.map(Arc::new);
        Ok(Extension { rating, guidance, declared_use, attachment })
    }
}

/// Refuses a use to which the key has no right.
pub fn check_use(principal: &Principal, declared: Use) -> Result<(), ApiError> {
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

/// The refusal of a parameter under `safelmm`.
pub fn refusal(name: &str, message: &str) -> ApiError {
    let param = format!("safelmm.{name}");
    ApiError::parameter(&param, format!("'{param}' {message}"))
}
