//! Traces of requests, sent to a collector by OTLP over HTTP.
//!
//! A thread of its own sends them in batches. What a collector that is away or slow does not take is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::Key;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::registry::LookupSpan;

/// How long a collector may take for a batch.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most that is read of a collector's answer, in bytes.
const LONGEST_ANSWER: u64 = 64 << 10;

/// The service's name, where the environment (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) gives none.
const SERVICE: &str = "safelmm";

/// Sends spans to `/v1/traces` below the endpoint, which has no slash at its end. Errors: settings in the environment
/// that cannot be honoured.
pub(super) fn provider(endpoint: &str) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector::new(endpoint))
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(PATIENCE)
        .build()?;
    let found = Resource::builder().build();
    let named = found
        .get(&Key::from_static_str("service.name"))
        .is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let resource = if named { found } else { Resource::builder().with_service_name(SERVICE).build() };
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

/// Gives the provider the spans of requests, and neither events nor what libraries say.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let of_a_request = |span: &Metadata<'_>| span.is_span() && span.target().starts_with("safelmm_server");
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SERVICE))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(FilterFn::new(of_a_request).with_max_level_hint(LevelFilter::INFO))
}

/// The HTTP client of the exporter. The log says when a collector begins to fail and when it is back, and not each time.
#[derive(Debug)]
struct Collector {
    endpoint: String,
    agent: ureq::Agent,
    failing: AtomicBool,
}

impl Collector {
    fn new(endpoint: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // The collector is the one that was named.
            .proxy(None)
            .build();
        Collector { endpoint: endpoint.to_owned(), agent: config.new_agent(), failing: AtomicBool::new(false) }
    }

    fn post(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let (parts, mut body) = self.agent.run(Request::from_parts(parts, &body[..]))?.into_parts();
        let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Blocks, as the exporter's thread may.
        let outcome = self.post(request);
        let failure = match &outcome {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered {}", response.status())),
            Err(error) => Some(error.to_string()),
        };
        let endpoint = &self.endpoint;
        match (failure, self.failing.load(Ordering::Relaxed)) {
            (Some(reason), false) => {
                tracing::warn!(endpoint, reason, "the collector takes no traces: they are dropped until it does");
                self.failing.store(true, Ordering::Relaxed);
            }
            (None, true) => {
                tracing::info!(endpoint, "the collector takes traces again");
                self.failing.store(false, Ordering::Relaxed);
            }
            _ => {}
        }
        Ok(outcome?)
    }
}
