//! The one task that writes: what comes while a commit is under way shares the next one, and a connection that was lost
//! is made anew, with the question answered of what became of the commit.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use tokio::sync::mpsc;
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;

use super::Database;
use super::error::{Failed, unreached};
use super::schema::{self, Found, STEPS};
use super::session::{BREATHE_EVERY, Session, in_time};
use super::statements::{Statements, stored};
use crate::fail_point::{self, Point};
use crate::journal::queue::{GATHER, Job, Mark, PROBE_BYTES, PRUNE_MAX, Write, gather};
use crate::journal::{CLOCK_MARK, Commit, Identity, JournalError, Observer, Save};
use crate::rotation::Moment;

/// From the begin of a transaction to the answer to its commit. A session that takes longer is given up.
const TRANSACTION_MAX: Duration = Duration::from_secs(15);

pub(super) struct Writer {
    database: Database,
    called: String,
    identity: Identity,
    mark: Mark,
    observer: Observer,
    /// `None` after it was lost.
    open: Option<Open>,
}

/// A session with what was prepared in it.
struct Open {
    session: Session,
    statements: Statements,
    /// The server's process, which must stay the same: the lock is its.
    backend: i32,
}

/// What the writes of a transaction gave, each by itself: a conflict is no failure of the transaction.
type Results = Vec<Result<u64, JournalError>>;

/// Why a transaction gave no results.
enum Stop {
    /// The server refused it: nothing was recorded.
    Refused(String),
    /// The server can't record anything now: nothing was recorded.
    Hindered(String),
    /// There is no session, and none can be had now: nothing was recorded.
    NoSession(String),
    /// The session was lost before the commit was sent: nothing was recorded.
    Lost(String),
    /// The session was lost after it: these are the results if it was carried out.
    Unanswered(String, Results),
}

/// Why an attempt failed.
enum Failure {
    /// Nothing was recorded, and another attempt would not be answered otherwise.
    Refused(String),
    /// Nothing was recorded: there is no session, or the server can't record anything.
    Unreached(String),
    /// Whether it was recorded is not known.
    Unsettled(String),
}

impl From<Failure> for JournalError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(text) | Failure::Unreached(text) => Self::Unwritable(text),
            Failure::Unsettled(text) => Self::Unsettled(text),
        }
    }
}

impl Writer {
    pub(super) async fn new(
        database: Database,
        called: String,
        session: Session,
        identity: Identity,
        mark: Mark,
        observer: Observer,
    ) -> Result<Self, JournalError> {
        let mut writer = Self { database, called, identity, mark, observer, open: None };
        writer.open = Some(writer.prepare(session).await?);
        Ok(writer)
    }

    /// Writes until every sender is gone and the queue is empty; then gives the lock back.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut in_company = false;
        loop {
            let job = match tokio::time::timeout(BREATHE_EVERY, jobs.recv()).await {
                Ok(Some(job)) => job,
                Ok(None) => break,
                Err(_) => {
                    self.breathe().await;
                    continue;
                }
            };
            if in_company {
                tokio::time::sleep(GATHER).await;
            }
            let (writes, replies) = gather(job, &mut jobs);
            in_company = writes.len() > 1;
            for (reply, result) in replies.into_iter().zip(self.commit(&writes).await) {
                // Whoever asked may have been cancelled; what was written stays written.
                let _ = reply.send(result);
            }
        }
        // A last mark, so that a clean stop is counted to its end; without it a little more time counts as stopped.
        if self.mark.is_set() {
            let _ = self.attempt(&[]).await;
        }
        self.end().await;
    }

    /// Keeps the session while there is nothing to write. One that is lost is made anew by the next write.
    async fn breathe(&mut self) {
        let Some(open) = &self.open else { return };
        if !matches!(tokio::time::timeout(TRANSACTION_MAX, open.session.breathe()).await, Ok(Ok(()))) {
            self.open = None;
        }
    }

    /// Gives the lock back.
    pub(super) async fn end(self) {
        if let Some(open) = self.open {
            open.session.end().await;
        }
    }

    /// One durable write before the journal is used, so that a full disk or a missing right shows at the start.
    pub(super) async fn prove_writable(&mut self) -> Result<(), JournalError> {
        match self.attempt(&[Write::Probe]).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(JournalError::Unusable(JournalError::from(failure).to_string())),
        }
    }

    /// Commits all of `writes` together, or, if the server refuses that, each alone, so that none fails for another's sake.
    async fn commit(&mut self, writes: &[Write]) -> Results {
        let failure = match self.attempt(writes).await {
            Ok(results) => return results,
            Err(failure) => failure,
        };
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            results.push(match &failure {
                Failure::Refused(_) if writes.len() > 1 => match self.attempt(std::slice::from_ref(write)).await {
                    Ok(mut results) => results.pop().unwrap_or(Ok(0)),
                    Err(failure) => Err(failure.into()),
                },
                Failure::Refused(text) | Failure::Unreached(text) => Err(JournalError::Unwritable(text.clone())),
                Failure::Unsettled(text) => Err(JournalError::Unsettled(text.clone())),
            });
        }
        results
    }

    /// One transaction, with the clock's mark.
    async fn attempt(&mut self, writes: &[Write]) -> Result<Results, Failure> {
        let started = Instant::now();
        let mark = self.mark.take();
        let outcome = self.settled(writes, mark).await;
        match &outcome {
            Ok(_) => (self.observer)(Commit { took: started.elapsed(), writes: writes.len() }),
            Err(_) => self.mark.put_back(mark),
        }
        outcome
    }

    /// A transaction whose session was lost is carried out once more on a new one, if it was not carried out before: the
    /// new session has the lock, so the one before has ended, and what the rows show stays so.
    async fn settled(&mut self, writes: &[Write], mark: Option<Moment>) -> Result<Results, Failure> {
        let unanswered = match self.transact(writes, mark).await {
            Ok(results) => return Ok(results),
            Err(Stop::Refused(text)) => return Err(Failure::Refused(text)),
            Err(Stop::NoSession(text) | Stop::Hindered(text)) => return Err(Failure::Unreached(text)),
            Err(Stop::Lost(_)) => None,
            Err(Stop::Unanswered(text, results)) => Some((text, results)),
        };
        if let Some((text, results)) = unanswered {
            let unsettled = |text| Failure::Unsettled(format!("{text}; whether the last save was recorded is not known"));
            match self.was_recorded(writes, &results).await {
                Ok(true) => return Ok(results),
                Ok(false) => {}
                Err(()) => return Err(unsettled(text)),
            }
        }
        match self.transact(writes, mark).await {
            Ok(results) => Ok(results),
            Err(Stop::Refused(text)) => Err(Failure::Refused(text)),
            Err(Stop::NoSession(text) | Stop::Hindered(text) | Stop::Lost(text)) => Err(Failure::Unreached(text)),
            Err(Stop::Unanswered(text, results)) => match self.was_recorded(writes, &results).await {
                Ok(true) => Ok(results),
                Ok(false) => Err(Failure::Unreached(text)),
                Err(()) => Err(Failure::Unsettled(format!("{text}; whether the last save was recorded is not known"))),
            },
        }
    }

    /// Whether a transaction whose commit was not answered was carried out, and is as durable as one that was answered: a
    /// commit that waited for a standby in vain shows, and only a later one's answer says that both are there.
    async fn was_recorded(&mut self, writes: &[Write], results: &Results) -> Result<bool, ()> {
        if !self.shows(writes, results).await? {
            return Ok(false);
        }
        self.transact(&[Write::Probe], None).await.map(|_| true).map_err(drop)
    }

    /// Whether its rows show it: it was carried out as a whole or not at all, so one of its saves tells. Without any it is as
    /// if it were not: everything else may be done twice.
    async fn shows(&mut self, writes: &[Write], results: &Results) -> Result<bool, ()> {
        let saved = writes.iter().zip(results).find_map(|(write, result)| match (write, result) {
            (Write::Save(save), Ok(version)) => Some((save, *version)),
            _ => None,
        });
        let Some((save, version)) = saved else { return Ok(false) };
        let database = self.database.clone();
        let open = self.open().await.map_err(drop)?;
        let sql = "SELECT state FROM rotad.credentials WHERE name = $1 AND version = $2";
        let (name, version) = (save.credential.as_str(), stored(version));
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&name, &version];
        let looking = open.session.client.query_opt(sql, &parameters);
        match tokio::time::timeout(TRANSACTION_MAX, looking).await {
            Ok(Ok(row)) => Ok(row.is_some_and(|row| row.get::<_, &str>(0) == save.state)),
            Ok(Err(error)) => {
                tracing::debug!(error = Failed::of(&database, &error).text(), "what became of a commit can't be looked at");
                self.open = None;
                Err(())
            }
            Err(_) => {
                self.open = None;
                Err(())
            }
        }
    }

    /// The session, made anew where there is none.
    async fn open(&mut self) -> Result<&Open, String> {
        if self.open.as_ref().is_none_or(|open| open.session.is_over()) {
            self.open = None;
            let opening = async {
                let session = Session::writing(&self.database, &self.called).await?;
                self.check_again(&session).await?;
                self.prepare(session).await
            };
            self.open = Some(in_time(&self.database, opening).await.map_err(|error| error.to_string())?);
        }
        self.open.as_ref().ok_or_else(|| unreached(&self.database, "no session"))
    }

    /// That behind the address there still is the journal that this process has worked with.
    async fn check_again(&self, session: &Session) -> Result<(), JournalError> {
        let replaced = || {
            JournalError::Unwritable(format!(
                "journal `{}` was replaced or dropped while rotad runs: put it back, or restart rotad, which then uses what is there",
                self.database
            ))
        };
        match schema::look(&session.client, &self.database).await? {
            Found::Version(version) if version == STEPS.len() => {}
            Found::Version(_) | Found::Empty => return Err(replaced()),
        }
        let found = schema::identity(&session.client, &self.database).await?;
        if found == self.identity { Ok(()) } else { Err(replaced()) }
    }

    async fn prepare(&self, session: Session) -> Result<Open, JournalError> {
        let failed = |error| JournalError::Unusable(Failed::of(&self.database, &error).text());
        let statements = Statements::prepare(&session.client).await.map_err(failed)?;
        let backend = session.client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(failed)?.get(0);
        Ok(Open { session, statements, backend })
    }

    /// One transaction on the session that there is. A session that fails is given up.
    async fn transact(&mut self, writes: &[Write], mark: Option<Moment>) -> Result<Results, Stop> {
        let database = self.database.clone();
        let open = self.open().await.map_err(Stop::NoSession)?;
        let mut written = None;
        let outcome = match tokio::time::timeout(TRANSACTION_MAX, open.transact(writes, mark, &mut written)).await {
            Ok(Ok(())) => None,
            Ok(Err(stopped)) => Some(stopped.told(&database)),
            Err(_) => Some(Failed::Lost(unreached(&database, &format!("no answer within {} s", TRANSACTION_MAX.as_secs())))),
        };
        match (outcome, written) {
            (None, written) => Ok(written.unwrap_or_default()),
            (Some(failed @ (Failed::Refused(_) | Failed::Hindered(_))), _) => {
                let rolled_back = open.session.client.batch_execute("ROLLBACK");
                if !matches!(tokio::time::timeout(TRANSACTION_MAX, rolled_back).await, Ok(Ok(()))) {
                    self.open = None;
                }
                Err(match failed {
                    Failed::Refused(text) => Stop::Refused(text),
                    Failed::Hindered(text) | Failed::Lost(text) => Stop::Hindered(text),
                })
            }
            (Some(Failed::Lost(text)), written) => {
                self.open = None;
                Err(match written {
                    Some(results) => Stop::Unanswered(text, results),
                    None => Stop::Lost(text),
                })
            }
        }
    }
}

/// What stopped a transaction.
enum Stopped {
    Sql(tokio_postgres::Error),
    /// An entry or a mark that is no JSON.
    Encoding(serde_json::Error),
    /// Another process of the server answers than the one that has the lock.
    Pooled,
}

impl Stopped {
    fn told(self, database: &Database) -> Failed {
        match self {
            Self::Sql(error) => Failed::of(database, &error),
            Self::Encoding(error) => {
                Failed::Refused(format!("journal `{database}`: what is to be recorded can't be written ({error})"))
            }
            Self::Pooled => Failed::Refused(format!(
                "journal `{database}` is behind a pooler that changes sessions between transactions, so its lock proves nothing: let \
                 `journal.url` lead to the server, or have the pooler keep sessions"
            )),
        }
    }
}

impl From<tokio_postgres::Error> for Stopped {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<serde_json::Error> for Stopped {
    fn from(error: serde_json::Error) -> Self {
        Self::Encoding(error)
    }
}

impl Open {
    /// All statements are sent at once; `written` is what they gave, from the moment on at which the commit is sent.
    async fn transact(&self, writes: &[Write], mark: Option<Moment>, written: &mut Option<Results>) -> Result<(), Stopped> {
        let client = &self.session.client;
        let begin = async {
            client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
            Ok::<_, Stopped>(())
        };
        let whose = async { Ok::<i32, Stopped>(client.query_one(&self.statements.backend, &[]).await?.get(0)) };
        let marking = async {
            match mark {
                Some(mark) => self.set_fact(CLOCK_MARK, &serde_json::to_string(&mark)?).await.map(drop),
                None => Ok(()),
            }
        };
        // A commit that the server's limit cut short would be told as done while no standby has it: our own limit cuts it.
        let unlimited = client.batch_execute("SET LOCAL statement_timeout = 0");
        // Each is sent when it is first asked, in this order.
        let writing = join_all(writes.iter().map(|write| self.write(write)));
        let all = join(join(begin, whose), join(writing, join(marking, unlimited)));
        let ((begun, backend), (results, (marked, unlimited))) = all.await;
        begun?;
        if backend? != self.backend {
            return Err(Stopped::Pooled);
        }
        // The first that fails has the others refused: it is the one to tell.
        let follows = |stopped: &Stopped| matches!(stopped, Stopped::Sql(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        let (mut given, mut stopped) = (Vec::with_capacity(results.len()), Vec::new());
        for result in results.into_iter().chain([marked.map(|()| Ok(0)), unlimited.map(|()| Ok(0)).map_err(Stopped::Sql)]) {
            result.map_or_else(|error| stopped.push(error), |result| given.push(result));
        }
        if let Some(position) = stopped.iter().position(|stopped| !follows(stopped)) {
            return Err(stopped.swap_remove(position));
        }
        if let Some(stopped) = stopped.pop() {
            return Err(stopped);
        }
        given.truncate(writes.len());
        fail_point::pass(Point::BeforeCommit);
        *written = Some(given);
        client.batch_execute("COMMIT").await?;
        fail_point::pass(Point::AfterCommit);
        Ok(())
    }

    async fn write(&self, write: &Write) -> Result<Result<u64, JournalError>, Stopped> {
        match write {
            Write::Save(save) => self.save(save).await,
            Write::SetFact { name, value } => self.set_fact(name, value).await.map(Ok),
            Write::Prune { before } => {
                let most = i64::try_from(PRUNE_MAX).unwrap_or(i64::MAX);
                let before = before.as_microsecond();
                Ok(Ok(self.session.client.execute(&self.statements.prune, &[&before, &most]).await?))
            }
            Write::Probe => Ok(Ok(self.session.client.execute(&self.statements.probe, &[&PROBE_BYTES]).await?)),
        }
    }

    /// One statement: what is compared and what is written are of one moment, and a conflict writes nothing.
    async fn save(&self, save: &Save) -> Result<Result<u64, JournalError>, Stopped> {
        let version = save.expected.map_or(1, |version| version.saturating_add(1));
        let (name, number, wake_at) = (save.credential.as_str(), stored(version), save.wake_at.to_string());
        let entries = save.entries.iter();
        let (at, what): (Vec<i64>, Vec<&str>) =
            entries.clone().map(|entry| (entry.at.as_microsecond(), entry.what.as_str())).unzip();
        let told = entries.map(serde_json::to_string).collect::<Result<Vec<String>, _>>()?;
        let from = save.takes_over.as_ref().map(|(from, _)| from.as_str());
        let from_version = save.takes_over.as_ref().map(|(_, version)| stored(*version));
        let expected = save.expected.map(stored);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 10] =
            [&name, &number, &wake_at, &save.state, &at, &what, &told, &from, &from_version, &expected];
        let row = match &expected {
            Some(_) => self.query_one(&self.statements.update, &parameters).await?,
            None => self.query_one(&self.statements.insert, &parameters[..9]).await?,
        };
        let conflict = match (row.get::<_, bool>(0), row.get::<_, bool>(1), &save.takes_over) {
            (true, true, _) => return Ok(Ok(version)),
            (false, _, Some((from, _))) => from,
            _ => &save.credential,
        };
        Ok(Err(JournalError::Conflict(conflict.clone())))
    }

    async fn set_fact(&self, name: &str, value: &str) -> Result<u64, Stopped> {
        self.session.client.execute(&self.statements.set_fact, &[&name, &value]).await?;
        Ok(0)
    }

    async fn query_one(
        &self,
        statement: &Statement,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<tokio_postgres::Row, Stopped> {
        Ok(self.session.client.query_one(statement, parameters).await?)
    }
}
