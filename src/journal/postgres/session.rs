//! A session with the server: its settings, and the lock by which only one process writes a journal.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tracing::warn;

use super::Database;
use super::database::Connected;
use super::error::{Failed, explain, unreached};
use crate::journal::JournalError;

/// The oldest server: `gen_random_uuid` is in its core.
const SERVER_MIN: i32 = 13;

/// The advisory lock of the one process that writes: `rotd`, and a number of ours. Advisory locks are a database's own.
const LOCK: (i32, i32) = (0x726f_7464, 1);

/// To a session that can be used, with the lock where it writes, and its schema looked at.
const OPEN_MAX: Duration = Duration::from_secs(12);

/// How long a session of this process that was cut may take to end, until it is given up for now.
const ENDING_MAX: Duration = Duration::from_secs(3);
const ENDING_LOOK: Duration = Duration::from_millis(50);

/// How long the writing session may be silent, and how often it says a word when there is nothing to write.
const SILENT_MAX: Duration = Duration::from_secs(30);
pub(super) const BREATHE_EVERY: Duration = Duration::from_secs(10);

/// How long one of our statements may take on the server, a lock be waited for, and a transaction be idle; in milliseconds.
/// The whole of a transaction has a limit of its own, which is longer.
///
/// With the others the server notices within half a minute that this machine is gone, and ends the session with its lock.
/// Whatever `search_path` an operator set, no function or operator of others stands before PostgreSQL's own.
const SETTINGS: &[(&str, &str)] = &[
    ("search_path", "pg_catalog"),
    ("statement_timeout", "10000"),
    ("lock_timeout", "5000"),
    ("idle_in_transaction_session_timeout", "20000"),
    ("idle_session_timeout", "0"),
    ("default_transaction_isolation", "read committed"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "3"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "20000"),
];

/// An open session. It ends when this is dropped.
pub(super) struct Session {
    pub(super) client: Client,
    driver: JoinHandle<()>,
}

impl Session {
    /// A session that only reads: from a standby, too.
    ///
    /// # Errors
    /// `Unusable`.
    pub(super) async fn reading(database: &Database, called: &str) -> Result<Self, JournalError> {
        let session = Self::open(database, called).await?;
        let read_only = session.client.batch_execute("SET default_transaction_read_only = on").await;
        read_only.map_err(|error| JournalError::Unusable(explain(database, &error, &[])))?;
        Ok(session)
    }

    /// The session that writes, with the journal's lock.
    ///
    /// # Errors
    /// `InUse` while another process has the lock, `Unusable` for everything else.
    pub(super) async fn writing(database: &Database, called: &str) -> Result<Self, JournalError> {
        let session = Self::open(database, called).await?;
        session.be_durable(database).await?;
        session.lock(database, called).await?;
        session.end_if_silent(database).await?;
        Ok(session)
    }

    /// Without a word for `SILENT_MAX` the server ends the session: a process that was stopped must not keep the lock for as
    /// long as its machine's kernel lives. Before version 14 there is no such setting.
    async fn end_if_silent(&self, database: &Database) -> Result<(), JournalError> {
        let set = "SELECT pg_catalog.set_config(name, $1, false) FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout'";
        let limit = SILENT_MAX.as_millis().to_string();
        let done = self.client.query(set, &[&limit]).await;
        done.map(drop).map_err(|error| JournalError::Unusable(explain(database, &error, &[])))
    }

    /// A word, so that the server does not take this process for stopped.
    ///
    /// # Errors
    /// The session is lost.
    pub(super) async fn breathe(&self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("").await
    }

    async fn open(database: &Database, called: &str) -> Result<Self, JournalError> {
        let Connected { client, driver } = database.connect(called).await.map_err(JournalError::Unusable)?;
        let session = Self { client, driver };
        let failed = |error| JournalError::Unusable(explain(database, &error, &[]));
        let (names, values): (Vec<&str>, Vec<&str>) = SETTINGS.iter().copied().unzip();
        // A setting that this version of the server does not have is left out.
        let set = "SELECT pg_catalog.set_config(name, value, false) \
                   FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS wanted (name, value) \
                   WHERE name IN (SELECT s.name FROM pg_catalog.pg_settings s)";
        session.client.query(set, &[&names, &values]).await.map_err(failed)?;
        let asked = "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding')";
        let row = session.client.query_one(asked, &[]).await.map_err(failed)?;
        let (version, encoding): (i32, &str) = (row.get(0), row.get(1));
        if version < SERVER_MIN {
            let what = format!("`{database}` is on PostgreSQL {version}: rotad needs {SERVER_MIN} or later");
            return Err(JournalError::Unusable(what));
        }
        if encoding != "UTF8" {
            let create = format!("`CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0`", database.name);
            return Err(JournalError::Unusable(format!("`{database}` has the encoding {encoding}: a journal needs {create}")));
        }
        Ok(session)
    }

    /// A commit that was answered must outlive the server's crash.
    async fn be_durable(&self, database: &Database) -> Result<(), JournalError> {
        let failed = |error| JournalError::Unusable(explain(database, &error, &[]));
        let asked = "SELECT pg_is_in_recovery(), current_setting('synchronous_commit'), current_setting('fsync'), \
                     current_setting('full_page_writes')";
        let row = self.client.query_one(asked, &[]).await.map_err(failed)?;
        if row.get::<_, bool>(0) {
            let what =
                format!("`{database}` is on a standby, which can't be written: `journal.url` must lead to the primary server");
            return Err(JournalError::Unusable(what));
        }
        // What waits for a standby's word as well is left as it is.
        if !["on", "remote_apply"].contains(&row.get::<_, &str>(1)) {
            self.client.batch_execute("SET synchronous_commit = on").await.map_err(failed)?;
        }
        for (column, setting) in [(2, "fsync"), (3, "full_page_writes")] {
            if row.get::<_, &str>(column) != "on" {
                warn!(
                    journal = %database,
                    "the server has `{setting} = off`: a crash of its machine can lose or damage the journal; turn it on"
                );
            }
        }
        Ok(())
    }

    async fn lock(&self, database: &Database, called: &str) -> Result<(), JournalError> {
        let began = tokio::time::Instant::now();
        loop {
            let taken = self.client.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCK.0, &LOCK.1]).await;
            if taken.map_err(|error| JournalError::Unusable(explain(database, &error, &[])))?.get::<_, bool>(0) {
                return Ok(());
            }
            let holder = self.holder().await.map_err(|error| JournalError::Unusable(explain(database, &error, &[])))?;
            match holder {
                // An earlier session of this process that the server still has: its work can't be ours any more.
                Some((backend, name)) if name == called && began.elapsed() < ENDING_MAX => {
                    let ended = self.client.query_one("SELECT pg_terminate_backend($1)", &[&backend]).await;
                    if let Err(error) = ended
                        && error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE)
                    {
                        return Err(JournalError::Unusable(explain(database, &error, &[])));
                    }
                }
                // Gone between the two questions.
                None if began.elapsed() < ENDING_MAX => {}
                holder => {
                    let by = holder.map_or_else(|| "another process".to_owned(), |(_, name)| format!("`{name}`"));
                    return Err(JournalError::InUse(format!(
                        "journal `{database}` is in use by {by}: only one rotad may run on it; stop that one, give this one a \
                         database of its own, or have it wait with `standby = true`"
                    )));
                }
            }
            tokio::time::sleep(ENDING_LOOK).await;
        }
    }

    /// Who holds the lock: the backend's process id, and the name that it gave itself.
    pub(super) async fn holder(&self) -> Result<Option<(i32, String)>, tokio_postgres::Error> {
        let row = self
            .client
            .query_opt(
                "SELECT l.pid, coalesce(a.application_name, '') FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) \
                 WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = $1 AND l.objid::bigint = $2 AND l.objsubid = 2 \
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                &[&i64::from(LOCK.0), &i64::from(LOCK.1)],
            )
            .await?;
        Ok(row.map(|row| (row.get(0), row.get(1))))
    }

    pub(super) fn is_over(&self) -> bool {
        self.client.is_closed() || self.driver.is_finished()
    }

    /// Gives the lock back, and says goodbye: the server's process may end later, and must not keep the lock for so long.
    pub(super) async fn end(self) {
        let Self { client, driver } = self;
        let ending = async {
            let _ = client.batch_execute("SELECT pg_advisory_unlock_all()").await;
            drop(client);
            let _ = driver.await;
        };
        let _ = tokio::time::timeout(ENDING_MAX, ending).await;
    }
}

/// What opens or looks, within a limit: a server that stops to answer holds nobody up.
///
/// # Errors
/// Its own, and `Unusable` when the time is over.
pub(super) async fn in_time<T>(
    database: &Database,
    opening: impl Future<Output = Result<T, JournalError>>,
) -> Result<T, JournalError> {
    let late = || JournalError::Unusable(unreached(database, &format!("no answer within {} s", OPEN_MAX.as_secs())));
    tokio::time::timeout(OPEN_MAX, opening).await.unwrap_or_else(|_| Err(late()))
}

/// A failed statement of a session, as the caller of a read sees it.
pub(super) fn unreadable(database: &Database, error: &tokio_postgres::Error) -> JournalError {
    JournalError::Unusable(Failed::of(database, error).text())
}
