//! The whole engine under a seeded simulator, in simulated time: the field's known failures one by one, and the first
//! of the histories that `tests/engine_soaks.rs` goes on with, checked against what truly is.
//!
//! `ROTAD_ENGINE_SEED` and its like replay one history.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // test code outside of `#[test]` functions

#[cfg(feature = "breakages")]
#[path = "engine_simulation/checked.rs"]
mod checked;
#[path = "engine_simulation/mod.rs"]
mod engine;
#[path = "engine_simulation/failures.rs"]
mod failures;
#[path = "engine_simulation/organization.rs"]
mod organization;
#[allow(dead_code)] // its oracle and its random numbers are used here
#[path = "simulation/mod.rs"]
mod simulator;
#[path = "engine_simulation/times.rs"]
mod times;

use engine::setup::Switches;
use engine::shrink::{given, shrink};
use engine::soak::{number, soak};
use engine::{Kind, run};

/// Histories that every run of the tests goes through; the matrix that they fill is printed, and has gaps.
const DENSE: u64 = 60;
/// Histories that are run twice.
const REPLAYED: u64 = 100;

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
fn every_promise_holds_in_the_first_histories() {
    let soaked = soak(Kind::Dense, number("DENSE", DENSE));
    println!("{}\nnot met by these: {:?}", soaked.matrix.table(), soaked.matrix.short_of(1));
    soaked.tell(Kind::Dense);
}
