//! What PostgreSQL's errors mean for people: what is wrong with the journal, and what to do.

use tokio_postgres::Error;
use tokio_postgres::error::Severity;

use super::Database;
use crate::journal::JournalError;
use crate::postgres::{SAID_MAX, cause};
use crate::secret::{Secret, presentable};

/// How a statement failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server refused it for what it is, and the session goes on.
    Refused(String),
    /// The server is not able to do it now, whatever it is: no room, a lock, no primary. The session goes on.
    Hindered(String),
    /// The session is gone, or as good as gone.
    Lost(String),
}

impl Failed {
    pub(super) fn of(database: &Database, error: &Error) -> Self {
        let text = explain(database, error, &[]);
        match error.as_db_error() {
            Some(said) if ends_session(said) => Self::Lost(text),
            Some(said) if hinders_all(said) => Self::Hindered(text),
            Some(_) => Self::Refused(text),
            None => Self::Lost(text),
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Refused(text) | Self::Hindered(text) | Self::Lost(text) => text,
        }
    }
}

/// Class 57 is an operator's: a shut-down, a session that was ended; a cancelled statement (57014) leaves the session.
fn ends_session(said: &tokio_postgres::error::DbError) -> bool {
    let fatal = matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    fatal || (said.code().code().starts_with("57") && said.code().code() != "57014")
}

/// Time limits, resources, the system's errors, a server that only reads: the next statement would meet the same.
fn hinders_all(said: &tokio_postgres::error::DbError) -> bool {
    let code = said.code().code();
    ["55P03", "57014", "25006"].contains(&code) || code.starts_with("53") || code.starts_with("58")
}

/// It can't be reached.
pub(super) fn unreached(database: &Database, why: &str) -> String {
    format!("journal `{database}` can't be reached ({why}): look at the server, the network, and `journal.url`")
}

/// The database is there, but does not hold what a journal holds.
pub(super) fn damaged(database: &Database, finding: &str) -> JournalError {
    JournalError::Unusable(format!(
        "journal `{database}` is damaged or not rotad's ({finding}): restore the database from a backup, or drop its schema `rotad`: \
         rotad then rebuilds from MotherDuck and the sinks"
    ))
}

/// An error in a sentence, without what is `known` as secret.
pub(super) fn explain(database: &Database, error: &Error, known: &[&Secret]) -> String {
    let Some(said) = error.as_db_error() else {
        let cause = cause(error, known);
        let hint = if cause.contains("certificate") {
            "; is `ca_cert` the authority that signed it, and the host of `journal.url` the name that it is for?"
        } else {
            ""
        };
        return unreached(database, &format!("{cause}{hint}"));
    };
    let text = format!("{}, {}", presentable(said.message(), SAID_MAX, known), said.code().code());
    let user = &database.user;
    let what = match said.code().code() {
        "28000" | "28P01" => format!(
            "does not let `{user}` in ({text}): look at `journal.password`, and at the server's `pg_hba.conf`; off loopback rotad uses TLS"
        ),
        "3D000" => format!("does not exist ({text}): create it, `CREATE DATABASE {} OWNER {user}`", database.name),
        "42501" => format!(
            "refuses `{user}` ({text}): let it own the database, or `GRANT CREATE ON DATABASE {} TO {user}` and the schema `rotad` be its own",
            database.name
        ),
        "53100" => format!("has no room ({text}): make room on the server's disk"),
        "53300" => format!("takes no more connections ({text}): rotad needs three at most"),
        "25006" => format!("can't be written ({text}): `journal.url` must lead to the primary server"),
        "55P03" | "57014" => {
            format!("did not answer in time ({text}): does another session hold a lock on the tables of `rotad`?")
        }
        "57P03" => format!("is starting or stopping ({text}): it is tried again"),
        _ => format!("failed: {text}"),
    };
    format!("journal `{database}` {what}")
}
