//! `GET /health`, `/livez` and `/readyz`.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::app::App;
use crate::engine::EngineError;

/// The process answers.
pub async fn live() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// New requests are taken; 503 once the server is shutting down or the engine is gone.
pub async fn ready(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    if app.engine().is_open() { Ok(Json(json!({"status": "ok"}))) } else { Err(EngineError::Stopped.into()) }
}
