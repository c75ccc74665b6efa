//! A rotad that stands by: another one has the journal, and this one takes over once that is gone.
//!
//! It answers for its health, shows what the journal holds and says who does the work; it asks nothing of the API or of a
//! sink. That the other one is gone is the server's word: the advisory lock of the journal is free. Whoever takes it is one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::doors::{Doors, Open};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::Asked;
use crate::engine::{Member, Roster, STANDBY_LOOKS_EVERY};
use crate::journal::{HistoryLine, Identity, Journal, JournalError, Location, NOT_RUN_YET, Page, Row, Save, Watch};
use crate::metrics::Metrics;
use crate::rotation::{CredentialName, InstallationId, Moment};
use crate::snapshot::{Board, JournalState};
use crate::web;

/// What `Standby::next` brings.
pub enum Waited {
    /// Nobody has the journal any more.
    Free,
    /// A command from the control socket, for `Standby::refusal`, or a reload.
    Asked(Asked),
}

/// A process that waits for the journal that another one has.
pub struct Standby {
    watch: Watch,
    looks: Interval,
    clock: Arc<Clock>,
    board: Arc<Board>,
    holder: String,
    reachable: bool,
    stop: watch::Sender<bool>,
    doors: Open,
}

impl Standby {
    /// Serves what `[server]` names while another one has the journal.
    ///
    /// # Errors
    /// What can't be served, with what to do about it.
    pub async fn begin(config: &Config) -> anyhow::Result<Self> {
        let Location::Postgres(database) = &config.journal else {
            anyhow::bail!("{} is for one rotad: none can stand by for it", config.journal);
        };
        let clock = Arc::new(Clock::new());
        let now = clock.now();
        let board = Arc::new(Board::new(now));
        let holder = "another rotad".to_owned();
        board.stands_by(&holder);
        board.configuration_loaded(now.wall);
        let stored = Stored::at(config.journal.clone());
        if let Err(error) = stored.open().await {
            debug!(%error, "what the journal holds can't be shown yet");
        }
        let shown_at = clock.clone();
        let watched = web::Watched {
            deployment: config.deployment.clone(),
            board: board.clone(),
            metrics: Arc::new(Metrics::new().context("the metrics can't be set up")?),
            journal: Arc::new(stored),
            roster: Arc::new(|| Arc::new(Nobody)),
            now: Arc::new(move || shown_at.now()),
        };
        let (stop, stopped) = watch::channel(false);
        let doors = Doors::bind(config, watched).await?.open(&stopped);
        for address in doors.addresses() {
            info!(%address, "metrics and health are served");
        }
        let mut looks = interval(Duration::from_secs(STANDBY_LOOKS_EVERY.into()));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = crate::journal::PostgresJournal::watch(database)?;
        Ok(Self { watch, looks, clock, board, holder, reachable: true, stop, doors })
    }

    /// Waits until the journal is free, or a command comes. May be dropped at any time.
    pub async fn next(&mut self) -> Waited {
        loop {
            tokio::select! {
                asked = self.doors.asked() => return Waited::Asked(asked),
                _ = self.looks.tick() => {}
            }
            self.board.beat(self.clock.now());
            match self.watch.holder().await {
                Ok(None) => return Waited::Free,
                Ok(Some(holder)) => self.is_held(holder),
                Err(error) => self.is_unreachable(&error),
            }
        }
    }

    fn is_held(&mut self, holder: String) {
        if self.holder != holder || !self.reachable {
            info!(%holder, "standing by: another rotad has the journal");
            self.board.stands_by(&holder);
            (self.holder, self.reachable) = (holder, true);
        }
    }

    fn is_unreachable(&mut self, error: &JournalError) {
        self.board.journal(JournalState::Closed);
        if std::mem::replace(&mut self.reachable, false) {
            warn!(%error, "standing by, and the journal can't be asked who has it: it is asked again");
        }
    }

    /// Whether the configuration's file holds, as it was last read: what it said before is begun with otherwise.
    pub fn configured(&self, holds: bool) {
        match holds {
            true => self.board.configuration_loaded(self.clock.now().wall),
            false => self.board.reload_failed(),
        }
    }

    /// Why an order is not taken here.
    pub fn refusal(&self) -> String {
        format!("this rotad stands by, and `{}` does the work: give the order there", self.holder)
    }

    /// The same in a line, for whoever looks at the service.
    pub fn status(&self) -> String {
        format!("stands by: {} has the journal", self.holder)
    }

    /// Gives up what it serves: for the daemon that takes over in this process, or for good.
    pub async fn end(self) {
        self.stop.send_replace(true);
        self.doors.closed().await;
    }
}

/// The credentials of a rotad that stands by: it turns none.
struct Nobody;

impl Roster for Nobody {
    fn names(&self) -> Vec<CredentialName> {
        Vec::new()
    }

    fn member(&self, _: &CredentialName) -> Option<Member> {
        None
    }

    fn is_told_of(&self, _: &CredentialName, _: &str) -> bool {
        false
    }

    fn sizes(&self) -> BTreeMap<Arc<str>, usize> {
        BTreeMap::new()
    }
}

/// The journal as it is stored, read while another process writes it. It may not be there yet, or be of another version
/// until that one is gone: then each look says so.
struct Stored {
    location: Location,
    opened: Mutex<Option<Arc<dyn Journal>>>,
}

impl Stored {
    fn at(location: Location) -> Self {
        Self { location, opened: Mutex::default() }
    }

    fn opened(&self) -> Option<Arc<dyn Journal>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn open(&self) -> Result<Arc<dyn Journal>, JournalError> {
        if let Some(journal) = self.opened() {
            return Ok(journal);
        }
        let journal = self.location.look().await?.ok_or_else(|| JournalError::Unusable(NOT_RUN_YET.to_owned()))?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(journal.clone());
        Ok(journal)
    }
}

fn not_ours() -> JournalError {
    JournalError::Unwritable("another rotad has the journal: this one stands by".to_owned())
}

#[async_trait]
impl Journal for Stored {
    /// Of nobody, until it could be opened.
    fn identity(&self) -> Identity {
        let unknown = Identity { installation: InstallationId(0), created_at: Timestamp::UNIX_EPOCH };
        self.opened().map_or(unknown, |journal| journal.identity())
    }

    async fn load(&self, credential: &CredentialName) -> Result<Option<Row>, JournalError> {
        self.open().await?.load(credential).await
    }

    async fn load_after(&self, after: Option<&CredentialName>, limit: usize) -> Result<Vec<(CredentialName, Row)>, JournalError> {
        self.open().await?.load_after(after, limit).await
    }

    async fn fact(&self, name: &str) -> Result<Option<String>, JournalError> {
        self.open().await?.fact(name).await
    }

    async fn history_page(&self, page: Page) -> Result<Vec<(u64, HistoryLine)>, JournalError> {
        self.open().await?.history_page(page).await
    }

    async fn save(&self, _: Save) -> Result<u64, JournalError> {
        Err(not_ours())
    }

    async fn set_fact(&self, _: &str, _: String) -> Result<(), JournalError> {
        Err(not_ours())
    }

    async fn prune_history(&self, _: Timestamp) -> Result<u64, JournalError> {
        Err(not_ours())
    }

    async fn probe(&self) -> Result<(), JournalError> {
        Err(not_ours())
    }

    async fn mark_clock(&self, _: Moment) -> Result<(), JournalError> {
        Err(not_ours())
    }
}
