//! The model checker: the real core, breadth-first through every state that so many faults can lead to.
//!
//! A state is what there is between two turns: the world, journals, processes and the calls under way
//! (`model/state.rs`). From each one a turn of the core is run once for every choice that the
//! environment has at any of its points (`chooser.rs`, `outside.rs`), with what truly happens and what
//! is answered (`run.rs`, `effects.rs`); the simulator's oracle judges by what truly is. States that
//! no rule can tell apart are one (`canon.rs`, `fields.rs`): time enters relative to now and ids by
//! their order. So the space closes: a rotation without faults leads back to where the one before
//! led, and what holds, holds for any number of rotations. That each state comes to rest is read off
//! the whole graph (`graph.rs`); beyond two faults there is a walk by chance (`walk.rs`).
//!
//! Stateright (0.31) was tried on the same states and turns: one fault gives the same 4,920 states and
//! 7,136 transitions in 0.96 s, this search takes 0.51 s, since there a turn is run once to tell its
//! choices and again to take each. It identifies states by 64 bits, and its `eventually` does not see a
//! circle: of the 181 states that wait for a person for ever it told none, and L1 to L3 are about these.
//!
//! What is left out: clocks that go wrong (the simulator has them), turns of two installations that
//! overlap, and changes of anything but the deliveries.
//!
//! `cargo test --all-features --test model -- --nocapture` prints what was met; with `ROTAD_MODEL_LONG`
//! set it goes all the way, as `.ci/long model` does. With `breakages`, `checked.rs` checks the checker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // test code outside of `#[test]` functions

#[path = "model/canon.rs"]
mod canon;
#[cfg(feature = "breakages")]
#[path = "model/checked.rs"]
mod checked;
#[path = "model/chooser.rs"]
mod chooser;
#[path = "model/effects.rs"]
mod effects;
#[path = "model/faults.rs"]
mod faults;
#[path = "model/fields.rs"]
mod fields;
#[path = "model/graph.rs"]
mod graph;
#[path = "model/outside.rs"]
mod outside;
#[path = "model/run.rs"]
mod run;
#[path = "model/search.rs"]
mod search;
#[allow(dead_code)] // shared with `simulation.rs`, which uses other parts
#[path = "simulation/mod.rs"]
mod simulator;
#[path = "model/state.rs"]
mod state;
#[path = "model/walk.rs"]
mod walk;

use faults::Kind;
use search::{Bounds, Found, explain, search};
use state::Model;

/// How deep two faults are followed in a run of CI; all the way in `.ci/long`.
const TURNS_OF_TWO_FAULTS: u32 = 7;
/// What a search may take, in MiB.
const MEMORY_MAX: u64 = 8 * 1024;
/// The steps of the walk in a run of CI, and in `.ci/long`.
const STEPS: u64 = 500_000;
const STEPS_LONG: u64 = 10_000_000;

fn is_long() -> bool {
    std::env::var_os("ROTAD_MODEL_LONG").is_some()
}

fn bounds() -> Bounds {
    Bounds { threads: 2, states: 40_000_000, turns: u32::MAX, prepare: || {} }
}

/// The most memory that this process ever held, in MiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Prints what came of a search; fails with the trace of a violation.
fn report(name: &str, model: &Model, found: &Found) {
    let Found { graph, depth, transitions, actions, took, complete, .. } = found;
    let states = graph.nodes.len();
    let (took, whole) = (took.as_secs_f64(), if *complete { "all of them" } else { "as deep as asked" });
    println!(
        "{name}: {states} states, {depth} turns deep, {whole}; {transitions} transitions, {actions} actions of the core, {took:.1} s, {} MiB",
        memory()
    );
    assert!(memory() < MEMORY_MAX, "{} MiB: as much as a machine of a developer has to spare", memory());
    let met = Kind::ALL.iter().zip(&found.met).map(|(kind, count)| format!("{kind:?} {count}"));
    println!("  {}", met.collect::<Vec<_>>().join(", "));
    if let Some((violation, from, picks)) = &found.violation {
        panic!("{}: {}\n{}", violation.promise, violation.detail, explain(model, graph, *from, picks).join("\n"));
    }
    let calm = graph.calm_down();
    println!(
        "  when nothing more goes wrong: served within {} s, at rest within {} s ({} s where nothing excuses a second token); {} states wait for a person, of {} it is not known",
        calm.served.0 / 1000,
        calm.rested.0 / 1000,
        calm.rested_unexcused.0 / 1000,
        calm.blocked,
        calm.open
    );
    if let Some((promise, at)) = calm.broken {
        panic!("{promise} does not hold from here on\n{}", explain(model, graph, at, &[]).join("\n"));
    }
}

#[test]
fn one_process_and_one_fault() {
    let model = Model::new(1);
    let found = search(&model, &bounds());
    report("one process, one fault", &model, &found);
    assert!(found.complete);
}

#[test]
fn one_process_and_two_faults() {
    let model = Model::new(2);
    let turns = if is_long() { u32::MAX } else { TURNS_OF_TWO_FAULTS };
    let found = search(&model, &Bounds { turns, ..bounds() });
    report("one process, two faults", &model, &found);
    let pairs = found.graph.pairs();
    println!("{}", pairs.table());
    assert!(found.complete || !is_long());
    // A request of which nothing came is looked for so often that the next revocation is further away.
    let deeper = |pair: &(Kind, Kind)| !is_long() && pair.0 == Kind::IssueLostNotDone && pair.1.is_of_a_revocation();
    let missing: Vec<(Kind, Kind)> = pairs.missing().into_iter().filter(|pair| !deeper(pair)).collect();
    assert!(missing.is_empty(), "pairs that were not met: {missing:?}");
}

/// The next process begins while a call of the one before is under way, anywhere.
#[test]
fn a_process_takes_over_and_one_fault() {
    let model = Model { takeovers: 1, ..Model::new(1) };
    let found = search(&model, &Bounds { turns: if is_long() { u32::MAX } else { 6 }, ..bounds() });
    report("two processes, one fault", &model, &found);
    assert!(found.complete || !is_long());
}

/// A second installation of the same name and configuration, with a journal of its own, begins
/// between any two turns.
#[test]
fn a_second_installation_and_one_fault() {
    let model = Model { newcomers: 1, ..Model::new(1) };
    let found = search(&model, &Bounds { turns: if is_long() { u32::MAX } else { 6 }, ..bounds() });
    report("two installations, one fault", &model, &found);
    assert!(found.complete || !is_long());
}

#[test]
fn a_store_without_conditional_writes() {
    let model = Model { unconditional: true, ..Model::new(1) };
    let found = search(&model, &bounds());
    report("no conditional writes, one fault", &model, &found);
    assert!(found.complete);
}

#[test]
fn a_walk_through_fault_after_fault() {
    let steps = if is_long() { STEPS_LONG } else { STEPS };
    let walkers = std::thread::scope(|scope| {
        let walk = |seed| scope.spawn(move || walk::walk(&Model::new(u8::MAX), seed, steps / 2));
        [walk(1), walk(2)].map(|walker| walker.join().unwrap())
    });
    for (seed, walked) in (1..).zip(walkers) {
        let walk::Walked { steps, turns, rests, longest_to_rest, .. } = walked;
        let longest = longest_to_rest / 1000;
        println!("walk {seed}: {steps} steps, {turns} turns, came to rest {rests} times, within {longest} s, {} MiB", memory());
        let met = Kind::ALL.iter().zip(&walked.met).map(|(kind, count)| format!("{kind:?} {count}"));
        println!("  {}", met.collect::<Vec<_>>().join(", "));
        if let Some((violation, lines)) = walked.violation {
            panic!("walk {seed}: {}: {}\n{}", violation.promise, violation.detail, lines.join("\n"));
        }
        assert!(walked.met.iter().all(|count| *count > 0), "a kind of fault was never met");
    }
}

#[test]
fn the_canonical_form_changes_nothing() {
    for seed in 0..40 {
        walk::compare_forms(&Model::new(u8::MAX), seed, 150);
    }
}
