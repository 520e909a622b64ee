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

/// What a model is for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// It generates text; its states serve as embeddings.
    Decoder,
    /// It makes embeddings.
    Encoder,
}

/// What a model is like.
#[derive(Serialize, ToSchema)]
struct Details {
    /// What it is for.
    kind: Kind,
    /// Whether it was trained with ratings.
    rated: bool,
    /// Those a request may ask for.
    #[schema(value_type = Vec<String>)]
    ratings: Vec<Rating>,
    /// How many tokens its context holds.
    context_length: usize,
    /// How many parameters it has, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<usize>,
    /// How many numbers its embeddings have.
    dimensions: usize,
}

impl Model {
    /// The model that generates, and the encoder where there is one, as far as the key may use them.
    fn all(app: &App, principal: &Principal) -> Vec<Self> {
        let (checkpoint, ceiling) = (app.checkpoint(), principal.rating_ceiling(app.rating_ceiling()));
        let model = |id: &str, safelmm| Model {
            id: id.to_owned(),
            object: "model",
            created: app.created(),
            owned_by: "safelmm",
            safelmm,
        };
        let decoder = Details {
            kind: Kind::Decoder,
            rated: checkpoint.rated(),
            ratings: app.ratings().iter().copied().filter(|rating| Some(*rating) <= ceiling).collect(),
            context_length: checkpoint.context_length(),
            parameters: Some(checkpoint.parameters()),
            dimensions: checkpoint.config().hidden_size,
        };
        let encoder = app.embedder().map(|embedder| {
            let encoder = embedder.encoder();
            let details = Details {
                kind: Kind::Encoder,
                rated: false,
                ratings: vec![],
                context_length: encoder.max_tokens(),
                parameters: None,
                dimensions: encoder.dimensions(),
            };
            model(encoder.name(), details)
        });
        let all = std::iter::once(model(app.model_name(), decoder)).chain(encoder);
        all.filter(|model| principal.may_use_model(&model.id)).collect()
    }
}

/// Lists the models that the key may use.
#[utoipa::path(
    get, path = "/v1/models", tag = "models",
    responses((status = 200, description = "The models", body = Models), ApiError),
)]
pub async fn list(State(app): State<App>, principal: Principal) -> Json<Models> {
    Json(Models { object: "list", data: Model::all(&app, &principal) })
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
    if let Some(model) = Model::all(&app, &principal).into_iter().find(|model| model.id == id) {
        return Ok(Json(model).into_response());
    }
    let served = |id: &str| id == app.model_name() && principal.may_use_model(id);
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
