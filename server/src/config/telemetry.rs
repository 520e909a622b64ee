//! `[telemetry]`: where the traces of requests are sent.

use axum::http::Uri;
use serde::Deserialize;

use super::{ConfigError, Overrides};

/// The section as the user wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    otlp_endpoint: Option<String>,
}

/// Where the traces of requests are sent.
#[derive(Clone, Debug, Default)]
pub struct TelemetryConfig {
    /// `otlp_endpoint`, `--otlp-endpoint`, `OTEL_EXPORTER_OTLP_ENDPOINT`: a collector that takes OTLP over plain HTTP, such
    /// as `http://localhost:4318`, without a slash at the end; spans are posted to `/v1/traces` below it. None sends
    /// nothing. An empty text is none, as the standard wants it of the variable.
    pub otlp_endpoint: Option<String>,
}

impl TelemetryConfig {
    pub(super) fn resolve(section: Section, overrides: &Overrides) -> Result<Self, ConfigError> {
        let said = |text: &String| !text.is_empty();
        let endpoint = overrides.otlp_endpoint.clone().filter(said).or(section.otlp_endpoint.filter(said));
        let Some(endpoint) = endpoint else { return Ok(TelemetryConfig::default()) };
        let invalid = |found: String| ConfigError::Invalid {
            key: "otlp_endpoint (--otlp-endpoint, OTEL_EXPORTER_OTLP_ENDPOINT, [telemetry] otlp_endpoint)",
            expected: "the address of a collector that takes OTLP over plain HTTP, such as http://localhost:4318"
                .into(),
            found,
        };
        if endpoint.contains('@') {
            // What stands there may be a password.
            return Err(invalid("an address with a user name".into()));
        }
        match endpoint.parse::<Uri>() {
            Ok(uri) if uri.scheme_str() == Some("http") && uri.query().is_none() => {
                Ok(TelemetryConfig { otlp_endpoint: Some(endpoint.trim_end_matches('/').to_owned()) })
            }
            _ => Err(invalid(format!("{endpoint:?}"))),
        }
    }
}
