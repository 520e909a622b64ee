//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

use super::activity::Activity;
use super::socket::Socket;
use crate::http::guarded::Guarded;

/// The longest head of a request, and the most of an answer that is held for a client, in bytes: with
/// `max_connections` it bounds what clients that send or take slowly can make the server hold.
const MAX_BUFFER_BYTES: usize = 16 << 10;

/// Answers the requests of one connection until it ends, has to give way to another while it is idle, or the server is
/// closing, which finishes the answer in progress.
///
/// HTTP/1.1 alone: every client of the API speaks it, and one request at a time is what the limits are made for.
pub async fn serve(socket: Socket, activity: Arc<Activity>, router: Router, closing: impl Future<Output = ()>) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let busy = activity.begin(!request.body().is_end_stream());
        let answer = router.call(request.map(|body| Watched { body, activity: Arc::clone(&activity) }));
        async move {
            let response: Response<Body> = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Guarded::body(body, busy)))
        }
    });
    let mut builder = http1::Builder::new();
    // The socket has its own timeouts, which know more: hyper's one would also count the time between two requests.
    builder.header_read_timeout(None).max_buf_size(MAX_BUFFER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut closing = pin!(closing);
    let mut is_closing = false;
    loop {
        tokio::select! {
            biased;
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    tracing::debug!(error = error.to_string(), "a connection broke off");
                }
                return;
            }
            () = activity.changed() => {
                if activity.gives_way() {
                    return;
                }
            }
            () = closing.as_mut(), if !is_closing => {
                // Half of a head is no request yet: like an idle connection, it must not delay the end.
                if activity.disposable_since().is_some() {
                    return;
                }
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The body of a request, which tells when it was read to its end.
struct Watched {
    body: Incoming,
    activity: Arc<Activity>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.activity.body_ended();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
