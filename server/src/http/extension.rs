//! The field `safelmm` of requests and answers: rating, guidance, declared use, and what stores would add.

use safelmm_model::Rating;
use safelmm_plugins::Entry;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::{Fields, describe, shortened};
use crate::app::App;
use crate::keys::{Principal, Use};

/// The guidance strengths γ a request may ask for: less than 1 would weaken the rating.
const GUIDANCE: std::ops::RangeInclusive<f32> = 1.0..=10.0;
const NO_STORE: &str = "no store is configured on this server";

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
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    rating: Option<Rating>,
    guidance: f32,
    #[serde(rename = "use")]
    declared_use: Use,
    stores: Vec<Value>,
    attributions: Vec<Value>,
    policy: Vec<Entry>,
}

impl Report {
    /// What was asked for, and what the policies found.
    pub fn new(Extension { rating, guidance, declared_use }: Extension, policy: Vec<Entry>) -> Self {
        Report { rating, guidance, declared_use, stores: vec![], attributions: vec![], policy }
    }
}

impl Extension {
    /// Takes `safelmm` out of a body and checks it against the rights of who asks. Everything that would need a store is
    /// refused, since this server has none.
    pub fn take(body: &mut Fields, app: &App, principal: &Principal) -> Result<Self, ApiError> {
        let ceiling = app.rating_ceiling();
        let mut fields = body.object("safelmm")?.unwrap_or_default();
        let requested = take_rating(&mut fields)?;
        let extension = Extension {
            rating: principal.rating_for(requested, ceiling, app.default_rating())?,
            guidance: take_guidance(&mut fields, ceiling.is_some())?,
            declared_use: take_use(&mut fields)?,
        };
        check_use(principal, extension.declared_use)?;
        refuse_stores(&mut fields)?;
        fields.finish()?;
        Ok(extension)
    }
}

fn take_rating(fields: &mut Fields) -> Result<Option<Rating>, ApiError> {
    let Some(text) = fields.string("rating")? else { return Ok(None) };
    let rating = text.parse().map_err(|_| {
        fields.error("rating", format!("must be one of \"G\", \"PG\", \"R\", \"X\", found {}", describe(&json!(text))))
    })?;
    Ok(Some(rating))
}

/// Refuses a use to which the key has no right.
fn check_use(principal: &Principal, declared: Use) -> Result<(), ApiError> {
    if principal.may_use(declared) {
        return Ok(());
    }
    Err(ApiError::UseNotAllowed { declared, other_allowed: principal.may_use(declared.other()) })
}

fn take_guidance(fields: &mut Fields, rated: bool) -> Result<f32, ApiError> {
    let guidance = fields.number("guidance")?.unwrap_or(1.0);
    if !GUIDANCE.contains(&guidance) {
        let (low, high) = (GUIDANCE.start(), GUIDANCE.end());
        return Err(fields.error("guidance", format!("must be between {low} and {high}, found {guidance}")));
    }
    if guidance != 1.0 && !rated {
        return Err(fields.error("guidance", "cannot be honoured: this model was trained without ratings"));
    }
    Ok(guidance)
}

fn take_use(fields: &mut Fields) -> Result<Use, ApiError> {
    match fields.string("use")?.as_deref() {
        None | Some("commercial") => Ok(Use::Commercial),
        Some("non-commercial") => Ok(Use::NonCommercial),
        Some(other) => Err(fields
            .error("use", format!("must be \"commercial\" or \"non-commercial\", found {}", describe(&json!(other))))),
    }
}

fn refuse_stores(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.list("stores")?.unwrap_or_default().into_iter().next() {
        None => {}
        Some(Value::String(name)) => return Err(ApiError::UnknownStore(shortened(&name))),
        Some(other) => {
            return Err(fields.error("stores", format!("must be a list of strings, found {}", describe(&other))));
        }
    }
    if let Some(mut retrieval) = fields.object("retrieval")? {
        retrieval.refuse("mode", &json!("off"), NO_STORE)?;
        for name in ["k", "lambda", "temperature", "passages"] {
            retrieval.refuse(name, &Value::Null, NO_STORE)?;
        }
        retrieval.finish()?;
    }
    fields.refuse("attribution", &json!("none"), NO_STORE)?;
    fields.refuse("exclude_documents", &json!([]), NO_STORE)
}
