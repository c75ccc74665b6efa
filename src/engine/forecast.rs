//! What will happen if nothing goes wrong: the core itself, run ahead in a world that does what it is asked.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::limits::BlastRadius;
use crate::rotation::{
    Action, Block, Conditions, Credential, DeliveryId, Due, Entry, Facts, Fingerprint, Happened, IssueOutcome, IssueRequest,
    IssuedToken, ListOutcome, ListedToken, Moment, Policy, PutOff, ReadOutcome, RevokeOutcome, RotationId, Shows, Steady,
    TokenId, TokenName, TokenType, Turn, VerifyOutcome, Why, WriteOutcome, deadline,
};

/// The most turns that one credential is run ahead: a rotation a minute for a month, with its looks.
const TURNS_MAX: u64 = 200_000;

/// A step that is to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub at: Timestamp,
    pub what: Happened,
    pub rotation: Option<RotationId>,
    /// The token, if it exists already.
    pub token: Option<TokenId>,
    /// Why a token is due, at the intent.
    pub why: Option<Why>,
    /// When it is due by that alone, at the intent.
    pub due_at: Option<Timestamp>,
    /// What puts it off from `due_at` to `at`, in this order.
    pub put_off: Vec<PutOff>,
}

/// What is to come of one credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    pub steps: Vec<Step>,
    /// When MotherDuck's API is called; the lists of sweeps, which come evenly, are left out.
    pub calls: Vec<Timestamp>,
    /// When each place is written.
    pub writes: Vec<(Timestamp, DeliveryId)>,
    /// What would need a person at its end, if anything.
    pub block: Option<Block>,
}

/// A credential that is to be run ahead.
#[derive(Debug, Clone)]
pub struct Subject {
    pub stored: Option<Credential>,
    pub policy: Policy,
    /// Whether its forecast is wanted; otherwise it only takes its part of the limits.
    pub is_wanted: bool,
}

/// A world without faults: what is asked for is done at once.
struct World {
    tokens: Vec<ListedToken>,
    places: BTreeMap<DeliveryId, (Fingerprint, RotationId)>,
    values: BTreeMap<RotationId, Fingerprint>,
}

/// Why a rotation is due that has not begun, and what puts it off.
struct Pending {
    why: Why,
    due_at: Timestamp,
    put_off: Vec<PutOff>,
}

/// One credential on its way ahead.
struct Ahead {
    stored: Option<Credential>,
    policy: Policy,
    world: World,
    known: BTreeSet<TokenId>,
    in_hand: BTreeSet<RotationId>,
    pending: Option<Pending>,
    turns: u64,
    forecast: Forecast,
}

/// What comes of credentials before `until`, under the limits that they share. Each is run ahead until its steps are `enough`,
/// which is asked after each turn, all of them in the order of time and then of their deadlines, as the scheduler does.
pub fn forecast(
    subjects: Vec<Subject>,
    facts: Facts,
    now: Moment,
    limits: &mut BlastRadius,
    until: Timestamp,
    enough: impl Fn(&[Step]) -> bool,
) -> Vec<Forecast> {
    let mut wanted = subjects.iter().filter(|subject| subject.is_wanted).count();
    let is_wanted: Vec<bool> = subjects.iter().map(|subject| subject.is_wanted).collect();
    let mut all: Vec<Ahead> = subjects.into_iter().map(Ahead::new).collect();
    let mut waiting: BTreeSet<_> = all.iter().enumerate().map(|(index, ahead)| (now.wall, ahead.deadline(), index)).collect();
    while wanted > 0
        && let Some((wake_at, _, index)) = waiting.pop_first()
    {
        let ahead = &mut all[index];
        let wake_at = ahead.turn(facts, later(now, wake_at), limits);
        if wake_at >= until || ahead.turns >= TURNS_MAX || enough(&ahead.forecast.steps) {
            wanted -= usize::from(is_wanted[index]);
        } else {
            waiting.insert((wake_at, ahead.deadline(), index));
        }
    }
    all.into_iter().map(|ahead| ahead.before(until)).collect()
}

/// The moment at which the wall clock shows `at`, some time after `now`.
fn later(now: Moment, at: Timestamp) -> Moment {
    let passed = i64::try_from(at.duration_since(now.wall).as_millis()).unwrap_or(i64::MAX);
    Moment { wall: at, steady: Steady(now.steady.0.saturating_add(passed)) }
}

impl Ahead {
    fn new(subject: Subject) -> Self {
        let Subject { stored, policy, is_wanted: _ } = subject;
        // Nothing changes by itself, so a sweep would find nothing: it is left out.
        let policy = Policy { sweep_every: jiff::SignedDuration::from_hours(24 * 365), ..policy };
        let world = World::of(stored.as_ref(), &policy);
        let known = world.tokens.iter().map(|token| token.id.clone()).collect();
        let (in_hand, pending, forecast) = (BTreeSet::new(), None, Forecast::default());
        Self { stored, policy, world, known, in_hand, pending, turns: 0, forecast }
    }

    /// By which it goes before others.
    fn deadline(&self) -> Timestamp {
        let latest = self.stored.as_ref().and_then(|state| state.latest()?.1.token.as_ref());
        latest.map_or(Timestamp::MAX, |token| deadline(token.expires_at, &self.policy))
    }

    /// One turn, to its end; gives the time at which the next one is asked for.
    fn turn(&mut self, facts: Facts, now: Moment, limits: &mut BlastRadius) -> Timestamp {
        let Self { stored, policy, world, known, in_hand, pending, turns, forecast: ahead } = self;
        *turns += 1;
        let mut turn = Turn::begin(stored.take(), policy, facts, std::mem::take(in_hand), now);
        let wake_at = loop {
            let due = turn.due(now);
            let conditions = Conditions { in_use: used(turn.credential()), ..Conditions::default() };
            let action = turn.next(now, *turns, &conditions, &mut limits.at(now, false));
            if let Some((_, entries)) = turn.unsaved() {
                for entry in entries.into_iter().filter(|entry| is_told(entry.what)) {
                    let reason = (entry.what == Happened::Intended).then(|| Pending::take(pending, due, entry.at));
                    let (why, due_at, put_off) = match reason {
                        Some(Pending { why, due_at, put_off }) => (Some(why), Some(due_at), put_off),
                        None => (None, None, Vec::new()),
                    };
                    let token = entry.token.filter(|token| known.contains(token));
                    let Entry { at, what, rotation, .. } = entry;
                    ahead.steps.push(Step { at, what, rotation, token, why, due_at, put_off });
                }
            }
            if let Action::Wait { until } = action {
                break until;
            }
            match &action {
                Action::List { .. } | Action::Issue { .. } | Action::Verify { .. } | Action::Revoke { .. } => {
                    ahead.calls.push(now.wall);
                }
                Action::Write { delivery, .. } => ahead.writes.push((now.wall, delivery.clone())),
                // Of a Postgres endpoint no rate is known.
                Action::Connect { .. } | Action::Read { .. } | Action::Wait { .. } => {}
            }
            world.carry_out(&mut turn, policy, action, now);
        };
        Pending::note(pending, turn.due(now), turn.held(now), now);
        *in_hand = turn.keeps().into_iter().collect();
        ahead.block = turn.credential().blocked.clone();
        *stored = Some(turn.credential().clone());
        // A wait is never shorter than the finest that time is kept in.
        wake_at.max(now.wall + jiff::SignedDuration::from_millis(1))
    }

    /// What it came to; the last turn may have gone beyond `until`.
    fn before(self, until: Timestamp) -> Forecast {
        let mut ahead = self.forecast;
        ahead.steps.retain(|step| step.at < until);
        ahead.calls.retain(|at| *at < until);
        ahead.writes.retain(|(at, _)| *at < until);
        ahead
    }
}

impl Pending {
    fn of(due: Due) -> Self {
        Self { why: due.why, due_at: due.first_at, put_off: due.put_off.into_iter().flatten().collect() }
    }

    /// Notes what puts off the next rotation; the same again only moves its end. `held` is what keeps it that is due.
    fn note(pending: &mut Option<Self>, due: Due, held: Option<PutOff>, now: Moment) {
        if due.at > now.wall {
            *pending = Some(Self::of(due)).filter(|pending| !pending.put_off.is_empty() || pending.why == Why::Undelivered);
        }
        let Some(put_off) = held else { return };
        let same = pending.take().filter(|pending| pending.why == due.why).unwrap_or_else(|| Self::of(due));
        let pending = pending.insert(same);
        let is_same = |last: &&mut PutOff| std::mem::discriminant(&**last) == std::mem::discriminant(&put_off);
        match pending.put_off.last_mut().filter(is_same) {
            Some(last) => *last = put_off,
            None => pending.put_off.push(put_off),
        }
    }

    /// Why the rotation is due that begins now. What it would have waited for longer has given way to its deadline.
    fn take(pending: &mut Option<Self>, due: Due, at: Timestamp) -> Self {
        // The deadline that it waited for comes with a look, which finds that the place can be read again.
        let is_same = |pending: &Self| {
            pending.why == due.why
                || (pending.why == Why::Undelivered && due.why == Why::Deadline && pending.due_at == due.first_at)
        };
        let mut taken = pending.take().filter(is_same).unwrap_or_else(|| Self::of(due));
        taken.put_off.retain(|put_off| put_off.until() <= at);
        taken
    }
}

/// A token that rotad itself reads is taken to be in use as soon as it is there.
fn used(credential: &Credential) -> Option<Fingerprint> {
    let settled = credential.settled.and_then(|settled| credential.rotations.get(&settled.rotation)?.token.as_ref()?.fingerprint);
    Some(settled.unwrap_or(Fingerprint::new([0; 32])))
}

/// What a plan is about; the rest is how it comes about.
fn is_told(what: Happened) -> bool {
    matches!(
        what,
        Happened::Intended
            | Happened::Promoted
            | Happened::Revoked
            | Happened::Expired
            | Happened::GivenUp
            | Happened::PauseEnded
            | Happened::AdoptionTaken
            | Happened::SetUpIntended
            | Happened::Connected
    )
}

impl World {
    /// The world as the journal knows it.
    fn of(stored: Option<&Credential>, policy: &Policy) -> Self {
        let mut world = Self { tokens: Vec::new(), places: BTreeMap::new(), values: BTreeMap::new() };
        let Some(credential) = stored else {
            world.adopt(&Credential::default(), policy);
            return world;
        };
        for (id, rotation) in &credential.rotations {
            let Some(token) = &rotation.token else { continue };
            world.tokens.push(ListedToken {
                id: token.id.clone(),
                name: Some(TokenName { owner: policy.owner.clone(), rotation: *id }.to_string()),
                created_at: token.created_at,
                expires_at: Some(token.expires_at),
                token_type: if rotation.set_up { TokenType::ReadWrite } else { policy.token_type },
            });
            world.values.extend(token.fingerprint.map(|fingerprint| (*id, fingerprint)));
        }
        world.adopt(credential, policy);
        for (place, known) in &credential.deliveries {
            let shown = known.confirmed.and_then(|id| Some((*world.values.get(&id)?, id)));
            world.places.extend(shown.map(|shown| (place.clone(), shown)));
        }
        world
    }

    /// Tokens made by hand that were not looked for yet: taken to be what the operator says that they are.
    fn adopt(&mut self, credential: &Credential, policy: &Policy) {
        for token in policy.adopt.iter().filter(|token| !credential.adoptions.contains_key(*token)) {
            self.tokens.push(ListedToken {
                id: token.clone(),
                name: None,
                created_at: Timestamp::UNIX_EPOCH,
                expires_at: None,
                token_type: policy.token_type,
            });
        }
    }

    fn carry_out(&mut self, turn: &mut Turn<'_>, policy: &Policy, action: Action, now: Moment) {
        self.tokens.retain(|token| token.expires_at.is_none_or(|at| at > now.wall));
        match action {
            Action::List { account, .. } => {
                let tokens = if account == policy.account { self.tokens.clone() } else { Vec::new() };
                turn.listed(&account, ListOutcome::Complete(tokens), now);
            }
            Action::Read { delivery } => {
                let shows = match self.places.get(&delivery) {
                    None => Shows::Nothing { owner: None },
                    Some((fingerprint, rotation)) => {
                        Shows::Value { fingerprint: *fingerprint, owner: Some(policy.owner.clone()), rotation: Some(*rotation) }
                    }
                };
                turn.read(&delivery, ReadOutcome::Shows(shows), now);
            }
            Action::Issue { rotation, request } => {
                let issued = self.issue(rotation, &request, now);
                turn.issued(rotation, IssueOutcome::Issued(issued), now);
            }
            Action::Verify { rotation } => turn.verified(rotation, VerifyOutcome::Verified, now),
            Action::Connect { rotation, .. } => turn.connected(rotation, VerifyOutcome::Verified, now),
            Action::Write { delivery, rotation } => {
                let value = self.values.get(&rotation).copied();
                self.places.extend(value.map(|value| (delivery.clone(), (value, rotation))));
                turn.written(&delivery, rotation, WriteOutcome::Written, now);
            }
            Action::Revoke { rotation, token, .. } => {
                self.tokens.retain(|listed| listed.id != token);
                turn.revoked(rotation, RevokeOutcome::Gone, now);
            }
            Action::Wait { .. } => {}
        }
    }

    fn issue(&mut self, rotation: RotationId, request: &IssueRequest, now: Moment) -> IssuedToken {
        // Any number that no other token has will do for a value that does not exist yet; its id is not told.
        let mut number = [0; 32];
        number[..16].copy_from_slice(rotation.as_uuid().as_bytes());
        let fingerprint = Fingerprint::new(number);
        self.values.insert(rotation, fingerprint);
        let token = ListedToken {
            id: TokenId(rotation.to_string()),
            name: Some(request.name.to_string()),
            created_at: now.wall,
            expires_at: now.wall.checked_add(request.ttl).ok(),
            token_type: request.token_type,
        };
        self.tokens.push(token.clone());
        IssuedToken { token, fingerprint }
    }
}
