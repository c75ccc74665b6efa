//! One turn at one credential: what to do next, a function of what is known, what was seen under
//! this claim, the policy and the time.
//!
//! The driver (the daemon's worker, the simulator, the model checker) loops: `next`, then save what
//! is unsaved, then carry the action out, then tell its outcome, until `next` says to wait. Intent
//! stands before effect since `next` marks it and the driver saves before it acts. A crash, a
//! time-out and a first start are the same to it: the next turn begins with what was saved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::breakage::{Breakage, broken};
use super::credential::{Block, Blocked, Credential, ProcessId, Settled, Stage};
use super::entry::{Entry, Happened};
use super::judge::{Names, Sight};
use super::outcome::{Failed, IssueRequest};
use super::policy::{Mode, Policy};
use super::words::{Account, DeliveryId, Fingerprint, InstallationId, Moment, RotationId, TokenId};

/// The most actions of one turn: every delivery read and written several times, and every token
/// that may live revoked. Beyond that the credential waits a second, so that no one holds a worker.
const STEPS_MAX: u32 = 400;
/// How soon a blocked credential is looked at again.
const BLOCKED_RECHECK: SignedDuration = SignedDuration::from_mins(10);
/// The wait for what was due already and could not be done in this turn.
const OVERDUE_WAIT: SignedDuration = SignedDuration::from_secs(5);
/// The least wait: whatever the core thinks is due and can't be done is not asked for in a loop.
const LEAST_WAIT: SignedDuration = SignedDuration::from_millis(250);

/// What a turn must know of the process that runs it.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub installation: InstallationId,
    pub journal_created_at: Timestamp,
    pub process: ProcessId,
    /// When every earlier writer of the journal was gone: when this process took its lock, or as much later as an earlier one
    /// may begin something without it.
    pub process_since: Moment,
}

impl Facts {
    /// Of a process that took the journal `now`. `hold` is how long an earlier one may still begin something by its last save.
    pub fn new(
        installation: InstallationId,
        journal_created_at: Timestamp,
        process: ProcessId,
        now: Moment,
        hold: Option<SignedDuration>,
    ) -> Self {
        let process_since = hold.map_or(now, |hold| now.later_by(hold));
        Self { installation, journal_created_at, process, process_since }
    }
}

/// What holds at the moment for more than this credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions {
    /// The clocks disagree, or were not compared yet: no revocation, and rotations at the deadline only.
    pub frozen: bool,
    /// Too many tokens vanished at once, or a new admin token sees none of the known ones.
    pub another_organization: bool,
    /// For a credential whose token rotad itself uses: the one that the organization's calls have been made
    /// with, in this process, for a whole sweep.
    pub in_use: Option<Fingerprint>,
    /// For such a credential: another one of the organization is blocked.
    pub others_blocked: bool,
}

/// The limits of the blast radius, asked at the moment of the intent.
pub trait Limits {
    /// Takes a permit to rotate, or tells when to ask again. An urgent rotation is counted, never refused.
    ///
    /// # Errors
    /// The moment from which it is worth asking again.
    fn rotation(&mut self, now: Timestamp, urgent: bool) -> Result<(), Timestamp>;

    /// Takes a permit to revoke, or tells when to ask again.
    ///
    /// # Errors
    /// The moment from which it is worth asking again.
    fn revocation(&mut self, now: Timestamp) -> Result<(), Timestamp>;
}

/// What the driver carries out next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// List the account's tokens; tell by `Turn::listed`.
    List { organization: Arc<str>, account: Account },
    /// Read the delivery; tell by `Turn::read`.
    Read { delivery: DeliveryId },
    /// Ask for a token, once; tell by `Turn::issued`.
    Issue { rotation: RotationId, request: IssueRequest },
    /// Verify the new token in the way asked for; tell by `Turn::verified`.
    Verify { rotation: RotationId },
    /// Connect to the account once with the set-up token, and drop its value; tell by `Turn::connected`.
    Connect { rotation: RotationId, organization: Arc<str>, account: Account },
    /// Write the value to the delivery, if it still holds what was last read; tell by `Turn::written`.
    Write { delivery: DeliveryId, rotation: RotationId },
    /// Revoke by id; tell by `Turn::revoked`.
    Revoke { rotation: RotationId, organization: Arc<str>, account: Account, token: TokenId },
    /// Nothing to do before `until`; the turn is over.
    Wait { until: Timestamp },
}

impl Action {
    /// Whether it may begin so long after the save that announced it. `hold` is how long a process may go on by a save where
    /// another may have the journal since: what changes the world must not begin later, as the other counts on that. What
    /// only looks may.
    pub fn may_begin(&self, since_save: SignedDuration, hold: Option<SignedDuration>) -> bool {
        match self {
            Self::Issue { .. } | Self::Write { .. } | Self::Revoke { .. } => hold.is_none_or(|hold| since_save <= hold),
            Self::List { .. } | Self::Read { .. } | Self::Verify { .. } | Self::Connect { .. } | Self::Wait { .. } => true,
        }
    }
}

/// One claim's time with one credential.
#[derive(Debug)]
pub struct Turn<'a> {
    pub(super) credential: Credential,
    pub(super) policy: &'a Policy,
    pub(super) facts: Facts,
    pub(super) sight: Sight,
    /// Rotations whose value the driver has in memory.
    pub(super) in_hand: BTreeSet<RotationId>,
    pub(super) entries: Vec<Entry>,
    pub(super) saved: Credential,
    /// Moments that the current pass found worth waking at.
    pub(super) wakes: Vec<Timestamp>,
    /// What the current pass found to need a person.
    pub(super) obstacles: BTreeMap<Blocked, String>,
    /// Whether the clocks were not to be trusted when the action under way was given.
    pub(super) frozen: bool,
    /// Until when the limits put a rotation off, in the current pass.
    pub(super) limited: Option<Timestamp>,
    steps: u32,
}

impl<'a> Turn<'a> {
    /// Begins a turn with what the journal holds (`None`: nothing) and the values still in memory.
    pub fn begin(
        stored: Option<Credential>,
        policy: &'a Policy,
        facts: Facts,
        in_hand: BTreeSet<RotationId>,
        now: Moment,
    ) -> Self {
        let saved = stored.clone().unwrap_or_default();
        let mut turn = Self {
            credential: stored.unwrap_or_default(),
            policy,
            facts,
            sight: Sight::default(),
            in_hand,
            entries: Vec::new(),
            saved,
            wakes: Vec::new(),
            obstacles: BTreeMap::new(),
            frozen: true,
            limited: None,
            steps: 0,
        };
        turn.resume(now);
        turn
    }

    /// What to do next. `random` is 64 fresh random bits, for an id if one is minted.
    pub fn next(&mut self, now: Moment, random: u64, conditions: &Conditions, limits: &mut dyn Limits) -> Action {
        self.wakes.clear();
        self.obstacles.clear();
        self.limited = None;
        self.frozen = conditions.frozen;
        self.tidy(now);
        self.note_use(now, conditions);
        self.steps += 1;
        let action = if self.steps > STEPS_MAX { None } else { self.pick(now, random, conditions, limits) };
        let action = action.unwrap_or_else(|| self.rest(now));
        self.sight.begun = Some(now);
        self.check_invariants();
        action
    }

    /// The grace period of a token that rotad itself uses begins when it has been used for a whole sweep.
    fn note_use(&mut self, now: Moment, conditions: &Conditions) {
        let Some(settled) = self.credential.settled else { return };
        let unused = self.policy.used_by_rotad && !settled.used;
        if !unused || self.frozen || !self.is_in_use(settled.rotation, conditions) {
            return;
        }
        self.credential.settled = Some(Settled { since: now, uncompared: false, used: true, ..settled });
        self.entry(now, Happened::InUse, |entry| entry.rotation = Some(settled.rotation));
    }

    /// Whether rotad's own calls were made with this rotation's token for a whole sweep, and are now.
    pub(super) fn is_in_use(&self, rotation: RotationId, conditions: &Conditions) -> bool {
        let token = self.credential.rotations.get(&rotation).and_then(|rotation| rotation.token.as_ref());
        let fingerprint = token.and_then(|token| token.fingerprint);
        fingerprint.is_some() && conditions.in_use == fingerprint
    }

    /// The first thing to do, in the order: look, rebuild, deliver, connect, revoke, rotate.
    fn pick(&mut self, now: Moment, random: u64, conditions: &Conditions, limits: &mut dyn Limits) -> Option<Action> {
        if let Some(look) = self.look(now) {
            return Some(look);
        }
        if conditions.another_organization {
            self.obstacle(
                Blocked::AnotherOrganization,
                "most of the known tokens are not in the lists: check that the admin token belongs to the right organization",
            );
        }
        if self.must_rebuild() {
            match self.rebuild(now) {
                Rebuilt::Done => {}
                Rebuilt::Do(action) => return Some(action),
                Rebuilt::Wait => return None,
            }
        }
        self.note_obstacles();
        if self.policy.mode == Mode::Observe || conditions.another_organization {
            return None;
        }
        if let Some(action) = self.deliver(now) {
            return Some(action);
        }
        if let Some(action) = self.connect() {
            return Some(action);
        }
        if let Some(action) = self.revoke(now, conditions, limits) {
            return Some(action);
        }
        self.issue(now, random, conditions, limits)
    }

    /// Ends the turn: blocks or unblocks, and finds the moment to come back.
    fn rest(&mut self, now: Moment) -> Action {
        if self.sight.looked_at_everything(self.policy) {
            self.credential.swept_at = Some(now.wall);
            self.credential.swept_by = Some(self.facts.process);
        }
        self.mark_block(now);
        if self.credential.blocked.is_some() {
            self.wake_at(now.wall + BLOCKED_RECHECK);
        }
        if self.steps > STEPS_MAX {
            self.wake_at(now.wall + SignedDuration::from_secs(1));
        }
        // A sweep that is overdue was tried in this turn, and is again when list and deliveries may be.
        let swept_at = self.credential.swept_at.unwrap_or(now.wall).min(now.wall);
        let next_sweep = swept_at.checked_add(self.policy.sweep_every).ok().filter(|at| *at > now.wall);
        if broken(Breakage::NeverWoken) && self.wakes.is_empty() {
            return Action::Wait { until: Timestamp::MAX };
        }
        self.wake_at(next_sweep.unwrap_or(now.wall + self.policy.sweep_every));
        let overdue = now.wall + OVERDUE_WAIT;
        let soonest = self.wakes.iter().map(|at| if *at <= now.wall { overdue } else { *at }).min().unwrap_or(overdue);
        Action::Wait { until: soonest.max(now.wall + LEAST_WAIT) }
    }

    fn mark_block(&mut self, now: Moment) {
        let found = self.obstacles.iter().next().map(|(reason, detail)| (*reason, detail.clone()));
        match (found, &self.credential.blocked) {
            (None, None) => {}
            (None, Some(block)) => {
                let detail = format!("no longer `{}`", block.reason.as_str());
                self.credential.blocked = None;
                self.entry(now, Happened::Unblocked, |entry| entry.detail = Some(detail));
            }
            (Some((reason, detail)), Some(block)) if block.reason == reason => {
                let since = block.since;
                self.credential.blocked = Some(Block { reason, since, detail });
            }
            (Some((reason, detail)), _) => {
                let told = format!("{}: {detail}", reason.as_str());
                self.credential.blocked = Some(Block { reason, since: now.wall, detail });
                self.entry(now, Happened::Blocked, |entry| entry.detail = Some(told));
            }
        }
    }

    /// What must be saved before the next effect: the state and the entries that led to it.
    pub fn unsaved(&mut self) -> Option<(&Credential, Vec<Entry>)> {
        if self.credential == self.saved && self.entries.is_empty() {
            return None;
        }
        self.saved = self.credential.clone();
        Some((&self.credential, std::mem::take(&mut self.entries)))
    }

    /// What happened since the last save.
    pub fn unsaved_entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    pub fn policy(&self) -> &Policy {
        self.policy
    }

    /// Which rotation a value just read belongs to, if the driver is to keep it until the turn ends:
    /// the newest rotation's, since another delivery may need a copy. Ask before `read` is told.
    pub fn wants(&self, fingerprint: &Fingerprint) -> Option<RotationId> {
        let of = |(id, rotation): (&RotationId, &super::credential::Rotation)| {
            let known = rotation.token.as_ref().and_then(|token| token.fingerprint.as_ref());
            let usable = matches!(rotation.stage, Stage::Issued { .. } | Stage::Orphaned);
            (known == Some(fingerprint) && usable).then_some(*id)
        };
        self.credential.rotations.iter().rev().find_map(of)
    }

    /// The rotation whose value the driver keeps after the turn, since a delivery still needs it;
    /// every other value is dropped.
    pub fn keeps(&self) -> Option<RotationId> {
        let (latest, _) = self.credential.latest()?;
        let served = |id: &DeliveryId| self.credential.deliveries.get(id).is_some_and(|known| known.confirmed == Some(latest));
        let needed = !self.policy.deliveries.keys().all(served);
        (needed && self.in_hand.contains(&latest)).then_some(latest)
    }

    /// Rotations that a delivery may show, newest first: for sinks whose markers can only be checked.
    pub fn candidates(&self) -> Vec<RotationId> {
        /// More than a credential's tokens that may be seen live at all.
        const CANDIDATES_MAX: usize = 64;
        let mut all: BTreeSet<RotationId> = self.credential.rotations.keys().copied().collect();
        all.extend(self.sight.named_rotations(self.names()));
        all.into_iter().rev().take(CANDIDATES_MAX).collect()
    }

    /// What this turn listed is not to be relied on: it is listed again where a list is needed.
    pub fn forget_lists(&mut self) {
        self.sight.lists.clear();
        self.sight.dead.clear();
        self.sight.no_such_account = None;
    }

    pub(super) fn names(&self) -> Names<'_> {
        Names::of(self.policy, &self.credential.renamed)
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wakes.push(at);
    }

    /// Notes that a person is needed. `detail` says what was found and what to do.
    pub(super) fn obstacle(&mut self, reason: Blocked, detail: impl Into<String>) {
        self.obstacles.entry(reason).or_insert_with(|| detail.into());
    }

    pub(super) fn entry(&mut self, now: Moment, what: Happened, fill: impl FnOnce(&mut Entry)) {
        let mut entry =
            Entry { at: now.wall, what, rotation: None, token: None, delivery: None, reason: None, detail: None, by: None };
        fill(&mut entry);
        self.entries.push(entry);
    }

    pub(super) fn failed_entry(&mut self, now: Moment, what: Happened, rotation: Option<RotationId>, failed: &Failed) {
        let Failed { reason, detail, .. } = failed.clone();
        self.entry(now, what, |entry| {
            entry.rotation = rotation;
            entry.reason = Some(reason);
            entry.detail = Some(detail);
        });
    }

    /// What must hold after every transition, in release too: a violation is a fault of the core,
    /// and stopping is safer than going on.
    fn check_invariants(&self) {
        let checked = self.credential.check();
        assert!(checked.is_ok(), "{checked:?}");
    }
}

/// How a rebuild went.
pub(super) enum Rebuilt {
    Done,
    Do(Action),
    /// Not yet, or it needs a person; wakes and obstacles say more.
    Wait,
}

#[cfg(test)]
mod tests {
    use super::super::words::Steady;
    use super::*;

    fn seconds(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    #[test]
    fn what_changes_the_world_begins_only_while_the_journal_is_surely_ours() {
        let (rotation, delivery) =
            (RotationId::mint(Timestamp::UNIX_EPOCH, None, InstallationId(1), 1), DeliveryId::new("file:/a"));
        let (organization, account): (Arc<str>, _) = ("main".into(), Account::new("etl"));
        let token = TokenId("t".to_owned());
        let write = Action::Write { delivery: delivery.clone(), rotation };
        let revoke = Action::Revoke { rotation, organization: organization.clone(), account: account.clone(), token };
        for action in [write, revoke] {
            assert!(action.may_begin(seconds(10), Some(seconds(10))), "{action:?}");
            assert!(!action.may_begin(seconds(11), Some(seconds(10))), "{action:?}");
            // A lock that ends with the process proves it, however long it was suspended.
            assert!(action.may_begin(seconds(1_000), None), "{action:?}");
        }
        let looks = [Action::List { organization, account }, Action::Read { delivery }, Action::Verify { rotation }];
        assert!(looks.iter().all(|action| action.may_begin(seconds(1_000), Some(seconds(10)))));
    }

    #[test]
    fn an_earlier_writer_is_gone_only_when_it_can_begin_nothing_more() {
        let now = Moment { wall: Timestamp::UNIX_EPOCH, steady: Steady(5_000) };
        let since = |hold| Facts::new(InstallationId(1), Timestamp::UNIX_EPOCH, ProcessId(1), now, hold).process_since;
        assert_eq!(since(None), now);
        let later = Moment { wall: Timestamp::UNIX_EPOCH + seconds(10), steady: Steady(15_000) };
        assert_eq!(since(Some(seconds(10))), later);
    }
}
