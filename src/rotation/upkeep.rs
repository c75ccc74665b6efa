//! The accounts that the configuration describes, of one organization: what is known of each, and what is done next.
//!
//! Nothing is created or set but for what a look showed right before, one thing at a time. A creation whose outcome is not
//! known is looked for and, while the account does not show, asked for again a minute later at the earliest: names are
//! unique (third parties), so at worst the second one is refused. Nothing is kept across a restart: it begins with looks.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::backoff::{Backoff, LONGEST};
use super::outcome::{Failed, Reason};
use super::words::{Account, Moment, Steady};

/// A change rests on a look at most so old: another writer's change in between is overwritten.
const FRESH: SignedDuration = SignedDuration::from_secs(30);
/// A change rests on a list of users at most so old, and an account that was asked for may come so late.
const SETTLED: SignedDuration = SignedDuration::from_secs(60);
/// How long the organization waits that may be another one.
const UNTRUSTED: SignedDuration = SignedDuration::from_secs(10);

/// What a look at an account showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Missing,
    Differs,
    AsConfigured,
}

/// Who has the account's name by a complete list of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    Nobody,
    Service,
    /// A person, or a user that can't be used any more.
    Unfit,
}

/// What became of a creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    Done,
    /// Nothing was done.
    Refused(Failed),
    Unknown(Failed),
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chore {
    /// See whether the account is there and as configured: `Upkeep::looked`.
    Look(Account),
    /// List the organization's users: `Upkeep::listed`.
    List,
    /// Ask once for the account: `Upkeep::created`.
    Create(Account),
    /// Set it to what is configured: `Upkeep::set`.
    Set(Account),
    Wait(SignedDuration),
}

/// How it stands with an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// Nothing was seen of it since the start.
    Unseen,
    AsConfigured,
    Missing,
    Differs,
    /// A person has its name, or a user that can't be used any more.
    Unfit,
}

impl AccountState {
    pub const ALL: [Self; 5] = [Self::Unseen, Self::AsConfigured, Self::Missing, Self::Differs, Self::Unfit];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::AsConfigured => "as_configured",
            Self::Missing => "missing",
            Self::Differs => "differs",
            Self::Unfit => "unfit",
        }
    }
}

/// One account.
#[derive(Debug, Clone)]
struct Kept {
    /// Reported, never changed.
    observed: bool,
    found: Option<Found>,
    /// When that was seen; `None` while something may have changed it.
    looked_at: Option<Steady>,
    /// Whose name it is, and when the list was asked for.
    listed: Option<(Listed, Steady)>,
    /// Known to be a service account: it was listed as one, or created here.
    is_service: bool,
    /// When it was last asked for, while it does not show.
    asked_at: Option<Steady>,
    failed: Option<Reason>,
    /// Since when it is not as configured, or that is not known.
    since: Option<Timestamp>,
    backoff: Backoff,
}

impl Kept {
    fn new(observed: bool) -> Self {
        Self {
            observed,
            found: None,
            looked_at: None,
            listed: None,
            is_service: false,
            asked_at: None,
            failed: None,
            since: None,
            backoff: Backoff::default(),
        }
    }

    fn fail(&mut self, reason: Reason, retry_after: Option<SignedDuration>, now: Moment) {
        self.failed = Some(reason);
        self.since = self.since.or(Some(now.wall));
        self.backoff.push(now.wall, LONGEST, retry_after);
    }

    fn is_fresh(&self, now: Moment) -> bool {
        self.looked_at.is_some_and(|at| now.steady.since(at) < FRESH)
    }

    /// Who has the name, as far as that is recent.
    fn holder(&self, now: Moment) -> Option<Listed> {
        self.listed.filter(|(_, at)| now.steady.since(*at) < SETTLED).map(|(listed, _)| listed)
    }

    /// Whether it was asked for so lately that it may show yet.
    fn may_come(&self, now: Moment) -> bool {
        self.asked_at.is_some_and(|at| now.steady.since(at) < SETTLED)
    }

    /// The change that is due after a fresh look, or the list that it needs.
    fn change(&self, account: &Account, now: Moment) -> Option<Chore> {
        if self.observed || !self.is_fresh(now) || self.backoff.wait(now.wall).is_some() {
            return None;
        }
        match (self.found?, self.holder(now)) {
            (Found::AsConfigured, _) => None,
            (Found::Missing, _) if self.may_come(now) => None,
            (Found::Differs, _) if self.is_service => Some(Chore::Set(account.clone())),
            (Found::Missing, Some(Listed::Nobody)) => Some(Chore::Create(account.clone())),
            (Found::Missing | Found::Differs, None) => Some(Chore::List),
            (Found::Missing | Found::Differs, Some(_)) => None,
        }
    }

    /// Whether a look showed that it needs a change, and only a list tells whether that may be.
    fn wants_list(&self) -> bool {
        let needs_change = matches!(self.found, Some(Found::Missing | Found::Differs));
        needs_change && !self.observed && !self.is_service
    }

    /// The list says that no change can be made: of a person, or against what the look showed.
    fn note_contradiction(&mut self, now: Moment) {
        let reason = match (self.found, self.holder(now)) {
            (Some(Found::Missing | Found::Differs), Some(Listed::Unfit)) => Reason::Unsuitable,
            (Some(Found::Missing), Some(Listed::Service)) => Reason::BadAnswer,
            (Some(Found::Differs), Some(Listed::Nobody)) if !self.is_service => Reason::BadAnswer,
            _ => return,
        };
        if !self.observed {
            self.fail(reason, None, now);
        }
    }

    /// How long until it is looked at again.
    fn look_in(&self, every: SignedDuration, now: Moment) -> SignedDuration {
        let at_rest = self.observed || self.found == Some(Found::AsConfigured);
        let rhythm = match self.looked_at {
            Some(at) if at_rest => every - now.steady.since(at),
            Some(_) | None => SignedDuration::ZERO,
        };
        let backoff = self.backoff.wait(now.wall).map_or(SignedDuration::ZERO, |until| until.duration_since(now.wall));
        rhythm.max(backoff)
    }

    fn standing(&self) -> Standing {
        let Self { observed, failed, since, .. } = *self;
        let state = match (self.found, self.listed) {
            (None, _) => AccountState::Unseen,
            (Some(Found::AsConfigured), _) => AccountState::AsConfigured,
            (Some(_), Some((Listed::Unfit, _))) => AccountState::Unfit,
            (Some(Found::Missing), _) => AccountState::Missing,
            (Some(Found::Differs), _) => AccountState::Differs,
        };
        Standing { state, observed, failed, since }
    }
}

/// What is known of one account, for whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub state: AccountState,
    pub observed: bool,
    /// Why the last look or change failed, until one succeeds.
    pub failed: Option<Reason>,
    /// Since when it is not as configured, or that is not known.
    pub since: Option<Timestamp>,
}

/// The accounts of one organization.
#[derive(Debug, Clone)]
pub struct Upkeep {
    accounts: BTreeMap<Account, Kept>,
    /// How often an account is looked at that is as it should be.
    every: SignedDuration,
    /// How far apart calls are.
    pace: SignedDuration,
    called_at: Option<Steady>,
    /// While the API as a whole fails, no account is asked about.
    backoff: Backoff,
}

impl Upkeep {
    pub fn new(every: SignedDuration, pace: SignedDuration) -> Self {
        Self { accounts: BTreeMap::new(), every, pace, called_at: None, backoff: Backoff::default() }
    }

    /// Whether the account is only observed. One that was configured otherwise before is looked at anew.
    pub fn configure(&mut self, account: &Account, observed: bool) {
        self.accounts.insert(account.clone(), Kept::new(observed));
    }

    pub fn let_go(&mut self, account: &Account) {
        self.accounts.remove(account);
    }

    pub fn set_rhythm(&mut self, every: SignedDuration, pace: SignedDuration) {
        (self.every, self.pace) = (every, pace);
    }

    /// What failed may go well now: nothing waits any longer, and what is apart is looked at again.
    pub fn try_anew(&mut self, now: Moment) {
        self.backoff.reset();
        for kept in self.accounts.values_mut().filter(|kept| kept.failed.is_some() && !kept.may_come(now)) {
            kept.backoff.reset();
        }
    }

    pub fn standings(&self) -> impl Iterator<Item = (&Account, Standing)> {
        self.accounts.iter().map(|(account, kept)| (account, kept.standing()))
    }

    pub fn standing(&self, account: &Account) -> Option<Standing> {
        self.accounts.get(account).map(Kept::standing)
    }

    /// What to do now. `is_trusted` unless another organization may answer than the one that the journal knows.
    pub fn next(&self, now: Moment, is_trusted: bool) -> Chore {
        if !is_trusted {
            return Chore::Wait(UNTRUSTED);
        }
        if let Some(until) = self.backoff.wait(now.wall) {
            return Chore::Wait(until.duration_since(now.wall));
        }
        let since_call = self.called_at.map(|at| now.steady.since(at));
        if let Some(since) = since_call.filter(|since| *since < self.pace) {
            return Chore::Wait(self.pace - since);
        }
        // What was begun with one account comes before the next one.
        if let Some(change) = self.accounts.iter().find_map(|(account, kept)| kept.change(account, now)) {
            return change;
        }
        let soonest = self.accounts.iter().map(|(account, kept)| (kept.look_in(self.every, now), kept.looked_at, account));
        match soonest.min() {
            Some((wait, _, account)) if !wait.is_positive() => Chore::Look(account.clone()),
            Some((wait, _, _)) => Chore::Wait(wait),
            None => Chore::Wait(self.every),
        }
    }

    /// Tells the outcome of `Chore::Look`.
    pub fn looked(&mut self, account: &Account, outcome: Result<Found, Failed>, now: Moment) {
        let found = match outcome {
            Ok(found) => found,
            Err(failed) => return self.fail(account, &failed, now),
        };
        self.answered(now);
        let Some(kept) = self.accounts.get_mut(account) else { return };
        (kept.found, kept.looked_at) = (Some(found), Some(now.steady));
        match found {
            Found::AsConfigured => {
                (kept.asked_at, kept.failed, kept.since) = (None, None, None);
                kept.backoff.reset();
            }
            Found::Missing if kept.may_come(now) => kept.fail(Reason::NoSuchAccount, None, now),
            Found::Missing | Found::Differs => {
                (kept.asked_at, kept.since) = (None, kept.since.or(Some(now.wall)));
                kept.is_service &= found == Found::Differs;
                kept.note_contradiction(now);
            }
        }
        if kept.observed {
            (kept.failed, kept.backoff) = (None, Backoff::default());
        }
    }

    /// Tells the outcome of `Chore::List`; `began` is when it was asked for.
    pub fn listed(&mut self, outcome: Result<impl Fn(&Account) -> Listed, Failed>, began: Moment, now: Moment) {
        let who = match outcome {
            Ok(who) => who,
            Err(failed) => {
                self.called_at = Some(now.steady);
                self.backoff.push(now.wall, LONGEST, failed.retry_after);
                let waiting = self.accounts.values_mut().filter(|kept| kept.wants_list());
                waiting.for_each(|kept| kept.fail(failed.reason, failed.retry_after, now));
                return;
            }
        };
        self.answered(now);
        for (account, kept) in &mut self.accounts {
            let listed = who(account);
            kept.listed = Some((listed, began.steady));
            kept.is_service |= listed == Listed::Service;
            if kept.is_fresh(now) {
                kept.note_contradiction(now);
            }
        }
    }

    /// Tells the outcome of `Chore::Create`, which was begun at `began`.
    pub fn created(&mut self, account: &Account, outcome: Created, began: Moment, now: Moment) {
        match outcome {
            Created::Refused(failed) => return self.fail(account, &failed, now),
            Created::Done => self.answered(now),
            Created::Unknown(ref failed) => self.fail(account, failed, now),
        }
        let Some(kept) = self.accounts.get_mut(account) else { return };
        // Whether it is there is for a look to say, and who has the name for another list.
        (kept.looked_at, kept.asked_at, kept.listed) = (None, Some(began.steady), None);
        if outcome == Created::Done {
            kept.is_service = true;
            kept.failed = None;
        }
    }

    /// Tells the outcome of `Chore::Set`.
    pub fn set(&mut self, account: &Account, outcome: Result<(), Failed>, now: Moment) {
        match outcome {
            Ok(()) => self.looked(account, Ok(Found::AsConfigured), now),
            Err(failed) => {
                self.fail(account, &failed, now);
                if let Some(kept) = self.accounts.get_mut(account) {
                    kept.looked_at = None;
                }
            }
        }
    }

    fn answered(&mut self, now: Moment) {
        self.called_at = Some(now.steady);
        self.backoff.reset();
    }

    fn fail(&mut self, account: &Account, failed: &Failed, now: Moment) {
        self.called_at = Some(now.steady);
        if is_general(failed.reason) {
            self.backoff.push(now.wall, LONGEST, failed.retry_after);
        }
        if let Some(kept) = self.accounts.get_mut(account) {
            kept.fail(failed.reason, failed.retry_after, now);
        }
    }
}

/// Whether the API would answer so whatever account is asked about.
fn is_general(reason: Reason) -> bool {
    match reason {
        Reason::Unauthorized
        | Reason::Forbidden
        | Reason::Throttled
        | Reason::Unavailable
        | Reason::Unreachable
        | Reason::TimedOut
        | Reason::NoRoute => true,
        Reason::BadAnswer
        | Reason::Rejected
        | Reason::NoSuchAccount
        | Reason::Missing
        | Reason::NameTaken
        | Reason::Unsuitable
        | Reason::Full
        | Reason::Busy
        | Reason::Expired
        | Reason::Revoked
        | Reason::WrongAccount
        | Reason::WrongRegion => false,
    }
}
