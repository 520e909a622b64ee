//! The engine and the OpenAI-compatible HTTP API, with the playground; lib and binary `safelmm`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use safelmm_server::{App, Config, demo, router};
//!
//! let app = App::start(Arc::new(demo::open()?), &Config::default())?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, router(app)).await?;
//! # Ok(())
//! # }
//! ```

pub mod config;
pub mod demo;
pub mod metrics;

pub mod engine;

mod embedder;

mod app;
mod http;
mod serve;

pub mod cli;

pub use app::{App, StartError};
pub use config::Config;
#[doc(hidden)]
pub use http::fuzzing;
pub use http::{ApiError, router};
pub use serve::{Stop, bind, serve};
