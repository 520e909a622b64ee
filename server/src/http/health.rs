//! `GET /health`, `/livez` and `/readyz`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use crate::app::App;
use crate::engine::EngineError;

/// How the server does.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    status: &'static str,
}

const OK: Health = Health { status: "ok" };

/// Tells that the process answers.
#[utoipa::path(
    get, path = "/health", tag = "health",
    responses((status = 200, description = "The process answers", body = Health)),
)]
pub async fn health() -> Json<Health> {
    Json(OK)
}

/// Tells that the process answers.
#[utoipa::path(
    get, path = "/livez", tag = "health",
    responses((status = 200, description = "The process answers", body = Health)),
)]
pub async fn live() -> Json<Health> {
    Json(OK)
}

/// Tells whether new requests are taken; not once the server is shutting down or the engine is gone.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses((status = 200, description = "New requests are taken", body = Health), ApiError),
)]
pub async fn ready(State(app): State<App>) -> Result<Json<Health>, ApiError> {
    if app.engine().is_open() { Ok(Json(OK)) } else { Err(EngineError::Stopped.into()) }
}
