//! The journal in one SQLite file, for one process: one thread writes, one reads, nobody blocks the runtime.
//!
//! Write-ahead log with `synchronous=FULL`: a commit waits for one `fsync` of the log (a rollback
//! journal needs three), and `rotad status` reads in its own process while the daemon writes. Saves
//! that arrive while a commit is under way share the next one; a save that comes alone is committed
//! at once. That only one process writes is proven by kernel locks beside SQLite's own (`lock`),
//! since SQLite's exclusive mode would keep readers out too.

mod error;
mod lock;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row as SqlRow, params};
use tokio::sync::{mpsc, oneshot, watch};

use self::error::{damaged, unusable};
use self::lock::Lock;
use self::schema::STEPS;
use self::writer::Writer;
use super::queue::{Mark, QUEUE_MAX, Queue, Write};
use super::{From, HistoryLine, Identity, Journal, JournalError, NOT_RUN_YET, Observer, Page, Row, Save};
use crate::rotation::{CredentialName, Entry, Moment};

/// How long a foreign program's lock on the database (an `sqlite3` shell, a backup) is waited out.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// After this many pages of 4 KiB the log is copied into the database: 16 MiB, so that pages that
/// many saves changed are copied and synced once for all of them.
const LOG_PAGES: i64 = 4_096;

/// A log that a burst or a long reader made larger than this (bytes) is cut back to it.
const LOG_SIZE_LIMIT: i64 = 64 * 1024 * 1024;

type Query = Box<dyn FnOnce(&Connection) + Send>;

/// The journal in an SQLite file.
pub struct SqliteJournal {
    identity: Identity,
    path: PathBuf,
    queue: Queue,
    /// `None` once closed.
    queries: Mutex<Option<mpsc::Sender<Query>>>,
    mark: Mark,
    /// Ends when both threads have ended.
    ended: watch::Receiver<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl SqliteJournal {
    /// Opens the journal for the one process that writes it, creating or migrating it as needed.
    /// Blocks for some commits: for start-up. `now` becomes the creation time of a new journal.
    ///
    /// # Errors
    /// `InUse` while another process has it, `Unusable` for everything else, each with what to do.
    pub fn open(path: &Path, now: Timestamp, observer: Observer) -> Result<Self, JournalError> {
        let path = locate(path)?;
        let lock = Arc::new(Lock::acquire(&path)?);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = connect(&path, flags)?;
        schema::look(&connection, &path, STEPS)?;
        configure(&connection, &path)?;
        let identity = schema::migrate(&mut connection, &path, STEPS, now)?;
        check(&connection, &path)?;
        let reader = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;

        let mark = Mark::default();
        let (queue, jobs) = Queue::begin(format!("`{}`", path.display()));
        let (alive, ended) = watch::channel(());
        let alive = Arc::new(alive);
        let writer = Writer { connection, lock: Arc::clone(&lock), path: path.clone(), mark: mark.clone(), observer };
        writer.prove_writable()?;
        // The lock goes last: it must outlive both connections.
        let held = (Arc::clone(&lock), Arc::clone(&alive));
        let (reads, reader_gone) = std::sync::mpsc::channel();
        let writing = spawn("journal-writer", &path, move || {
            writer.run(jobs);
            // The last connection to close takes the log away, but only one that may write: what is left is one file.
            let _ = reader_gone.recv();
            drop(writer);
            drop(held);
        })?;
        let (queries, reading) = spawn_reader(reader, &path, Some((lock, reads)), alive)?;
        Ok(Self {
            identity,
            path,
            queue,
            queries: Mutex::new(Some(queries)),
            mark,
            ended,
            threads: Mutex::new(vec![writing, reading]),
        })
    }

    /// Opens the journal to read it, beside a running daemon or without one. Writes are refused.
    ///
    /// # Errors
    /// `Unusable` if it is not there, not readable, or not a journal that this version knows.
    pub fn open_read_only(path: &Path) -> Result<Self, JournalError> {
        let what = if path.exists() { "is empty" } else { "does not exist" };
        let absent = || JournalError::Unusable(format!("journal `{}` {what}: {NOT_RUN_YET}", path.display()));
        Self::look(path)?.ok_or_else(absent)
    }

    /// The same; `None` where rotad has not run yet, or has only just begun its file.
    ///
    /// # Errors
    /// `Unusable` if it is not readable, or not a journal that this version knows.
    pub fn look(path: &Path) -> Result<Option<Self>, JournalError> {
        let path = locate(path)?;
        if !path.exists() {
            return Ok(None);
        }
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        match schema::look(&connection, &path, STEPS)? {
            schema::Found::Version(version) if version == STEPS.len() => {}
            schema::Found::Version(_) => {
                return Err(JournalError::Unusable(format!(
                    "journal `{}` was written by an older rotad and is not migrated yet: start this version's daemon first",
                    path.display()
                )));
            }
            schema::Found::Empty => return Ok(None),
        }
        let identity = schema::identity(&connection, &path)?;
        let (alive, ended) = watch::channel(());
        let (queries, reading) = spawn_reader(connection, &path, None, Arc::new(alive))?;
        Ok(Some(Self {
            identity,
            queue: Queue::read_only(format!("`{}`", path.display())),
            path,
            queries: Mutex::new(Some(queries)),
            mark: Mark::default(),
            ended,
            threads: Mutex::new(vec![reading]),
        }))
    }

    /// Runs a query on the reading thread.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection, &Path) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let Some(queries) = lock(&self.queries).clone() else { return Err(self.queue.closed()) };
        let (reply, answer) = oneshot::channel();
        let path = self.path.clone();
        let job: Query = Box::new(move |connection| {
            let _ = reply.send(query(connection, &path));
        });
        queries.send(job).await.map_err(|_| self.queue.closed())?;
        drop(queries);
        answer.await.map_err(|_| self.queue.closed())?
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    fn identity(&self) -> Identity {
        self.identity
    }

    async fn load(&self, credential: &CredentialName) -> Result<Option<Row>, JournalError> {
        let credential = credential.clone();
        self.read(move |connection, path| {
            let rows = load_rows(connection, path, "WHERE name = ?1", params![credential.as_str()])?;
            Ok(rows.into_iter().next().map(|(_, row)| row))
        })
        .await
    }

    async fn load_after(&self, after: Option<&CredentialName>, limit: usize) -> Result<Vec<(CredentialName, Row)>, JournalError> {
        // No name is empty, so the empty text comes before every one.
        let after = after.map_or_else(String::new, ToString::to_string);
        self.read(move |connection, path| {
            load_rows(connection, path, "WHERE name > ?1 ORDER BY name LIMIT ?2", params![after, sql_limit(limit)])
        })
        .await
    }

    async fn save(&self, save: Save) -> Result<u64, JournalError> {
        self.queue.write(Write::Save(save)).await
    }

    async fn fact(&self, name: &str) -> Result<Option<String>, JournalError> {
        let name = name.to_owned();
        self.read(move |connection, path| {
            connection
                .prepare_cached("SELECT value FROM facts WHERE name = ?1")
                .and_then(|mut select| select.query_row([name], |row| row.get(0)).optional())
                .map_err(|error| unusable(path, &error))
        })
        .await
    }

    async fn set_fact(&self, name: &str, value: String) -> Result<(), JournalError> {
        self.queue.write(Write::SetFact { name: name.to_owned(), value }).await.map(|_| ())
    }

    async fn history_page(&self, page: Page) -> Result<Vec<(u64, HistoryLine)>, JournalError> {
        self.read(move |connection, path| load_history(connection, path, &page)).await
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

    async fn close(&self) {
        self.queue.close();
        drop(lock(&self.queries).take());
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

impl Drop for SqliteJournal {
    /// Waits for what was asked for before, some commits at most, so that a journal that was dropped can be opened again.
    fn drop(&mut self) {
        self.queue.close();
        drop(lock(&self.queries).take());
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for SqliteJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteJournal").field("path", &self.path).field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The journal's real path, so that every way to it meets the same lock file.
fn locate(path: &Path) -> Result<PathBuf, JournalError> {
    let refuse = |text: String| Err(JournalError::Unusable(text));
    if let Ok(found) = std::fs::canonicalize(path) {
        let is_file = found.metadata().is_ok_and(|metadata| metadata.is_file());
        return if is_file {
            Ok(found)
        } else {
            refuse(format!("journal `{}` is not a regular file: give `journal.url` the path of one", path.display()))
        };
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return refuse(format!("journal `{}` is not a path of a file", path.display()));
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    match std::fs::canonicalize(directory) {
        Ok(directory) => Ok(directory.join(name)),
        Err(error) => refuse(format!(
            "the directory `{}` of journal `{}` can't be reached ({error}): create it, owned by the user that rotad runs as, mode 0700",
            directory.display(),
            path.display()
        )),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, JournalError> {
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_LIMIT)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(connection)
    };
    open().map_err(|error| unusable(path, &error))
}

fn configure(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let set = || {
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_SIZE_LIMIT)?;
        Ok(mode)
    };
    let mode = set().map_err(|error| unusable(path, &error))?;
    if mode == "wal" {
        return Ok(());
    }
    Err(JournalError::Unusable(format!(
        "journal `{}` is on a file system without shared memory for files (SQLite stays in mode `{mode}`): keep it on a local disk",
        path.display()
    )))
}

/// Looks through the tables that promises rest on; the history, which may be large, shows damage when it is read.
fn check(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    for table in ["identity", "facts", "credentials"] {
        let finding: String = connection
            .query_row(&format!("PRAGMA quick_check('{table}')"), [], |row| row.get(0))
            .map_err(|error| unusable(path, &error))?;
        if finding != "ok" {
            return Err(damaged(path, &finding));
        }
    }
    Ok(())
}

fn spawn(name: &str, path: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, JournalError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| JournalError::Unusable(format!("no thread for journal `{}` ({error})", path.display())))
}

type Reader = (mpsc::Sender<Query>, JoinHandle<()>);

fn spawn_reader(
    connection: Connection,
    path: &Path,
    held: Option<(Arc<Lock>, std::sync::mpsc::Sender<()>)>,
    alive: Arc<watch::Sender<()>>,
) -> Result<Reader, JournalError> {
    let (queries, mut jobs) = mpsc::channel::<Query>(QUEUE_MAX);
    let thread = spawn("journal-reader", path, move || {
        while let Some(query) = jobs.blocking_recv() {
            query(&connection);
        }
        // In this order: the lock must outlive the connection, and whoever waits must find it released.
        drop(connection);
        drop(held);
        drop(alive);
    })?;
    Ok((queries, thread))
}

fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn load_rows(
    connection: &Connection,
    path: &Path,
    clause: &str,
    parameters: &[&dyn rusqlite::ToSql],
) -> Result<Vec<(CredentialName, Row)>, JournalError> {
    let columns = |row: &SqlRow<'_>| -> rusqlite::Result<(String, i64, String, String)> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    };
    let failed = |error| unusable(path, &error);
    let mut select =
        connection.prepare_cached(&format!("SELECT name, version, wake_at, state FROM credentials {clause}")).map_err(failed)?;
    let rows = select.query_map(parameters, columns).map_err(failed)?;
    rows.map(|row| {
        let (name, version, wake_at, state) = row.map_err(failed)?;
        let wrong = |what: &str| damaged(path, &format!("the row of credential `{name}` has no valid {what}"));
        let credential = name.parse().map_err(|_| wrong("name"))?;
        let version = u64::try_from(version).map_err(|_| wrong("version"))?;
        let wake_at = wake_at.parse().map_err(|_| wrong("time"))?;
        Ok((credential, Row { version, state, wake_at }))
    })
    .collect()
}

fn load_history(connection: &Connection, path: &Path, page: &Page) -> Result<Vec<(u64, HistoryLine)>, JournalError> {
    let failed = |error| unusable(path, &error);
    let (bound, order, number) = match page.from {
        From::After(number) => ("id > ?1", "ASC", number),
        From::Before(number) => ("id < ?1", "DESC", number),
    };
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let whose = if page.credential.is_some() { "credential = ?4" } else { "?4 IS NULL" };
    let (since, until) = (page.since.as_microsecond(), page.until.as_microsecond());
    let mut select = connection
        .prepare_cached(&format!(
            "SELECT id, credential, entry FROM history WHERE {bound} AND at >= ?2 AND at < ?3 AND {whose} ORDER BY id {order} LIMIT ?5"
        ))
        .map_err(failed)?;
    let columns = |row: &SqlRow<'_>| -> rusqlite::Result<(i64, String, String)> { Ok((row.get(0)?, row.get(1)?, row.get(2)?)) };
    let name = page.credential.as_ref().map(CredentialName::as_str);
    let rows = select.query_map(params![number, since, until, name, sql_limit(page.limit)], columns).map_err(failed)?;
    rows.map(|row| {
        let (id, name, entry) = row.map_err(failed)?;
        let wrong = |what: &str| damaged(path, &format!("line {id} of the history has no valid {what}"));
        let number = u64::try_from(id).map_err(|_| wrong("number"))?;
        let credential = name.parse().map_err(|_| wrong("credential"))?;
        let entry: Entry = serde_json::from_str(&entry).map_err(|_| wrong("entry"))?;
        Ok((number, HistoryLine { credential, entry }))
    })
    .collect()
}
