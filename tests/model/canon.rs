//! The canonical form of a state: states that no rule can tell apart become the same one.
//!
//! It is a concrete state itself, so that the exploration goes on from it: time is moved back by
//! whole periods of the schedule, ids of what is gone move together in their order, and what is so
//! old that its age no longer matters is given the least age of which that holds (`fields.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;

use jiff::Timestamp;
use rotad::rotation::{InstallationId, Moment, ProcessId, RotationId, Steady};

use super::state::{Call, EVERY, Row, State, TTL};
use crate::simulator::world::{Content, FOREIGN, Ms, SECOND, Token, ms_of, stamp, token_index};

/// Where canonical states have their present: between this and one period later.
const PRESENT: Ms = 20 * EVERY;
/// Older than any token that lives and any request that is looked for, with the time away.
pub const LIFE_AGE: Ms = 4 * TTL;
/// The number that a place's current version has.
const VERSION: u64 = 10;
/// From here on every backoff waits an hour.
const FAILURES: u32 = 13;

/// Identifies a canonical state: 128 bits of its content. Among n states two share one with a
/// probability of n²/2^129: 10^-23 for a hundred million.
pub type Key = u128;

/// Makes the state canonical and gives its key.
pub fn canonical(state: &mut State) -> Key {
    let kept = prune(state);
    let shift = (state.now - PRESENT).div_euclid(EVERY) * EVERY;
    let now = state.now - shift;
    let mut canon = Canon {
        shift,
        now,
        bytes: Vec::with_capacity(1024),
        ids: BTreeMap::new(),
        tokens: Vec::new(),
        installations: BTreeSet::new(),
        process: None,
        base: 0,
        steadiest: 0,
    };
    canon.rename_ids(state, &kept);
    canon.rename_tokens(state);
    canon.state(state);
    key(&canon.bytes)
}

fn key(bytes: &[u8]) -> Key {
    let half = |salt: u8| {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(bytes);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

/// Drops what nothing refers to any more; gives the rotations whose token may live or land.
fn prune(state: &mut State) -> BTreeSet<RotationId> {
    let now = state.now;
    if state.faults_left == 0 {
        // Nothing restores a journal any more.
        state.sites.iter_mut().for_each(|site| site.backup = None);
    }
    for (index, place) in state.places.iter_mut().enumerate() {
        let old = place.versions.len().saturating_sub(2);
        place.versions.drain(..old);
        let last = place.now().number;
        place.versions.iter_mut().for_each(|version| version.number = version.number + VERSION - last);
        for flight in &mut state.flights {
            if let Call::Write { expected: Some(expected), place: at, .. } = &mut flight.call
                && *at == index
            {
                *expected = if *expected == last { VERSION } else { 0 };
            }
        }
    }
    let mut used: BTreeSet<usize> =
        state.places.iter().flat_map(|place| &place.versions).flat_map(|version| referred(&version.content)).collect();
    for flight in &state.flights {
        match flight.call {
            Call::Write { value, .. } => drop(used.insert(value)),
            Call::Revoke { index, .. } => drop(used.insert(index)),
            Call::Issue { .. } => {}
        }
    }
    let mut kept = BTreeSet::new();
    for site in &state.sites {
        for journal in [Some(&site.journal), site.backup.as_deref()].into_iter().flatten() {
            let rotations = journal.row.iter().flat_map(|row| &row.credential.rotations);
            for (id, rotation) in rotations {
                kept.insert(*id);
                used.extend(rotation.token.as_ref().map(|token| token_index(&token.id)));
            }
        }
        used.extend(site.process.iter().flat_map(|process| process.hands.values().copied()));
    }
    let live: BTreeSet<usize> = (0..state.tokens.len()).filter(|index| state.tokens[*index].is_live(now)).collect();
    kept.extend(live.iter().map(|index| state.tokens[*index].name.rotation));
    kept.extend(state.flights.iter().filter_map(|flight| match &flight.call {
        Call::Issue { name, .. } => Some(name.rotation),
        _ => None,
    }));
    for site in &mut state.sites {
        let memos = site.journal.row.iter_mut().chain(site.backup.iter_mut().filter_map(|backup| backup.row.as_mut()));
        for memo in memos.map(|row| &mut row.memo) {
            memo.recorded.retain(|id| kept.contains(id));
            memo.attempted.retain(|id| kept.contains(id));
        }
        if let Some(process) = &mut site.process {
            process.unsent.retain(|id| kept.contains(id));
        }
    }
    // Ages are told apart as far as that: what is older keeps its place in the order.
    kept.retain(|id| ms_of(id.minted_at()) > now - LIFE_AGE);
    // What no one refers to and is dead is dropped with the renaming.
    for index in 0..state.tokens.len() {
        let token = &mut state.tokens[index];
        if !live.contains(&index) {
            token.created = 0;
            token.expires = 0;
            token.listed_from = if used.contains(&index) { 0 } else { GONE };
        }
    }
    kept
}

/// Marks a token that is dropped.
const GONE: Ms = -1;

fn referred(content: &Content) -> impl Iterator<Item = usize> {
    let marked = content.marker.iter().flat_map(|marker| &marker.pairs).map(|(value, _)| *value);
    marked.chain(content.value).filter(|value| *value < FOREIGN)
}

pub struct Canon {
    pub shift: Ms,
    pub now: Ms,
    pub bytes: Vec<u8>,
    ids: BTreeMap<RotationId, RotationId>,
    tokens: Vec<usize>,
    pub installations: BTreeSet<InstallationId>,
    /// The process that runs, in whose journal we are.
    pub process: Option<ProcessId>,
    /// What `Steady` is at present, in the journal that is looked at, and the least that is told apart.
    pub base: i64,
    pub steadiest: i64,
}

impl Canon {
    /// Ids move with the time where their token may live; others follow the one before them.
    fn rename_ids(&mut self, state: &State, kept: &BTreeSet<RotationId>) {
        let mut all = kept.clone();
        let mut installations = BTreeSet::new();
        for site in &state.sites {
            for journal in [Some(&site.journal), site.backup.as_deref()].into_iter().flatten() {
                installations.insert(journal.installation);
                journal.row.iter().for_each(|row| collect(row, &mut all));
            }
            all.extend(site.process.iter().flat_map(|process| process.hands.keys().chain(&process.unsent)));
        }
        let contents = state.places.iter().flat_map(|place| &place.versions).map(|version| &version.content);
        all.extend(contents.filter_map(|content| content.marker.as_ref()).flat_map(|marker| &marker.pairs).map(|(_, id)| *id));
        all.extend(state.tokens.iter().filter(|token| token.listed_from != GONE).map(|token| token.name.rotation));
        all.extend(state.flights.iter().filter_map(|flight| match &flight.call {
            Call::Write { rotation, .. } => Some(*rotation),
            _ => None,
        }));
        installations.extend(all.iter().map(|id| id.installation()));
        let rank = |id: RotationId| installations.range(..id.installation()).count() as u32 + 1;
        let mut last: Option<RotationId> = None;
        for id in all {
            let after = last.map_or(0, |last| ms_of(last.minted_at()) + 1);
            let ms = if kept.contains(&id) { ms_of(id.minted_at()) - self.shift } else { after };
            let renamed = RotationId::mint(stamp(ms), None, InstallationId(rank(id)), 0);
            assert!(last < Some(renamed), "the canonical form disorders {id}");
            self.ids.insert(id, renamed);
            last = Some(renamed);
        }
        self.installations = installations;
    }

    fn rename_tokens(&mut self, state: &mut State) {
        let mut order: Vec<usize> = (0..state.tokens.len()).filter(|index| state.tokens[*index].listed_from != GONE).collect();
        order.sort_by_key(|index| state.tokens[*index].name.rotation);
        self.tokens = vec![usize::MAX; state.tokens.len()];
        for (new, old) in order.iter().enumerate() {
            self.tokens[*old] = new;
        }
        let old = std::mem::take(&mut state.tokens);
        let mut moved: Vec<Option<Token>> = old.into_iter().map(Some).collect();
        state.tokens = order.iter().filter_map(|index| moved[*index].take()).collect();
    }

    // What is written down.

    pub fn number(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    pub fn short(&mut self, number: usize) {
        self.bytes.push(number as u8);
    }

    pub fn flag(&mut self, flag: bool) {
        self.bytes.push(u8::from(flag));
    }

    // What is renamed and written down.

    pub fn id(&mut self, id: &mut RotationId) {
        *id = self.ids[id];
        self.number(id.millis());
        self.number(u64::from(id.installation().0));
    }

    pub fn maybe_id(&mut self, id: &mut Option<RotationId>) {
        self.flag(id.is_some());
        if let Some(id) = id {
            self.id(id);
        }
    }

    pub fn id_set(&mut self, ids: &mut BTreeSet<RotationId>) {
        let old = std::mem::take(ids);
        self.short(old.len());
        for mut id in old {
            self.id(&mut id);
            ids.insert(id);
        }
    }

    pub fn value(&mut self, value: &mut usize) {
        if *value < FOREIGN {
            *value = self.tokens[*value];
        }
        self.number(*value as u64);
    }

    pub fn ms(&mut self, at: &mut Ms, oldest: Ms) {
        *at = (*at - self.shift).max(self.now - oldest);
        self.number(*at as u64);
    }

    pub fn wall(&mut self, at: &mut Timestamp, oldest: Ms) {
        let mut ms = ms_of(*at);
        self.ms(&mut ms, oldest);
        *at = stamp(ms);
    }

    /// For people alone: nothing goes by it, so states may differ in it.
    pub fn untold_wall(&self, at: &mut Timestamp) {
        *at = stamp((ms_of(*at) - self.shift).max(self.now - LIFE_AGE));
    }

    pub fn maybe_wall(&mut self, at: &mut Option<Timestamp>, oldest: Ms) {
        self.flag(at.is_some());
        if let Some(at) = at {
            self.wall(at, oldest);
        }
    }

    pub fn steady(&mut self, at: &mut Steady) {
        at.0 = (at.0 - self.base).max(self.steadiest);
        self.number(at.0 as u64);
    }

    /// A moment of which only the steady time is ever asked.
    pub fn moment(&mut self, at: &mut Moment) {
        at.wall = stamp(self.now);
        self.steady(&mut at.steady);
    }

    pub fn backoff(&mut self, failures: &mut u32, until: &mut Option<Timestamp>) {
        *failures = (*failures).min(FAILURES);
        self.number(u64::from(*failures));
        self.maybe_wall(until, SECOND);
    }

    pub fn by(&mut self, process: &mut ProcessId) {
        *process = ProcessId(u64::from(Some(*process) == self.process));
        self.number(process.0);
    }

    pub fn maybe_by(&mut self, process: &mut Option<ProcessId>) {
        self.flag(process.is_some());
        if let Some(process) = process {
            self.by(process);
        }
    }
}

/// Every rotation that a row names.
fn collect(row: &Row, all: &mut BTreeSet<RotationId>) {
    let Row { credential, memo } = row;
    all.extend(credential.rotations.keys());
    for delivery in credential.deliveries.values() {
        all.extend(delivery.confirmed);
        all.extend(delivery.rolled_back.iter().flat_map(|rolled| [rolled.shows, rolled.under]));
    }
    all.extend(credential.former.values());
    all.extend(credential.settled.map(|settled| settled.rotation));
    all.extend(credential.current);
    all.extend(credential.newest);
    all.extend(credential.strangers_missing.keys());
    all.extend(credential.seen_live.map(|(id, _)| id));
    all.extend(memo.recorded.iter().chain(&memo.attempted));
    all.extend(memo.newest);
    all.extend(memo.shown.values().filter_map(|(rotation, _)| *rotation));
    all.extend(memo.reached.values());
    all.extend(memo.period.map(|period| period.rotation));
}
