//! The engine and the OpenAI-compatible HTTP API, with the playground; lib and binary `safelmm`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use safelmm_server::{App, Config, Stop, bind, demo, serve};
//!
//! let app = App::start(Arc::new(demo::open()?), &Config::default())?;
//! let listener = bind("127.0.0.1:8080".parse()?).await?;
//! let (_stop, asked_to_stop) = tokio::sync::watch::channel(Stop::No);
//! serve(app, listener, asked_to_stop).await?;
//! # Ok(())
//! # }
//! ```

pub mod config;
pub mod demo;
pub mod metrics;

pub mod engine;
pub mod keys;

mod embedder;

pub mod policies;

pub mod retrieval;

mod app;
mod http;
mod listener;

mod serve;

pub mod cli;

pub use app::{App, StartError};
pub use config::Config;
#[doc(hidden)]
pub use http::fuzzing;
pub use http::{ApiError, router};
pub use serve::{Stop, bind, serve};
