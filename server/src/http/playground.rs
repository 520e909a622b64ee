//! The playground: one page with its style and script, part of the program.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

const PAGE: &str = include_str!("../playground/index.html");
const STYLE: &str = include_str!("../playground/style.css");
const SCRIPT: &str = include_str!("../playground/app.js");

/// Nothing but this server's own files and API; the page's icon is a `data:` URL.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

/// `GET /`.
pub async fn page(headers: HeaderMap) -> Response {
    file(PAGE, "text/html; charset=utf-8", &headers)
}

/// `GET /playground/style.css`.
pub async fn style(headers: HeaderMap) -> Response {
    file(STYLE, "text/css; charset=utf-8", &headers)
}

/// `GET /playground/app.js`.
pub async fn script(headers: HeaderMap) -> Response {
    file(SCRIPT, "text/javascript; charset=utf-8", &headers)
}

/// The file with its headers. Browsers keep it and ask each time whether it is still the same, so that the three files
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
