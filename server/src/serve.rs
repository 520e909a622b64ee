//! Listening, serving and shutting down.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::app::{App, StartError};
use crate::config::ConfigError;
use crate::http::router;
use crate::listener;

/// How urgently the server is asked to stop. Sent over a [`watch`] channel; a dropped sender asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    #[default]
    No,
    /// Take nothing new, finish what runs within the grace period.
    Gracefully,
    /// At once.
    Now,
}

/// After the engine was told to abandon everything: time for the last frames to reach the clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Listens on an address. Errors: [`StartError::PortTaken`], [`StartError::Listen`].
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(listen).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken { listen },
        _ => StartError::Listen { listen, source },
    })
}

/// Serves until it is asked to stop; returns when every answer has ended, or when the grace period has. Fails at once for
/// an address that other machines can reach, if there are no keys.
pub async fn serve(app: App, listener: TcpListener, stop: watch::Receiver<Stop>) -> io::Result<()> {
    let listen = listener.local_addr()?;
    if app.keys().is_none() && !listen.ip().is_loopback() {
        return Err(io::Error::other(ConfigError::Remote { listen }));
    }
    let router = router(app.clone());
    tokio::select! {
        () = listener::run(app.clone(), listener, router) => {}
        () = end_of_grace(&app, stop) => {}
    }
    app.engine().abort();
    app.stores().close();
    Ok(())
}

/// Returns when answers that still run are to be cut off.
async fn end_of_grace(app: &App, stop: watch::Receiver<Stop>) {
    asked(stop.clone(), Stop::Gracefully).await;
    app.close();
    tracing::info!(running = app.engine().running(), waiting = app.engine().waiting(), "shutting down");
    let grace = app.server_config().shutdown_grace;
    tokio::select! {
        () = sleep(grace) => {
            tracing::warn!(running = app.engine().running(), ?grace, "the grace period is over");
            app.engine().abort();
            sleep(LAST_WORDS).await;
        }
        () = asked(stop, Stop::Now) => {}
    }
}

/// Returns when the server is asked to stop, at least as urgently as this.
pub(crate) async fn asked(mut stop: watch::Receiver<Stop>, at_least: Stop) {
    if stop.wait_for(|stop| *stop >= at_least).await.is_err() {
        std::future::pending::<()>().await;
    }
}
