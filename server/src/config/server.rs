//! `[server]`: the address, the queue, and the limits of requests and connections.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, Overrides};

/// The section as the user wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    listen: Option<String>,
    queue: Option<usize>,
    queue_tokens: Option<usize>,
    max_batch: Option<usize>,
    prefill_chunk: Option<usize>,
    kv_cache_mib: Option<usize>,
    request_timeout_s: Option<u64>,
    shutdown_grace_s: Option<u64>,
    max_body_bytes: Option<usize>,
    max_connections: Option<usize>,
    head_timeout_s: Option<u64>,
    idle_timeout_s: Option<u64>,
    body_timeout_s: Option<u64>,
    write_timeout_s: Option<u64>,
}

/// The address, the queue and the limits of a request.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `listen`, `--listen`, `SAFELMM_LISTEN`: host and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `queue`, `--queue`: how many requests may wait; one more is answered with 429.
    pub queue: usize,
    /// `queue_tokens`: how many tokens the waiting requests may have together, prompts and longest answers; beyond it a
    /// request is answered with 429.
    pub queue_tokens: usize,
    /// `max_batch`, `--max-batch`: how many sequences are decoded together.
    pub max_batch: usize,
    /// `prefill_chunk`: how many tokens of prompts one step runs beside the others' next tokens.
    pub prefill_chunk: usize,
    /// `kv_cache_mib`: memory for keys and values of running sequences and of the prefix cache (MiB in the file). One
    /// sequence of the whole context always fits.
    pub kv_cache_bytes: usize,
    /// `request_timeout_s`: how long a request may take, waiting included (seconds in the file).
    pub request_timeout: Duration,
    /// `shutdown_grace_s`: how long running answers may go on after the signal to stop (seconds in the file).
    pub shutdown_grace: Duration,
    /// `max_body_bytes`: the longest request body, in bytes.
    pub max_body_bytes: usize,
    /// `max_connections`: how many connections may be open. One more takes the place of the one that has been idle
    /// longest; while all are busy, it waits.
    pub max_connections: usize,
    /// `head_timeout_s`: how long a connection may take from its beginning, or from a request's first byte, to the end
    /// of the request's head (seconds in the file).
    pub head_timeout: Duration,
    /// `idle_timeout_s`: how long a connection may stay open between two requests (seconds in the file).
    pub idle_timeout: Duration,
    /// `body_timeout_s`: how long a request's body may take (seconds in the file).
    pub body_timeout: Duration,
    /// `write_timeout_s`: how long a client may take nothing of an answer that is ready (seconds in the file).
    pub write_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            queue: 64,
            queue_tokens: 1 << 20,
            max_batch: 8,
            prefill_chunk: 128,
            kv_cache_bytes: 1 << 30,
            request_timeout: Duration::from_secs(300),
            shutdown_grace: Duration::from_secs(10),
            max_body_bytes: 4 << 20,
            // Half of the 1,024 files that many systems let a process open.
            max_connections: 512,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
        }
    }
}

impl ServerConfig {
    pub(super) fn resolve(section: Section, overrides: &Overrides) -> Result<Self, ConfigError> {
        let default = ServerConfig::default();
        let listen = match overrides.listen.as_ref().or(section.listen.as_ref()) {
            Some(text) => parse_listen(text)?,
            None => default.listen,
        };
        let queue = overrides.queue.or(section.queue).unwrap_or(default.queue);
        let queue_tokens = section.queue_tokens.unwrap_or(default.queue_tokens);
        let prefill_chunk = section.prefill_chunk.unwrap_or(default.prefill_chunk);
        let kv_cache_mib = section.kv_cache_mib.unwrap_or(default.kv_cache_bytes >> 20);
        let max_batch = overrides.max_batch.or(section.max_batch).unwrap_or(default.max_batch);
        let timeout_s = section.request_timeout_s.unwrap_or(default.request_timeout.as_secs());
        let grace_s = section.shutdown_grace_s.unwrap_or(default.shutdown_grace.as_secs());
        let max_body_bytes = section.max_body_bytes.unwrap_or(default.max_body_bytes);
        within("queue (--queue, [server] queue)", queue as u64, 1, 65_536)?;
        within("max_batch (--max-batch, [server] max_batch)", max_batch as u64, 1, 256)?;
        within("[server] queue_tokens", queue_tokens as u64, 1, 1 << 40)?;
        within("[server] prefill_chunk", prefill_chunk as u64, 1, 65_536)?;
        within("[server] kv_cache_mib", kv_cache_mib as u64, 1, 1 << 24)?;
        within("[server] request_timeout_s", timeout_s, 1, 86_400)?;
        within("[server] shutdown_grace_s", grace_s, 0, 3_600)?;
        within("[server] max_body_bytes", max_body_bytes as u64, 1_024, 1 << 30)?;
        let max_connections = section.max_connections.unwrap_or(default.max_connections);
        within("[server] max_connections", max_connections as u64, 1, 1 << 20)?;
        let seconds = |key, found: Option<u64>, default: Duration| match found {
            Some(found) => within(key, found, 1, 3_600).map(|()| Duration::from_secs(found)),
            None => Ok(default),
        };
        Ok(ServerConfig {
            listen,
            queue,
            queue_tokens,
            max_batch,
            prefill_chunk,
            kv_cache_bytes: kv_cache_mib << 20,
            request_timeout: Duration::from_secs(timeout_s),
            shutdown_grace: Duration::from_secs(grace_s),
            max_body_bytes,
            max_connections,
            head_timeout: seconds("[server] head_timeout_s", section.head_timeout_s, default.head_timeout)?,
            idle_timeout: seconds("[server] idle_timeout_s", section.idle_timeout_s, default.idle_timeout)?,
            body_timeout: seconds("[server] body_timeout_s", section.body_timeout_s, default.body_timeout)?,
            write_timeout: seconds("[server] write_timeout_s", section.write_timeout_s, default.write_timeout)?,
        })
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, ConfigError> {
    let invalid = |why: &str| ConfigError::Invalid {
        key: "listen (--listen, SAFELMM_LISTEN, [server] listen)",
        expected: "a host and a port such as 127.0.0.1:8080".into(),
        found: format!("{text:?} ({why})"),
    };
    let mut addresses = text.to_socket_addrs().map_err(|error| invalid(&error.to_string()))?;
    addresses.next().ok_or_else(|| invalid("the name has no address"))
}

fn within(key: &'static str, found: u64, lowest: u64, highest: u64) -> Result<(), ConfigError> {
    if (lowest..=highest).contains(&found) {
        return Ok(());
    }
    let expected = format!("between {lowest} and {highest}");
    Err(ConfigError::Invalid { key, expected, found: found.to_string() })
}
