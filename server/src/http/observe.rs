//! One span and one id for each request; the last net under panics.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tracing::{Instrument, field};

use super::error::{ApiError, Reason};
use crate::app::App;
use crate::engine::panic_message;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The route of requests that no route is there for.
const NO_ROUTE: &str = "(none)";

/// Wraps every route: the span, the header `x-request-id`, the log line of the answer, and the count of answers.
pub async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = format!("req_{}", uuid::Uuid::new_v4().simple());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", id, %method, path, key = field::Empty, user = field::Empty);
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let received = Instant::now();
    let answer = async {
        let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = answered.unwrap_or_else(|panic| {
            ApiError::Internal(format!("a request handler panicked: {}", panic_message(panic.as_ref()))).into_response()
        });
        app.metrics().answered(route.as_deref().unwrap_or(NO_ROUTE), response.status().as_u16(), received.elapsed());
        if let Some(Reason(reason)) = response.extensions().get() {
            app.metrics().refused(reason);
        }
        let (status, ms) = (response.status().as_u16(), received.elapsed().as_secs_f64() * 1e3);
        // Probes and pages come often and say little.
        if method == Method::POST {
            tracing::info!(status, ms, "answered");
        } else {
            tracing::debug!(status, ms, "answered");
        }
        response
    };
    let mut response = answer.instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
