//! `GET /metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::error::ApiError;
use crate::app::App;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Tells what the server counts and measures, in the form that Prometheus scrapes. It counts all keys together, so that
/// whoever may ask sees the load of the others, though none of their texts.
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses((status = 200, description = "All metrics", body = String, content_type = "application/openmetrics-text"), ApiError),
)]
pub async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, ApiError> {
    let text = app.metrics().encode().map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
}
