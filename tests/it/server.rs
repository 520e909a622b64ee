//! The HTTP API.

mod answers;
mod batching;
mod errors;
mod lifecycle;
mod policy;
mod routes;
mod streaming;
