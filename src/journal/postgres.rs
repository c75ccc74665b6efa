//! The journal in a database of PostgreSQL, for one process: one session writes, one reads.
//!
//! That only one process writes is proven by an advisory lock of the writing session, for as long as the session lives; it
//! is compared in every transaction that the server's process is still the one that took it. A lost session is made anew,
//! which takes the lock again, so that what the one before left is settled by then; a commit that was not answered is
//! looked for before anything is told. Unlike a lock on a file it can be lost by a process that lives on, so what such a
//! process may still do is bounded by time: see `Journal::hold`.

mod database;
mod error;
mod reading;
mod schema;
mod session;
mod statements;
mod writer;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;

pub use self::database::{Database, Host};
use self::reading::Reader;
use self::session::{Session, in_time};
use self::writer::Writer;
use super::queue::{Mark, Queue, Write};
use super::{HistoryLine, Identity, Journal, JournalError, Observer, Page, Row, Save};
use crate::rotation::{CredentialName, Moment};

/// How long after a save an effect that it announced may still begin. A save takes milliseconds, and a process that was
/// suspended for longer than this in between finds that it may not go on.
const HOLD: Duration = Duration::from_secs(10);

/// The longest name of a session that the server keeps (bytes).
const CALLED_MAX: usize = 63;

/// Looks at who has a journal, on a session that is kept.
pub struct Watch(Reader);

impl Watch {
    /// Who has the journal now.
    ///
    /// # Errors
    /// `Unusable`: it can't be asked.
    pub async fn holder(&self) -> Result<Option<String>, JournalError> {
        self.0.holder().await
    }
}

/// The journal in a database of PostgreSQL.
pub struct PostgresJournal {
    database: Database,
    identity: Identity,
    reader: Mutex<Option<std::sync::Arc<Reader>>>,
    queue: Queue,
    mark: Mark,
    /// Ends when the writing task has.
    ended: watch::Receiver<()>,
}

impl PostgresJournal {
    /// Opens the journal for the one process that writes it, creating or migrating it as needed. `now` becomes the creation
    /// time of a new journal.
    ///
    /// # Errors
    /// `InUse` while another process has it, `Unusable` for everything else, each with what to do.
    pub async fn open(database: &Database, now: Timestamp, observer: Observer) -> Result<Self, JournalError> {
        let called = name_of_sessions()?;
        let mut session = in_time(database, Session::writing(database, &called)).await?;
        // Bringing a large journal to another form may take its time.
        let identity = match schema::migrate(&mut session.client, database, now).await {
            Ok(identity) => identity,
            Err(error) => {
                session.end().await;
                return Err(error);
            }
        };
        let mark = Mark::default();
        let mut writer = Writer::new(database.clone(), called.clone(), session, identity, mark.clone(), observer).await?;
        if let Err(error) = writer.prove_writable().await {
            writer.end().await;
            return Err(error);
        }
        let (queue, jobs) = Queue::begin(format!("`{database}`"));
        let (alive, ended) = watch::channel(());
        tokio::spawn(async move {
            writer.run(jobs).await;
            drop(alive);
        });
        let reader = Reader::new(database.clone(), called);
        Ok(Self { database: database.clone(), identity, reader: Mutex::new(Some(reader.into())), queue, mark, ended })
    }

    /// Opens the journal to read it, beside a running daemon or without one; `None` where there is none yet. Writes are
    /// refused.
    ///
    /// # Errors
    /// `Unusable` if it can't be reached or read, or is not a journal that this version knows.
    pub async fn look(database: &Database) -> Result<Option<Self>, JournalError> {
        let reader = Reader::new(database.clone(), name_of_sessions()?);
        let Some(identity) = in_time(database, reader.look()).await? else { return Ok(None) };
        Ok(Some(Self {
            database: database.clone(),
            identity,
            reader: Mutex::new(Some(reader.into())),
            queue: Queue::read_only(format!("`{database}`")),
            mark: Mark::default(),
            ended: watch::channel(()).1,
        }))
    }

    /// Who else has the journal now, asked again and again; it need not be one that this version can read.
    ///
    /// # Errors
    /// The kernel gave no random numbers.
    pub fn watch(database: &Database) -> Result<Watch, JournalError> {
        Ok(Watch(Reader::new(database.clone(), name_of_sessions()?)))
    }

    fn reader(&self) -> Result<std::sync::Arc<Reader>, JournalError> {
        lock(&self.reader).clone().ok_or_else(|| self.queue.closed())
    }
}

#[async_trait]
impl Journal for PostgresJournal {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn hold(&self) -> Option<Duration> {
        Some(HOLD)
    }

    async fn load(&self, credential: &CredentialName) -> Result<Option<Row>, JournalError> {
        self.reader()?.load(credential).await
    }

    async fn load_after(&self, after: Option<&CredentialName>, limit: usize) -> Result<Vec<(CredentialName, Row)>, JournalError> {
        // No name is empty, so the empty text comes before every one.
        self.reader()?.rows(after.map_or("", CredentialName::as_str), limit).await
    }

    async fn save(&self, save: Save) -> Result<u64, JournalError> {
        self.queue.write(Write::Save(save)).await
    }

    async fn fact(&self, name: &str) -> Result<Option<String>, JournalError> {
        self.reader()?.fact(name).await
    }

    async fn set_fact(&self, name: &str, value: String) -> Result<(), JournalError> {
        self.queue.write(Write::SetFact { name: name.to_owned(), value }).await.map(|_| ())
    }

    async fn history_page(&self, page: Page) -> Result<Vec<(u64, HistoryLine)>, JournalError> {
        self.reader()?.history(&page).await
    }

    async fn prune_history(&self, before: Timestamp) -> Result<u64, JournalError> {
        self.queue.prune(before).await
    }

    async fn probe(&self) -> Result<(), JournalError> {
        self.queue.write(Write::Probe).await.map(|_| ())
    }

    async fn mark_clock(&self, now: Moment) -> Result<(), JournalError> {
        self.mark.set(now);
        Ok(())
    }

    async fn taken_by(&self) -> Result<Option<String>, JournalError> {
        self.reader()?.holder().await
    }

    async fn close(&self) {
        self.queue.close();
        drop(lock(&self.reader).take());
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

impl std::fmt::Debug for PostgresJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let database = self.database.to_string();
        f.debug_struct("PostgresJournal").field("database", &database).field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this journal's sessions call themselves on the server: who it is for people, and a number that no other has, by
/// which sessions of ours are told from another's.
fn name_of_sessions() -> Result<String, JournalError> {
    let random =
        getrandom::u32().map_err(|error| JournalError::Unusable(format!("the kernel gave no random numbers ({error})")))?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let (before, after) = (format!("rotad {} on ", std::process::id()), format!(" {random:08x}"));
    let room = CALLED_MAX - before.len() - after.len();
    // The server takes printable ASCII alone.
    let host: String = host.chars().filter(char::is_ascii_graphic).take(room).collect();
    Ok(format!("{before}{host}{after}"))
}
