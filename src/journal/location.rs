//! Where a journal is, and how it is opened there.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Database, Journal, JournalError, Observer, PostgresJournal, SqliteJournal};

/// Where a journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// The database's file.
    Sqlite(PathBuf),
    Postgres(Database),
}

impl Location {
    /// Opens the journal for the one process that writes it, creating or migrating it as needed. `now` becomes the creation
    /// time of a new journal.
    ///
    /// # Errors
    /// `InUse` while another process has it, `Unusable` for everything else, each with what to do.
    pub async fn open(&self, now: Timestamp, observer: Observer) -> Result<Arc<dyn Journal>, JournalError> {
        Ok(match self {
            Self::Sqlite(path) => Arc::new(SqliteJournal::open(path, now, observer)?),
            Self::Postgres(database) => Arc::new(PostgresJournal::open(database, now, observer).await?),
        })
    }

    /// Opens the journal to read it, beside a running daemon or without one; `None` where rotad has not run yet.
    ///
    /// # Errors
    /// `Unusable` if it can't be reached or read, or is not a journal that this version knows.
    pub async fn look(&self) -> Result<Option<Arc<dyn Journal>>, JournalError> {
        Ok(match self {
            Self::Sqlite(path) => SqliteJournal::look(path)?.map(|journal| Arc::new(journal) as Arc<dyn Journal>),
            Self::Postgres(database) => {
                PostgresJournal::look(database).await?.map(|journal| Arc::new(journal) as Arc<dyn Journal>)
            }
        })
    }
}

/// In backticks, without a password.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "`{}`", path.display()),
            Self::Postgres(database) => write!(f, "`{database}`"),
        }
    }
}
