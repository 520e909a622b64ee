//! A body that holds something until it has been read to its end, or was given up.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// The body, and what is dropped with its end.
pub struct Guarded<G> {
    body: Body,
    guard: Option<G>,
}

impl<G: Unpin + Send + 'static> Guarded<G> {
    /// The same body, which holds `guard`.
    pub fn body(body: Body, guard: G) -> Body {
        Body::new(Guarded { body, guard: Some(guard) })
    }
}

impl<G: Unpin> HttpBody for Guarded<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.guard = None;
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
