//! The daemon, put together: journal, engine, scheduler and web server of one configuration, and
//! what changes while it runs.

pub mod accounts;
mod doors;
mod fleets;
mod standby;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Asked, Done, OrderRequest, Refused, Taken};
use crate::engine::{
    ADMIN_TOKEN_EXPIRY_TOLD, BlastRadius, Engine, Handle, Ordered, Parts, Roster, Scheduler, Witness, kernel_random,
};
use crate::fail_point::{self, Point};
use crate::fleet::{Fleet, Surroundings, rolls};
use crate::journal::{CLOCK_MARK, Journal};
use crate::metrics::Metrics;
use crate::rotation::Moment;
use crate::snapshot::{Board, JournalState, Label, TokenPhase};
use crate::{otlp, web, webhook};

/// With the scheduler's 15 s for turns under way these keep a stop within the 20 s that are promised.
const LOOK_MAX: Duration = Duration::from_secs(2);
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// How often `Daemon::look_after` is to be called: an unwritable journal and a new admin token are noticed within it.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

pub use fleets::Listed;
pub use standby::{Standby, Waited};

/// What `Daemon::next` brings.
pub enum News {
    /// A command from the control socket.
    Asked(Asked),
    /// A list of an organization's users, for `Daemon::take_list`.
    Listed(Listed),
}

/// A running daemon.
pub struct Daemon {
    /// The configuration as it is written: `fleet` has the members of its fleets, too.
    written: Arc<Config>,
    fleets: fleets::Fleets,
    fleet: Arc<Fleet>,
    /// The same, for whoever watches.
    shown: watch::Sender<Arc<Fleet>>,
    engine: Arc<Engine>,
    surroundings: Surroundings,
    handle: Handle,
    stop: watch::Sender<bool>,
    scheduler: JoinHandle<()>,
    doors: doors::Open,
    webhook: JoinHandle<()>,
    accounts: JoinHandle<()>,
    /// Who has taken the journal since, which this process lost.
    taken_by: Option<String>,
    pruned_at: Option<Timestamp>,
    /// Of which expiry of an organization's admin token a person was told, and whether it was over then.
    expiry_told: BTreeMap<Arc<str>, (Timestamp, bool)>,
}

impl Daemon {
    /// Opens everything that `config` names and starts to work.
    ///
    /// # Errors
    /// What can't be opened, with what to do about it.
    pub async fn start(config: Arc<Config>, witness: Arc<dyn Witness>) -> anyhow::Result<Self> {
        Self::start_by(Arc::new(Clock::new()), config, witness).await
    }

    /// The same by another clock than this machine's, for the demo.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_by(clock: Arc<Clock>, config: Arc<Config>, witness: Arc<dyn Witness>) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new().context("the metrics can't be set up")?);
        let board = Arc::new(Board::new(clock.now()));
        let witness = otlp::beside(witness, &config.deployment, &metrics);
        let surroundings = Surroundings { clock: clock.clone(), metrics: metrics.clone(), board: board.clone() };
        let fleet = Arc::new(Fleet::open(config.clone(), &surroundings, None).await.map_err(anyhow::Error::msg)?);
        let journal = open_journal(&config, &clock, &metrics).await?;
        fail_point::pass(Point::JournalOpened);
        let (written, rolls) = (config.clone(), rolls::load(journal.as_ref(), &config).await?);
        let (config, left_out) = rolls::complete(&config, &rolls::members(&rolls));
        let fleet = match Arc::ptr_eq(&config, &written) {
            true => fleet,
            false => Arc::new(Fleet::open(config.clone(), &surroundings, Some(&fleet)).await.map_err(anyhow::Error::msg)?),
        };
        resume_clock(journal.as_ref(), &clock).await?;
        board.journal(JournalState::Writable);
        let limits = BlastRadius::new(config.limits.rotations_per_minute.get(), config.limits.revocations_per_minute.get());
        let random = Box::new(kernel_random);
        let parts =
            Parts { witness, journal, clock: clock.clone(), metrics: metrics.clone(), board: board.clone(), limits, random };
        let engine = Arc::new(Engine::new(parts));
        let (shown, fleet_shown) = watch::channel(fleet.clone());
        let shown_at = clock.clone();
        let watched = web::Watched {
            deployment: config.deployment.clone(),
            board: board.clone(),
            metrics: metrics.clone(),
            journal: engine.journal.clone(),
            roster: Arc::new(move || fleet_shown.borrow().clone() as Arc<dyn Roster>),
            now: Arc::new(move || shown_at.now()),
        };
        let doors = doors::Doors::bind(&config, watched).await?;
        let (mut scheduler, handle) = Scheduler::new(engine.clone(), fleet.clone());
        scheduler.load().await.context("the journal can't be read")?;
        fail_point::pass(Point::ScheduleLoaded);
        board.configuration_loaded(clock.now().wall);
        // Before anything is listed: a list under a new admin token says whether it belongs there.
        if tokio::time::timeout(LOOK_MAX, watch_admin_tokens(&engine, &fleet)).await.is_err() {
            warn!("the journal does not answer: the admin tokens are looked at later");
        }
        let (stop, stopped) = watch::channel(false);
        let doors = doors.open(&stopped);
        let webhook = tokio::spawn(webhook::run(engine.clone(), shown.subscribe(), stopped.clone()));
        let accounts = tokio::spawn(accounts::run(engine.clone(), shown.subscribe(), stopped.clone()));
        let scheduler = tokio::spawn(scheduler.run(stopped));
        let (pruned_at, expiry_told) = (None, BTreeMap::new());
        let mut daemon = Self {
            written,
            fleets: fleets::Fleets::new(rolls),
            fleet,
            shown,
            engine,
            surroundings,
            handle,
            stop,
            scheduler,
            doors,
            webhook,
            accounts,
            taken_by: None,
            pruned_at,
            expiry_told,
        };
        daemon.tell_left_out(left_out);
        daemon.look_after().await;
        Ok(daemon)
    }

    /// Where metrics and health are served.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.doors.addresses()
    }

    /// Whether the scheduler gave a sign of life lately.
    pub fn is_alive(&self) -> bool {
        self.surroundings.board.is_alive(self.surroundings.clock.now())
    }

    /// Who has the journal now, where another process has taken it from this one: nothing is to be done here any more.
    /// Known within `LOOK_EVERY`, where the configuration has replicas stand by.
    pub fn taken_by(&self) -> Option<&str> {
        self.taken_by.as_deref()
    }

    /// The configuration as it is written.
    pub fn written(&self) -> Arc<Config> {
        self.written.clone()
    }

    pub fn config(&self) -> &Config {
        self.fleet.config()
    }

    /// The next command from the control socket, or the next list of users.
    pub async fn next(&mut self) -> News {
        tokio::select! {
            asked = self.doors.asked() => News::Asked(asked),
            listed = self.fleets.listed() => News::Listed(listed),
        }
    }

    /// Gives an order to each credential that it selects, and answers when all have taken or refused it.
    pub fn order(&self, request: OrderRequest, by: String, answer: control::Answer) {
        let selected = match request.selection.resolve(self.config()) {
            Ok(selected) => selected,
            Err(refusal) => {
                let _ = answer.send(Err(Refused::misused(refusal)));
                return;
            }
        };
        info!(by, order = request.order.as_str(), credentials = selected.len(), "ordered");
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            for credential in selected {
                let (taken, answered) = oneshot::channel();
                let ordered = Ordered { order: request.order.clone(), by: by.clone(), answer: taken };
                handle.order(credential.clone(), ordered).await;
                waiting.push((credential, answered));
            }
            let mut credentials = Vec::new();
            for (credential, answered) in waiting {
                let unrecorded = || Err("it could not be recorded, so it is not taken: the log says why".to_owned());
                let refusal = answered.await.unwrap_or_else(|_| unrecorded()).err();
                credentials.push(Taken { credential, refusal });
            }
            let _ = answer.send(Ok(Done { credentials, fleet: None }));
        });
    }

    /// Puts another configuration in force. `automatic` when nobody asked for it.
    ///
    /// # Errors
    /// Why it is not taken; what ran goes on.
    pub async fn reload(&mut self, config: Config, automatic: bool) -> anyhow::Result<()> {
        let outcome = self.try_reload(config, automatic).await;
        if outcome.is_err() {
            self.surroundings.board.reload_failed();
        }
        outcome
    }

    /// The configuration's text does not hold: what ran goes on.
    pub fn reload_failed(&self) {
        self.surroundings.board.reload_failed();
    }

    async fn try_reload(&mut self, config: Config, automatic: bool) -> anyhow::Result<()> {
        let rolls = rolls::load(self.engine.journal.as_ref(), &config).await.context("the journal can't be read")?;
        let config = Arc::new(config);
        let (complete, left_out) = rolls::complete(&config, &rolls::members(&rolls));
        let diff = self.config().diff(&complete);
        if automatic {
            diff.check_automatic().context("confirm it with SIGHUP")?;
        }
        diff.check_lasting().map_err(anyhow::Error::msg)?;
        self.put_in_force(complete).await?;
        self.written = config;
        self.fleets.configured(rolls);
        self.tell_left_out(left_out);
        self.surroundings.board.configuration_loaded(self.surroundings.clock.now().wall);
        let (added, changed, removed) = (diff.added.len(), diff.changed.len(), diff.removed.len());
        info!(added, changed, removed, renamed = diff.renamed.len(), "the new configuration is in force");
        Ok(())
    }

    /// Takes a configuration with the members of its fleets; what ran goes on where it can't be.
    async fn put_in_force(&mut self, config: Arc<Config>) -> anyhow::Result<()> {
        let fleet = Fleet::open(config.clone(), &self.surroundings, Some(&self.fleet)).await.map_err(anyhow::Error::msg)?;
        self.fleet = Arc::new(fleet);
        self.engine.limits().resize(config.limits.rotations_per_minute.get(), config.limits.revocations_per_minute.get());
        self.shown.send_replace(self.fleet.clone());
        self.handle.reload(self.fleet.clone()).await;
        Ok(())
    }

    /// What has to be looked at now and then: whether the journal can be written again, whether an
    /// admin token is another one, who the fleets' accounts are, old history. To be called every few seconds; a disk that hangs
    /// does not hold up the caller for longer than `LOOK_MAX`.
    pub async fn look_after(&mut self) {
        if tokio::time::timeout(LOOK_MAX, self.look_after_unbounded()).await.is_err() {
            warn!("the journal does not answer: it is asked again");
        }
    }

    async fn look_after_unbounded(&mut self) {
        if self.engine.is_journal_failing() {
            if self.written.standby
                && let Ok(Some(holder)) = self.engine.journal.taken_by().await
            {
                self.taken_by = Some(holder);
                return;
            }
            match self.engine.journal.probe().await {
                Ok(()) => self.engine.journal_works(),
                Err(error) => debug!(%error, "the journal still can't be written"),
            }
            return;
        }
        watch_admin_tokens(&self.engine, &self.fleet).await;
        self.list_fleets();
        self.tell_admin_tokens_expiry().await;
        let now = self.surroundings.clock.now().wall;
        if self.pruned_at.is_none_or(|at| now.duration_since(at) > SignedDuration::from_hours(24)) {
            let kept = self.config().keep_history;
            match self.engine.journal.prune_history(now.checked_sub(kept).unwrap_or(Timestamp::MIN)).await {
                Ok(0) => {}
                Ok(lines) => info!(lines, "old history was removed"),
                Err(error) => warn!(%error, "old history can't be removed"),
            }
            self.pruned_at = Some(now);
        }
    }

    /// An admin token that runs out is how such a daemon dies most often: it is told early, and once.
    async fn tell_admin_tokens_expiry(&mut self) {
        let now = self.surroundings.clock.now().wall;
        for (name, client) in self.fleet.clients() {
            let expires_at = client.admin_token_expires_at().await;
            let Some(expires_at) = expires_at.filter(|at| at.duration_since(now) < ADMIN_TOKEN_EXPIRY_TOLD) else { continue };
            let told = (expires_at, expires_at <= now);
            if self.expiry_told.insert(name.clone(), told) != Some(told) {
                let what =
                    if told.1 { "has expired: nothing is rotated or revoked until it is" } else { "expires soon: it is to be" };
                warn!(organization = %name, %expires_at, "the admin token {what} replaced, at its place, which is read again");
            }
        }
    }

    /// Stops: nothing new begins, turns under way come to a safe end, the journal is closed. Within
    /// 20 s, whatever hangs.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let _ = self.scheduler.await;
        fail_point::pass(Point::Drained);
        self.doors.closed().await;
        let _ = self.webhook.await;
        let _ = self.accounts.await;
        let _ = self.engine.mark_clock().await;
        if tokio::time::timeout(CLOSE_MAX, self.engine.journal.close()).await.is_err() {
            warn!("the journal does not answer: it is left as a crash would leave it");
            // Its end would wait for the disk.
            std::mem::forget(self.engine.journal.clone());
        }
    }
}

/// An admin token that is another one than the journal remembers must first see a known token. When it
/// expires is shown, if it says so itself.
async fn watch_admin_tokens(engine: &Engine, fleet: &Fleet) {
    for (name, client) in fleet.clients() {
        let board = &engine.board;
        board.admin_token_expires(board.organization(name), client.admin_token_expires_at().await);
        let Ok(fingerprint) = client.admin_token_fingerprint().await else { continue };
        if let Err(error) = engine.watch_admin_token(name, fingerprint).await {
            debug!(%error, "the admin token's fingerprint can't be held against the journal's");
        }
    }
}

async fn open_journal(config: &Config, clock: &Clock, metrics: &Arc<Metrics>) -> anyhow::Result<Arc<dyn Journal>> {
    let observed = metrics.clone();
    let observer = Arc::new(move |commit: crate::journal::Commit| {
        observed.journal_commit(SignedDuration::try_from(commit.took).unwrap_or(SignedDuration::MAX));
    });
    Ok(config.journal.open(clock.now().wall, observer).await?)
}

/// Counts grace periods on from where the last process stopped.
async fn resume_clock(journal: &dyn Journal, clock: &Clock) -> anyhow::Result<()> {
    if let Some(mark) = journal.fact(CLOCK_MARK).await? {
        match serde_json::from_str::<Moment>(&mark) {
            Ok(mark) => clock.resume(mark),
            Err(error) => error!(%error, "the journal's clock mark can't be read: grace periods in progress begin anew"),
        }
    }
    Ok(())
}

/// Whether a list that was made with the admin token, which is in use since then, showed a token of a credential; or whether
/// none is known that could show. An admin token that came before the first token is never proven otherwise.
fn is_familiar(name: &str, since: Timestamp, engine: &Engine) -> bool {
    let organization = engine.board.organization(name);
    let seen = engine.board.gather(|_, summary, found| {
        if summary.organization == organization && TokenPhase::ALL.iter().any(|phase| summary.tokens.of(*phase) > 0) {
            let listed = summary.last_sweep_at.timestamp().is_some_and(|at| at >= since);
            found.push(listed && summary.tokens.current > 0 && summary.blocked.is_none());
        }
    });
    seen.is_empty() || seen.contains(&true)
}
