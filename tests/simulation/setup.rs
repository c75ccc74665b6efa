//! What a history is about: credentials, every version of their configuration, places, and which
//! faults it will meet how often. All of it drawn from the seed before the history begins.

use std::collections::BTreeMap;

use rotad::rotation::{
    Account, CredentialName, DeliveryId, DeliveryPolicy, FirstConnection, InstallationId, Mode, Owner, Policy, RotationId,
    Schedule, TokenName, TokenType, Verify,
};

use super::Shape;
use super::rng::Rng;
use super::sim::policy_every;
use super::world::{Content, DAY, FOREIGN, HOUR, MINUTE, Marker, Ms, Place, SECOND, Token, Version, span, stamp, token_id};

/// Which outside events may happen, and how likely each fault is at an action, in permille.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub crash: u64,
    pub save: u64,
    pub provider: u64,
    pub sink: u64,
    pub late: u64,
    /// Outside events per `every`, in permille.
    pub persons: u64,
    pub hand_revocations: bool,
    pub journal: bool,
    pub second_installation: bool,
    pub clocks: bool,
    pub configuration: bool,
    pub accounts: bool,
    pub outages: bool,
    /// Tokens made by hand are there, and some of them are listed for adoption.
    pub adoption: bool,
    /// The first credential's token is what the calls are made with.
    pub admin: bool,
    /// Accounts of read-scaling credentials were never connected to.
    pub scaling: bool,
}

impl Faults {
    pub const NONE: Self = Self {
        crash: 0,
        save: 0,
        provider: 0,
        sink: 0,
        late: 0,
        persons: 0,
        hand_revocations: false,
        journal: false,
        second_installation: false,
        clocks: false,
        configuration: false,
        accounts: false,
        outages: false,
        adoption: false,
        admin: false,
        scaling: false,
    };

    /// A mixture of its own for each history: what is always on hides what it masks.
    fn draw(rng: &mut Rng) -> Self {
        let rates = [0, 0, 3, 20, 80, 250];
        let rate = |rng: &mut Rng| *rng.pick(&rates);
        Self {
            crash: (*rng.pick(&[0, 3, 20, 60, 150])).min(150),
            save: *rng.pick(&[0, 0, 5, 60]),
            provider: rate(rng),
            sink: rate(rng),
            late: *rng.pick(&[0, 100, 400]),
            persons: *rng.pick(&[0, 0, 300, 1500, 4000]),
            hand_revocations: rng.permille(400),
            journal: rng.permille(300),
            second_installation: rng.permille(80),
            clocks: rng.permille(400),
            configuration: rng.permille(400),
            accounts: rng.permille(150),
            outages: rng.permille(500),
            adoption: false,
            admin: false,
            scaling: false,
        }
    }
}

/// One credential through the history.
#[derive(Debug)]
pub struct Plan {
    pub owner: Owner,
    /// The versions of its configuration, each policy complete.
    pub versions: Vec<Policy>,
}

#[derive(Debug)]
pub struct Setup {
    pub plans: Vec<Plan>,
    pub places: Vec<Place>,
    /// The tokens that people made before.
    pub by_hand: Vec<Token>,
    pub faults: Faults,
    pub chaos_ends: Ms,
    pub ends: Ms,
    /// Limits of the blast radius, per minute.
    pub per_minute: u32,
}

pub fn owner(index: usize) -> Owner {
    Owner { deployment: "sim".parse().unwrap(), credential: format!("c{index}").parse().unwrap() }
}

/// The name that the credential is renamed to in the midst of a history.
fn renamed(index: usize) -> Owner {
    Owner { credential: format!("c{index}-renamed").parse().unwrap(), ..owner(index) }
}

/// Whether a name is, or was, the credential's.
pub fn is_of(name: &Owner, index: usize) -> bool {
    *name == owner(index) || *name == renamed(index)
}

pub fn account(index: usize) -> Account {
    Account::new(&format!("account_{index}"))
}

pub fn account_index(account: &Account) -> usize {
    account.as_str()[8..].parse().unwrap()
}

/// Numbers that a valid configuration may hold together.
struct Times {
    ttl: Ms,
    every: Ms,
    grace: Ms,
    window: Option<Ms>,
}

impl Times {
    fn draw(rng: &mut Rng, quick: bool) -> Self {
        if quick {
            let ttl = *rng.pick(&[20 * MINUTE, 2 * HOUR, 12 * HOUR]);
            return Self::of_ttl(rng, ttl);
        }
        let ttl = *rng.pick(&[20 * MINUTE, 2 * HOUR, DAY, 7 * DAY, 30 * DAY, 90 * DAY, 180 * DAY, 365 * DAY, 365 * DAY]);
        Self::of_ttl(rng, ttl)
    }

    fn of_ttl(rng: &mut Rng, ttl: Ms) -> Self {
        let every = ttl / *rng.pick(&[2, 3, 5, 7]);
        let grace = (every / *rng.pick(&[2, 3, 10, 50])).max(10 * SECOND);
        let margin = (ttl / 10).min(HOUR);
        let window = rng.permille(200).then_some((ttl - every - grace - margin).clamp(MINUTE, 4 * HOUR));
        let window = window.filter(|window| every + grace + margin + window <= ttl);
        assert!(every + grace + margin <= ttl, "the draw is no valid configuration");
        Self { ttl, every, grace, window }
    }
}

impl Setup {
    pub fn draw(rng: &mut Rng, shape: &Shape) -> Self {
        // Drawn apart, so that a history without adoption is what it was before there was any.
        let mut aside = Rng::new(rng.clone().next());
        let times = Times::draw(rng, shape.quick);
        let mut faults = Faults::draw(rng);
        faults.adoption = aside.permille(250);
        faults.admin = aside.permille(200);
        let mut scaling = Rng::new(aside.clone().next());
        faults.scaling = scaling.permille(400);
        if let Some(change) = shape.faults {
            change(&mut faults);
        }
        let credentials = *rng.pick(&[1, 1, 1, 2, 3]);
        let mut places = Vec::new();
        let mut plans = Vec::new();
        let rounds = rng.between(4, 14);
        let chaos_ends = times.every * rounds;
        for index in 0..credentials {
            let first = places.len();
            let count = *rng.pick(&[1, 2, 2, 3]);
            for number in 0..count + 1 {
                places.push(draw_place(rng, index, number));
            }
            plans.push(draw_plan(rng, index, &times, &places[first..], count, &faults));
        }
        let by_hand = if faults.adoption { adoption(&mut aside, &mut plans, &mut places, &times) } else { Vec::new() };
        if faults.admin {
            plans[0].versions.iter_mut().for_each(|policy| policy.used_by_rotad = true);
        }
        if faults.scaling {
            plans.iter_mut().for_each(|plan| first_connections(&mut scaling, plan));
        }
        let ttl_longest = plans.iter().flat_map(|plan| &plan.versions).map(|policy| policy.ttl.as_millis() as Ms).max().unwrap();
        let ends = chaos_ends + 2 * ttl_longest + 6 * HOUR;
        Self { plans, places, by_hand, faults, chaos_ends, ends, per_minute: *rng.pick(&[1, 3, 10]) }
    }
}

/// Who connects to the accounts of read-scaling tokens for the first time. Where it is a person, it is done at the end.
fn first_connections(rng: &mut Rng, plan: &mut Plan) {
    use FirstConnection::{ByPerson, ByRotad, NotNeeded};
    for policy in plan.versions.iter_mut().filter(|policy| policy.token_type == TokenType::ReadScaling) {
        policy.first_connection = *rng.pick(&[ByRotad, ByRotad, ByRotad, NotNeeded, ByPerson]);
    }
    if let Some(last) = plan.versions.last_mut().filter(|last| last.first_connection == ByPerson) {
        last.first_connection = NotNeeded;
    }
}

/// Tokens that people made, in some of the places, and the ids that each credential lists: most of its account's,
/// some that are another's, rotad's own or nobody's, and some that are withdrawn later.
fn adoption(rng: &mut Rng, plans: &mut [Plan], places: &mut [Place], times: &Times) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut of: Vec<Vec<usize>> = Vec::new();
    for (index, plan) in plans.iter().enumerate() {
        let first = tokens.len();
        for _ in 0..rng.between(1, 3) {
            let created = -rng.between(MINUTE, 40 * DAY);
            let expires = if rng.permille(500) { super::sim::NEVER } else { rng.between(HOUR, 3 * times.ttl) };
            let rotation = RotationId::mint(stamp(created), None, InstallationId(0), tokens.len() as u64);
            let name = TokenName { owner: "hand/made".parse().unwrap(), rotation };
            let (account, token_type) = (index, TokenType::ReadWrite);
            tokens.push(Token { name, account, created, expires, token_type, ended: None, listed_from: created, by_hand: true });
        }
        let own: Vec<usize> = (first..tokens.len()).collect();
        let configured = &plan.versions[0].deliveries;
        for place in places.iter_mut().filter(|place| configured.contains_key(&place.id)) {
            if rng.permille(600) {
                place.versions[0].content = Content { value: Some(*rng.pick(&own)), ..Content::default() };
            }
        }
        of.push(own);
    }
    for (index, plan) in plans.iter_mut().enumerate() {
        let mut ids: Vec<usize> = of[index].iter().copied().filter(|_| rng.permille(800)).collect();
        if rng.permille(250) {
            let others = *rng.pick(&[tokens.len(), tokens.len() + 1, tokens.len() + 3, 999_999]);
            ids.push(*rng.pick(&[others, of[(index + 1) % of.len()][0]]));
        }
        for version in &mut plan.versions {
            version.adopt = ids.iter().map(|id| token_id(*id)).collect();
            if rng.permille(300) {
                ids.pop();
            }
        }
    }
    tokens
}

fn draw_place(rng: &mut Rng, credential: usize, number: usize) -> Place {
    let id = DeliveryId::new(&format!("place:{credential}/{number}"));
    let content = match rng.below(8) {
        0 => Content { value: Some(FOREIGN + rng.below(1 << 20) as usize), ..Content::default() },
        1 => Content { marker: Some(Marker { owner: owner(credential), pairs: Vec::new() }), ..Content::default() },
        _ => Content::default(),
    };
    Place {
        id,
        credential,
        conditional: !rng.permille(150),
        lag: *rng.pick(&[0, 0, 0, 5 * SECOND, 55 * SECOND]),
        write_limit: *rng.pick(&[5 * SECOND, 10 * SECOND, 30 * SECOND]),
        versions: vec![Version { since: 0, at: 0, number: 1, content, author: super::world::Author::Person }],
        unreadable_until: 0,
        unwritable_until: 0,
    }
}

fn draw_plan(rng: &mut Rng, index: usize, times: &Times, places: &[Place], count: usize, faults: &Faults) -> Plan {
    let owner = owner(index);
    let deliveries = |places: &[&Place], take_over: bool| -> BTreeMap<DeliveryId, DeliveryPolicy> {
        places
            .iter()
            .map(|place| (place.id.clone(), DeliveryPolicy { take_over, write_limit: span(place.write_limit) }))
            .collect()
    };
    let take_over = rng.permille(700);
    let chosen: Vec<&Place> = places.iter().take(count).collect();
    let named = Named { owner: owner.clone(), renamed_from: None, deliveries: deliveries(&chosen, take_over) };
    let first = policy(rng, index, &named, times);
    let mut versions = vec![first];
    let changes = if faults.configuration { rng.between(1, 4) } else { 0 };
    for _ in 0..changes {
        let mut next = versions.last().unwrap().clone();
        match rng.below(7) {
            0 | 1 => {
                let mut chosen: Vec<&Place> = places.iter().filter(|_| rng.permille(600)).collect();
                if chosen.is_empty() {
                    chosen.push(&places[0]);
                }
                next.deliveries = deliveries(&chosen, take_over);
            }
            2 => next.grace = (next.grace / 2).max(span(5 * SECOND)),
            3 => next = policy(rng, index, &Named::of(&next), times),
            4 => {
                let ttl = *rng.pick(&[times.ttl / 2, times.ttl * 2]);
                let changed = Times::of_ttl(rng, ttl.max(10 * MINUTE));
                next = policy(rng, index, &Named::of(&next), &changed);
            }
            5 if next.renamed_from.is_none() => {
                next.renamed_from = Some(next.owner.credential.clone());
                next.owner = renamed(index);
                next.schedule = Schedule::every(span(policy_every(&next)), &next.owner);
            }
            _ => next.account = account(100 + index),
        }
        versions.push(next);
    }
    // What a person mends at the end: leftovers may be overwritten.
    let mut last = versions.last().unwrap().clone();
    last.deliveries.values_mut().for_each(|delivery| delivery.take_over = true);
    versions.push(last);
    Plan { owner, versions }
}

/// What stays when the terms of a credential change.
struct Named {
    owner: Owner,
    renamed_from: Option<CredentialName>,
    deliveries: BTreeMap<DeliveryId, DeliveryPolicy>,
}

impl Named {
    fn of(policy: &Policy) -> Self {
        let Policy { owner, renamed_from, deliveries, .. } = policy.clone();
        Self { owner, renamed_from, deliveries }
    }
}

fn policy(rng: &mut Rng, index: usize, named: &Named, times: &Times) -> Policy {
    let Named { owner, renamed_from, deliveries } = named;
    Policy {
        owner: owner.clone(),
        renamed_from: renamed_from.clone(),
        adopt: [].into(),
        used_by_rotad: false,
        account_is_kept: false,
        first_connection: FirstConnection::NotNeeded,
        organization: "main".into(),
        account: account(index),
        token_type: *rng.pick(&[TokenType::ReadWrite, TokenType::ReadScaling]),
        ttl: span(times.ttl),
        schedule: Schedule::every(span(times.every), owner),
        window: times.window.map(span),
        grace: span(times.grace),
        verify: *rng.pick(&[Verify::None, Verify::List, Verify::Itself, Verify::Connect]),
        mode: Mode::Rotate,
        deliveries: deliveries.clone(),
        sweep_every: span((times.ttl / 24).clamp(5 * MINUTE, DAY)),
        tokens_max: 16,
    }
}
