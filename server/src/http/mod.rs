//! The HTTP API. Modules, from the bottom: what errors become, how bodies are read, what a request asks for, what is
//! answered, and the routes.

mod error;
mod fields;
pub(crate) mod guarded;

mod extension;
mod sampling;

mod journal;

mod answer;
mod plan;

mod generation;

mod chat;
mod completions;
mod health;
mod models;
mod playground;
mod tokens;

mod authenticate;
mod body_deadline;
mod observe;
mod same_site;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

pub use error::ApiError;

use crate::app::App;

/// All routes of the application.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::get))
        .route("/v1/models/{id}/provenance", get(models::provenance))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/health", get(health::live))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/", get(playground::page))
        .route("/playground/style.css", get(playground::style))
        .route("/playground/app.js", get(playground::script))
        .fallback(async |uri: Uri| ApiError::UnknownRoute(uri.path().to_owned()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| ApiError::WrongMethod {
            method: method.to_string(),
            path: uri.path().to_owned(),
        })
        .layer(DefaultBodyLimit::max(app.server_config().max_body_bytes))
        .layer(from_fn_with_state(app.clone(), body_deadline::body_deadline))
        .layer(from_fn_with_state(app.clone(), authenticate::authenticate))
        .layer(from_fn_with_state(app.clone(), same_site::same_site))
        .layer(from_fn(observe::observe))
        .with_state(app)
}
