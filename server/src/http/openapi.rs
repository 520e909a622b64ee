//! The API's description for programs: `GET /openapi.json`, made of the very types that are read and written.

use std::sync::Arc;

use axum::Extension;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi, SecurityRequirement};
use utoipa::{OpenApi as _, Path as _};

use super::error::ErrorBody;
use super::models;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "SafeLMM",
        description = "The OpenAI-compatible API of SafeLMM: language models trained only on text that may be trained on, \
                       with a content rating for each answer. A parameter is honoured or refused with 400, never ignored. \
                       Errors are `{\"error\": {\"message\", \"type\", \"param\", \"code\"}}`.",
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "generation", description = "Texts from the model"),
        (name = "stores", description = "Licensed text that requests may attach"),
        (name = "policies", description = "What texts are judged by"),
        (name = "tokens", description = "Texts to tokens and back"),
        (name = "models", description = "What is served"),
        (name = "health", description = "For probes"),
        (name = "pages", description = "For browsers"),
    ),
)]
struct Description;

/// The description before the routes are known.
pub fn head() -> OpenApi {
    let mut api = Description::openapi();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key, where the server asks for one: `Authorization: Bearer KEY`"))
        .build();
    let components = api.components.get_or_insert_default();
    components.security_schemes.insert("key".into(), SecurityScheme::Http(scheme));
    // Either nothing, where the server has no keys, or a key.
    api.security = Some(vec![SecurityRequirement::default(), SecurityRequirement::new("key", Vec::<String>::new())]);
    api
}

/// Completes the description with what one route answers under two paths.
pub fn complete(mut api: OpenApi) -> OpenApi {
    // Names and ids may have slashes; the description has no word for that.
    let slashed: Vec<String> = api.paths.paths.keys().filter(|path| path.contains("{*")).cloned().collect();
    for path in slashed {
        if let Some(item) = api.paths.paths.remove(&path) {
            api.paths.paths.insert(path.replace("{*", "{"), item);
        }
    }
    type Provenance = models::__path_provenance;
    let mut operation = Provenance::operation();
    operation.tags = Some(vec!["models".to_owned()]);
    api.paths.add_path_operation(Provenance::path(), Provenance::methods(), operation);
    api
}

/// The finished description, as it is sent.
#[derive(Clone)]
pub struct Document(Arc<str>);

impl Document {
    /// Writes it down. A description made of plain structs always serialises.
    pub fn new(api: &OpenApi) -> Self {
        Document(serde_json::to_string(api).unwrap_or_default().into())
    }
}

/// Describes the API, in OpenAPI 3.1.
#[utoipa::path(
    get, path = "/openapi.json", tag = "pages",
    responses((status = 200, description = "This document", body = serde_json::Value)),
)]
pub async fn openapi(Extension(Document(json)): Extension<Document>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], json.to_string())
}
