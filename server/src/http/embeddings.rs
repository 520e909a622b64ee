//! `POST /v1/embeddings`: by the encoder where one is configured, else by the model's own states.

use std::borrow::Cow;

use axum::extract::State;
use data_encoding::BASE64;
use safelmm_model::Generation;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::next_progress;
use super::error::ApiError;
use super::generation::{blocking, record_user, submit, unknown_model};
use super::journal::Journal;
use super::json::Json;
use super::prompts::encode;
use super::request::{EmbeddingRequest, Encoding, Prompt};
use super::screener::Screener;
use crate::app::App;
use crate::embedder::Embedder;
use crate::keys::{Charge, Principal, Use};

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
    /// The vector.
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

/// What makes the embeddings of a request, and of what.
pub enum Plan {
    /// The model that generates: the mean of its last hidden states over a text's tokens, scaled to length 1.
    Model(Vec<Generation>),
    /// The encoder.
    Encoder(Embedder, Vec<Vec<u32>>),
}

/// Embeds texts.
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
    let plan = blocking({
        let (app, principal) = (app.clone(), principal.clone());
        move || prepare(&app, &principal, request)
    })
    .await?;
    let tokens = match &plan {
        Plan::Model(sequences) => sequences.iter().map(Generation::prompt_tokens).sum(),
        Plan::Encoder(_, texts) => texts.iter().map(Vec::len).sum(),
    };
    let mut charge = principal.charge(tokens).map_err(ApiError::limited("input"))?;
    let (model, vectors) = match plan {
        Plan::Model(sequences) => {
            (app.model_name().to_owned(), by_model(&app, &principal, sequences, tokens, charge).await?)
        }
        Plan::Encoder(embedder, texts) => {
            // What has begun is paid for, even if it fails or the client leaves.
            let vectors = embedder.embed(texts, |begun| charge.settle(begun)).await?;
            (embedder.encoder().name().to_owned(), vectors)
        }
    };
    let entry = |(index, vector)| Embedding { object: "embedding", index, embedding: Vector::new(vector, encoding) };
    Ok(axum::Json(Embeddings {
        object: "list",
        data: vectors.into_iter().enumerate().map(entry).collect(),
        model,
        usage: EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens },
    }))
}

async fn by_model(
    app: &App,
    principal: &Principal,
    sequences: Vec<Generation>,
    tokens: usize,
    charge: Charge,
) -> Result<Vec<Vec<f32>>, ApiError> {
    let mut journal = Journal::new(tokens, charge, app.metrics().clone());
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; sequences.len()];
    let submitted = submit(app, principal, sequences, Use::default(), "");
    let mut ticket = submitted.inspect_err(|error| journal.failed(error))?;
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
    Ok(vectors.into_iter().flatten().collect())
}

/// Checks a request, down to the sequences that it asks for.
pub fn prepare(app: &App, principal: &Principal, request: EmbeddingRequest) -> Result<Plan, ApiError> {
    let EmbeddingRequest { input, model, encoding_format: _, dimensions, user } = request;
    record_user(user)?;
    let embedder = embedder(model.as_deref(), app, principal)?;
    let own = embedder.map_or(app.checkpoint().config().hidden_size, |embedder| embedder.encoder().dimensions());
    if let Some(asked) = dimensions.filter(|asked| *asked != own) {
        let message = format!("'dimensions' is {asked}, but this model's embeddings have {own}: leave it out");
        return Err(ApiError::parameter("dimensions", message));
    }
    let inputs = count(&input);
    if inputs > MAX_INPUTS {
        let message = format!("'input' has {inputs} texts: at most {MAX_INPUTS} are possible");
        return Err(ApiError::parameter("input", message));
    }
    let screener = Screener::new(app, principal, "/v1/embeddings", None);
    if let Some(embedder) = embedder {
        let texts = encode_for(embedder, input, &screener)?;
        refuse_empty(texts.iter().map(Vec::is_empty))?;
        return Ok(Plan::Encoder(embedder.clone(), texts));
    }
    let encoded = encode(input, "input", app, &screener)?;
    refuse_empty(encoded.iter().map(|input| input.shown.is_empty()))?;
    let sequence = |tokens| {
        let sequence = Generation::embedding(app.checkpoint(), tokens);
        sequence.map_err(|source| ApiError::Generate { source, prompt_param: "input" })
    };
    Ok(Plan::Model(encoded.iter().map(|input| sequence(input.tokens())).collect::<Result<_, _>>()?))
}

/// The encoder, where the request means it: by its name, or by none where there is one.
fn embedder<'a>(model: Option<&str>, app: &'a App, principal: &Principal) -> Result<Option<&'a Embedder>, ApiError> {
    let embedder = app.embedder();
    let own = embedder.map(|embedder| embedder.encoder().name());
    let asked = model.or(own).unwrap_or(app.model_name());
    if !principal.may_use_model(asked) || (Some(asked) != own && asked != app.model_name()) {
        return Err(unknown_model(asked, app, principal));
    }
    Ok(embedder.filter(|_| Some(asked) == own))
}

fn count(input: &Prompt) -> usize {
    match input {
        Prompt::Text(_) | Prompt::Tokens(_) => 1,
        Prompt::Texts(texts) => texts.len(),
        Prompt::TokenLists(lists) => lists.len(),
    }
}

/// The tokens of texts by the encoder's own tokenizer. Token ids are taken as they are.
fn encode_for(embedder: &Embedder, input: Prompt, screener: &Screener) -> Result<Vec<Vec<u32>>, ApiError> {
    let encoder = embedder.encoder();
    let of_text = |text: &String| {
        let text = screener.screen(text, "input")?;
        if text.is_empty() {
            return Ok(Vec::new());
        }
        encoder.tokenize(&text).map_err(ApiError::from)
    };
    match &input {
        Prompt::Text(text) => Ok(vec![of_text(text)?]),
        Prompt::Texts(texts) if texts.is_empty() => {
            Err(ApiError::parameter("input", "'input' is an empty list: expected at least one text"))
        }
        Prompt::Texts(texts) => texts.iter().map(of_text).collect(),
        Prompt::Tokens(tokens) => Ok(vec![screened(encoder, tokens, screener)?]),
        Prompt::TokenLists(lists) => lists.iter().map(|tokens| screened(encoder, tokens, screener)).collect(),
    }
}

fn screened(encoder: &safelmm_model::Encoder, tokens: &[u32], screener: &Screener) -> Result<Vec<u32>, ApiError> {
    let text = encoder.tokenizer().decode(tokens, true);
    let text = text.map_err(|source| ApiError::Tokenizer { source, param: "input" })?;
    match screener.screen(&text, "input")? {
        Cow::Borrowed(_) => Ok(tokens.to_vec()),
        Cow::Owned(other) => encoder.tokenize(&other).map_err(ApiError::from),
    }
}

fn refuse_empty(inputs: impl ExactSizeIterator<Item = bool>) -> Result<(), ApiError> {
    let single = inputs.len() == 1;
    match inputs.enumerate().find(|(_, is_empty)| *is_empty) {
        Some((index, _)) => {
            let param = if single { "input".to_owned() } else { format!("input[{index}]") };
            Err(ApiError::parameter(&param, format!("'{param}' is empty: expected at least one token")))
        }
        None => Ok(()),
    }
}
