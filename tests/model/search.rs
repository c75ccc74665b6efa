//! Breadth-first through every state, on all cores, one layer after the other: the first violation
//! has the shortest trace.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::canon::{Key, canonical};
use super::chooser::{Chooser, Pick};
use super::faults::{Kind, Pairs};
use super::graph::{Graph, Node, marks};
use super::run::Run;
use super::state::{Model, State};
use crate::simulator::oracle::Violation;

/// What bounds a search, beside its faults.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub threads: usize,
    pub states: usize,
    /// How many turns deep.
    pub turns: u32,
    /// Called once in each thread: breaks a rule, where the checker itself is checked.
    pub prepare: fn(),
}

/// What came of a search.
pub struct Found {
    pub violation: Option<(Violation, u32, Vec<Pick>)>,
    pub graph: Graph,
    /// Whether every state was expanded.
    pub complete: bool,
    pub depth: u32,
    pub transitions: u64,
    pub actions: u64,
    pub took: Duration,
    /// How often each kind of fault struck.
    pub met: Vec<u64>,
}

/// Keys are hashes already.
#[derive(Default)]
pub struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

const SHARDS: usize = 64;

/// Which states were seen, under which number.
struct Visited {
    shards: Vec<Mutex<HashMap<Key, u32, BuildHasherDefault<Plain>>>>,
    next: AtomicU32,
}

impl Visited {
    fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), next: AtomicU32::new(0) }
    }

    /// The state's number, and whether it is new.
    fn number(&self, key: Key) -> (u32, bool) {
        let mut shard = self.shards[(key >> 120) as usize % SHARDS].lock().unwrap();
        match shard.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => (*known.get(), false),
            std::collections::hash_map::Entry::Vacant(free) => (*free.insert(self.next.fetch_add(1, Ordering::Relaxed)), true),
        }
    }
}

/// What one worker made of its share of a layer.
#[derive(Default)]
struct Share {
    new: Vec<(u32, Node, State)>,
    /// From, to, milliseconds: what comes of a state when nothing goes wrong and nothing lands.
    calm: Vec<(u32, u32, u32)>,
    /// Between states that one fault led to: what comes of them without another.
    onward: Vec<(u32, u32)>,
    /// A first fault that led to a state, and the second ones that come from there.
    first: Vec<(u32, u64)>,
    second: Vec<(u32, u64)>,
    both: Option<Pairs>,
    met: Vec<u64>,
    violation: Option<(Violation, u32, Vec<Pick>)>,
    transitions: u64,
    actions: u64,
}

pub fn search(model: &Model, bounds: &Bounds) -> Found {
    let began = Instant::now();
    let mut first = model.first();
    let visited = Visited::new();
    let (root, _) = visited.number(canonical(&mut first));
    let mut graph = Graph::new(Node { parent: root, picks: 0, marks: marks(model, &first) });
    let mut found_violation = None;
    let mut layer = vec![(root, first)];
    let (mut depth, mut transitions, mut actions) = (0, 0, 0);
    let mut met = vec![0; Kind::ALL.len()];
    while !layer.is_empty() && found_violation.is_none() {
        if graph.nodes.len() > bounds.states || depth >= bounds.turns {
            break;
        }
        let shares = expand_layer(model, bounds, &visited, &layer);
        depth += 1;
        layer = Vec::new();
        let known = graph.nodes.len();
        graph.grow(visited.next.load(Ordering::Relaxed) as usize);
        for mut share in shares {
            for (number, node, state) in share.new.drain(..) {
                assert!(number as usize >= known);
                graph.nodes[number as usize] = node;
                layer.push((number, state));
            }
            share.calm.iter().for_each(|(from, to, ms)| graph.calm[*from as usize] = (*to, *ms));
            graph.add_pairs(&share.onward, &share.first, &share.second, share.both.as_ref());
            met.iter_mut().zip(&share.met).for_each(|(all, more)| *all += more);
            transitions += share.transitions;
            actions += share.actions;
            let earlier = |known: &(Violation, u32, Vec<Pick>)| share.violation.as_ref().is_some_and(|new| new.1 < known.1);
            if found_violation.is_none() || found_violation.as_ref().is_some_and(earlier) {
                found_violation = share.violation.take().or(found_violation);
            }
        }
    }
    Found {
        violation: found_violation,
        graph,
        complete: layer.is_empty(),
        depth,
        transitions,
        actions,
        took: began.elapsed(),
        met,
    }
}

fn expand_layer(model: &Model, bounds: &Bounds, visited: &Visited, layer: &[(u32, State)]) -> Vec<Share> {
    const CHUNK: usize = 16;
    let taken = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = || {
        (bounds.prepare)();
        let mut share = Share { met: vec![0; Kind::ALL.len()], ..Share::default() };
        loop {
            let from = taken.fetch_add(CHUNK, Ordering::Relaxed);
            if from >= layer.len() || stop.load(Ordering::Relaxed) {
                return share;
            }
            for (number, state) in &layer[from..(from + CHUNK).min(layer.len())] {
                expand(model, visited, *number, state, &mut share);
            }
            if share.violation.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    if layer.len() < 2 * CHUNK || bounds.threads == 1 {
        return vec![work()];
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..bounds.threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

/// Every turn that can come of one state: each choice of the environment at each point of it.
fn expand(model: &Model, visited: &Visited, number: u32, state: &State, share: &mut Share) {
    let one_fault_used = model.faults == 2 && state.faults_left == 1;
    let mut second = 0;
    let mut open: Vec<Vec<Pick>> = vec![Vec::new()];
    while let Some(picks) = open.pop() {
        let mut run = Run::new(model, state.clone(), Chooser::script(&picks));
        go(&mut run);
        share.transitions += 1;
        share.actions += run.actions;
        if let Chooser::Script(script) = &run.chooser {
            for point in &script.open {
                for alternative in 1..point.alternative {
                    open.push(picks.iter().copied().chain([Pick { point: point.point, alternative }]).collect());
                }
            }
        }
        run.met.iter().for_each(|kind| share.met[*kind as usize] += 1);
        if let Some(violation) = run.violation {
            share.violation.get_or_insert((violation, number, picks));
            return;
        }
        let (elapsed, mut after) = (run.state.now - state.now, run.state);
        let (to, new) = visited.number(canonical(&mut after));
        match (run.met.as_slice(), one_fault_used) {
            ([first], false) if model.faults == 2 => share.first.push((to, first.bit())),
            ([first, then], false) => share.both.get_or_insert_with(Pairs::new).meet(*first, *then),
            ([], true) => share.onward.push((number, to)),
            ([then], true) => second |= then.bit(),
            _ => {}
        }
        if picks.is_empty() {
            share.calm.push((number, to, elapsed as u32));
        }
        if new {
            share.new.push((to, Node { parent: number, picks: pack(&picks), marks: marks(model, &after) }, after));
        }
    }
    if second != 0 {
        share.second.push((number, second));
    }
}

/// Runs the turn; the core's own assertions are promises too.
pub fn go(run: &mut Run<'_, '_>) {
    let ended = catch_unwind(AssertUnwindSafe(|| run.go()));
    if let Err(panic) = ended {
        let told = panic.downcast_ref::<String>().cloned();
        let told = told.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        run.violate("panic", told);
    }
}

/// At most four choices of a turn, 16 bits each: 9 for the point, 7 for the alternative.
fn pack(picks: &[Pick]) -> u64 {
    assert!(picks.len() <= 4, "more than four choices in one turn");
    picks.iter().enumerate().fold(0, |all, (index, pick)| {
        assert!(pick.point < 512 && pick.alternative < 128, "{pick:?} can't be packed");
        all | u64::from(pick.point << 7 | pick.alternative) << (16 * index)
    })
}

pub fn unpack(packed: u64) -> Vec<Pick> {
    let parts = (0..4).map(|index| (packed >> (16 * index)) as u16).filter(|part| *part != 0);
    parts.map(|part| Pick { point: part >> 7, alternative: part & 127 }).collect()
}

/// The way to a state, told step by step, then one more turn.
pub fn explain(model: &Model, graph: &Graph, to: u32, then: &[Pick]) -> Vec<String> {
    let mut turns = vec![then.to_vec()];
    let mut at = to;
    while at != 0 {
        let node = &graph.nodes[at as usize];
        turns.push(unpack(node.picks));
        at = node.parent;
    }
    let mut state = model.first();
    canonical(&mut state);
    let mut lines = Vec::new();
    for (number, picks) in turns.iter().rev().enumerate() {
        lines.push(format!("turn {}", number + 1));
        let mut run = Run::new(model, state, Chooser::script(picks));
        run.trace = Some(Vec::new());
        go(&mut run);
        lines.extend(run.trace.unwrap_or_default());
        state = run.state;
        if run.violation.is_none() {
            canonical(&mut state);
        }
    }
    lines.extend(super::graph::truth(&state));
    lines
}
