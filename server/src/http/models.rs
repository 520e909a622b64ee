//! `GET /v1/models`, `/v1/models/{id}` and `/v1/models/{id}/provenance`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use safelmm_model::Rating;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::ApiError;
use super::generation::unknown_model;
use crate::app::App;
use crate::keys::Principal;

/// What stands behind a model's id for the origin of its training text.
const PROVENANCE: &str = "/provenance";

/// The models of this server.
#[derive(Serialize, ToSchema)]
pub struct Models {
    /// `list`.
    object: &'static str,
    /// Each of them.
    data: Vec<Model>,
}

/// A model as clients see it.
#[derive(Serialize, ToSchema)]
pub struct Model {
    /// The id under which requests ask for it.
    id: String,
    /// `model`.
    object: &'static str,
    /// When it was loaded: seconds since 1970.
    created: u64,
    /// `safelmm`.
    owned_by: &'static str,
    /// What is SafeLMM's own.
    safelmm: Details,
}

/// What a model is like.
#[derive(Serialize, ToSchema)]
struct Details {
    /// Whether it was trained with ratings.
    rated: bool,
    /// Those a request may ask for.
    #[schema(value_type = Vec<String>)]
    ratings: Vec<Rating>,
    /// How many tokens its context holds.
    context_length: usize,
    /// How many parameters it has.
    parameters: usize,
}

impl Model {
    fn of(app: &App, principal: &Principal) -> Self {
        let (checkpoint, ceiling) = (app.checkpoint(), principal.rating_ceiling(app.rating_ceiling()));
        Model {
            id: app.model_name().to_owned(),
            object: "model",
            created: app.created(),
            owned_by: "safelmm",
            safelmm: Details {
                rated: checkpoint.rated(),
                ratings: app.ratings().iter().copied().filter(|rating| Some(*rating) <= ceiling).collect(),
                context_length: checkpoint.context_length(),
                parameters: checkpoint.parameters(),
            },
        }
    }
}

/// Lists the models that the key may use.
#[utoipa::path(
    get, path = "/v1/models", tag = "models",
    responses((status = 200, description = "The models", body = Models), ApiError),
)]
pub async fn list(State(app): State<App>, principal: Principal) -> Json<Models> {
    let model = principal.may_use_model(app.model_name()).then(|| Model::of(&app, &principal));
    Json(Models { object: "list", data: model.into_iter().collect() })
}

/// Describes a model. Ids may hold slashes, so that one route takes what stands behind `/v1/models/`.
#[utoipa::path(
    get, path = "/v1/models/{*id}", tag = "models",
    params(("id" = String, Path, description = "The model's id")),
    responses((status = 200, description = "The model", body = Model), ApiError),
)]
pub async fn get(
    State(app): State<App>,
    principal: Principal,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::parameter("id", error.body_text()))?;
    let served = |id: &str| id == app.model_name() && principal.may_use_model(id);
    if served(&id) {
        return Ok(Json(Model::of(&app, &principal)).into_response());
    }
    match id.strip_suffix(PROVENANCE) {
        Some(id) if served(id) => provenance(State(app)).await.map(IntoResponse::into_response),
        id_of_model => Err(unknown_model(id_of_model.unwrap_or(&id), &app, &principal)),
    }
}

/// Tells where the training text came from: `provenance.json` of the checkpoint.
#[utoipa::path(
    get, path = "/v1/models/{id}/provenance", tag = "models",
    params(("id" = String, Path, description = "The model's id")),
    responses((status = 200, description = "Every source of training text with its license", body = Value), ApiError),
)]
pub async fn provenance(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    match app.checkpoint().provenance() {
        Some(provenance) => Ok(Json(provenance.clone())),
        None => Err(ApiError::NoProvenance(app.model_name().to_owned())),
    }
}
