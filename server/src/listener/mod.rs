//! Accepting connections, and staying up whatever their clients do.
//!
//! Clients that send nothing, half a head or half a body, or that do not take their answer, lose their connection after
//! the configured times ([`socket`], `http/body_deadline.rs`). There are never more connections than configured: an
//! idle one makes room for a new one, so that silent clients keep nobody out.

mod activity;
mod connection;
mod socket;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::config::ServerConfig;
use activity::{Activity, Timeouts};
use socket::Socket;

/// How long to wait before looking again for a connection that can be closed, or whether the system can accept again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often, at most, the log is told that connections cannot be accepted.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(60);

/// Accepts and serves connections until the application is closing, then finishes the answers in progress. Dropping the
/// future closes every connection.
pub async fn run(app: App, listener: TcpListener, router: Router) {
    let mut connections = Connections::new(app.clone(), router);
    tokio::select! {
        () = connections.accept_all(&listener) => {}
        () = app.closing() => {}
    }
    drop(listener);
    while connections.one_ended().await {}
}

/// The open connections.
struct Connections {
    app: App,
    router: Router,
    timeouts: Timeouts,
    tasks: JoinSet<()>,
    open: HashMap<Id, Arc<Activity>>,
    /// When the log was last told that nothing can be accepted.
    complained: Option<Instant>,
}

impl Connections {
    fn new(app: App, router: Router) -> Self {
        let ServerConfig { head_timeout: head, idle_timeout: idle, write_timeout: write, .. } = *app.server_config();
        let timeouts = Timeouts { head, idle, write };
        Connections { app, router, timeouts, tasks: JoinSet::new(), open: HashMap::new(), complained: None }
    }

    async fn accept_all(&mut self, listener: &TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.one_ended(), if !self.tasks.is_empty() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.make_room().await;
                    self.start(stream);
                }
                Err(error) => self.bear(&error).await,
            }
        }
    }

    fn start(&mut self, stream: TcpStream) {
        // Tokens are small and go out one by one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let activity = Arc::new(Activity::new());
        let socket = Socket::new(stream, Arc::clone(&activity), self.timeouts);
        let (app, router, of_task) = (self.app.clone(), self.router.clone(), Arc::clone(&activity));
        let task = self.tasks.spawn(async move { connection::serve(socket, of_task, router, app.closing()).await });
        self.open.insert(task.id(), activity);
    }

    /// Returns when there is a place for one more connection.
    async fn make_room(&mut self) {
        while self.tasks.len() >= self.app.server_config().max_connections {
            self.close_idlest();
            // While all are busy, none may end for long, and one may become idle.
            let _ = timeout(LOOK_AGAIN, self.one_ended()).await;
        }
    }

    fn close_idlest(&self) {
        let idle = self.open.values().filter_map(|activity| Some((activity.disposable_since()?, activity)));
        if let Some((_, idlest)) = idle.min_by_key(|(since, _)| *since) {
            idlest.ask_to_give_way();
        }
    }

    /// Returns when a connection has ended; false if there is none.
    async fn one_ended(&mut self) -> bool {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => self.open.remove(&id),
            Some(Err(error)) => {
                tracing::error!(error = error.to_string(), "a connection's task failed");
                self.open.remove(&error.id())
            }
            None => return false,
        };
        true
    }

    /// Goes on after an error of `accept`.
    async fn bear(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        // The one client's affair.
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return;
        }
        // Most often all file descriptors are in use: a closed connection frees one.
        if self.complained.is_none_or(|at| at.elapsed() > COMPLAIN_AGAIN) {
            self.complained = Some(Instant::now());
            let open = self.tasks.len();
            tracing::error!(%error, open, "connections cannot be accepted; idle ones are closed to make room");
        }
        self.close_idlest();
        if timeout(LOOK_AGAIN, self.one_ended()).await != Ok(true) {
            sleep(LOOK_AGAIN).await;
        }
    }
}
