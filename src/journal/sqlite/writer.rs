//! The one thread that writes: what comes while a commit is under way shares the next one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rusqlite::{Connection, params};
use tokio::sync::mpsc;

use super::error::unwritable;
use super::lock::Lock;
use crate::fail_point::{self, Point};
use crate::journal::queue::{GATHER, Job, Mark, PROBE_BYTES, PRUNE_MAX, Write, gather};
use crate::journal::{CLOCK_MARK, Commit, JournalError, Observer, Save};
use crate::rotation::{CredentialName, Moment};

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) lock: Arc<Lock>,
    pub(super) path: PathBuf,
    pub(super) mark: Mark,
    pub(super) observer: Observer,
}

impl Writer {
    /// Writes until every sender is gone and the queue is empty.
    pub(super) fn run(&self, mut jobs: mpsc::Receiver<Job>) {
        let mut in_company = false;
        while let Some(job) = jobs.blocking_recv() {
            if in_company {
                std::thread::sleep(GATHER);
            }
            let (writes, replies) = gather(job, &mut jobs);
            in_company = writes.len() > 1;
            for (reply, result) in replies.into_iter().zip(self.commit(&writes)) {
                // Whoever asked may have been cancelled; what was written stays written.
                let _ = reply.send(result);
            }
        }
        // A last mark, so that a clean stop is counted to its end; without it a little more time counts as stopped.
        if self.mark.is_set() {
            let _ = self.attempt(&[]);
        }
    }

    /// One durable write before the journal is used, so that a full disk or a read-only one shows at the start.
    pub(super) fn prove_writable(&self) -> Result<(), JournalError> {
        match self.attempt(&[Write::Probe]) {
            Ok(_) => Ok(()),
            Err(error) => Err(JournalError::Unusable(error.to_string())),
        }
    }

    /// Commits all of `writes` together, or, if that fails, each alone, so that none fails for another's sake.
    fn commit(&self, writes: &[Write]) -> Vec<Result<u64, JournalError>> {
        match self.attempt(writes) {
            Ok(results) => results,
            Err(_) if writes.len() > 1 => writes
                .iter()
                .map(|write| self.attempt(std::slice::from_ref(write)).and_then(|mut results| results.pop().unwrap_or(Ok(0))))
                .collect(),
            Err(error) => vec![Err(error)],
        }
    }

    /// One transaction. The outer error: nothing was recorded. An inner one: this write was refused (a conflict).
    fn attempt(&self, writes: &[Write]) -> Result<Vec<Result<u64, JournalError>>, JournalError> {
        if !self.lock.still_there() {
            return Err(JournalError::Unwritable(format!(
                "journal `{}` was deleted or replaced while rotad runs: put it back, or restart rotad, which then uses what is there",
                self.path.display()
            )));
        }
        let started = Instant::now();
        let mark = self.mark.take();
        match self.transact(writes, mark) {
            Ok(results) => {
                (self.observer)(Commit { took: started.elapsed(), writes: writes.len() });
                Ok(results)
            }
            Err(error) => {
                if !self.connection.is_autocommit() {
                    // A failure here shows again at the next begin.
                    let _ = self.connection.execute_batch("ROLLBACK");
                }
                self.mark.put_back(mark);
                Err(unwritable(&self.path, &error))
            }
        }
    }

    fn transact(&self, writes: &[Write], mark: Option<Moment>) -> rusqlite::Result<Vec<Result<u64, JournalError>>> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let results = writes.iter().map(|write| self.write(write)).collect::<rusqlite::Result<Vec<_>>>()?;
        if let Some(mark) = mark {
            let json = serde_json::to_string(&mark).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            self.set_fact(CLOCK_MARK, &json)?;
        }
        fail_point::pass(Point::BeforeCommit);
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        fail_point::pass(Point::AfterCommit);
        Ok(results)
    }

    fn write(&self, write: &Write) -> rusqlite::Result<Result<u64, JournalError>> {
        match write {
            Write::Save(save) => self.save(save),
            Write::SetFact { name, value } => self.set_fact(name, value).map(Ok),
            Write::Prune { before } => self.prune(*before).map(Ok),
            Write::Probe => self.probe().map(Ok),
        }
    }

    /// The versions are compared by the statements that write; a conflict writes nothing.
    fn save(&self, save: &Save) -> rusqlite::Result<Result<u64, JournalError>> {
        let (name, wake_at) = (save.credential.as_str(), save.wake_at.to_string());
        let version = save.expected.map_or(1, |version| version.saturating_add(1));
        if let Some((from, expected)) = &save.takes_over
            && !self.is_at(from, *expected)?
        {
            return Ok(Err(JournalError::Conflict(from.clone())));
        }
        let changed = match save.expected {
            None => self
                .connection
                .prepare_cached(
                    "INSERT INTO credentials (name, version, wake_at, state) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                )?
                .execute(params![name, stored(version), wake_at, save.state])?,
            Some(expected) => self
                .connection
                .prepare_cached("UPDATE credentials SET version = ?2, wake_at = ?3, state = ?4 WHERE name = ?1 AND version = ?5")?
                .execute(params![name, stored(version), wake_at, save.state, stored(expected)])?,
        };
        if changed == 0 {
            return Ok(Err(JournalError::Conflict(save.credential.clone())));
        }
        if let Some((from, _)) = &save.takes_over {
            self.connection.prepare_cached("DELETE FROM credentials WHERE name = ?1")?.execute([from.as_str()])?;
            let mut rename = self.connection.prepare_cached("UPDATE history SET credential = ?2 WHERE credential = ?1")?;
            rename.execute([from.as_str(), name])?;
        }
        let mut insert =
            self.connection.prepare_cached("INSERT INTO history (at, credential, what, entry) VALUES (?1, ?2, ?3, ?4)")?;
        for entry in &save.entries {
            let json = serde_json::to_string(entry).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            insert.execute(params![entry.at.as_microsecond(), name, entry.what.as_str(), json])?;
        }
        Ok(Ok(version))
    }

    fn is_at(&self, credential: &CredentialName, version: u64) -> rusqlite::Result<bool> {
        let mut select = self.connection.prepare_cached("SELECT 1 FROM credentials WHERE name = ?1 AND version = ?2")?;
        select.exists(params![credential.as_str(), stored(version)])
    }

    fn set_fact(&self, name: &str, value: &str) -> rusqlite::Result<u64> {
        let mut replace = self.connection.prepare_cached("INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)")?;
        replace.execute(params![name, value]).map(|_| 0)
    }

    /// Random, since SQLite writes no page whose content stays the same.
    fn probe(&self) -> rusqlite::Result<u64> {
        let mut replace = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO facts (name, value) VALUES ('probe', hex(randomblob(?1 / 2)))")?;
        replace.execute([PROBE_BYTES]).map(|_| 0)
    }

    fn prune(&self, before: Timestamp) -> rusqlite::Result<u64> {
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM history WHERE id IN (SELECT id FROM history WHERE at < ?1 ORDER BY at LIMIT ?2)")?;
        let removed = delete.execute(params![before.as_microsecond(), i64::try_from(PRUNE_MAX).unwrap_or(i64::MAX)])?;
        Ok(u64::try_from(removed).unwrap_or(u64::MAX))
    }
}

/// SQLite's integers are signed.
fn stored(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
