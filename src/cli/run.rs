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
use crate::daemon::{Daemon, LOOK_EVERY, News, Standby, Waited};
use crate::engine::Witness;
use crate::journal::JournalError;
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

/// The daemon, as long as the journal is this process's; where `standby` is set it waits for it, before and after.
async fn serve(path: &Path, config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let manager = Manager::from_environment();
    let mut file = File { path, seen: config.content_hash };
    let mut config = Arc::new(config);
    loop {
        match Daemon::start(config.clone(), Arc::new(Logged)).await {
            Ok(daemon) => match work(daemon, &mut file, &mut signals, &manager).await {
                Worked::Stopped => break,
                Worked::LostTheJournal(written) => config = written,
            },
            Err(error) if config.standby && is_in_use(&error) => {
                if stand_by(&mut config, &mut file, &mut signals, &manager).await? {
                    continue;
                }
                break;
            }
            Err(error) => return Err(error),
        }
    }
    info!("stopped");
    Ok(())
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(JournalError::InUse(_)))
}

/// How the daemon's work ended.
enum Worked {
    Stopped,
    /// Another rotad has taken it. With the configuration in force.
    LostTheJournal(Arc<Config>),
}

async fn work(mut daemon: Daemon, file: &mut File<'_>, signals: &mut Signals, manager: &Manager) -> Worked {
    for address in daemon.addresses() {
        info!(%address, "metrics and health are served");
    }
    let mut compare = tokio::time::interval(COMPARE_EVERY);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut alive = tokio::time::interval(manager.alive_every());
    manager.status("rotates");
    manager.ready();
    loop {
        tokio::select! {
            biased;
            signalled = signals.next() => match signalled {
                Signalled::Stop(signal) => break info!("{signal}: stopping"),
                Signalled::Reload => {
                    manager.reloading();
                    let _ = reload(&mut daemon, file, false).await;
                    manager.ready();
                }
            },
            // Not while the scheduler hangs: then the watchdog is to end this process, and systemd to start another.
            _ = alive.tick() => if daemon.is_alive() { manager.alive() },
            _ = compare.tick() => drop(reload(&mut daemon, file, true).await),
            _ = look.tick() => {
                daemon.look_after().await;
                if let Some(holder) = daemon.taken_by() {
                    warn!(holder, "another rotad has taken the journal: this one stops its work, and stands by");
                    let written = daemon.written();
                    daemon.stop().await;
                    return Worked::LostTheJournal(written);
                }
            }
            news = daemon.next() => match news {
                News::Listed(listed) => daemon.take_list(listed).await,
                News::Asked(Asked { what: What::Order(request), by, answer }) => daemon.order(request, by, answer),
                News::Asked(Asked { what: What::Fleet(request), by, answer }) => daemon.sweep_fleet(request, by, answer),
                News::Asked(Asked { what: What::Reload, by, answer }) => {
                    info!(by, "a reload was asked for");
                    manager.reloading();
                    let outcome = reload(&mut daemon, file, false).await;
                    manager.ready();
                    let _ = answer.send(outcome.map(|()| Done::default()));
                }
            },
        }
    }
    manager.stopping();
    daemon.stop().await;
    Worked::Stopped
}

/// Waits until the journal is free; gives whether it is, or this process is to stop.
///
/// # Errors
/// What `[server]` names can't be served.
async fn stand_by(
    config: &mut Arc<Config>,
    file: &mut File<'_>,
    signals: &mut Signals,
    manager: &Manager,
) -> anyhow::Result<bool> {
    let mut standby = Standby::begin(config).await?;
    let mut compare = tokio::time::interval(COMPARE_EVERY);
    let mut alive = tokio::time::interval(manager.alive_every());
    manager.status(&standby.status());
    manager.ready();
    let is_free = loop {
        tokio::select! {
            biased;
            signalled = signals.next() => match signalled {
                Signalled::Stop(signal) => {
                    info!("{signal}: stopping");
                    manager.stopping();
                    break false;
                }
                Signalled::Reload => drop(take(&standby, config, file, false).await),
            },
            _ = alive.tick() => manager.alive(),
            _ = compare.tick() => drop(take(&standby, config, file, true).await),
            waited = standby.next() => match waited {
                Waited::Free => {
                    info!("nobody has the journal any more: taking over");
                    break true;
                }
                Waited::Asked(Asked { what: What::Reload, by, answer }) => {
                    info!(by, "a reload was asked for");
                    let _ = answer.send(take(&standby, config, file, false).await.map(|()| Done::default()));
                }
                Waited::Asked(Asked { answer, .. }) => drop(answer.send(Err(Refused::failed(standby.refusal())))),
            },
        }
    };
    standby.end().await;
    Ok(is_free)
}

/// Takes another configuration to begin with, where nothing of the old one is at work yet.
async fn take(standby: &Standby, config: &mut Arc<Config>, file: &mut File<'_>, automatic: bool) -> Result<(), Refused> {
    let Some(read) = file.read(automatic).await else { return Ok(()) };
    let taken = read.and_then(|read| {
        let diff = config.diff(&read);
        let too_many = || diff.check_automatic().map_err(|error| format!("{error}: confirm it with SIGHUP"));
        let checked = if automatic { too_many() } else { Ok(()) }.and_then(|()| diff.check_lasting());
        checked.map(|()| read).map_err(|problem| {
            error!("the new configuration is not taken, the one before stays in force: {problem}");
            Refused::failed(format!("{problem}; {STAYS}"))
        })
    });
    standby.configured(taken.is_ok());
    *config = Arc::new(taken?);
    info!("the new configuration is the one to take over with");
    Ok(())
}

/// What a refused reload leaves.
pub(super) const STAYS: &str = "the configuration that the daemon runs with stays in force";

/// The configuration's file, and what of it was seen last.
struct File<'a> {
    path: &'a Path,
    seen: [u8; 32],
}

impl File<'_> {
    /// Reads it again. Automatically only if its content is another one than was seen last, so that a refused one is told
    /// once. Gives why it does not hold, which is logged already.
    async fn read(&mut self, automatic: bool) -> Option<Result<Config, Refused>> {
        if automatic {
            let hash = config::content_hash(&tokio::fs::read_to_string(self.path).await.ok()?);
            if std::mem::replace(&mut self.seen, hash) == hash {
                return None;
            }
        }
        Some(match load(self.path) {
            Err(Ended::Misused(problems)) => {
                error!("the new configuration has problems, the one before stays in force:\n{problems}");
                Err(Refused::misused(format!("{problems}\n{STAYS}")))
            }
            Err(Ended::Failed(problem)) => {
                error!("the new configuration can't be read, the one before stays in force: {problem:#}");
                Err(Refused::failed(format!("{problem:#}; {STAYS}")))
            }
            Ok(config) => {
                self.seen = config.content_hash;
                config.warnings.iter().for_each(|warning| warn!("{}", warning.in_a_line()));
                Ok(config)
            }
        })
    }
}

/// Puts what the file says now in force. Gives why it is not taken, which is logged already.
async fn reload(daemon: &mut Daemon, file: &mut File<'_>, automatic: bool) -> Result<(), Refused> {
    match file.read(automatic).await {
        None => Ok(()),
        Some(Err(refused)) => {
            daemon.reload_failed();
            Err(refused)
        }
        Some(Ok(config)) => daemon.reload(config, automatic).await.map_err(|problem| {
            error!("the new configuration is not taken, the one before stays in force: {problem:#}");
            Refused::failed(format!("{problem:#}; {STAYS}"))
        }),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
enum Signalled {
    /// With the signal's name.
    Stop(&'static str),
    Reload,
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

    async fn next(&mut self) -> Signalled {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signalled::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signalled::Stop("SIGINT"),
            _ = self.hang_up.recv() => Signalled::Reload,
        }
    }
}
