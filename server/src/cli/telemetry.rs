//! Where the log and the traces go, and how much of them.

use std::io::{self, IsTerminal};
use std::time::Duration;

use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::{log, traces};
use crate::config::TelemetryConfig;

/// How long the end waits for a collector to take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// The log and the traces of this process. Dropped at its end, it sends the last spans and writes the last lines, and
/// waits about three seconds at most for those who should take them.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    // Dropped after the traces, of which the log may speak.
    _log: Option<WorkerGuard>,
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot export traces: {0}; the variables OTEL_EXPORTER_OTLP_* and the endpoint say how they are sent")]
pub struct TelemetryFailure(#[from] ExporterBuildError);

impl Telemetry {
    /// For a command on the terminal: the log goes to standard error. `RUST_LOG` says how much; without it, warnings do.
    pub fn for_command() -> Self {
        subscribe("warn", BoxMakeWriter::new(io::stderr), None);
        Telemetry { traces: None, _log: None }
    }

    /// For the server: the log goes to standard error, which nobody has to read, and the traces to the collector, which
    /// does not have to be there. `RUST_LOG` says how much is logged, and has no say about traces.
    pub fn for_server(config: &TelemetryConfig) -> Result<Self, TelemetryFailure> {
        let traces = config.otlp_endpoint.as_deref().map(traces::provider).transpose()?;
        let (writer, guard) = log::for_server();
        subscribe("info", BoxMakeWriter::new(writer), traces.as_ref());
        Ok(Telemetry { traces, _log: Some(guard) })
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown_with_timeout(LAST_SPANS)
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

fn subscribe(default: &str, writer: BoxMakeWriter, traces: Option<&SdkTracerProvider>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(log.with_filter(filter)).with(traces.map(traces::layer));
    // A subscriber that is there already stays: in a test, for instance.
    let _ = registry.try_init();
}
