//! The ledger of tokens: whatever sequence of outcomes comes, no token that may live is forgotten, nor when it
//! expires, and nothing that a place shows is revoked.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use rotad::rotation::{
    Action, Blocked, Credential, DeliveryId, Failed, IssueOutcome, ListedToken, Reason, RevokeOutcome, Rotation, RotationId,
    Shows, Stage, TokenName, WriteOutcome,
};

use crate::rig::{DAY, HOUR, INSTALLATION, MINUTE, Rig, delivery, place, wall};

/// Something that happens to a credential, or how the world is from now on.
#[derive(Debug, Clone)]
enum Step {
    Pass(i64),
    Restart,
    Heal,
    IssueRefused,
    IssueLost {
        carried_out: bool,
    },
    TtlDropped,
    ListFails,
    WriteRefused,
    WriteConflicts,
    WriteUnknown,
    /// Writes show only after so many seconds.
    WritesLag(i64),
    RevokeFails,
    ReadBreaks(&'static str),
    ChangedByHand(&'static str),
    Emptied(&'static str),
    RolledBack(&'static str),
    RevokedByHand,
    Frozen,
    AddDelivery,
    RemoveDelivery,
}

fn step() -> impl Strategy<Value = Step> {
    let place = prop::sample::select(vec!["a", "b"]);
    prop_oneof![
        8 => prop_oneof![1..MINUTE, MINUTE..HOUR, HOUR..DAY, DAY..3 * DAY].prop_map(Step::Pass),
        3 => Just(Step::Heal),
        2 => Just(Step::Restart),
        1 => Just(Step::IssueRefused),
        2 => any::<bool>().prop_map(|carried_out| Step::IssueLost { carried_out }),
        1 => Just(Step::TtlDropped),
        1 => Just(Step::ListFails),
        1 => Just(Step::WriteRefused),
        1 => Just(Step::WriteConflicts),
        1 => Just(Step::WriteUnknown),
        1 => (1..2 * HOUR).prop_map(Step::WritesLag),
        1 => Just(Step::RevokeFails),
        1 => place.clone().prop_map(Step::ReadBreaks),
        1 => place.clone().prop_map(Step::ChangedByHand),
        1 => place.clone().prop_map(Step::Emptied),
        1 => place.prop_map(Step::RolledBack),
        1 => Just(Step::RevokedByHand),
        1 => Just(Step::Frozen),
        1 => Just(Step::AddDelivery),
        1 => Just(Step::RemoveDelivery),
    ]
}

fn failed(reason: Reason) -> Failed {
    Failed::new(reason, "as the test has it")
}

/// The rig, and what truly is, beside what the core knows.
struct Ledger {
    rig: Rig,
    /// Every token that was ever made, until it is revoked.
    made: BTreeMap<RotationId, ListedToken>,
    before: Option<Credential>,
    /// What each delivery shows, and since which second.
    shown: BTreeMap<DeliveryId, (Option<RotationId>, i64)>,
    /// How many of the rig's actions were looked at.
    looked_at: usize,
}

fn rotation_of(token: &ListedToken) -> RotationId {
    TokenName::parse(token.name.as_deref().unwrap()).unwrap().rotation
}

impl Ledger {
    fn new() -> Self {
        Self { rig: Rig::new(&["a", "b"]), made: BTreeMap::new(), before: None, shown: BTreeMap::new(), looked_at: 0 }
    }

    fn take(&mut self, step: &Step) {
        let rig = &mut self.rig;
        match step {
            Step::Pass(seconds) => self.pass(*seconds),
            Step::Restart => rig.restart(),
            Step::Heal => self.heal(),
            Step::IssueRefused => {
                rig.wrong.issue = Some(IssueOutcome::Refused(failed(Reason::Forbidden)));
                rig.wrong.issue_is_carried_out = false;
            }
            Step::IssueLost { carried_out } => {
                rig.wrong.issue = Some(IssueOutcome::Unknown(failed(Reason::TimedOut)));
                rig.wrong.issue_is_carried_out = *carried_out;
            }
            Step::TtlDropped => rig.wrong.ttl_dropped = true,
            Step::ListFails => rig.wrong.list = Some(failed(Reason::Unavailable)),
            Step::WriteRefused => rig.wrong.write = Some(WriteOutcome::Refused(failed(Reason::Forbidden))),
            Step::WriteConflicts => rig.wrong.write = Some(WriteOutcome::Conflict),
            Step::WriteUnknown => rig.wrong.write = Some(WriteOutcome::Unknown(failed(Reason::TimedOut))),
            Step::WritesLag(seconds) => {
                rig.wrong.writes_lag = true;
                self.pass(*seconds);
                self.rig.wrong.writes_lag = false;
            }
            Step::RevokeFails => rig.wrong.revoke = Some(RevokeOutcome::Failed(failed(Reason::Unavailable))),
            Step::ReadBreaks(name) => rig.break_reading(name),
            Step::ChangedByHand(name) => rig.scribble(name),
            Step::Emptied(name) => drop(rig.places.insert(place(name), Ok(Shows::Nothing { owner: None }))),
            Step::RolledBack(name) => self.roll_back(name),
            Step::RevokedByHand => {
                if let Some(token) = rig.tokens.pop() {
                    self.made.remove(&rotation_of(&token));
                }
            }
            Step::Frozen => rig.conditions.frozen = true,
            Step::AddDelivery => drop(rig.policy.deliveries.insert(place("b"), delivery())),
            Step::RemoveDelivery => drop(rig.policy.deliveries.remove(&place("b"))),
        }
    }

    fn heal(&mut self) {
        self.rig.wrong = crate::rig::Wrong::default();
        self.rig.conditions.frozen = false;
        for held in self.rig.places.values_mut().filter(|held| held.is_err()) {
            *held = Ok(Shows::Nothing { owner: None });
        }
    }

    /// The oldest rotation that is still recorded is put back.
    fn roll_back(&mut self, name: &str) {
        let recorded = self.rig.stored.iter().flat_map(|state| &state.rotations);
        let mut recorded = recorded.filter_map(|(id, rotation)| Some((*id, rotation.token.as_ref()?.fingerprint?)));
        if let Some((id, fingerprint)) = recorded.next() {
            drop(recorded);
            self.rig.show(name, fingerprint, id);
        }
    }

    /// Lets time pass turn by turn, with a look at the ledger after each.
    fn pass(&mut self, seconds: i64) {
        let end = self.rig.second + seconds;
        while self.rig.second < end {
            self.look();
            let until = self.rig.turn();
            // A revocation comes before what the same turn then delivers, so it is judged by what was shown before.
            self.judge();
            self.look();
            self.rig.second = until.min(end);
        }
    }

    /// Notes what the deliveries show now; one that can't be read may go on with what it held.
    fn look(&mut self) {
        for place in self.rig.policy.deliveries.keys() {
            let shows = self.rig.served(place.as_str());
            if self.rig.places.get(place).is_some_and(Result::is_err) {
                continue;
            }
            if self.shown.get(place).is_none_or(|(before, _)| *before != shows) {
                self.shown.insert(place.clone(), (shows, self.rig.second));
            }
        }
    }

    fn judge(&mut self) {
        let now = wall(self.rig.second);
        for token in &self.rig.tokens {
            self.made.entry(rotation_of(token)).or_insert_with(|| token.clone());
        }
        self.judge_revocations();
        let state = self.rig.stored.clone().unwrap();
        assert_eq!(state.check(), Ok(()));
        for (id, token) in self.made.iter().filter(|(id, _)| id.installation() == INSTALLATION) {
            let lives = token.expires_at.is_none_or(|expires_at| expires_at > now);
            let recorded = state.rotations.get(id);
            assert!(!lives || recorded.is_some(), "the token of {id} lives, and is forgotten: {token:?}");
            if let Some(known) = recorded.and_then(|rotation| rotation.token.as_ref()) {
                let expires_at = token.expires_at.unwrap_or(Timestamp::MAX);
                assert_eq!((&known.id, known.expires_at), (&token.id, expires_at), "the record of {id} is another token's");
            }
        }
        if let Some(before) = &self.before {
            self.judge_course(before, &state, now);
        }
        self.before = Some(state);
    }

    /// What was revoked in this turn is shown nowhere, was superseded everywhere for a whole grace period, and is gone.
    fn judge_revocations(&mut self) {
        let actions = &self.rig.actions[self.looked_at..];
        for (_, action) in actions {
            let Action::Revoke { rotation, token, .. } = action else { continue };
            let shown = self.rig.policy.deliveries.keys().any(|place| self.rig.served(place.as_str()) == Some(*rotation));
            assert!(!shown, "{rotation} was revoked, and a delivery shows it");
            let known = self.before.as_ref().and_then(|state| state.rotations.get(rotation));
            if known.is_some_and(|known| known.stage != Stage::Unfit) {
                let grace = self.rig.policy.grace.as_secs();
                let superseded = |place: &DeliveryId| {
                    self.shown.get(place).is_some_and(|(id, since)| *id > Some(*rotation) && self.rig.second - since >= grace)
                };
                let everywhere = self.rig.policy.deliveries.keys().all(superseded);
                assert!(everywhere, "{rotation} was revoked before its grace period was over: {:?}", self.shown);
            }
            if self.rig.tokens.iter().all(|listed| listed.id != *token) {
                self.made.remove(rotation);
            }
        }
        self.looked_at = self.rig.actions.len();
    }

    /// From one saved state to the next, nothing runs backwards, and nothing is dropped but what is over.
    fn judge_course(&self, before: &Credential, state: &Credential, now: Timestamp) {
        assert!(before.newest <= state.newest, "an id may be minted twice");
        assert!(before.current <= state.current, "the current rotation went back");
        for (id, known) in &before.rotations {
            let Some(rotation) = state.rotations.get(id) else {
                let lost = known.stage == Stage::Lost && known.token.is_none();
                let looked_for_until = known.intended_at.wall + known.ttl + crate::rig::secs(HOUR);
                assert!(!lost || looked_for_until <= now, "{id} was given up early");
                continue;
            };
            assert!(known.token.is_none() || known.token == rotation.token, "the record of {id} changed");
            assert!(!known.adopted || rotation.adopted, "{id} was found by a rebuild, and now counts as ours");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_token_that_may_live_is_forgotten_nor_when_it_expires(steps in prop::collection::vec(step(), 1..40)) {
        let mut ledger = Ledger::new();
        for step in &steps {
            ledger.take(step);
            ledger.pass(1);
        }
        // And once all is well, everything is revoked or expired but the current token and those in grace. Two things are
        // left to a person: tokens that never expire, issued by processes that are gone, where a place that is no longer
        // configured might serve them; and so many of them that no other may be issued.
        ledger.heal();
        ledger.pass(9 * DAY);
        let state = ledger.before.unwrap();
        if state.seen.live as usize >= ledger.rig.policy.tokens_max {
            let told = matches!(ledger.rig.blocked(), Some(Blocked::TooManyTokens | Blocked::UnfitToken));
            prop_assert!(told, "{:?}", state);
            return Ok(());
        }
        let expires = |rotation: &&Rotation| rotation.token.as_ref().is_none_or(|token| token.expires_at < Timestamp::MAX);
        let left: Vec<&Rotation> = state.rotations.values().filter(expires).collect();
        prop_assert!(left.len() <= 2, "{:?}", left);
        prop_assert!(left.iter().all(|rotation| rotation.stage == Stage::Issued { verified: true }), "{:?}", left);
    }
}
