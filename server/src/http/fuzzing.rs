//! What the fuzz target and its property test feed: the whole way of a request from its bytes to the sequences it asks
//! for, without the model being run.

use std::sync::{Arc, OnceLock};

use super::error::ApiError;
use super::json::parse;
use super::{chat, completions, embeddings, tokens};
use crate::app::App;
use crate::config::Config;
use crate::demo;
use crate::keys::Principal;

/// The paths that take a body.
pub const PATHS: [&str; 5] = ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize"];

/// Reads a body that is sent to one of [`PATHS`] and prepares what it asks for, with the embedded demo. Returns the status
/// of the refusal, where it is refused.
pub fn request_body(path: usize, body: &[u8]) -> Result<(), u16> {
    static APP: OnceLock<Option<App>> = OnceLock::new();
    let start = || App::start(Arc::new(demo::open().ok()?), &Config::default()).ok();
    let Some(app) = APP.get_or_init(start) else { return Err(500) };
    let principal = &Principal::local();
    let outcome = match path % PATHS.len() {
        0 => parse(body).and_then(|request| completions::prepare(app, principal, request).map(drop)),
        1 => parse(body).and_then(|request| chat::prepare(app, principal, request).map(drop)),
        2 => parse(body).and_then(|request| embeddings::prepare(app, principal, request).map(drop)),
        3 => parse(body).and_then(|request| tokens::prepare(app, principal, request).map(drop)),
        _ => parse(body).and_then(|request| tokens::prepare_text(app, principal, &request).map(drop)),
    };
    outcome.map_err(|error: ApiError| {
        // What the client would be sent is made too.
        let _ = serde_json::to_string(&error.body());
        error.status().as_u16()
    })
}
