//! The whole engine under a seeded simulator, in simulated time, checked against what truly is: the field's known
//! failures one by one, every fault at every step, and fleets through thousands of years.
//!
//! `ROTAD_ENGINE_SEED` and its like replay one history; `ROTAD_ENGINE_FIRST`, `ROTAD_ENGINE_DENSE` and `ROTAD_ENGINE_LONG`
//! choose the first seed and how many histories of each kind are run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // test code outside of `#[test]` functions

#[cfg(feature = "breakages")]
#[path = "engine_simulation/checked.rs"]
mod checked;
#[path = "engine_simulation/mod.rs"]
mod engine;
#[path = "engine_simulation/failures.rs"]
mod failures;
#[allow(dead_code)] // what concerns batches is for those that have them
#[path = "support/journal_contract.rs"]
mod journal_contract;
#[path = "engine_simulation/organization.rs"]
mod organization;
#[allow(dead_code)] // its oracle and its random numbers are used here
#[path = "simulation/mod.rs"]
mod simulator;
#[path = "engine_simulation/times.rs"]
mod times;

use std::sync::Arc;

use engine::journal::Kept;
use engine::setup::Switches;
use engine::shrink::{given, shrink};
use engine::soak::{number, soak};
use engine::{Kind, run};
use journal_contract::{Commits, Opened};

/// Histories that are steered to many cells of the matrix at once, before those that fill what is left.
const DENSE: u64 = 300;
/// Each brings at least two thousand credential-years.
const LONG: u64 = 5;
/// How often each fault must have met each step.
const LEAST: u64 = 100;
/// A cell that so many rounds don't fill can hardly be met at all.
const ROUNDS_MAX: u64 = 20;
const CREDENTIAL_YEARS_LEAST: f64 = 10_000.0;
/// Histories that are run twice.
const REPLAYED: u64 = 100;

/// What is simulated is a journal as the real ones are.
async fn open_simulated() -> Opened {
    let commits = Arc::new(Commits::default());
    let journal = Arc::new(Kept::new(commits.observer()));
    Opened { journal, commits, _keep: Box::new(()) }
}

journal_contract!(open_simulated, without batches);

#[test]
fn a_seed_given_by_the_environment_is_replayed() {
    let Some((kind, seed, switches)) = given() else { return };
    let shrunk = shrink(kind, seed, &switches);
    println!("{}", shrunk.tell(kind, seed));
    assert!(shrunk.report.violation.is_none());
}

#[test]
fn a_history_replays_exactly() {
    for seed in 0..REPLAYED {
        let switches = Switches::default();
        let (first, second) = (run(Kind::Dense, seed, &switches, false), run(Kind::Dense, seed, &switches, true));
        assert_eq!(first.hash, second.hash, "seed {seed} ran differently the second time");
    }
}

#[test]
fn every_promise_holds_whatever_fault_meets_whatever_step() {
    let mut soaked = soak(Kind::Dense, number("DENSE", DENSE));
    soaked.fill(LEAST, ROUNDS_MAX);
    println!("{}", soaked.matrix.table());
    soaked.tell(Kind::Dense);
    let short = soaked.matrix.short_of(LEAST);
    assert!(short.is_empty(), "met less than {LEAST} times: {short:?}");
}

#[test]
fn every_promise_holds_through_the_years() {
    let soaked = soak(Kind::Long, number("LONG", LONG));
    soaked.tell(Kind::Long);
    let years = soaked.days / 365.25;
    assert!(years >= CREDENTIAL_YEARS_LEAST, "{years:.0} credential-years");
}
