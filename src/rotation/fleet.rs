//! Which accounts a fleet covers: what is known of them, what a list of the organization's users shows, and who comes
//! and goes by it.
//!
//! An account comes with the first list that shows it. It goes when two lists lack it, the second of which was begun a
//! minute or more after the first was whole, and never while more are missing than may go at once: a list that lags or
//! lacks a part must let nobody go by itself. That a complete list shows every user is observed (its provider's tool
//! rests on it), not documented.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::words::{Account, Moment, Steady};

/// How far apart two lists must be that lack an account: as for tokens that vanish.
pub const GONE_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Accounts that go within this time go at once.
const AT_ONCE: SignedDuration = SignedDuration::from_hours(1);
/// `max(3, 10 %)` may go at once.
const GONE_MIN: usize = 3;

/// The accounts of one fleet, as the journal keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roll {
    /// Each with the end of the first list that lacked it, while every list since then lacked it too.
    accounts: BTreeMap<Account, Option<Steady>>,
    /// When accounts were let go that still count as gone at once.
    let_go: Vec<Steady>,
    refusal: Option<Refusal>,
}

/// Too many are missing for any of them to be let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub since: Timestamp,
    pub missing: usize,
    /// Of how many.
    pub accounts: usize,
    /// How many may go at once.
    pub allowed: usize,
}

/// One complete list: the accounts that the fleet's pattern matches, and when it was asked for and whole.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'l> {
    pub accounts: &'l [Account],
    pub began: Moment,
    pub ended: Moment,
    /// A person said that those who are missing are gone, however many.
    pub all_may_go: bool,
}

/// What a list changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    pub come: Vec<Account>,
    pub gone: Vec<Account>,
}

impl Roll {
    /// Every account that is covered, missing ones included.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.keys()
    }

    /// Those that the last list lacked.
    pub fn missing(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().filter(|(_, missing)| missing.is_some()).map(|(account, _)| account)
    }

    /// Set while some should be let go and none is, since they are too many.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Keeps those accounts alone that the configuration still covers.
    pub fn retain(&mut self, covered: impl Fn(&Account) -> bool) {
        self.accounts.retain(|account, _| covered(account));
    }

    /// Takes a complete list.
    pub fn see(&mut self, listed: Listed<'_>) -> Change {
        let now = listed.ended.steady;
        self.let_go.retain(|at| *at <= now && now.since(*at) < AT_ONCE);
        let before = self.accounts.len();
        let shown: BTreeSet<&Account> = listed.accounts.iter().collect();
        for (account, missing) in &mut self.accounts {
            // A mark from the future is another clock's: the time is counted anew.
            let since = missing.filter(|since| *since <= now);
            *missing = if shown.contains(account) { None } else { Some(since.unwrap_or(now)) };
        }
        let come: Vec<Account> = shown.into_iter().filter(|account| !self.accounts.contains_key(account)).cloned().collect();
        let gone = self.gone(before, &listed);
        self.accounts.retain(|account, _| !gone.contains(account));
        self.accounts.extend(come.iter().map(|account| (account.clone(), None)));
        Change { come, gone }
    }

    /// Who is let go. `before` is how many accounts there were.
    fn gone(&mut self, before: usize, listed: &Listed<'_>) -> Vec<Account> {
        let is_certain = |since: &Steady| listed.began.steady.since(*since) >= GONE_AFTER;
        let missing = self.accounts.values().flatten().count();
        let certain = self.accounts.iter().filter(|(_, since)| since.as_ref().is_some_and(is_certain));
        let certain: Vec<Account> = certain.map(|(account, _)| account.clone()).collect();
        let allowed = GONE_MIN.max((before + self.let_go.len()) / 10);
        // Those whose time has not come count too: they went with the others. That a list knows nobody any more says
        // more of the list.
        let too_many = missing + self.let_go.len() > allowed || missing == before;
        if certain.is_empty() || !too_many || listed.all_may_go {
            self.refusal = None;
            if !listed.all_may_go {
                self.let_go.extend(certain.iter().map(|_| listed.ended.steady));
            }
            return certain;
        }
        let since = self.refusal.map_or(listed.ended.wall, |refusal| refusal.since);
        self.refusal = Some(Refusal { since, missing, accounts: before, allowed });
        Vec::new()
    }
}
