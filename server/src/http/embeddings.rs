//! `POST /v1/embeddings`.

use axum::extract::State;
use data_encoding::BASE64;
use safelmm_model::Generation;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::next_progress;
use super::error::ApiError;
use super::generation::{blocking, check_model, record_user, submit};
use super::journal::Journal;
use super::json::Json;
use super::prompts::encode;
use super::request::{EmbeddingRequest, Encoding};
use crate::app::App;
use crate::keys::{Principal, Use};

/// The most texts of one request.
const MAX_INPUTS: usize = 2048;

/// The embeddings of texts.
#[derive(Serialize, ToSchema)]
pub struct Embeddings {
    /// `list`.
    object: &'static str,
    /// One for each input, in their order.
    data: Vec<Embedding>,
    /// The model's id.
    model: String,
    /// Token counts.
    usage: EmbeddingUsage,
}

/// The embedding of one text.
#[derive(Serialize, ToSchema)]
struct Embedding {
    /// `embedding`.
    object: &'static str,
    /// Its place among the inputs.
    index: usize,
    /// The vector, of length 1.
    embedding: Vector,
}

/// A vector as the request wanted it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    /// Numbers.
    Float(Vec<f32>),
    /// The little-endian bytes of the f32 numbers, in base64.
    Base64(String),
}

/// Token counts.
#[derive(Serialize, ToSchema)]
struct EmbeddingUsage {
    /// The tokens of the inputs.
    prompt_tokens: usize,
    /// The same.
    total_tokens: usize,
}

impl Vector {
    fn new(values: Vec<f32>, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Float => Vector::Float(values),
            Encoding::Base64 => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Vector::Base64(BASE64.encode(&bytes))
            }
        }
    }
}

/// Embeds texts: the mean of the model's last hidden states over a text's tokens, scaled to length 1.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "generation",
    request_body = EmbeddingRequest,
    responses((status = 200, description = "The embeddings", body = Embeddings), ApiError),
)]
pub async fn embeddings(
    State(app): State<App>,
    principal: Principal,
    Json(request): Json<EmbeddingRequest>,
) -> Result<axum::Json<Embeddings>, ApiError> {
    let encoding = request.encoding_format.unwrap_or_default();
    let prepared = blocking({
        let (app, principal) = (app.clone(), principal.clone());
        move || prepare(&app, &principal, request)
    });
    let sequences = prepared.await?;
    let prompt_tokens = sequences.iter().map(Generation::prompt_tokens).sum();
    let charge = principal.charge(prompt_tokens).map_err(ApiError::Limited)?;
    let mut journal = Journal::new(prompt_tokens, charge, app.metrics().clone());
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; sequences.len()];
    let mut ticket = submit(&app, &principal, sequences, Use::default()).inspect_err(|error| journal.failed(error))?;
    while vectors.iter().any(Option::is_none) {
        let (index, progress) = next_progress(&mut ticket, &mut journal).await?;
        match (vectors.get_mut(index), progress.embedding) {
            (Some(place), Some(vector)) => *place = Some(vector),
            (Some(None), None) if progress.finish.is_some() => {
                return Err(ApiError::Internal(format!("the engine ended sequence {index} without an embedding")));
            }
            _ => {}
        }
    }
    journal.finished();
    let entry = |(index, vector)| Embedding { object: "embedding", index, embedding: Vector::new(vector, encoding) };
    Ok(axum::Json(Embeddings {
        object: "list",
        data: vectors.into_iter().flatten().enumerate().map(entry).collect(),
        model: app.model_name().to_owned(),
        usage: EmbeddingUsage { prompt_tokens, total_tokens: prompt_tokens },
    }))
}

/// Checks a request, down to the sequences that it asks for.
pub fn prepare(app: &App, principal: &Principal, request: EmbeddingRequest) -> Result<Vec<Generation>, ApiError> {
    let EmbeddingRequest { input, model, encoding_format: _, dimensions, user } = request;
    check_model(model.as_deref(), app, principal)?;
    record_user(user)?;
    let own = app.checkpoint().config().hidden_size;
    if let Some(asked) = dimensions.filter(|asked| *asked != own) {
        let message = format!("'dimensions' is {asked}, but this model's embeddings have {own}: leave it out");
        return Err(ApiError::parameter("dimensions", message));
    }
    let mut policy = Vec::new();
    let inputs = encode(input, "input", app, &mut policy)?;
    if inputs.len() > MAX_INPUTS {
        let message = format!("'input' has {} texts: at most {MAX_INPUTS} are possible", inputs.len());
        return Err(ApiError::parameter("input", message));
    }
    inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            if input.shown.is_empty() {
                let param = if inputs.len() == 1 { "input".to_owned() } else { format!("input[{index}]") };
                return Err(ApiError::parameter(&param, format!("'{param}' is empty: expected at least one token")));
            }
            Generation::embedding(app.checkpoint(), input.tokens())
                .map_err(|source| ApiError::Generate { source, prompt_param: "input" })
        })
        .collect()
}
