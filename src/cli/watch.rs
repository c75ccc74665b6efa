//! Watching what follows from an order, through the daemon that carries it out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::history::tell;
use super::{Ended, complain, look};
use crate::clock::Clock;
use crate::config::Config;
use crate::journal::{From, HistoryLine, Journal, JournalError, Page, Row};
use crate::rotation::{Credential, CredentialName, Happened, TokenId};

/// How often the journal is looked at: a person sees each step as it happens.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A daemon that is started again has read its journal by then.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// After so long without a step it is said what is waited for.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// The most lines of one look; more come with the next.
const LINES: usize = 1_000;
/// How many rows are read from the journal at once.
const PORTION: usize = 1_000;
/// More rows than these are read in portions, with all others.
const SINGLE_MAX: usize = 50;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Every delivery shows the token that was ordered.
    Current,
    /// So it is, and every token that was to go is gone.
    Revoked,
}

/// A look at the journal that began before the order was given.
pub struct Watch {
    journal: Arc<dyn Journal>,
    goal: Goal,
    /// The last line that was told, or was there before.
    told: u64,
}

/// What one look showed.
struct Looked {
    /// Those that are not done, with when they are looked at again.
    undone: BTreeMap<CredentialName, Timestamp>,
    steps: Vec<(u64, HistoryLine)>,
}

impl Watch {
    pub async fn begin(config: &Config, goal: Goal) -> anyhow::Result<Self> {
        let journal = look(config).await?.journal(config)?;
        let newest = journal.history_page(page(From::Before(u64::MAX), 1)).await?;
        Ok(Self { journal, goal, told: newest.first().map_or(0, |(number, _)| *number) })
    }

    /// Tells each step of these credentials until all of them are done. Interrupting it changes nothing of what
    /// was ordered.
    ///
    /// # Errors
    /// When one of them is blocked and so needs a person, or the daemon does not come back.
    pub async fn until_done(mut self, waiting: BTreeSet<CredentialName>, json: bool) -> Result<(), Ended> {
        tokio::select! {
            done = self.tell_until_done(waiting, json) => done,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                Err(Ended::Failed(anyhow::anyhow!("not waited for any longer; the order stands, and is carried out: see `rotad status`")))
            }
        }
    }

    async fn tell_until_done(&mut self, mut waiting: BTreeSet<CredentialName>, json: bool) -> Result<(), Ended> {
        let (all, mut blocked) = (waiting.len(), BTreeSet::new());
        let (mut answered, mut told) = (Instant::now(), Instant::now());
        let mut progress = Progress::on_stderr();
        while !waiting.is_empty() {
            let began = Instant::now();
            match self.look(&waiting).await {
                Ok(Looked { undone, steps }) => {
                    answered = Instant::now();
                    progress.clear();
                    for step in steps {
                        told = answered;
                        if step.1.entry.what == Happened::Blocked {
                            blocked.insert(step.1.credential.clone());
                        }
                        tell(&step, json)?;
                    }
                    waiting = undone.keys().filter(|name| !blocked.contains(*name)).cloned().collect();
                    if !waiting.is_empty() && told.elapsed() >= QUIET_MAX {
                        told = Instant::now();
                        complain(&quiet(all, &undone));
                    }
                    if !waiting.is_empty() {
                        progress.show(all - undone.len(), all);
                    }
                }
                Err(problem) if answered.elapsed() >= AWAY_MAX => {
                    progress.clear();
                    return Err(Ended::Failed(anyhow::anyhow!(
                        "{problem}; what it recorded stands, and is carried out when it runs again: see `rotad status`"
                    )));
                }
                Err(_) => {}
            }
            if !waiting.is_empty() {
                // A look at very many takes its time, and the daemon has other things to do.
                tokio::time::sleep(LOOK_EVERY.max(4 * began.elapsed())).await;
            }
        }
        match blocked.first() {
            None => Ok(()),
            Some(name) => Err(Ended::Failed(anyhow::anyhow!(
                "`{name}` needs a person, see `rotad status`; the order stands, and is carried out when it can be"
            ))),
        }
    }

    async fn look(&mut self, waiting: &BTreeSet<CredentialName>) -> Result<Looked, JournalError> {
        // The states first: what led to them stands in the history by then.
        let mut undone: BTreeMap<CredentialName, Timestamp> = waiting.iter().map(|name| (name.clone(), Timestamp::MIN)).collect();
        for (name, row) in self.rows(waiting).await? {
            if row.read_state().is_ok_and(|state| self.is_done(&state)) {
                undone.remove(&name);
            } else if let Some(wake_at) = undone.get_mut(&name) {
                *wake_at = row.wake_at;
            }
        }
        let lines = self.journal.history_page(page(From::After(self.told), LINES)).await?;
        self.told = lines.last().map_or(self.told, |(number, _)| *number);
        let steps = lines.into_iter().filter(|(_, line)| waiting.contains(&line.credential)).collect();
        Ok(Looked { undone, steps })
    }

    /// The rows of these credentials, and of others where asking for each would be too much.
    async fn rows(&self, of: &BTreeSet<CredentialName>) -> Result<Vec<(CredentialName, Row)>, JournalError> {
        let mut rows = Vec::new();
        if of.len() <= SINGLE_MAX {
            for name in of {
                rows.extend(self.journal.load(name).await?.map(|row| (name.clone(), row)));
            }
            return Ok(rows);
        }
        let mut after = None;
        loop {
            let portion = self.journal.load_after(after.as_ref(), PORTION).await?;
            let Some((last, _)) = portion.last() else { return Ok(rows) };
            after = Some(last.clone());
            rows.extend(portion.into_iter().filter(|(name, _)| of.contains(name)));
        }
    }

    fn is_done(&self, state: &Credential) -> bool {
        let orders = &state.orders;
        let current = orders.rotate_after.is_none() && state.latest().is_some_and(|(latest, _)| state.current == Some(latest));
        current && (self.goal == Goal::Current || orders.revoke.is_empty())
    }
}

/// How many are done, on one line of a terminal that is written over.
struct Progress {
    on: bool,
    shown: bool,
}

impl Progress {
    fn on_stderr() -> Self {
        Self { on: std::io::stderr().is_terminal(), shown: false }
    }

    fn show(&mut self, done: usize, all: usize) {
        if self.on {
            self.shown = true;
            let _ = write!(std::io::stderr().lock(), "{done} of {all} done");
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// What is waited for where no step comes: a limit, a pause, a window, a place that fails.
fn quiet(all: usize, undone: &BTreeMap<CredentialName, Timestamp>) -> String {
    let Some((name, wake_at)) = undone.iter().min_by_key(|(_, at)| **at) else { return String::new() };
    let (left, wait) = (undone.len(), wake_at.duration_since(Clock::new().now().wall).as_secs().max(0));
    format!("{} of {all} done; `{name}` is looked at again in {wait} s, `rotad status {name}` says what it waits for", all - left)
}

fn page(from: From, limit: usize) -> Page {
    Page { credential: None, since: Timestamp::MIN, until: Timestamp::MAX, from, limit }
}

/// The credential that the journal knows a token of.
pub async fn credential_of(config: &Config, token: &TokenId) -> Result<CredentialName, Ended> {
    let journal = look(config).await?.journal(config)?;
    let mut after = None;
    loop {
        let rows = journal.load_after(after.as_ref(), PORTION).await?;
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        let has = |state: Credential| state.rotation_of(token).is_some();
        if let Some((name, _)) = rows.into_iter().find(|(_, row)| row.read_state().is_ok_and(has)) {
            return Ok(name);
        }
    }
    Err(Ended::Failed(anyhow::anyhow!(
        "the journal knows no live token `{token}`: if it is named for one of rotad's credentials, say which with `--credential`; others \
         are not rotad's to revoke"
    )))
}
