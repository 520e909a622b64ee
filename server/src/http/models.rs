//! `GET /v1/models`, `/v1/models/{id}` and `/v1/models/{id}/provenance`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use safelmm_model::Rating;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::generation::check_model;
use crate::app::App;
use crate::keys::Principal;

/// A model as clients see it.
#[derive(Serialize)]
pub struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    safelmm: Details,
}

#[derive(Serialize)]
struct Details {
    rated: bool,
    /// Those a request may ask for.
    ratings: Vec<Rating>,
    context_length: usize,
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

type ModelId = Result<Path<String>, PathRejection>;

fn read(id: ModelId) -> Result<String, ApiError> {
    id.map(|Path(id)| id).map_err(|error| ApiError::parameter("id", error.body_text()))
}

/// The list of models that the key may use: one, or none.
pub async fn list(State(app): State<App>, principal: Principal) -> Json<Value> {
    let model = principal.may_use_model(app.model_name()).then(|| Model::of(&app, &principal));
    Json(json!({"object": "list", "data": model.as_slice()}))
}

/// The model, if the id is its own.
pub async fn get(State(app): State<App>, principal: Principal, id: ModelId) -> Result<Json<Model>, ApiError> {
    check_model(read(id)?, &app, &principal)?;
    Ok(Json(Model::of(&app, &principal)))
}

/// Where the training text came from: `provenance.json` of the checkpoint.
pub async fn provenance(State(app): State<App>, principal: Principal, id: ModelId) -> Result<Json<Value>, ApiError> {
    check_model(read(id)?, &app, &principal)?;
    match app.checkpoint().provenance() {
        Some(provenance) => Ok(Json(provenance.clone())),
        None => Err(ApiError::NoProvenance(app.model_name().to_owned())),
    }
}
