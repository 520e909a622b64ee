//! `GET /v1/plugins`: the policies of this server.

use axum::Json;
use axum::extract::State;
use safelmm_plugins::{About, Hook};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::policies::Standing;

/// The policies, in the order in which they are asked.
#[derive(Serialize, ToSchema)]
pub struct Plugins {
    /// `list`.
    object: &'static str,
    /// Each of them.
    data: Vec<Plugin>,
}

/// A policy.
#[derive(Serialize, ToSchema)]
struct Plugin {
    /// Its name on this server.
    name: String,
    /// `plugin`.
    object: &'static str,
    /// What it calls itself.
    policy: String,
    /// Its version.
    version: String,
    /// What it does.
    summary: String,
    /// `built-in`, `bundled:NAME`, or `file`.
    source: String,
    /// SHA-256 of the component, as `sha256:HEX`; null for what is built in.
    digest: Option<String>,
    /// Where it is asked.
    #[schema(value_type = Vec<String>)]
    hooks: Vec<Hook>,
    /// What it finds.
    categories: Vec<String>,
    /// Languages (ISO 639-1) that it judges; empty for any.
    languages: Vec<String>,
    /// How it stands.
    state: PluginState,
    /// Why its newest version does not serve, where that is so.
    error: Option<String>,
}

/// How a policy stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum PluginState {
    /// It serves.
    Running,
    /// An older version than the newest serves, since that one is of no use.
    Outdated,
}

/// Lists the policies of this server, in the order in which they are asked.
#[utoipa::path(
    get, path = "/v1/plugins", tag = "policies",
    responses((status = 200, description = "The policies", body = Plugins)),
)]
pub async fn list(State(app): State<App>) -> Json<Plugins> {
    Json(Plugins { object: "list", data: app.policies().standings().into_iter().map(Plugin::of).collect() })
}

impl Plugin {
    fn of(Standing { about, error }: Standing) -> Self {
        let About { name, policy, version, summary, source, digest, hooks, categories, languages } = about;
        // Where the operator keeps files is nobody else's business.
        let shown = source == "built-in" || source.starts_with("bundled:");
        Plugin {
            name,
            object: "plugin",
            policy,
            version,
            summary,
            source: if shown { source } else { "file".to_owned() },
            digest,
            hooks,
            categories,
            languages,
            state: if error.is_some() { PluginState::Outdated } else { PluginState::Running },
            error,
        }
    }
}
