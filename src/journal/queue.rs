//! What waits to be written: what comes while a commit is under way shares the next one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{JournalError, Save};
use crate::rotation::Moment;

/// How many writes, or queries, may wait: above it, those who ask wait for their turn to queue.
pub(super) const QUEUE_MAX: usize = 1_024;

/// The most writes of one transaction: it bounds what one failure makes to be tried again, and a
/// commit's length (some 20 KiB each go to the log before the disk is waited for).
const BATCH_MAX: usize = 256;

/// How long a commit waits for others where the one before had several, who are likely to save again: a commit costs
/// a disk's flush whatever is in it. One that is alone waits for nobody.
pub(super) const GATHER: Duration = Duration::from_millis(1);

/// The most history lines that one transaction prunes, so that saves don't wait long behind it.
pub(super) const PRUNE_MAX: u64 = 2_000;

/// How much a probe writes: about the room of a dozen saves, so that a disk with a last free page does not pass.
pub(super) const PROBE_BYTES: i64 = 64 * 1024;

/// What a transaction may hold. Each gives a number: a save the new version, a pruning how many lines went.
pub(super) enum Write {
    Save(Save),
    SetFact { name: String, value: String },
    Prune { before: Timestamp },
    Probe,
}

pub(super) struct Job {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Result<u64, JournalError>>,
}

/// The way to the one that writes.
pub(super) struct Queue {
    /// The journal in words, with its backticks.
    journal: String,
    /// `None` once closed, and for a journal that was opened for reading only.
    writes: Mutex<Option<mpsc::Sender<Job>>>,
    read_only: bool,
}

impl Queue {
    /// What is asked of it arrives at the receiver, until it is closed.
    pub(super) fn begin(journal: String) -> (Self, mpsc::Receiver<Job>) {
        let (writes, jobs) = mpsc::channel(QUEUE_MAX);
        (Self { journal, writes: Mutex::new(Some(writes)), read_only: false }, jobs)
    }

    /// Refuses every write.
    pub(super) fn read_only(journal: String) -> Self {
        Self { journal, writes: Mutex::new(None), read_only: true }
    }

    pub(super) async fn write(&self, write: Write) -> Result<u64, JournalError> {
        let writes = self.lock().clone().ok_or_else(|| self.closed())?;
        let (reply, answer) = oneshot::channel();
        writes.send(Job { write, reply }).await.map_err(|_| self.closed())?;
        drop(writes);
        answer.await.map_err(|_| self.closed())?
    }

    /// Prunes in portions, with room for saves between them.
    pub(super) async fn prune(&self, before: Timestamp) -> Result<u64, JournalError> {
        let mut removed = 0;
        loop {
            let portion = self.write(Write::Prune { before }).await?;
            removed += portion;
            if portion < PRUNE_MAX {
                return Ok(removed);
            }
        }
    }

    /// The writer ends when it has written what was asked for before.
    pub(super) fn close(&self) {
        drop(self.lock().take());
    }

    /// Why nothing can be asked any more.
    pub(super) fn closed(&self) -> JournalError {
        let state = if self.read_only { "was opened for reading only" } else { "is closed" };
        JournalError::Unwritable(format!("journal {} {state}", self.journal))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Job>>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock's latest mark, until a commit takes it along.
#[derive(Debug, Clone, Default)]
pub(super) struct Mark(Arc<Mutex<Option<Moment>>>);

impl Mark {
    pub(super) fn set(&self, now: Moment) {
        *self.lock() = Some(now);
    }

    pub(super) fn take(&self) -> Option<Moment> {
        self.lock().take()
    }

    /// Gives back what a commit that failed had taken, unless a later one came.
    pub(super) fn put_back(&self, mark: Option<Moment>) {
        let mut latest = self.lock();
        *latest = latest.take().or(mark);
    }

    pub(super) fn is_set(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Moment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writes of the next commit and those who wait for them: `first`, and what is in the queue already.
pub(super) fn gather(
    first: Job,
    jobs: &mut mpsc::Receiver<Job>,
) -> (Vec<Write>, Vec<oneshot::Sender<Result<u64, JournalError>>>) {
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX
        && let Ok(job) = jobs.try_recv()
    {
        batch.push(job);
    }
    batch.into_iter().map(|job| (job.write, job.reply)).unzip()
}
