//! Reading: a session of its own, made when it is needed and again when it was lost.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::ToSql;

use super::Database;
use super::error::{damaged, unreached};
use super::schema::{self, Found, STEPS};
use super::session::{Session, in_time, unreadable};
use crate::journal::{From, HistoryLine, Identity, JournalError, Page, Row};
use crate::rotation::{CredentialName, Entry};

/// The server's own limit of a statement, and the way there and back.
const READ_MAX: Duration = Duration::from_secs(15);

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Reads on one session, which many may use at the same time.
pub(super) struct Reader {
    database: Database,
    called: String,
    session: Mutex<Option<Arc<Session>>>,
}

impl Reader {
    pub(super) fn new(database: Database, called: String) -> Self {
        Self { database, called, session: Mutex::default() }
    }

    /// The identity; `None` where there is no journal yet.
    pub(super) async fn look(&self) -> Result<Option<Identity>, JournalError> {
        let session = self.session().await?;
        match schema::look(&session.client, &self.database).await? {
            Found::Empty => Ok(None),
            Found::Version(version) if version == STEPS.len() => {
                Ok(Some(schema::identity(&session.client, &self.database).await?))
            }
            Found::Version(_) => Err(JournalError::Unusable(format!(
                "journal `{}` was written by an older rotad and is not migrated yet: start this version's daemon first",
                self.database
            ))),
        }
    }

    /// Who else has the journal now; `None` where nobody else has.
    pub(super) async fn holder(&self) -> Result<Option<String>, JournalError> {
        let session = self.session().await?;
        let asked = async { session.holder().await.map_err(|error| unreadable(&self.database, &error)) };
        let holder = in_time(&self.database, asked).await?;
        Ok(holder.map(|(_, name)| name).filter(|name| *name != self.called))
    }

    async fn session(&self) -> Result<Arc<Session>, JournalError> {
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| !session.is_over()) {
            return Ok(session.clone());
        }
        let session = Arc::new(in_time(&self.database, Session::reading(&self.database, &self.called)).await?);
        *slot = Some(session.clone());
        Ok(session)
    }

    /// The rows of a query. A session that was lost is made anew once: reading twice is harmless.
    async fn query(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<SqlRow>, JournalError> {
        let mut again = true;
        loop {
            let session = self.session().await?;
            match tokio::time::timeout(READ_MAX, session.client.query(sql, parameters)).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(error)) if error.is_closed() && again => again = false,
                Ok(Err(error)) => return Err(unreadable(&self.database, &error)),
                Err(_) => {
                    // Whatever comes of it, nobody waits on that session any more.
                    self.session.lock().await.take();
                    let why = format!("no answer within {} s", READ_MAX.as_secs());
                    return Err(JournalError::Unusable(unreached(&self.database, &why)));
                }
            }
        }
    }

    pub(super) async fn rows(&self, after: &str, limit: usize) -> Result<Vec<(CredentialName, Row)>, JournalError> {
        let sql = "SELECT name, version, wake_at, state FROM rotad.credentials WHERE name > $1 ORDER BY name LIMIT $2";
        self.query(sql, &[&after, &sql_limit(limit)]).await?.iter().map(|row| self.row(row)).collect()
    }

    pub(super) async fn load(&self, credential: &CredentialName) -> Result<Option<Row>, JournalError> {
        let sql = "SELECT name, version, wake_at, state FROM rotad.credentials WHERE name = $1";
        let rows = self.query(sql, &[&credential.as_str()]).await?;
        rows.first().map(|row| self.row(row).map(|(_, row)| row)).transpose()
    }

    pub(super) async fn fact(&self, name: &str) -> Result<Option<String>, JournalError> {
        let rows = self.query("SELECT value FROM rotad.facts WHERE name = $1", &[&name]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    pub(super) async fn history(&self, page: &Page) -> Result<Vec<(u64, HistoryLine)>, JournalError> {
        let (bound, order, number) = match page.from {
            From::After(number) => ("id > $1", "ASC", number),
            From::Before(number) => ("id < $1", "DESC", number),
        };
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let (since, until) = (microseconds(page.since), microseconds(page.until));
        let limit = sql_limit(page.limit);
        let name = page.credential.as_ref().map(CredentialName::as_str);
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&number, &since, &until, &limit];
        let whose = match &name {
            Some(name) => {
                parameters.push(name);
                "AND credential = $5"
            }
            None => "",
        };
        let sql = format!(
            "SELECT id, credential, entry FROM rotad.history WHERE {bound} AND at >= $2 AND at < $3 {whose} ORDER BY id {order} LIMIT $4"
        );
        self.query(&sql, &parameters).await?.iter().map(|row| self.line(row)).collect()
    }

    fn row(&self, row: &SqlRow) -> Result<(CredentialName, Row), JournalError> {
        let (name, version, wake_at, state): (&str, i64, &str, String) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let wrong = |what: &str| damaged(&self.database, &format!("the row of credential `{name}` has no valid {what}"));
        let credential = name.parse().map_err(|_| wrong("name"))?;
        let version = u64::try_from(version).map_err(|_| wrong("version"))?;
        let wake_at = wake_at.parse().map_err(|_| wrong("time"))?;
        Ok((credential, Row { version, state, wake_at }))
    }

    fn line(&self, row: &SqlRow) -> Result<(u64, HistoryLine), JournalError> {
        let (id, name, entry): (i64, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let wrong = |what: &str| damaged(&self.database, &format!("line {id} of the history has no valid {what}"));
        let number = u64::try_from(id).map_err(|_| wrong("number"))?;
        let credential = name.parse().map_err(|_| wrong("credential"))?;
        let entry: Entry = serde_json::from_str(entry).map_err(|_| wrong("entry"))?;
        Ok((number, HistoryLine { credential, entry }))
    }
}

fn microseconds(at: Timestamp) -> i64 {
    at.as_microsecond()
}

fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
