//! The HTTP API. Modules, from the bottom: what errors become, how bodies are read, what a request asks for, what is
//! answered, the routes, and their description.

mod error;
pub(crate) mod guarded;
mod json;
mod request;

mod attachment;
mod extension;
mod sampling;
mod screener;

mod journal;
mod spelling;

mod answer;
mod logprobs;
mod plan;

mod generation;

mod constraints;
mod messages;
mod prompts;
mod tools;

mod attributions;
mod chat;
mod completions;
mod embeddings;
mod health;
mod inline_moderation;
mod models;
mod moderations;
mod pages;
mod plugins;
mod stores;
mod tokens;

mod openapi;

pub mod fuzzing;

mod authenticate;
mod body_deadline;
mod metrics;
mod observe;
mod same_site;

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use error::ApiError;
pub(crate) use spelling::Spellings;

use crate::app::App;

/// All routes of the application, each with its description: what is not described is not reachable.
pub fn router(app: App) -> Router {
    let routes = OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(completions::completions))
        .routes(routes!(chat::chat_completions))
        .routes(routes!(embeddings::embeddings))
        .routes(routes!(stores::list, stores::create))
        .routes(routes!(stores::get))
        .routes(routes!(stores::add, stores::remove_all))
        .routes(routes!(stores::remove))
        .routes(routes!(stores::compact))
        .routes(routes!(stores::search))
        .routes(routes!(attributions::attributions))
        .routes(routes!(moderations::moderations))
        .routes(routes!(plugins::list))
        .routes(routes!(models::list))
        .routes(routes!(models::get))
        .routes(routes!(tokens::tokenize))
        .routes(routes!(tokens::detokenize))
        .routes(routes!(tokens::tokenizer_info))
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(pages::playground))
        .routes(routes!(pages::playground_style))
        .routes(routes!(pages::playground_script))
        .routes(routes!(pages::docs))
        .routes(routes!(pages::docs_style))
        .routes(routes!(pages::docs_script))
        .routes(routes!(openapi::openapi));
    let (router, description) = routes.split_for_parts();
    let document = openapi::Document::new(&openapi::complete(description));
    router
        .layer(Extension(document))
        .fallback(async |uri: Uri| ApiError::UnknownRoute(uri.path().to_owned()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| ApiError::WrongMethod {
            method: method.to_string(),
            path: uri.path().to_owned(),
        })
        .layer(DefaultBodyLimit::max(app.server_config().max_body_bytes))
        .layer(from_fn_with_state(app.clone(), body_deadline::body_deadline))
        .layer(from_fn_with_state(app.clone(), authenticate::authenticate))
        .layer(from_fn_with_state(app.clone(), same_site::same_site))
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}
