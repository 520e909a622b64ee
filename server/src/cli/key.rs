//! `safelmm key`. The key alone goes to standard output, everything else to standard error.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use super::args::{KeyCommand, NewKeyArgs};
use super::log::say;
use crate::keys::{self, Allowed, Issued, KeyFileError, KeyRecord, Limits, Rights};

/// Why a key was not made, listed or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyFailure {
    /// The key file cannot be used or changed.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// A new key could not be shown, which was the one chance: it is revoked again.
    #[error("the key could not be written to standard output, so it was revoked again: {0}")]
    Unseen(io::Error),
    /// A listing could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Makes, lists or revokes keys. Errors: [`KeyFailure`].
pub fn key(command: KeyCommand) -> Result<(), KeyFailure> {
    match command {
        KeyCommand::New(args) => new(args),
        KeyCommand::List { file } => {
            let mut out = io::stdout().lock();
            let now = SystemTime::now();
            keys::list(&file.path)?
                .iter()
                .try_for_each(|record| writeln!(out, "{}", line(record, now)))
                .map_err(KeyFailure::Output)
        }
        KeyCommand::Revoke { file, id } => {
            let record = keys::revoke(&file.path, id)?;
            say(&format!("revoked {id} ({}); a running server notices within about a second\n", record.name));
            Ok(())
        }
    }
}

fn new(args: NewKeyArgs) -> Result<(), KeyFailure> {
    let path = &args.file.path;
    let mut uses = args.uses;
    uses.dedup();
    let rights = Rights {
        rating_ceiling: args.rating_ceiling,
        uses,
        stores: if args.all_stores { Allowed::ALL } else { Allowed::Only(args.stores) },
        manage_stores: args.manage_stores,
        models: if args.models.is_empty() { Allowed::ALL } else { Allowed::Only(args.models) },
    };
    let limits = Limits {
        requests_per_minute: args.requests_per_minute,
        tokens_per_minute: args.tokens_per_minute,
        concurrent: args.concurrent,
    };
    let lifetime = args.expires_days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
    let Issued { key, record } = keys::add(path, &args.name, rights, limits, lifetime)?;
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{}", key.reveal()).and_then(|()| out.flush()) {
        keys::revoke(path, key.id())?;
        return Err(KeyFailure::Unseen(error));
    }
    let told = line(&record, SystemTime::now());
    say(&format!(
        "made {told}\nThis is the one time the key is shown. Serve with: safelmm serve --keys {}\n",
        path.display()
    ));
    Ok(())
}

/// One line about a key.
fn line(record: &KeyRecord, now: SystemTime) -> String {
    let Rights { rating_ceiling, uses, stores, manage_stores, models } = &record.rights;
    let mut parts = vec![format!("{}  {}", record.id, record.name)];
    parts.push(format!("created {}", keys::date(record.created)));
    match record.expires {
        Some(end) if record.has_expired(now) => parts.push(format!("EXPIRED {}", keys::date(end))),
        Some(end) => parts.push(format!("expires {}", keys::date(end))),
        None => {}
    }
    let uses: Vec<&str> = uses.iter().map(|allowed| allowed.as_str()).collect();
    parts.push(format!("use {}", if uses.is_empty() { "none".into() } else { uses.join("+") }));
    parts.push(rating_ceiling.map_or("rating of the server".into(), |ceiling| format!("rating up to {ceiling}")));
    parts.push(format!("stores {}{}", names(stores), if *manage_stores { " (may change them)" } else { "" }));
    parts.push(format!("models {}", names(models)));
    let Limits { requests_per_minute, tokens_per_minute, concurrent } = record.limits;
    for (limit, unit) in
        [(requests_per_minute, "requests/min"), (tokens_per_minute, "tokens/min"), (concurrent, "at once")]
    {
        parts.extend(limit.map(|limit| format!("{limit} {unit}")));
    }
    parts.join(", ")
}

fn names(allowed: &Allowed) -> String {
    match allowed {
        Allowed::All(_) => "all".into(),
        Allowed::Only(names) if names.is_empty() => "none".into(),
        Allowed::Only(names) => names.join("+"),
    }
}
