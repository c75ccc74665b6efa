//! The database's shape: its steps from version to version, and the identity that is minted with it.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::error::{damaged, unusable};
use crate::fail_point::{self, Point};
use crate::journal::{Identity, JournalError};
use crate::rotation::InstallationId;

/// Marks the file as a rotad journal: `rotd`.
const APPLICATION_ID: i32 = 0x726f_7464;

/// Step `n` leads from schema version `n` to `n + 1`. A step that was released is never changed.
///
/// `history.at` counts microseconds since 1970, for pruning; an entry's exact time is in its JSON.
pub(super) const STEPS: &[&str] = &["
    CREATE TABLE identity (one INTEGER PRIMARY KEY CHECK (one = 1), installation INTEGER NOT NULL, created_at TEXT NOT NULL) STRICT;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE credentials (
        name TEXT PRIMARY KEY, version INTEGER NOT NULL, wake_at TEXT NOT NULL, state TEXT NOT NULL) STRICT;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY, at INTEGER NOT NULL, credential TEXT NOT NULL, what TEXT NOT NULL, entry TEXT NOT NULL) STRICT;
    CREATE INDEX history_by_credential ON history (credential);
    CREATE INDEX history_by_time ON history (at);
"];

/// What a database is, before anything is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing yet: an empty file, or one whose first transaction never ended.
    Empty,
    /// A journal of this schema version.
    Version(usize),
}

/// Looks at a database without changing it; refuses what is not ours, or newer than `steps`.
pub(super) fn look(connection: &Connection, path: &Path, steps: &[&str]) -> Result<Found, JournalError> {
    let failed = |error| unusable(path, &error);
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if (application, version, tables) == (0, 0, 0) {
        return Ok(Found::Empty);
    }
    if application != APPLICATION_ID {
        return Err(JournalError::Unusable(format!(
            "`{}` is an SQLite database, but not a journal of rotad (application id {application:#x}, expected \
             {APPLICATION_ID:#x}): give `journal.url` another path",
            path.display()
        )));
    }
    match usize::try_from(version) {
        Ok(version) if version == 0 || tables == 0 => Err(damaged(path, &format!("schema version {version}, {tables} tables"))),
        Ok(version) if version <= steps.len() => Ok(Found::Version(version)),
        _ => Err(JournalError::Unusable(format!(
            "journal `{}` was written by a newer rotad (its schema has version {version}, this rotad knows up to {}): run that \
             version of rotad or a later one",
            path.display(),
            steps.len()
        ))),
    }
}

/// Brings the schema up to date and gives the identity, minted with the first step; all in one transaction.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    steps: &[&str],
    now: Timestamp,
) -> Result<Identity, JournalError> {
    let found = look(connection, path, steps)?;
    let version = match found {
        Found::Empty => 0,
        Found::Version(version) => version,
    };
    if version < steps.len() {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| unusable(path, &error))?;
        apply(&transaction, &steps[version..], steps.len()).map_err(|error| unusable(path, &error))?;
        if found == Found::Empty {
            let installation = getrandom::u32()
                .map_err(|error| JournalError::Unusable(format!("the kernel gave no random numbers ({error})")))?;
            transaction
                .execute("INSERT INTO identity VALUES (1, ?1, ?2)", params![installation, now.to_string()])
                .map_err(|error| unusable(path, &error))?;
            fail_point::pass(Point::JournalMade);
        }
        transaction.commit().map_err(|error| unusable(path, &error))?;
    }
    identity(connection, path)
}

/// Reads whose life this journal is.
pub(super) fn identity(connection: &Connection, path: &Path) -> Result<Identity, JournalError> {
    let row: Option<(u32, String)> = connection
        .query_row("SELECT installation, created_at FROM identity", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(|error| unusable(path, &error))?;
    let (installation, created_at) = row.ok_or_else(|| damaged(path, "it has no identity"))?;
    let created_at = created_at.parse().map_err(|_| damaged(path, "its identity has no valid time"))?;
    Ok(Identity { installation: InstallationId(installation), created_at })
}

fn apply(connection: &Connection, steps: &[&str], version: usize) -> rusqlite::Result<()> {
    for step in steps {
        connection.execute_batch(step)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", i64::try_from(version).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "CREATE TABLE identity (one INTEGER PRIMARY KEY, installation INTEGER, created_at TEXT) STRICT;
        CREATE TABLE pets (name TEXT); INSERT INTO pets VALUES ('Rex');";
    const TWO: &str = "ALTER TABLE pets ADD COLUMN legs INTEGER NOT NULL DEFAULT 4";
    const BROKEN: &str = "CREATE TABLE half (x INTEGER); ALTER TABLE nowhere ADD COLUMN x";

    fn path() -> &'static Path {
        Path::new("/a/journal.db")
    }

    fn pet(connection: &Connection) -> (String, i64) {
        connection.query_row("SELECT name, legs FROM pets", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    #[test]
    fn an_older_schema_is_brought_up_to_date_and_keeps_rows_and_identity() {
        let mut connection = Connection::open_in_memory().unwrap();
        let minted = migrate(&mut connection, path(), &[ONE], Timestamp::UNIX_EPOCH).unwrap();
        let later = Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(migrate(&mut connection, path(), &[ONE, TWO], later).unwrap(), minted);
        assert_eq!(pet(&connection), ("Rex".to_owned(), 4));
        assert_eq!(look(&connection, path(), &[ONE, TWO]).unwrap(), Found::Version(2));
        assert_eq!(migrate(&mut connection, path(), &[ONE, TWO], later).unwrap(), minted, "nothing to do the second time");
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_schema_whole() {
        let mut connection = Connection::open_in_memory().unwrap();
        let minted = migrate(&mut connection, path(), &[ONE], Timestamp::UNIX_EPOCH).unwrap();
        let error = migrate(&mut connection, path(), &[ONE, TWO, BROKEN], Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        assert_eq!(look(&connection, path(), &[ONE]).unwrap(), Found::Version(1));
        assert_eq!(connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'half'", [], |r| r.get(0)), Ok(0));
        assert_eq!(migrate(&mut connection, path(), &[ONE, TWO], Timestamp::UNIX_EPOCH).unwrap(), minted);
    }

    #[test]
    fn a_newer_schema_is_refused_in_a_clear_sentence() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, path(), &[ONE, TWO], Timestamp::UNIX_EPOCH).unwrap();
        let error = look(&connection, path(), &[ONE]).unwrap_err();
        assert!(matches!(error, JournalError::Unusable(_)));
        assert_eq!(
            error.to_string(),
            "journal `/a/journal.db` was written by a newer rotad (its schema has version 2, this rotad knows up to 1): run that \
             version of rotad or a later one"
        );
    }

    #[test]
    fn two_journals_are_two_installations() {
        let mint = || migrate(&mut Connection::open_in_memory().unwrap(), path(), STEPS, Timestamp::UNIX_EPOCH).unwrap();
        let (first, second) = (mint(), mint());
        assert_ne!(first.installation, second.installation);
        assert_eq!(first.created_at, Timestamp::UNIX_EPOCH);
    }
}
