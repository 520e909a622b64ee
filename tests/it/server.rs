//! The HTTP API.

mod answers;
mod batching;
mod chat_forms;
mod embeddings;
mod errors;
mod hostile;
mod keys;
mod lifecycle;
mod logprobs;
mod metrics;
mod openapi;
mod plugins;
mod policy;
mod routes;
mod stores;
mod streaming;
