//! A request's body has to arrive in time: whoever stops sending in the middle of one gives up the place.

use std::convert::Infallible;
use std::future::pending;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::error::ApiError;
use super::guarded::Guarded;
use crate::app::App;
use crate::engine::EngineError;

/// Answers with 408 when the body has not come within the configured time, and with 503 when it has not come before the
/// server shuts down.
pub async fn body_deadline(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (held_by_body, mut body_gone) = oneshot::channel::<Infallible>();
    let request = request.map(|body| Guarded::body(body, held_by_body));
    let limit = app.server_config().body_timeout;
    let overdue = async {
        tokio::select! {
            // Read to its end, or no longer wanted.
            _ = &mut body_gone => pending().await,
            () = sleep(limit) => ApiError::BodyTimeout { limit },
            () = app.closing() => EngineError::Stopped.into(),
        }
    };
    tokio::select! {
        biased;
        response = next.run(request) => response,
        error = overdue => {
            let mut response = error.into_response();
            // The rest of the body, should it come, must not be taken for a request.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}
