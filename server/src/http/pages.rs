//! The playground and the API's description for people: pages with their styles and scripts, part of the program.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Nothing but this server's own files and API; the page's icon is a `data:` URL.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

/// The playground.
#[utoipa::path(
    get, path = "/", tag = "pages",
    responses((status = 200, description = "The file", body = String, content_type = "text/html")),
)]
pub async fn playground(headers: HeaderMap) -> Response {
    file(include_str!("../playground/index.html"), "text/html; charset=utf-8", &headers)
}

/// The playground's style.
#[utoipa::path(
    get, path = "/playground/style.css", tag = "pages",
    responses((status = 200, description = "The file", body = String, content_type = "text/css")),
)]
pub async fn playground_style(headers: HeaderMap) -> Response {
    file(include_str!("../playground/style.css"), "text/css; charset=utf-8", &headers)
}

/// The playground's script.
#[utoipa::path(
    get, path = "/playground/app.js", tag = "pages",
    responses((status = 200, description = "The file", body = String, content_type = "text/javascript")),
)]
pub async fn playground_script(headers: HeaderMap) -> Response {
    file(include_str!("../playground/app.js"), "text/javascript; charset=utf-8", &headers)
}

/// This description, for people.
#[utoipa::path(
    get, path = "/docs", tag = "pages",
    responses((status = 200, description = "The file", body = String, content_type = "text/html")),
)]
pub async fn docs(headers: HeaderMap) -> Response {
    file(include_str!("../docs/index.html"), "text/html; charset=utf-8", &headers)
}

/// Its style.
#[utoipa::path(
    get, path = "/docs/style.css", tag = "pages",
    responses((status = 200, description = "The file", body = String, content_type = "text/css")),
)]
pub async fn docs_style(headers: HeaderMap) -> Response {
    file(include_str!("../docs/style.css"), "text/css; charset=utf-8", &headers)
}

/// Its script.
#[utoipa::path(
    get, path = "/docs/docs.js", tag = "pages",
    responses((status = 200, description = "The file", body = String, content_type = "text/javascript")),
)]
pub async fn docs_script(headers: HeaderMap) -> Response {
    file(include_str!("../docs/docs.js"), "text/javascript; charset=utf-8", &headers)
}

/// The file with its headers. Browsers keep it and ask each time whether it is still the same, so that the files of a page
/// always belong together, after an update too.
fn file(content: &'static str, content_type: &'static str, request: &HeaderMap) -> Response {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let known = request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    let tag = [(header::ETAG, tag)];
    if known {
        (StatusCode::NOT_MODIFIED, headers, tag).into_response()
    } else {
        (headers, tag, content).into_response()
    }
}
