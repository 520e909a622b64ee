//! The HTTP API.

mod answers;
mod batching;
mod errors;
mod hostile;
mod keys;
mod lifecycle;
mod policy;
mod routes;
mod streaming;
