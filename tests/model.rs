//! The model checker: the real core, breadth-first through every state that so many faults can lead to.
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

use std::time::Duration;

use faults::Kind;
use search::{Bounds, Found, explain, search};
use state::Model;

fn bounds() -> Bounds {
    Bounds { threads: 2, states: 30_000_000, time: Duration::from_secs(600), prepare: || {} }
}

/// Prints what came of a search; fails with the trace of a violation.
fn report(name: &str, model: &Model, found: &Found) {
    let Found { graph, depth, transitions, actions, took, .. } = found;
    println!(
        "{name}: {} states, {depth} turns deep, {transitions} transitions, {actions} actions of the core, {:.1} s, complete: {}",
        graph.nodes.len(),
        took.as_secs_f64(),
        found.complete
    );
    for (kind, count) in Kind::ALL.iter().zip(&found.met) {
        print!("{kind:?} {count}; ");
    }
    println!();
    if let Some((violation, from, picks)) = &found.violation {
        panic!("{}: {}\n{}", violation.promise, violation.detail, explain(model, graph, *from, picks).join("\n"));
    }
    let calm = graph.calm_down();
    println!(
        "without more faults: served after at most {} s, at rest after at most {} s ({} s unexcused); {} wait for a person, {} open",
        calm.served.0 / 1000,
        calm.rested.0 / 1000,
        calm.rested_unexcused.0 / 1000,
        calm.blocked,
        calm.open
    );
    if let Some((promise, at)) = calm.broken {
        panic!("{promise} does not hold\n{}", explain(model, graph, at, &[]).join("\n"));
    }
}

#[test]
fn one_process_and_one_fault() {
    let model = Model::new(1);
    let found = search(&model, &bounds());
    report("one fault", &model, &found);
    assert!(found.complete);
}

#[test]
fn one_process_and_two_faults() {
    let model = Model::new(2);
    let found = search(&model, &bounds());
    report("two faults", &model, &found);
    println!("{}", graph_pairs(&found));
}

fn graph_pairs(found: &Found) -> String {
    let pairs = found.graph.pairs();
    format!("{}\nmissing: {:?}", pairs.table(), pairs.missing())
}

#[test]
fn a_walk() {
    let model = Model::new(u8::MAX);
    let walked = walk::walk(&model, 1, 100_000);
    println!("{} steps, {} turns, {} rests, {:?}", walked.steps, walked.turns, walked.rests, walked.met);
    if let Some((violation, lines)) = walked.violation {
        panic!("{}: {}\n{}", violation.promise, violation.detail, lines.join("\n"));
    }
}
