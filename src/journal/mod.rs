//! The journal: the durable record of intents and outcomes. Never a token's value.

mod location;
pub mod postgres;
mod queue;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::rotation::{Credential, CredentialName, Entry, InstallationId, Moment};

pub use location::Location;
pub use postgres::{Database, Host, PostgresJournal, Watch};
pub use sqlite::SqliteJournal;

/// The fact under which the clock's mark is kept: a `Moment` as JSON.
pub const CLOCK_MARK: &str = "clock_mark";

/// One durable commit, as it is told to whoever watches the journal (a histogram).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// From the begin of the transaction until it was durable.
    pub took: Duration,
    /// How many saves and other writes shared it.
    pub writes: usize,
}

/// Is called after each commit, on the thread that made it: it must not block.
pub type Observer = Arc<dyn Fn(Commit) + Send + Sync>;

/// Whose life this journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Minted with the journal, carried by every rotation id.
    pub installation: InstallationId,
    pub created_at: Timestamp,
}

/// One credential's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Counts the saves; compared at every save, so that no second writer goes unnoticed.
    pub version: u64,
    /// The credential's state as JSON (the core's `Credential`).
    pub state: String,
    /// When the credential wants to be looked at again.
    pub wake_at: Timestamp,
}

impl Row {
    /// What the row says of its credential.
    ///
    /// # Errors
    /// Why that can't be: the record is damaged, was edited, or is a newer rotad's.
    pub fn read_state(&self) -> Result<Credential, String> {
        let state: Credential = serde_json::from_str(&self.state).map_err(|error| error.to_string())?;
        state.check()?;
        Ok(state)
    }
}

/// What one save records, in one transaction: the new state and the events that led to it.
#[derive(Debug, Clone)]
pub struct Save {
    pub credential: CredentialName,
    /// The version that was loaded; `None` for a credential that has no row yet.
    pub expected: Option<u64>,
    pub state: String,
    pub wake_at: Timestamp,
    pub entries: Vec<Entry>,
    /// The row, at this version, whose history goes on in this one: an earlier name's. It is removed, and
    /// its history lines are of `credential` from then on.
    pub takes_over: Option<(CredentialName, u64)>,
}

/// One line of the history: an entry and the credential that it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryLine {
    pub credential: CredentialName,
    pub entry: Entry,
}

/// What a journal that is not there means, and what to do.
pub const NOT_RUN_YET: &str = "rotad has not run yet, start it with `rotad run`";

/// A part of the history, read in portions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Of one credential, or of all.
    pub credential: Option<CredentialName>,
    /// Not before this moment.
    pub since: Timestamp,
    /// Before this moment.
    pub until: Timestamp,
    pub from: From,
    /// The most lines of one portion.
    pub limit: usize,
}

/// Where a portion of the history begins; lines are numbered in the order of their recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// The oldest lines after this one, oldest first; 0 for the very first.
    After(u64),
    /// The newest lines before this one, newest first; `u64::MAX` for the very last.
    Before(u64),
}

#[derive(Debug, Error)]
pub enum JournalError {
    /// Another process has the journal open for writing.
    #[error("{0}")]
    InUse(String),
    /// It can't be opened or read: path, permission, not a journal, damaged, or written by a newer rotad.
    #[error("{0}")]
    Unusable(String),
    /// The row changed since it was loaded: another writer is at work.
    #[error("credential `{0}` was changed in the journal by another writer")]
    Conflict(CredentialName),
    /// Nothing was recorded: disk full, read-only, I/O error. May pass.
    #[error("{0}")]
    Unwritable(String),
    /// Whether it was recorded is not known: the journal went away over it. What it holds is the truth, once it can be read.
    #[error("{0}")]
    Unsettled(String),
}

/// The durable record, one transaction for each save.
#[async_trait]
pub trait Journal: Send + Sync {
    fn identity(&self) -> Identity;

    /// How long after a save an effect that it announced may still begin, where a process can live on without its hold on the
    /// journal: whoever has the journal next takes it that no earlier one begins anything after so long. `None` where the
    /// hold ends with the process.
    fn hold(&self) -> Option<Duration> {
        None
    }

    /// Who else has the journal, where a process can live on without its hold on it; `None` where nobody else has.
    async fn taken_by(&self) -> Result<Option<String>, JournalError> {
        Ok(None)
    }

    /// One credential's row, if it has one.
    async fn load(&self, credential: &CredentialName) -> Result<Option<Row>, JournalError>;

    /// Every row, in the order of names, in portions: those after `after`, at most `limit`.
    async fn load_after(&self, after: Option<&CredentialName>, limit: usize) -> Result<Vec<(CredentialName, Row)>, JournalError>;

    /// Saves state and entries together, durably, and gives the row's new version. Saves that come
    /// at the same time may share a commit, but not each other's failures. Once called it may be
    /// carried out even if nobody waits for the answer any more.
    async fn save(&self, save: Save) -> Result<u64, JournalError>;

    /// A named fact beside the credentials (the clock's last mark, an admin token's fingerprint).
    async fn fact(&self, name: &str) -> Result<Option<String>, JournalError>;
    async fn set_fact(&self, name: &str, value: String) -> Result<(), JournalError>;

    /// The newest `limit` lines of the history, newest first, of one credential or of all.
    async fn history(&self, credential: Option<&CredentialName>, limit: usize) -> Result<Vec<HistoryLine>, JournalError> {
        let from = From::Before(u64::MAX);
        let page = Page { credential: credential.cloned(), since: Timestamp::MIN, until: Timestamp::MAX, from, limit };
        Ok(self.history_page(page).await?.into_iter().map(|(_, line)| line).collect())
    }

    /// A portion of the history, each line with its number.
    async fn history_page(&self, page: Page) -> Result<Vec<(u64, HistoryLine)>, JournalError>;

    /// Removes history lines older than `before`; gives how many.
    async fn prune_history(&self, before: Timestamp) -> Result<u64, JournalError>;

    /// Whether a durable write works now (used while the journal was seen unwritable).
    async fn probe(&self) -> Result<(), JournalError>;

    /// Notes the clock's mark, which the next commit saves (as the fact `CLOCK_MARK`), so that time
    /// spent stopped can be counted. It makes no commit of its own.
    async fn mark_clock(&self, now: Moment) -> Result<(), JournalError>;

    /// Ends the writing: what was asked for before is durable (or answered with its error) when this
    /// returns, and the lock is given back; what is asked for later is refused. Harmless to repeat.
    async fn close(&self) {}
}
