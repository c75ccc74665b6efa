//! What will happen if nothing goes wrong: the core itself, run ahead in a world that does what it is asked.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::rotation::{
    Action, Conditions, Credential, DeliveryId, Facts, Fingerprint, Happened, IssueOutcome, IssueRequest, IssuedToken, Limits,
    ListOutcome, ListedToken, Moment, Policy, ReadOutcome, RevokeOutcome, RotationId, Shows, Steady, TokenId, TokenName, Turn,
    VerifyOutcome, Why, WriteOutcome,
};

/// The most turns that one credential is run ahead: a rotation a minute for a month, with its looks.
const TURNS_MAX: usize = 200_000;

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
}

/// What is to come of one credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    pub steps: Vec<Step>,
    /// When MotherDuck's API is called; the lists of sweeps, which come evenly, are left out.
    pub calls: Vec<Timestamp>,
    /// When each place is written.
    pub writes: Vec<(Timestamp, DeliveryId)>,
}

/// A world without faults: what is asked for is done at once.
struct World<'p> {
    policy: &'p Policy,
    tokens: Vec<ListedToken>,
    places: BTreeMap<DeliveryId, (Fingerprint, RotationId)>,
    values: BTreeMap<RotationId, Fingerprint>,
}

/// No blast radius: what the limits put off is told beside the forecast.
struct Unlimited;

impl Limits for Unlimited {
    fn rotation(&mut self, _: Timestamp, _: bool) -> Result<(), Timestamp> {
        Ok(())
    }

    fn revocation(&mut self, _: Timestamp) -> Result<(), Timestamp> {
        Ok(())
    }
}

/// What comes of one credential before `until`, as much as `enough` wants: it is asked after each turn.
pub fn forecast(
    stored: Option<Credential>,
    policy: &Policy,
    facts: Facts,
    now: Moment,
    until: Timestamp,
    enough: impl Fn(&[Step]) -> bool,
) -> Forecast {
    // Nothing changes by itself, so a sweep would find nothing: it is left out.
    let policy = Policy { sweep_every: jiff::SignedDuration::from_hours(24 * 365), ..policy.clone() };
    let mut world = World::of(stored.as_ref(), &policy);
    let known: BTreeSet<TokenId> = world.tokens.iter().map(|token| token.id.clone()).collect();
    let (mut stored, mut ahead, mut in_hand) = (stored, Forecast::default(), BTreeSet::new());
    let mut now = now;
    for number in 0..TURNS_MAX {
        let mut turn = Turn::begin(stored.take(), &policy, facts, std::mem::take(&mut in_hand), now);
        let wake_at = loop {
            let due = turn.due(now);
            let conditions = Conditions { in_use: used(turn.credential()), ..Conditions::default() };
            let action = turn.next(now, number as u64, &conditions, &mut Unlimited);
            if let Some((_, entries)) = turn.unsaved() {
                ahead.steps.extend(entries.into_iter().filter(|entry| is_told(entry.what)).map(|entry| Step {
                    at: entry.at,
                    what: entry.what,
                    rotation: entry.rotation,
                    token: entry.token.filter(|token| known.contains(token)),
                    why: (entry.what == Happened::Intended).then_some(due.why),
                }));
            }
            if let Action::Wait { until } = action {
                break until;
            }
            match &action {
                Action::List { .. } | Action::Issue { .. } | Action::Verify { .. } | Action::Revoke { .. } => {
                    ahead.calls.push(now.wall);
                }
                Action::Write { delivery, .. } => ahead.writes.push((now.wall, delivery.clone())),
                Action::Read { .. } | Action::Wait { .. } => {}
            }
            world.carry_out(&mut turn, action, now);
        };
        in_hand = turn.keeps().into_iter().collect();
        stored = Some(turn.credential().clone());
        if wake_at >= until || enough(&ahead.steps) {
            break;
        }
        let passed = i64::try_from(wake_at.duration_since(now.wall).as_millis().max(1)).unwrap_or(i64::MAX);
        now = Moment { wall: now.wall.max(wake_at), steady: Steady(now.steady.0.saturating_add(passed)) };
    }
    // The last turn may have gone beyond.
    ahead.steps.retain(|step| step.at < until);
    ahead.calls.retain(|at| *at < until);
    ahead.writes.retain(|(at, _)| *at < until);
    ahead
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
    )
}

impl<'p> World<'p> {
    /// The world as the journal knows it.
    fn of(stored: Option<&Credential>, policy: &'p Policy) -> Self {
        let mut world = Self { policy, tokens: Vec::new(), places: BTreeMap::new(), values: BTreeMap::new() };
        let Some(credential) = stored else {
            world.adopt(&Credential::default());
            return world;
        };
        for (id, rotation) in &credential.rotations {
            let Some(token) = &rotation.token else { continue };
            world.tokens.push(ListedToken {
                id: token.id.clone(),
                name: Some(TokenName { owner: policy.owner.clone(), rotation: *id }.to_string()),
                created_at: token.created_at,
                expires_at: Some(token.expires_at),
                token_type: policy.token_type,
            });
            world.values.extend(token.fingerprint.map(|fingerprint| (*id, fingerprint)));
        }
        world.adopt(credential);
        for (place, known) in &credential.deliveries {
            let shown = known.confirmed.and_then(|id| Some((*world.values.get(&id)?, id)));
            world.places.extend(shown.map(|shown| (place.clone(), shown)));
        }
        world
    }

    /// Tokens made by hand that were not looked for yet: taken to be what the operator says that they are.
    fn adopt(&mut self, credential: &Credential) {
        for token in self.policy.adopt.iter().filter(|token| !credential.adoptions.contains_key(*token)) {
            self.tokens.push(ListedToken {
                id: token.clone(),
                name: None,
                created_at: Timestamp::UNIX_EPOCH,
                expires_at: None,
                token_type: self.policy.token_type,
            });
        }
    }

    fn carry_out(&mut self, turn: &mut Turn<'_>, action: Action, now: Moment) {
        self.tokens.retain(|token| token.expires_at.is_none_or(|at| at > now.wall));
        match action {
            Action::List { account, .. } => {
                let tokens = if account == self.policy.account { self.tokens.clone() } else { Vec::new() };
                turn.listed(&account, ListOutcome::Complete(tokens), now);
            }
            Action::Read { delivery } => {
                let shows = match self.places.get(&delivery) {
                    None => Shows::Nothing { owner: None },
                    Some((fingerprint, rotation)) => Shows::Value {
                        fingerprint: *fingerprint,
                        owner: Some(self.policy.owner.clone()),
                        rotation: Some(*rotation),
                    },
                };
                turn.read(&delivery, ReadOutcome::Shows(shows), now);
            }
            Action::Issue { rotation, request } => {
                let issued = self.issue(rotation, &request, now);
                turn.issued(rotation, IssueOutcome::Issued(issued), now);
            }
            Action::Verify { rotation } => turn.verified(rotation, VerifyOutcome::Verified, now),
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
