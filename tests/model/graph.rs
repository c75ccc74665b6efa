//! What follows from all states together: that each one comes to rest when nothing more goes wrong
//! (L1 to L3), and which pairs of faults were met.

use rotad::rotation::Blocked;

use super::faults::{Kind, Pairs};
use super::state::{EVERY, GRACE, Model, SWEEP, State, TTL};
use crate::simulator::world::{Author, FOREIGN, MINUTE, Ms};

/// No state: a number that none has.
pub const UNKNOWN: u32 = u32::MAX;

/// Every configured place serves a live token.
pub const SERVED: u8 = 1;
/// At rest: every configured place serves the same live token and no other one of ours lives.
pub const AT_REST: u8 = 2;
/// It waits for a person, with a reason that only a person can remove.
pub const BLOCKED: u8 = 4;
/// A configured place serves what we wrote there, and that is dead.
pub const DEAD: u8 = 8;
/// Served, every token before its deadline, and the next turn too: no fault means no interruption.
pub const SAFE: u8 = 16;
/// Nothing excuses a token beside the current one: this journal recorded them all, every place is as
/// we wrote it and was always configured, no call is under way and the next turn is near.
pub const UNEXCUSED: u8 = 32;
/// How long a token may outlive its successor's issue while nothing goes wrong: until what a person
/// put back is overwritten when next due, the grace period, and a minute for retries.
pub const REST_WITHIN: Ms = EVERY + GRACE + MINUTE;

#[derive(Debug, Clone, Copy)]
pub struct Node {
    pub parent: u32,
    pub picks: u64,
    pub marks: u8,
}

#[derive(Debug)]
pub struct Graph {
    pub nodes: Vec<Node>,
    /// Where each state goes when nothing goes wrong and nothing lands, and after how many milliseconds.
    pub calm: Vec<(u32, u32)>,
    onward: Vec<(u32, u32)>,
    first: Vec<(u32, u64)>,
    second: Vec<(u32, u64)>,
    both: Pairs,
}

/// What is true of a state, as far as rest and service go.
pub fn marks(model: &Model, state: &State) -> u8 {
    let now = state.now;
    let site = &state.sites[0];
    let policy = &model.policies[site.config];
    let places: Vec<_> = state.places.iter().filter(|place| policy.deliveries.contains_key(&place.id)).collect();
    let token = |value: Option<usize>| value.filter(|value| *value < FOREIGN).map(|value| &state.tokens[value]);
    let margin = (TTL / 10).min(60 * MINUTE);
    let mut marks = 0;
    if places.iter().all(|place| token(place.value()).is_some_and(|token| token.is_live(now))) {
        marks |= SERVED;
        let live = state.tokens.iter().filter(|token| token.is_live(now)).count();
        if live == 1 && state.flights.is_empty() {
            marks |= AT_REST;
        }
        let until = state.sites.iter().map(|site| site.wake).max().unwrap_or(now);
        // Two installations of one name stop each other, and say so: a person ends that, so L1 waits.
        let alone = state.sites.len() == 1;
        if alone && places.iter().all(|place| token(place.value()).is_some_and(|token| token.expires - GRACE - margin > until)) {
            marks |= SAFE;
        }
    }
    let blocked = |site: &super::state::Site| {
        let reason = site.journal.row.as_ref().and_then(|row| row.credential.blocked.as_ref()).map(|block| block.reason);
        matches!(
            reason,
            Some(Blocked::TakeOverNeeded | Blocked::OwnedByOther | Blocked::ScheduledForDeletion | Blocked::SecondInstallation)
        )
    };
    if state.sites.iter().any(blocked) {
        marks |= BLOCKED;
    }
    let dead = |place: &&&crate::simulator::world::Place| {
        place.now().author == Author::Us && token(place.value()).is_some_and(|token| !token.is_live(now))
    };
    if places.iter().any(|place| dead(&place)) {
        marks |= DEAD;
    }
    if is_unexcused(model, state) {
        marks |= UNEXCUSED;
    }
    marks
}

fn is_unexcused(model: &Model, state: &State) -> bool {
    let configured = &model.policies[state.sites[0].config].deliveries;
    let Some(row) = &state.sites[0].journal.row else { return false };
    let recorded = |token: &&crate::simulator::world::Token| row.memo.recorded.contains(&token.name.rotation);
    state.tokens.iter().filter(|token| token.is_live(state.now)).all(|token| recorded(&token))
        && state.places.iter().all(|place| place.now().author == Author::Us)
        && state.places.iter().all(|place| configured.contains_key(&place.id) || place.value().is_none())
        && row.credential.former.is_empty()
        && state.flights.is_empty()
        && state.sites.len() == 1
        && state.sites[0].wake < state.now + SWEEP + MINUTE
}

/// What truly is, for the end of a trace.
pub fn truth(state: &State) -> Vec<String> {
    let mut lines = vec!["what truly is:".to_owned()];
    for (index, token) in state.tokens.iter().enumerate() {
        let how = match token.ended {
            Some((_, by)) => format!("ended {by:?}"),
            None if token.is_live(state.now) => format!("lives for {} s", (token.expires - state.now) / 1000),
            None => "expired".to_owned(),
        };
        lines.push(format!("  t{index} of {}: {how}", token.name.rotation));
    }
    for place in &state.places {
        let values: Vec<String> =
            place.versions.iter().map(|version| format!("{:?} by {:?}", version.content.value, version.author)).collect();
        lines.push(format!("  `{}` holds, oldest first: {}", place.id, values.join(", ")));
    }
    lines.extend(state.flights.iter().map(|flight| format!("  under way: {:?}", flight.call)));
    lines
}

/// How calm each state becomes.
#[derive(Debug, Default)]
pub struct Calm {
    /// The longest time to service everywhere and to rest, in milliseconds, and from which state.
    pub served: (Ms, u32),
    pub rested: (Ms, u32),
    /// The same from states in which nothing excuses another token.
    pub rested_unexcused: (Ms, u32),
    /// States that come to wait for a person.
    pub blocked: u64,
    /// States whose way leads out of what was explored.
    pub open: u64,
    /// A state from which L1, L2 or L3 does not hold.
    pub broken: Option<(&'static str, u32)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Unseen,
    OnPath,
    /// Milliseconds to service and to rest; whether a dead token is served on the way.
    Rests {
        served: u32,
        rested: u32,
        dead: bool,
    },
    Blocked,
    Open,
    Never,
}

impl Graph {
    pub fn new(root: Node) -> Self {
        Self {
            nodes: vec![root],
            calm: vec![(UNKNOWN, 0)],
            onward: Vec::new(),
            first: Vec::new(),
            second: Vec::new(),
            both: Pairs::new(),
        }
    }

    pub fn grow(&mut self, count: usize) {
        self.nodes.resize(count, Node { parent: UNKNOWN, picks: 0, marks: 0 });
        self.calm.resize(count, (UNKNOWN, 0));
    }

    pub fn add_pairs(&mut self, onward: &[(u32, u32)], first: &[(u32, u64)], second: &[(u32, u64)], both: Option<&Pairs>) {
        self.onward.extend(onward);
        self.first.extend(first);
        self.second.extend(second);
        if let Some(both) = both {
            self.both.add(both);
        }
    }

    /// Follows every state to its rest. A place at rest goes round for ever, rotation after rotation.
    pub fn calm_down(&self) -> Calm {
        let mut ways = vec![Way::Unseen; self.nodes.len()];
        let mut calm = Calm::default();
        for start in 0..self.nodes.len() as u32 {
            self.follow(start, &mut ways);
        }
        for (index, way) in ways.iter().enumerate() {
            let index = index as u32;
            match way {
                Way::Rests { served, rested, dead } => {
                    calm.served = calm.served.max((Ms::from(*served), index));
                    calm.rested = calm.rested.max((Ms::from(*rested), index));
                    if self.nodes[index as usize].marks & UNEXCUSED != 0 {
                        calm.rested_unexcused = calm.rested_unexcused.max((Ms::from(*rested), index));
                    }
                    if *dead && self.nodes[index as usize].marks & SAFE != 0 {
                        calm.broken.get_or_insert(("L1", index));
                    }
                }
                Way::Blocked => calm.blocked += 1,
                Way::Open => calm.open += 1,
                Way::Never | Way::Unseen | Way::OnPath => drop(calm.broken.get_or_insert(("L2", index))),
            }
        }
        if calm.rested_unexcused.0 > REST_WITHIN {
            calm.broken.get_or_insert(("L2", calm.rested_unexcused.1));
        }
        calm
    }

    fn follow(&self, start: u32, ways: &mut [Way]) {
        let mut path = Vec::new();
        let mut at = start;
        let mut way = loop {
            match ways[at as usize] {
                Way::Unseen => {}
                // A circle without rest: a person is waited for all the way round, or it never ends.
                Way::OnPath => {
                    let from = path.iter().position(|on| *on == at).unwrap_or(0);
                    let blocked = path[from..].iter().all(|on| self.nodes[*on as usize].marks & BLOCKED != 0);
                    break if blocked { Way::Blocked } else { Way::Never };
                }
                known => break known,
            }
            let marks = self.nodes[at as usize].marks;
            if marks & AT_REST != 0 {
                ways[at as usize] = Way::Rests { served: 0, rested: 0, dead: false };
                continue;
            }
            let (next, _) = self.calm[at as usize];
            if next == UNKNOWN {
                ways[at as usize] = Way::Open;
                continue;
            }
            ways[at as usize] = Way::OnPath;
            path.push(at);
            at = next;
        };
        let mut after = at;
        while let Some(on) = path.pop() {
            let (_, took) = self.calm[on as usize];
            if let Way::Rests { served, rested, dead } = way {
                let marks = self.nodes[on as usize].marks;
                let served = if marks & SERVED != 0 && served == 0 { 0 } else { served + took };
                let dead = dead || self.nodes[after as usize].marks & DEAD != 0;
                way = Way::Rests { served, rested: rested + took, dead };
            }
            ways[on as usize] = way;
            after = on;
        }
    }

    /// Which second faults came in states that each first fault led to.
    pub fn pairs(&self) -> Pairs {
        let mut pairs = self.both.clone();
        let mut firsts = vec![0_u64; self.nodes.len()];
        let mut onward: Vec<Vec<u32>> = Vec::new();
        onward.resize(self.nodes.len(), Vec::new());
        self.onward.iter().for_each(|(from, to)| onward[*from as usize].push(*to));
        let mut changed: Vec<u32> = Vec::new();
        for (to, first) in &self.first {
            firsts[*to as usize] |= first;
            changed.push(*to);
        }
        while let Some(from) = changed.pop() {
            for to in &onward[from as usize] {
                if firsts[from as usize] & !firsts[*to as usize] != 0 {
                    firsts[*to as usize] |= firsts[from as usize];
                    changed.push(*to);
                }
            }
        }
        for (at, second) in &self.second {
            for first in Kind::ALL.iter().filter(|kind| firsts[*at as usize] & kind.bit() != 0) {
                for then in Kind::ALL.iter().filter(|kind| second & kind.bit() != 0) {
                    pairs.meet(*first, *then);
                }
            }
        }
        pairs
    }
}
