//! `safelmm serve`.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::load::load;
use super::log::say;
use crate::app::{App, StartError};
use crate::config::Config;
use crate::keys::Keyring;
use crate::serve::{Stop, asked, bind};

/// Why serving did not start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeFailure {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The operating system gives no runtime or no signals, or the listener broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves until Ctrl-C or SIGTERM.
pub fn serve(config: &Config) -> Result<(), ServeFailure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(run(config));
    // Connections that outlived the grace period are not waited for.
    runtime.shutdown_background();
    outcome
}

async fn run(config: &Config) -> Result<(), ServeFailure> {
    // First of all, so that a signal during loading is not lost, and a taken port or a bad key file is told before a long load.
    let stop = stop_signals()?;
    let listener = bind(config.server.listen).await?;
    if let Some(file) = &config.keys.file {
        Keyring::open(file).map_err(StartError::from)?;
    }
    let loading = tokio::task::spawn_blocking({
        let config = config.clone();
        move || {
            let model = &config.model;
            let checkpoint = load(model.folder.as_deref(), model.adapter.as_deref(), model.quantize)?;
            App::start(Arc::new(checkpoint), &config)
        }
    });
    let app = tokio::select! {
        started = loading => started.map_err(io::Error::other)??,
        () = asked(stop.clone(), Stop::Gracefully) => {
            say("stopped while the model was loading\n");
            return Ok(());
        }
    };
    reload_on_hangup(&app)?;
    let address = listener.local_addr()?;
    match app.keys() {
        Some(keys) => say(&format!("API keys: {} in {}\n", keys.len(), keys.path().display())),
        None => {
            say("no API keys: everyone on this machine may ask, and no other machine can (safelmm key new --help)\n")
        }
    }
    say(&format!("listening on http://{address} — playground at /, API at /v1\nCtrl-C to stop\n"));
    crate::serve::serve(app, listener, stop).await?;
    say("stopped\n");
    Ok(())
}

/// The first Ctrl-C or SIGTERM asks to stop gracefully, the second at once.
fn stop_signals() -> io::Result<watch::Receiver<Stop>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (sender, receiver) = watch::channel(Stop::No);
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        say("\nstopping: running answers are finished first; Ctrl-C again to stop at once\n");
        sender.send_replace(Stop::Gracefully);
        either(&mut interrupt, &mut terminate).await;
        sender.send_replace(Stop::Now);
        // Kept, since a dropped sender would ask for nothing.
        sender.closed().await;
    });
    Ok(receiver)
}

/// SIGHUP has the policies looked at again at once, with those that could not be loaded before.
fn reload_on_hangup(app: &App) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let app = app.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let app = app.clone();
            let refreshed = tokio::task::spawn_blocking(move || app.policies().refresh(true)).await;
            if let Err(error) = refreshed {
                tracing::error!(%error, "the policies could not be looked at");
            }
        }
    });
    Ok(())
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! { _ = one.recv() => {}, _ = other.recv() => {} }
}
