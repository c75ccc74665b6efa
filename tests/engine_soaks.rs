//! The engine's simulator at length: every fault at every step, often, and fleets through thousands of years.
//! It takes too long for every run of the tests; `.ci/long engine_simulation` runs it.
//!
//! `ROTAD_ENGINE_FIRST`, `ROTAD_ENGINE_DENSE` and `ROTAD_ENGINE_LONG` choose the first seed and how many histories of each
//! kind are run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // test code outside of `#[test]` functions

#[allow(dead_code)] // what only the scenarios use
#[path = "engine_simulation/mod.rs"]
mod engine;
#[allow(dead_code)] // its oracle and its random numbers are used here
#[path = "simulation/mod.rs"]
mod simulator;

use engine::Kind;
use engine::soak::{number, soak};

/// So many that every cell of the matrix is met often enough.
const DENSE: u64 = 1200;
const LONG: u64 = 5;
/// How often each fault must have met each step.
const LEAST: u64 = 100;
const CREDENTIAL_YEARS_LEAST: f64 = 10_000.0;

#[test]
fn every_promise_holds_whatever_fault_meets_whatever_step() {
    let soaked = soak(Kind::Dense, number("DENSE", DENSE));
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
