//! `POST /v1/attributions`: where any text stands word for word.

use std::borrow::Cow;

use axum::extract::State;
use safelmm_datastore::View;
use serde::Serialize;
use utoipa::ToSchema;

use super::attachment::{access, open};
use super::error::ApiError;
use super::extension::check_use;
use super::generation::blocking;
use super::json::Json;
use super::request::AttributionRequest;
use super::screener::Screener;
use crate::app::App;
use crate::keys::Principal;
use crate::retrieval::{Attribution, Text, VERBATIM_TOKENS, verbatim};

/// The shortest and the longest stretch that can be asked for, in tokens.
const TOKENS: std::ops::RangeInclusive<usize> = 2..=1024;

/// The longest text.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// Where parts of a text stand.
#[derive(Serialize, ToSchema)]
pub struct Attributions {
    /// `list`.
    object: &'static str,
    /// Each part with a document, by their places in the text.
    data: Vec<Attribution>,
}

/// Finds the stretches of a text that stand word for word in stores, or in the text that the model was trained on where
/// the server has an index of it.
#[utoipa::path(
    post, path = "/v1/attributions", tag = "stores",
    request_body = AttributionRequest,
    responses((status = 200, description = "The stretches", body = Attributions), ApiError),
)]
pub async fn attributions(
    State(app): State<App>,
    principal: Principal,
    Json(request): Json<AttributionRequest>,
) -> Result<axum::Json<Attributions>, ApiError> {
    blocking(move || find(request, &app, &principal)).await.map(axum::Json)
}

fn find(request: AttributionRequest, app: &App, principal: &Principal) -> Result<Attributions, ApiError> {
    let AttributionRequest { text, stores, min_tokens, declared_use, rating, exclude_documents } = request;
    let declared_use = declared_use.unwrap_or_default();
    check_use(principal, declared_use)?;
    let rating = principal.rating_for(rating, app.rating_ceiling(), app.default_rating())?;
    let least = min_tokens.unwrap_or(VERBATIM_TOKENS);
    if !TOKENS.contains(&least) {
        let (low, high) = (TOKENS.start(), TOKENS.end());
        let message = format!("'min_tokens' must be between {low} and {high}, found {least}");
        return Err(ApiError::parameter("min_tokens", message));
    }
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("'text' is longer than {MAX_TEXT_BYTES} bytes: ask for a part of it at a time");
        return Err(ApiError::parameter("text", message));
    }
    let screener = Screener::new(app, principal, "/v1/attributions", None);
    // Places in another text would say nothing of this one.
    if let Cow::Owned(_) = screener.screen(&text, "text")? {
        let message = "'text' holds what a policy of this server takes out of texts: take it out before asking";
        return Err(ApiError::parameter("text", message));
    }
    let (names, exclude) = (stores.unwrap_or_default(), exclude_documents.unwrap_or_default());
    if names.is_empty() && app.stores().training().is_none() {
        let message = "'stores' names none, and this server has no index of the training text: name a store";
        return Err(ApiError::parameter("stores", message));
    }
    let access = access(app, declared_use, rating, true);
    let (views, _) = open(&names, app, principal, &access, &exclude)?;
    let encoded = app.checkpoint().tokenizer.encode_with_offsets(&text);
    let (tokens, bytes) = encoded.map_err(|source| ApiError::Tokenizer { source, param: "text" })?;
    let text = Text::of_bytes(&text, tokens, &bytes);
    let mut data = verbatim(&text, least, &View::join(&views), None);
    if let Some(training) = app.stores().training() {
        data.extend(verbatim(&text, least, &training.view(&access, &exclude), Some("training")));
    }
    Ok(Attributions { object: "list", data })
}
