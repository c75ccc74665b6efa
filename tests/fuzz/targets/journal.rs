//! A credential's row in the journal, whatever it says: it is read or refused, and what is read goes through turns in
//! a world where everything works: no panic, no endless turn, no turn after turn without time passing, and nothing is
//! revoked but under S1, S2 and S3.
//!
//! The input is the name of a world, a line's end, and the row's JSON.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rotad::engine::summarize;
use rotad::journal::Row;
use rotad::rotation::{
    Account, Action, Conditions, Credential, DeliveryId, DeliveryPolicy, Facts, Failed, Fingerprint, FirstConnection,
    InstallationId, IssueOutcome, IssuedToken, Limits, ListOutcome, ListedToken, Mode, Moment, Owner, Policy, ProcessId,
    ReadOutcome, Reason, RevokeOutcome, Rotation, RotationId, Schedule, Shows, Stage, Steady, TokenId, TokenName, TokenType,
    Turn, Verify, VerifyOutcome, WriteOutcome,
};
use rotad::snapshot::Board;
use serde_json::Value;

/// Soon after the rows of the corpus were written, by the wall clock and by the steady one.
const WALL: i64 = 1_800_800_000;
const STEADY: i64 = 800_000_000;
const PLACES: [&str; 2] = ["a", "b"];
const ACCOUNT: &str = "etl_prod";
const TTL: i64 = 7 * 86_400;
const GRACE: i64 = 12 * 3_600;
const PROCESS: ProcessId = ProcessId(2);
/// A history ends after so many seconds, or so many turns: a few an hour are usual, and one a second come of a write
/// that may still land.
const SECONDS: i64 = 2 * 86_400;
const TURNS_MAX: usize = 300;
/// No turn comes sooner after another, so that no credential keeps a worker busy.
const APART: SignedDuration = SignedDuration::from_millis(200);
/// More actions than the core allows itself in one turn.
const ACTIONS_MAX: usize = 1_000;

struct NoLimits;

impl Limits for NoLimits {
    fn rotation(&mut self, _: Timestamp, _: bool) -> Result<(), Timestamp> {
        Ok(())
    }

    fn revocation(&mut self, _: Timestamp) -> Result<(), Timestamp> {
        Ok(())
    }
}

fn policy() -> Policy {
    let owner: Owner = "sim/etl".parse().expect("an owner");
    let delivery = DeliveryPolicy { take_over: true, write_limit: SignedDuration::from_secs(10) };
    Policy {
        organization: "main".into(),
        account: Account::new(ACCOUNT),
        token_type: TokenType::ReadWrite,
        ttl: SignedDuration::from_secs(TTL),
        schedule: Schedule::every(SignedDuration::from_hours(24), &owner),
        window: None,
        grace: SignedDuration::from_secs(GRACE),
        verify: Verify::List,
        mode: Mode::Rotate,
        deliveries: PLACES.iter().map(|name| (DeliveryId::new(name), delivery.clone())).collect(),
        sweep_every: SignedDuration::from_hours(1),
        tokens_max: 16,
        renamed_from: None,
        adopt: [].into(),
        used_by_rotad: false,
        account_is_kept: false,
        first_connection: FirstConnection::NotNeeded,
        owner,
    }
}

/// A place's value and the rotation that its marker gives.
type Held = (Fingerprint, Option<RotationId>);

/// API, places and clock, with the row in them.
struct World {
    millis: i64,
    places: BTreeMap<DeliveryId, Option<Held>>,
    unreadable_until: i64,
    tokens: Vec<ListedToken>,
    /// What the turn under way read: when, and what it showed.
    read: BTreeMap<DeliveryId, (i64, Option<Held>)>,
    /// When a place last came to hold something else.
    changed: BTreeMap<DeliveryId, i64>,
    issued: BTreeMap<RotationId, Fingerprint>,
    /// Rotations of the row that it says were found by a rebuild.
    adopted: BTreeSet<RotationId>,
}

impl World {
    /// `None` where there is no world of that name.
    fn new(name: &str, row: &Credential) -> Option<Self> {
        let mut tokens = Vec::new();
        for (id, rotation) in &row.rotations {
            let Some(token) = &rotation.token else { continue };
            let name = TokenName { owner: policy().owner, rotation: *id };
            tokens.push(ListedToken {
                id: token.id.clone(),
                name: Some(name.to_string()),
                created_at: token.created_at,
                expires_at: Some(token.expires_at),
                token_type: TokenType::ReadWrite,
            });
        }
        let served = |place: &DeliveryId| {
            let id = row.deliveries.get(place)?.confirmed?;
            Some((row.rotations.get(&id)?.token.as_ref()?.fingerprint?, Some(id)))
        };
        let odd = Some((Fingerprint::new([0xee; 32]), None));
        let newest = |_: &DeliveryId| {
            let (id, rotation) = row.latest()?;
            Some((rotation.token.as_ref()?.fingerprint?, Some(id)))
        };
        let hold = |what: &dyn Fn(&DeliveryId) -> Option<Held>| -> BTreeMap<DeliveryId, Option<Held>> {
            PLACES.iter().map(|name| DeliveryId::new(name)).map(|place| (place.clone(), what(&place))).collect()
        };
        let (places, unreadable_until) = match name {
            "as-recorded" => (hold(&served), 0),
            "all-newest" => (hold(&newest), 0),
            "empty" => (hold(&|_| None), 0),
            "changed-by-hand" => (hold(&|_| odd), 0),
            "unreadable-at-first" => (hold(&served), 30_000_000),
            "no-tokens" => {
                tokens.clear();
                (hold(&served), 0)
            }
            _ => return None,
        };
        Some(Self {
            millis: 0,
            places,
            unreadable_until,
            tokens,
            read: BTreeMap::new(),
            changed: BTreeMap::new(),
            issued: BTreeMap::new(),
            adopted: row.rotations.iter().filter(|(_, rotation)| rotation.adopted).map(|(id, _)| *id).collect(),
        })
    }

    fn now(&self) -> Moment {
        let wall = Timestamp::from_millisecond(WALL * 1000 + self.millis).expect("a time");
        Moment { wall, steady: Steady(STEADY + self.millis) }
    }

    fn carry_out(&mut self, turn: &mut Turn<'_>, action: Action) {
        let now = self.now();
        match action {
            Action::List { account, .. } => {
                self.tokens.retain(|token| token.expires_at.is_none_or(|expires_at| expires_at > now.wall));
                turn.listed(&account, ListOutcome::Complete(self.tokens.clone()), now);
            }
            Action::Read { delivery } => {
                let held = self.places[&delivery];
                let outcome = if self.millis < self.unreadable_until {
                    ReadOutcome::Failed(Failed::new(Reason::Unavailable, "not yet"))
                } else {
                    self.read.insert(delivery.clone(), (self.millis, held));
                    let owner = Some(policy().owner);
                    ReadOutcome::Shows(match held {
                        None => Shows::Nothing { owner },
                        Some((fingerprint, rotation)) => Shows::Value { fingerprint, owner, rotation },
                    })
                };
                turn.read(&delivery, outcome, now);
            }
            Action::Issue { rotation, request } => {
                let number = u8::try_from(self.issued.len() % 200).unwrap_or_default();
                let fingerprint = Fingerprint::new([number; 32]);
                self.issued.insert(rotation, fingerprint);
                let token = ListedToken {
                    id: TokenId(format!("made-{number}")),
                    name: Some(request.name.to_string()),
                    created_at: now.wall,
                    expires_at: Some(now.wall + request.ttl),
                    token_type: request.token_type,
                };
                self.tokens.push(token.clone());
                turn.issued(rotation, IssueOutcome::Issued(IssuedToken { token, fingerprint }), now);
            }
            Action::Verify { rotation } => turn.verified(rotation, VerifyOutcome::Verified, now),
            Action::Connect { .. } => unreachable!("its tokens are read/write ones"),
            Action::Write { delivery, rotation } => {
                let token = turn.credential().rotations[&rotation].token.as_ref().expect("a token is written");
                let fingerprint = token.fingerprint.expect("a value is written");
                self.places.insert(delivery.clone(), Some((fingerprint, Some(rotation))));
                self.changed.insert(delivery.clone(), self.millis);
                turn.written(&delivery, rotation, WriteOutcome::Written, now);
            }
            Action::Revoke { rotation, token, .. } => {
                self.may_revoke(turn.credential(), rotation);
                self.tokens.retain(|listed| listed.id != token);
                turn.revoked(rotation, RevokeOutcome::Gone, now);
            }
            Action::Wait { .. } => {}
        }
    }

    /// S1 to S3, from what the world knows.
    fn may_revoke(&self, state: &Credential, id: RotationId) {
        let rotation = &state.rotations[&id];
        assert!(!self.adopted.contains(&id) && !rotation.adopted, "S3: {id} was found by a rebuild");
        if exempted(rotation) {
            return;
        }
        let settled = state.settled.expect("S2: a token is revoked while nothing is settled");
        assert!(settled.rotation > id, "S1: {} serves, {id} is revoked", settled.rotation);
        assert!(state.former.values().all(|newest| id > *newest), "S1: a former place may serve {id}");
        let grace = i128::from(settled.grace.as_secs().max(GRACE)) * 1000;
        let since = i128::from(settled.since.steady.0);
        assert!(i128::from(self.now().steady.0) - since >= grace, "S2: {id} is revoked before its grace period is over");
        for (place, held) in &self.places {
            let (at, seen) = self.read.get(place).expect("S1: a delivery was not read");
            assert!(self.millis - at <= 10_000 && seen == held, "S1: `{place}` was read too long ago");
            let fingerprint = state.rotations[&settled.rotation].token.as_ref().and_then(|token| token.fingerprint);
            assert_eq!(held.map(|(value, _)| value), fingerprint, "S1: `{place}` does not serve {}", settled.rotation);
            let changed = self.changed.get(place).map_or(i128::MIN, |at| i128::from(STEADY + at));
            assert!(since >= changed, "S2: the grace period began before `{place}` served {}", settled.rotation);
        }
    }
}

fuzz_target!(|text: &str| {
    let Some((name, state)) = text.split_once('\n') else { return };
    let row = Row { version: 1, state: state.to_owned(), wake_at: Timestamp::UNIX_EPOCH };
    let Ok(row) = row.read_state() else { return };
    let Some(mut world) = World::new(name, &row) else { return };
    let (policy, organization) = (policy(), Board::new(world.now()).organization("main"));
    let mut stored = row;
    let mut in_hand = BTreeSet::new();
    for turns in 0..TURNS_MAX {
        if world.millis >= SECONDS * 1000 {
            return;
        }
        // A daemon has not compared its clocks at its first turn.
        let conditions = Conditions { frozen: turns == 0, ..Conditions::default() };
        world.millis = take_turn(&mut world, &policy, &mut stored, &mut in_hand, conditions);
        summarize(&stored, &policy, organization, world.now().wall);
    }
});

/// One turn to its end; gives the millisecond of the next one.
fn take_turn(
    world: &mut World,
    policy: &Policy,
    stored: &mut Credential,
    in_hand: &mut BTreeSet<RotationId>,
    conditions: Conditions,
) -> i64 {
    let started = Moment { wall: Timestamp::from_second(WALL).expect("a time"), steady: Steady(STEADY) };
    let facts = Facts {
        installation: InstallationId(0xaaaa_0001),
        journal_created_at: Timestamp::from_second(WALL - 800_000).expect("a time"),
        process: PROCESS,
        process_since: started,
    };
    world.read.clear();
    let mut turn = Turn::begin(Some(stored.clone()), policy, facts, in_hand.clone(), world.now());
    for _ in 0..ACTIONS_MAX {
        let action = turn.next(world.now(), 0x5eed, &conditions, &mut NoLimits);
        if let Some((state, _)) = turn.unsaved() {
            *stored = state.clone();
        }
        if let Action::Wait { until } = action {
            *in_hand = turn.keeps().into_iter().collect();
            assert!(until.duration_since(world.now().wall) >= APART, "a wait until {until}, which is too short or over");
            let again = Row { version: 1, state: serde_json::to_string(stored).expect("JSON"), wake_at: until };
            assert_eq!(again.read_state().as_ref(), Ok(&*stored), "a row that was written can't be read");
            return until.as_millisecond().saturating_sub(WALL * 1000).max(world.millis + 1);
        }
        assert!(
            !conditions.frozen || !matches!(action, Action::Revoke { .. }) || exempt(stored, &action),
            "revoked while frozen"
        );
        world.carry_out(&mut turn, action);
        world.millis += 20;
    }
    panic!("a turn of {ACTIONS_MAX} actions");
}

/// A token whose value never left this process is revoked whatever the clocks say.
fn exempt(state: &Credential, action: &Action) -> bool {
    let Action::Revoke { rotation, .. } = action else { return false };
    state.rotations.get(rotation).is_some_and(exempted)
}

fn exempted(rotation: &Rotation) -> bool {
    let unfit_here = rotation.stage == Stage::Unfit && rotation.by == PROCESS;
    (rotation.set_up || unfit_here) && rotation.attempts.is_empty()
}

// Rows that are still JSON after a change reach further than random bytes.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match mutated(&data[..size], &mut Random(u64::from(seed) | 1 << 40)) {
        Some(changed) if changed.len() <= max_size => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % end.max(1)
    }
}

const WORLDS: [&str; 6] = ["as-recorded", "all-newest", "empty", "changed-by-hand", "unreadable-at-first", "no-tokens"];
const TIMES: [&str; 6] = [
    "2027-01-24T14:00:00Z",
    "2027-01-31T14:00:00Z",
    "-009999-01-02T01:59:59Z",
    "9999-12-30T22:00:00.999999999Z",
    "1970-01-01T00:00:00Z",
    "2027-01-26T02:00:00Z",
];
const NUMBERS: [i64; 9] = [0, 1, -1, 2, 700_000_000, 800_000_000, 840_000_000, i64::MAX, i64::MIN];

/// The input with one thing of its row changed; `None` for what is no row, and now and then.
fn mutated(data: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let (name, state) = std::str::from_utf8(data).ok()?.split_once('\n')?;
    let mut row: Value = serde_json::from_str(state).ok()?;
    let mut name = name;
    match random.below(10) {
        0 => return None,
        1 => name = WORLDS[random.below(WORLDS.len())],
        _ => {
            let donor = row.clone();
            let count = nodes(&donor).len();
            let (from, to) = (random.below(count), random.below(count));
            change(&mut row, to, nodes(&donor)[from], random);
        }
    }
    Some(format!("{name}\n{row}").into_bytes())
}

/// All values within a value, itself included.
fn nodes(value: &Value) -> Vec<&Value> {
    let mut all = vec![value];
    match value {
        Value::Array(items) => items.iter().for_each(|item| all.extend(nodes(item))),
        Value::Object(entries) => entries.values().for_each(|item| all.extend(nodes(item))),
        _ => {}
    }
    all
}

/// Changes the value with this number among the nodes.
fn change(value: &mut Value, number: usize, donor: &Value, random: &mut Random) {
    if number > 0 {
        let mut left = number - 1;
        let children: Vec<&mut Value> = match value {
            Value::Array(items) => items.iter_mut().collect(),
            Value::Object(entries) => entries.values_mut().collect(),
            _ => return,
        };
        for child in children {
            let size = nodes(child).len();
            if left < size {
                return change(child, left, donor, random);
            }
            left -= size;
        }
        return;
    }
    match (value, random.below(4)) {
        (value, 0) => *value = donor.clone(),
        (Value::Bool(flag), _) => *flag = !*flag,
        (Value::Number(known), 1) => *known = known.as_i64().unwrap_or_default().saturating_add(1).into(),
        (Value::Number(known), _) => *known = NUMBERS[random.below(NUMBERS.len())].into(),
        (Value::String(text), _) if text.ends_with('Z') => *text = TIMES[random.below(TIMES.len())].to_owned(),
        (Value::String(text), _) => *text = donor.as_str().unwrap_or_default().to_owned(),
        (Value::Object(entries), 1) => {
            let key = entries.keys().nth(random.below(entries.len())).cloned();
            key.and_then(|key| entries.remove(&key));
        }
        // The value of one key under another.
        (Value::Object(entries), _) if !entries.is_empty() => {
            let keys: Vec<String> = entries.keys().cloned().collect();
            let (from, to) = (&keys[random.below(keys.len())], &keys[random.below(keys.len())]);
            if let Some(moved) = entries.get(from).cloned() {
                entries.insert(to.clone(), moved);
            }
        }
        (value, _) => *value = Value::Null,
    }
}
