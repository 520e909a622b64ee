//! `/v1/stores`: what there is, and changing it.

mod answers;

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use safelmm_datastore::{AddOptions, Document, Receipt, Selector, StoreError, View};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tracing::Span;
use utoipa::IntoParams;

use answers::FoundPassage;
pub use answers::{AddedAnswer, CompactedAnswer, FoundPassages, StoreAnswer, StoreList};

use super::attachment::{access, check_passages, open};
use super::error::ApiError;
use super::extension::check_use;
use super::generation::blocking;
use super::json::{Json, shortened};
use super::request::{DocumentFields, DocumentsRequest, PassageRanking, PermissionFields, SearchRequest, StoreRequest};
use super::screener::Screener;
use crate::app::App;
use crate::keys::{Principal, Use};
use crate::retrieval::{Attached, StoresError, store_settings};

/// The most passages of one search, and how many there are where the request does not say.
const MAX_PASSAGES: usize = 100;
const PASSAGES: usize = 10;
/// The longest query.
const MAX_QUERY_BYTES: usize = 8 << 10;

/// A store that the key may ask.
fn find(name: &str, app: &App, principal: &Principal) -> Result<Attached, ApiError> {
    let attached = Some(name).filter(|name| principal.may_ask(name)).and_then(|name| app.stores().get(name));
    attached.ok_or_else(|| ApiError::UnknownStore(shortened(name)))
}

/// A store that the key may change.
fn find_to_change(name: &str, app: &App, principal: &Principal) -> Result<Attached, ApiError> {
    let attached = find(name, app, principal)?;
    principal.may_manage_stores().then_some(attached).ok_or(ApiError::StoresNotManaged)
}

fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, ApiError> {
    path.map(|Path(parts)| parts).map_err(|_| ApiError::UnknownStore("(not UTF-8)".into()))
}

/// Changes of stores that take the processors for as long as they like, one at a time.
static CHANGES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(1)));

/// Runs work that takes long when it has its turn, to its end, whether its client waits or not.
async fn change<T: Send + 'static>(
    principal: Principal,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let turn = Arc::clone(&CHANGES).acquire_owned().await;
    let turn = turn.map_err(|error| ApiError::Internal(format!("no store is changed any more: {error}")))?;
    on_a_thread(principal, move || {
        let done = work();
        drop(turn);
        done
    })
    .await
}

/// Runs work on a thread of its own, to its end, whether its client waits or not. A removal waits for nobody.
async fn on_a_thread<T: Send + 'static>(
    principal: Principal,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let span = Span::current();
    let done = tokio::task::spawn_blocking(move || {
        let done = span.in_scope(work);
        drop(principal);
        done
    });
    done.await.unwrap_or_else(|error| Err(ApiError::Internal(format!("a store could not be asked: {error}"))))
}

fn failed(error: &StoreError, param: &'static str) -> ApiError {
    match error {
        StoreError::Document(_) | StoreError::Encode(_) | StoreError::Settings(_) | StoreError::Exists(_) => {
            ApiError::parameter(param, format!("'{param}': {error}"))
        }
        other => ApiError::Internal(other.to_string()),
    }
}

/// Lists the stores that the key may ask.
#[utoipa::path(
    get, path = "/v1/stores", tag = "stores",
    responses((status = 200, description = "The stores", body = StoreList), ApiError),
)]
pub async fn list(State(app): State<App>, principal: Principal) -> Result<axum::Json<StoreList>, ApiError> {
    let data = on_a_thread(principal.clone(), move || {
        let all = app.stores().all();
        let own = all.iter().filter(|attached| principal.may_ask(&attached.store.settings().name));
        Ok(own.map(|attached| StoreAnswer::of(attached, &app, &principal)).collect())
    });
    Ok(axum::Json(StoreList { object: "list", data: data.await? }))
}

/// Describes one store.
#[utoipa::path(
    get, path = "/v1/stores/{store}", tag = "stores",
    params(("store" = String, Path, description = "The store's name")),
    responses((status = 200, description = "The store", body = StoreAnswer), ApiError),
)]
pub async fn get(
    State(app): State<App>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
) -> Result<axum::Json<StoreAnswer>, ApiError> {
    let name = path(name)?;
    let answer =
        on_a_thread(principal.clone(), move || Ok(StoreAnswer::of(&find(&name, &app, &principal)?, &app, &principal)));
    answer.await.map(axum::Json)
}

/// Makes an empty store for the model that is served.
#[utoipa::path(
    post, path = "/v1/stores", tag = "stores",
    request_body = StoreRequest,
    responses((status = 200, description = "The new store", body = StoreAnswer), ApiError),
)]
pub async fn create(
    State(app): State<App>,
    principal: Principal,
    Json(StoreRequest { name }): Json<StoreRequest>,
) -> Result<axum::Json<StoreAnswer>, ApiError> {
    if !principal.may_manage_stores() || !principal.may_ask(&name) {
        return Err(ApiError::StoresNotManaged);
    }
    let created = on_a_thread(principal.clone(), move || {
        let settings = store_settings(&name, app.stores().encoder());
        let created = app.stores().create(&name, settings).map_err(|error| match error {
            StoresError::Store { source, .. } => failed(&source, "name"),
            StoresError::Exists(_) | StoresError::NoFolder => ApiError::parameter("name", format!("'name': {error}")),
            other => ApiError::Internal(other.to_string()),
        })?;
        Ok(StoreAnswer::of(&created, &app, &principal))
    });
    created.await.map(axum::Json)
}

/// Adds documents to a store. The answer comes when they are there to stay, all of them or none.
#[utoipa::path(
    post, path = "/v1/stores/{store}/documents", tag = "stores",
    params(("store" = String, Path, description = "The store's name")),
    request_body = DocumentsRequest,
    responses((status = 200, description = "What came of them", body = AddedAnswer), ApiError),
)]
pub async fn add(
    State(app): State<App>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
    Json(DocumentsRequest { documents }): Json<DocumentsRequest>,
) -> Result<axum::Json<AddedAnswer>, ApiError> {
    let attached = find_to_change(&path(name)?, &app, &principal)?;
    // One commit: the body is not larger than the server's limit.
    let options = AddOptions { commit_every_tokens: usize::MAX, all_or_none: true, ..AddOptions::default() };
    let mut ids = HashSet::new();
    let documents = documents
        .into_iter()
        .enumerate()
        .map(|(index, fields)| {
            let path = format!("documents[{index}]");
            let document = document(fields, &path)?;
            if !ids.insert(document.id.clone()) {
                return Err(ApiError::parameter(&path, format!("'{path}' has the id of another one")));
            }
            // Before any of them is added.
            let checked = document.check(options.max_document_bytes);
            checked.map_err(|error| ApiError::parameter(&path, format!("'{path}': {error}")))?;
            Ok(document)
        })
        .collect::<Result<Vec<Document>, ApiError>>()?;
    let fits = attached.check_passages(app.stores().encoder());
    fits.map_err(|error| ApiError::parameter("store", error.to_string()))?;
    let added = change(principal, move || {
        let mut documents = documents.into_iter().map(Ok);
        let (encoder, stop) = (app.stores().encoder(), AtomicBool::new(false));
        let added = attached.store.add(&mut documents, encoder, &options, &|_| (), &stop);
        added.map_err(|error| failed(&error, "documents"))
    })
    .await?;
    let (added, replaced, unchanged, tokens) = (added.added, added.replaced, added.unchanged, added.tokens);
    Ok(axum::Json(AddedAnswer { added, replaced, unchanged, tokens }))
}

fn document(fields: DocumentFields, path: &str) -> Result<Document, ApiError> {
    let DocumentFields { id, text, license, title, author, url, lang, rating, rights_holder, permissions, source } =
        fields;
    let mut object = Map::new();
    for (name, value) in [
        ("id", Some(id.into())),
        ("text", Some(text.into())),
        ("license", Some(license.into())),
        ("title", title.map(Value::from)),
        ("author", author.map(Value::from)),
        ("url", url.map(Value::from)),
        ("lang", lang.map(Value::from)),
        ("rating", rating.map(|rating| rating.as_str().into())),
        ("rights_holder", rights_holder.map(Value::from)),
        (
            "permissions",
            permissions.map(|PermissionFields { train, retrieve }| json!({"train": train, "retrieve": retrieve})),
        ),
        ("source", source.map(Value::from)),
    ] {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    }
    serde_json::from_value(object.into()).map_err(|error| ApiError::parameter(path, format!("'{path}': {error}")))
}

/// Removes a document: when the answer comes, it informs nothing any more. The answer is a signed receipt.
#[utoipa::path(
    delete, path = "/v1/stores/{store}/documents/{*document}", tag = "stores",
    params(
        ("store" = String, Path, description = "The store's name"),
        ("document" = String, Path, description = "The document's id"),
    ),
    responses((status = 200, description = "The receipt", body = Object), ApiError),
)]
pub async fn remove(
    State(app): State<App>,
    principal: Principal,
    parts: Result<Path<(String, String)>, PathRejection>,
) -> Result<axum::Json<Receipt>, ApiError> {
    let (name, id) = path(parts)?;
    let attached = find_to_change(&name, &app, &principal)?;
    let receipt = on_a_thread(principal, {
        let id = id.clone();
        move || attached.store.remove(&Selector::Id(id)).map_err(|error| failed(&error, "document"))
    })
    .await?;
    receipt.map(axum::Json).ok_or_else(|| ApiError::UnknownDocument(shortened(&id)))
}

/// Which documents go: one of these.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Those of this author.
    author: Option<String>,
    /// Those of this rights holder.
    rights_holder: Option<String>,
    /// Those found at this address.
    url: Option<String>,
}

/// Removes all documents of an author, a rights holder or an address. The answer is a signed receipt.
#[utoipa::path(
    delete, path = "/v1/stores/{store}/documents", tag = "stores",
    params(("store" = String, Path, description = "The store's name"), Which),
    responses((status = 200, description = "The receipt", body = Object), ApiError),
)]
pub async fn remove_all(
    State(app): State<App>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<axum::Json<Receipt>, ApiError> {
    let attached = find_to_change(&path(name)?, &app, &principal)?;
    let usage = "name one of 'author', 'rights_holder' and 'url' behind the '?'";
    let Query(which) = which.map_err(|error| ApiError::parameter("query", format!("{error}: {usage}")))?;
    let (what, value, selector): (_, _, fn(String) -> Selector) = match which {
        Which { author: Some(author), rights_holder: None, url: None } => ("author", author, Selector::Author),
        Which { author: None, rights_holder: Some(holder), url: None } => {
            ("rights holder", holder, Selector::RightsHolder)
        }
        Which { author: None, rights_holder: None, url: Some(url) } => ("address", url, Selector::Url),
        _ => return Err(ApiError::parameter("query", usage)),
    };
    let value_told = shortened(&value);
    let removed = on_a_thread(principal, move || {
        attached.store.remove(&selector(value)).map_err(|error| failed(&error, "query"))
    });
    removed.await?.map(axum::Json).ok_or(ApiError::NoDocuments { what, value: value_told })
}

/// Erases the bytes of removed documents.
#[utoipa::path(
    post, path = "/v1/stores/{store}/compact", tag = "stores",
    params(("store" = String, Path, description = "The store's name")),
    responses((status = 200, description = "What was done", body = CompactedAnswer), ApiError),
)]
pub async fn compact(
    State(app): State<App>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
) -> Result<axum::Json<CompactedAnswer>, ApiError> {
    let attached = find_to_change(&path(name)?, &app, &principal)?;
    let compacted = change(principal, move || {
        attached.store.compact(&|_| (), &AtomicBool::new(false)).map_err(|error| failed(&error, "store"))
    })
    .await?;
    Ok(axum::Json(CompactedAnswer { erased: compacted.erased, receipt: compacted.receipt }))
}

/// Finds passages in a store, as far as the request may use it.
#[utoipa::path(
    post, path = "/v1/stores/{store}/search", tag = "stores",
    params(("store" = String, Path, description = "The store's name")),
    request_body = SearchRequest,
    responses((status = 200, description = "The passages, the best first", body = FoundPassages), ApiError),
)]
pub async fn search(
    State(app): State<App>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
    Json(request): Json<SearchRequest>,
) -> Result<axum::Json<FoundPassages>, ApiError> {
    let name = path(name)?;
    blocking(move || found(&name, request, &app, &principal)).await.map(axum::Json)
}

fn found(name: &str, request: SearchRequest, app: &App, principal: &Principal) -> Result<FoundPassages, ApiError> {
    let SearchRequest { query, ranking, n, declared_use, rating, exclude_documents } = request;
    let declared_use: Use = declared_use.unwrap_or_default();
    check_use(principal, declared_use)?;
    let rating = principal.rating_for(rating, app.rating_ceiling(), app.default_rating())?;
    let n = n.unwrap_or(PASSAGES);
    if !(1..=MAX_PASSAGES).contains(&n) {
        return Err(ApiError::parameter("n", format!("'n' must be between 1 and {MAX_PASSAGES}, found {n}")));
    }
    if query.trim().is_empty() {
        return Err(ApiError::parameter("query", "'query' is empty: expected words to look for"));
    }
    if query.len() > MAX_QUERY_BYTES {
        let message = format!("'query' is longer than {MAX_QUERY_BYTES} bytes: expected a few words");
        return Err(ApiError::parameter("query", message));
    }
    let screener = Screener::new(app, principal, "/v1/stores/{store}/search", None);
    let query = screener.screen(&query, "query")?;
    let access = access(app, declared_use, rating, true);
    let exclude = exclude_documents.unwrap_or_default();
    let (views, _) = open(&[name.to_owned()], app, principal, &access, &exclude)?;
    let view = View::join(&views);
    let passages = match ranking.unwrap_or(PassageRanking::Bm25) {
        PassageRanking::Bm25 => view.passages_bm25(&query, n),
        PassageRanking::Dense => {
            check_passages(&[name.to_owned()], app, "ranking")?;
            let vector = app.stores().encoder().passages().embed(&query);
            let refused = |error| ApiError::parameter("query", format!("'query' cannot be searched for: {error}"));
            view.passages_dense(&vector.map_err(refused)?, n)
        }
    }
    .map_err(|error| failed(&error, "ranking"))?;
    let told = passages.iter().filter_map(|passage| {
        let info = view.document(passage.document)?;
        Some(FoundPassage {
            score: passage.score,
            text: view.passage_text(passage)?.to_owned(),
            document: info.id,
            title: info.title,
            author: info.author,
            license: info.license.to_string(),
            url: info.url,
            obligations: info.obligations,
        })
    });
    Ok(FoundPassages { object: "list", data: told.collect() })
}
