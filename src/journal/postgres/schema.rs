//! The tables: their steps from version to version, and the identity that is minted with them.

use jiff::Timestamp;
use tokio_postgres::Client;

use super::Database;
use super::error::{Failed, damaged};
use crate::journal::{Identity, JournalError};
use crate::rotation::InstallationId;

/// Step `n` leads from schema version `n` to `n + 1`. A step that was released is never changed.
///
/// Names are compared by bytes, whatever the database's language, as the order of credentials is. `history.at` counts
/// microseconds since 1970, for pruning; an entry's exact time is in its JSON. Texts, not `jsonb`: a state comes back as it
/// was written, and `jsonb` takes no `\u0000`.
pub(super) const STEPS: &[&str] = &["
    CREATE TABLE rotad.identity (
        one boolean PRIMARY KEY CHECK (one), schema integer NOT NULL, installation bigint NOT NULL, created_at text NOT NULL);
    CREATE TABLE rotad.facts (name text COLLATE \"C\" PRIMARY KEY, value text NOT NULL);
    CREATE TABLE rotad.credentials (
        name text COLLATE \"C\" PRIMARY KEY, version bigint NOT NULL, wake_at text NOT NULL, state text NOT NULL);
    CREATE TABLE rotad.history (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at bigint NOT NULL, credential text COLLATE \"C\" NOT NULL,
        what text NOT NULL, entry text NOT NULL);
    CREATE INDEX history_by_credential ON rotad.history (credential, id);
    CREATE INDEX history_by_time ON rotad.history (at);
"];

/// What a database is, before anything is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// No schema `rotad`, or one that holds nothing.
    Empty,
    /// A journal of this schema version.
    Version(usize),
}

/// Looks at a database without changing it; refuses what is not ours, or newer than this rotad.
pub(super) async fn look(client: &Client, database: &Database) -> Result<Found, JournalError> {
    let failed = |error| JournalError::Unusable(Failed::of(database, &error).text());
    let row = client
        .query_one(
            "SELECT to_regclass('rotad.identity') IS NOT NULL, \
             (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('rotad'))",
            &[],
        )
        .await
        .map_err(failed)?;
    match (row.get::<_, bool>(0), row.get::<_, i64>(1)) {
        (false, 0) => return Ok(Found::Empty),
        (false, _) => {
            return Err(JournalError::Unusable(format!(
                "the schema `rotad` of `{database}` holds something else than a journal: give `journal.url` another database"
            )));
        }
        (true, _) => {}
    }
    let row = client.query_opt("SELECT schema FROM rotad.identity", &[]).await.map_err(failed)?;
    let version: i32 = row.ok_or_else(|| damaged(database, "it has no identity"))?.get(0);
    match usize::try_from(version) {
        Ok(version) if version > STEPS.len() => Err(JournalError::Unusable(format!(
            "journal `{database}` was written by a newer rotad (its schema has version {version}, this rotad knows up to {}): run that \
             version of rotad or a later one",
            STEPS.len()
        ))),
        Ok(version) if version > 0 => Ok(Found::Version(version)),
        _ => Err(damaged(database, &format!("schema version {version}"))),
    }
}

/// Brings the schema up to date and gives the identity, minted with the first step; all in one transaction. Under the
/// writer's lock, so that nobody else does it at the same time.
pub(super) async fn migrate(client: &mut Client, database: &Database, now: Timestamp) -> Result<Identity, JournalError> {
    let found = look(client, database).await?;
    let version = match found {
        Found::Empty => 0,
        Found::Version(version) => version,
    };
    if version < STEPS.len() {
        apply(client, version, found == Found::Empty, now).await.map_err(|error| match error {
            Stopped::Database(error) => JournalError::Unusable(Failed::of(database, &error).text()),
            Stopped::Random(error) => JournalError::Unusable(format!("the kernel gave no random numbers ({error})")),
        })?;
    }
    identity(client, database).await
}

enum Stopped {
    Database(tokio_postgres::Error),
    Random(getrandom::Error),
}

impl From<tokio_postgres::Error> for Stopped {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

async fn apply(client: &mut Client, version: usize, is_new: bool, now: Timestamp) -> Result<(), Stopped> {
    let transaction = client.transaction().await?;
    let exists = transaction.query_one("SELECT to_regnamespace('rotad') IS NOT NULL", &[]).await?;
    if !exists.get::<_, bool>(0) {
        // Not `IF NOT EXISTS`, which asks for the right to create even where there is nothing to do.
        transaction.batch_execute("CREATE SCHEMA rotad").await?;
    }
    for step in &STEPS[version..] {
        transaction.batch_execute(step).await?;
    }
    if is_new {
        let installation = i64::from(getrandom::u32().map_err(Stopped::Random)?);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&installation, &now.to_string()];
        transaction.execute("INSERT INTO rotad.identity VALUES (true, 0, $1, $2)", &values).await?;
    }
    let version = i32::try_from(STEPS.len()).unwrap_or(i32::MAX);
    transaction.execute("UPDATE rotad.identity SET schema = $1", &[&version]).await?;
    Ok(transaction.commit().await?)
}

/// Reads whose life this journal is.
pub(super) async fn identity(client: &Client, database: &Database) -> Result<Identity, JournalError> {
    let row = client.query_opt("SELECT installation, created_at FROM rotad.identity", &[]).await;
    let row = row.map_err(|error| JournalError::Unusable(Failed::of(database, &error).text()))?;
    let row = row.ok_or_else(|| damaged(database, "it has no identity"))?;
    let installation = u32::try_from(row.get::<_, i64>(0)).map_err(|_| damaged(database, "its identity is no installation's"))?;
    let created_at = row.get::<_, &str>(1).parse().map_err(|_| damaged(database, "its identity has no valid time"))?;
    Ok(Identity { installation: InstallationId(installation), created_at })
}
