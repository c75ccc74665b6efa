//! Watching what follows from an order, in the journal beside the daemon.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::history::line;
use super::{Ended, say};
use crate::config::Config;
use crate::daemon::journal_path;
use crate::journal::{From, Journal, Page, SqliteJournal};
use crate::rotation::{Credential, CredentialName, Happened, TokenId};

/// How often the journal is looked at: a person sees each step as it happens.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The most lines of one look; more come with the next.
const LINES: usize = 1_000;
/// How many rows are read from the journal at once.
const PORTION: usize = 1_000;

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
    journal: SqliteJournal,
    goal: Goal,
    /// The last line that was told, or was there before.
    told: u64,
}

impl Watch {
    pub async fn begin(config: &Config, goal: Goal) -> anyhow::Result<Self> {
        let journal = SqliteJournal::open_read_only(journal_path(config)?)?;
        let newest = journal.history_page(page(From::Before(u64::MAX), 1)).await?;
        Ok(Self { journal, goal, told: newest.first().map_or(0, |(number, _)| *number) })
    }

    /// Tells each step of these credentials until all of them are done. Interrupting it changes nothing of what
    /// was ordered.
    ///
    /// # Errors
    /// When one of them is blocked and so needs a person, or the journal can't be read.
    pub async fn until_done(mut self, mut waiting: BTreeSet<CredentialName>, json: bool) -> Result<(), Ended> {
        let mut blocked = BTreeSet::new();
        while !waiting.is_empty() {
            // The states first: what led to them stands in the history by then.
            let mut undone = BTreeSet::new();
            for name in &waiting {
                let state = self.journal.load(name).await?.and_then(|row| row.read_state().ok());
                if !state.is_some_and(|state| self.is_done(&state)) {
                    undone.insert(name.clone());
                }
            }
            for (number, told) in self.journal.history_page(page(From::After(self.told), LINES)).await? {
                self.told = number;
                if !waiting.contains(&told.credential) {
                    continue;
                }
                if told.entry.what == Happened::Blocked {
                    blocked.insert(told.credential.clone());
                }
                if !json {
                    say(&line(&told));
                }
            }
            waiting = &undone - &blocked;
            if !waiting.is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        match blocked.first() {
            None => Ok(()),
            Some(name) => Err(Ended::Failed(anyhow::anyhow!(
                "`{name}` needs a person, see `rotad status`; the order stands, and is carried out when it can be"
            ))),
        }
    }

    fn is_done(&self, state: &Credential) -> bool {
        let orders = &state.orders;
        let current = orders.rotate_after.is_none() && state.latest().is_some_and(|(latest, _)| state.current == Some(latest));
        current && (self.goal == Goal::Current || orders.revoke.is_empty())
    }
}

fn page(from: From, limit: usize) -> Page {
    Page { credential: None, since: Timestamp::MIN, until: Timestamp::MAX, from, limit }
}

/// The credential that the journal knows a token of.
pub async fn credential_of(config: &Config, token: &TokenId) -> Result<CredentialName, Ended> {
    let journal = SqliteJournal::open_read_only(journal_path(config)?)?;
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
