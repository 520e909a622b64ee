//! The encoder for embeddings, where one is configured: one batch after another, requests in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use safelmm_model::{Encoder, EncoderError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::engine::EngineError;

/// Texts that are embedded before another request has its turn.
const BATCH: usize = 16;
/// When a client that met a full queue may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why there are no embeddings.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The text cannot be embedded, or the encoder failed.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// Too many requests wait, or this one took too long.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A cheap handle on the encoder.
#[derive(Clone)]
pub struct Embedder(Arc<Inner>);

struct Inner {
    encoder: Arc<Encoder>,
    turn: Arc<Semaphore>,
    requests: AtomicUsize,
    capacity: usize,
    request_timeout: Duration,
}

/// One request among those that wait or run.
struct Place(Embedder);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Embedder {
    /// An embedder for which `capacity` requests may wait, each for so long at most.
    pub fn new(encoder: Arc<Encoder>, capacity: usize, request_timeout: Duration) -> Self {
        let (turn, requests) = (Arc::new(Semaphore::new(1)), AtomicUsize::new(0));
        Embedder(Arc::new(Inner { encoder, turn, requests, capacity, request_timeout }))
    }

    /// The encoder.
    pub fn encoder(&self) -> &Arc<Encoder> {
        &self.0.encoder
    }

    /// The embedding of each text. A client that leaves ends the work at the next batch. Before each batch, `begun` is told
    /// how many tokens this and the earlier ones have.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn embed(
        &self,
        texts: Vec<Vec<u32>>,
        begun: impl FnMut(usize) + Send,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        if self.0.requests.fetch_add(1, Ordering::Relaxed) > self.0.capacity {
            self.0.requests.fetch_sub(1, Ordering::Relaxed);
            return Err(EngineError::QueueFull { retry_after: RETRY_AFTER }.into());
        }
        let place = Arc::new(Place(self.clone()));
        let limit = self.0.request_timeout;
        match timeout_at(Instant::now() + limit, self.in_turns(texts, begun, &place)).await {
            Ok(embedded) => embedded,
            Err(_) => Err(EngineError::Timeout { limit }.into()),
        }
    }

    async fn in_turns(
        &self,
        texts: Vec<Vec<u32>>,
        mut begun: impl FnMut(usize) + Send,
        place: &Arc<Place>,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut embeddings = Vec::with_capacity(texts.len());
        let mut texts = texts.into_iter().peekable();
        let mut tokens = 0;
        while texts.peek().is_some() {
            let batch: Vec<Vec<u32>> = texts.by_ref().take(BATCH).collect();
            let turn = Arc::clone(&self.0.turn).acquire_owned().await.map_err(|_| EngineError::Stopped)?;
            tokens += batch.iter().map(Vec::len).sum::<usize>();
            begun(tokens);
            let place = Arc::clone(place);
            // A batch cannot be stopped: its turn and its place go with it, so that a client that leaves does not let the
            // next batch begin beside it.
            let embedded = tokio::task::spawn_blocking(move || {
                let embedded = place.0.encoder().embed(&batch);
                drop((turn, place));
                embedded
            })
            .await;
            embeddings.extend(embedded.map_err(|_| EngineError::StepFailed)??);
        }
        Ok(embeddings)
    }
}
