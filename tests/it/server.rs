//! The HTTP API.

mod answers;
mod batching;
mod errors;
mod lifecycle;
mod routes;
mod streaming;
