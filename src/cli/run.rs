//! `rotad run`: the daemon, until it is told to stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::{Ended, Log, block_on, load};
use crate::config::{self, Config};
use crate::control::{Asked, Done, Refused, What};
use crate::daemon::{Daemon, LOOK_EVERY, News};
use crate::engine::Witness;
use crate::notify::Manager;
use crate::rotation::{CredentialName, Entry};
use crate::{hardening, logging};

/// How often the configuration's file is compared with what is in force: mounted ConfigMaps swap links.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// Writes every step to the log.
struct Logged;

impl Witness for Logged {
    fn happened(&self, credential: &CredentialName, entry: &Entry) {
        logging::step(credential, entry);
    }
}

pub fn run(path: &Path, log: &Log) -> Result<(), Ended> {
    hardening::harden().context("the process can't be hardened")?;
    log.start(None)?;
    let config = load(path)?;
    config.warnings.iter().for_each(|warning| warn!("{}", warning.in_a_line()));
    block_on(serve(path, config))??;
    Ok(())
}

async fn serve(path: &Path, config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let manager = Manager::from_environment();
    let mut seen = config.content_hash;
    let mut daemon = Daemon::start(Arc::new(config), Arc::new(Logged)).await?;
    for address in daemon.addresses() {
        info!(%address, "metrics and health are served");
    }
    let mut compare = tokio::time::interval(COMPARE_EVERY);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut alive = tokio::time::interval(manager.alive_every());
    manager.ready();
    loop {
        tokio::select! {
            biased;
            _ = signals.terminate.recv() => break info!("SIGTERM: stopping"),
            _ = signals.interrupt.recv() => break info!("SIGINT: stopping"),
            _ = signals.hang_up.recv() => {
                manager.reloading();
                let _ = reload(&mut daemon, path, &mut seen, false).await;
                manager.ready();
            }
            // Not while the scheduler hangs: then the watchdog is to end this process, and systemd to start another.
            _ = alive.tick() => if daemon.is_alive() { manager.alive() },
            _ = compare.tick() => drop(reload(&mut daemon, path, &mut seen, true).await),
            _ = look.tick() => daemon.look_after().await,
            news = daemon.next() => match news {
                News::Listed(listed) => daemon.take_list(listed).await,
                News::Asked(Asked { what: What::Order(request), by, answer }) => daemon.order(request, by, answer),
                News::Asked(Asked { what: What::Fleet(request), by, answer }) => daemon.sweep_fleet(request, by, answer),
                News::Asked(Asked { what: What::Reload, by, answer }) => {
                    info!(by, "a reload was asked for");
                    manager.reloading();
                    let outcome = reload(&mut daemon, path, &mut seen, false).await;
                    manager.ready();
                    let _ = answer.send(outcome.map(|()| Done::default()));
                }
            },
        }
    }
    manager.stopping();
    daemon.stop().await;
    info!("stopped");
    Ok(())
}

/// What a refused reload leaves.
pub(super) const STAYS: &str = "the configuration that the daemon runs with stays in force";

/// Reads the configuration again. Automatically only if its content is another one than was seen
/// last, so that a refused one is told once. Gives why it is not taken, which is logged already.
async fn reload(daemon: &mut Daemon, path: &Path, seen: &mut [u8; 32], automatic: bool) -> Result<(), Refused> {
    if automatic {
        let Ok(text) = tokio::fs::read_to_string(path).await else { return Ok(()) };
        let hash = config::content_hash(&text);
        if hash == *seen {
            return Ok(());
        }
        *seen = hash;
    }
    match load(path) {
        Err(Ended::Misused(problems)) => {
            error!("the new configuration has problems, the one before stays in force:\n{problems}");
            daemon.reload_failed();
            Err(Refused::misused(format!("{problems}\n{STAYS}")))
        }
        Err(Ended::Failed(problem)) => {
            error!("the new configuration can't be read, the one before stays in force: {problem:#}");
            daemon.reload_failed();
            Err(Refused::failed(format!("{problem:#}; {STAYS}")))
        }
        Ok(config) => {
            *seen = config.content_hash;
            config.warnings.iter().for_each(|warning| warn!("{}", warning.in_a_line()));
            daemon.reload(config, automatic).await.map_err(|problem| {
                error!("the new configuration is not taken, the one before stays in force: {problem:#}");
                Refused::failed(format!("{problem:#}; {STAYS}"))
            })
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals can't be listened to");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }
}
