//! The core under a seeded simulator: every promise of the design, checked against what truly is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // test code outside of `#[test]` functions

#[allow(dead_code)] // shared with `breakages.rs`, which uses other parts
#[path = "simulation/mod.rs"]
mod simulator;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use simulator::coverage::Coverage;
use simulator::{Shape, explain, run_as};

/// Run however slow the machine is, so that what must be met is met.
const HISTORIES_MIN: u64 = 250;

#[test]
fn a_seed_given_by_the_environment_is_replayed() {
    let Ok(seed) = std::env::var("ROTAD_SIMULATION_SEED") else { return };
    let shape = Shape { quick: std::env::var_os("ROTAD_SIMULATION_QUICK").is_some(), ..Shape::default() };
    let report = run_as(seed.parse().unwrap(), true, &shape);
    println!("{}", explain(seed.parse().unwrap(), &shape));
    assert!(report.violation.is_none());
}

#[test]
fn a_history_replays_exactly() {
    for seed in 0..100 {
        let shape = Shape { quick: seed % 4 > 0, ..Shape::default() };
        let (first, second) = (run_as(seed, false, &shape), run_as(seed, true, &shape));
        assert_eq!(first.hash, second.hash, "seed {seed} ran differently the second time");
    }
}

#[test]
fn every_promise_holds_in_every_history() {
    soak(Shape::default(), 0.7);
    soak(Shape { quick: true, ..Shape::default() }, 0.3);
}

/// Runs histories of one shape for its share of the time, and tells what they met.
fn soak(shape: Shape, share: f64) {
    let first: u64 = std::env::var("ROTAD_SIMULATION_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seconds: u64 = std::env::var("ROTAD_SIMULATION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let until = Instant::now() + Duration::from_secs_f64(seconds as f64 * share);
    let (mut histories, mut days, mut turns, mut busiest, mut longest) = (0_u64, 0.0, 0, 0, (0, 0));
    let mut coverage = Coverage::default();
    // By promise: the first seed, and how many.
    let mut broken: BTreeMap<&str, (u64, u32)> = BTreeMap::new();
    while Instant::now() < until || histories < HISTORIES_MIN {
        let report = run_as(first + histories, false, &shape);
        if let Some(violation) = report.violation {
            broken.entry(violation.promise).or_insert((first + histories, 0)).1 += 1;
        }
        histories += 1;
        days += report.days;
        turns += report.turns;
        busiest = busiest.max(report.busiest_hour);
        longest = longest.max((report.turns, first + histories - 1));
        coverage.add(&report.coverage);
    }
    println!("{histories} histories, {:.0} credential-years, {turns} turns, at most {busiest} in an hour", days / 365.25);
    println!("the longest history: seed {}, {} turns", longest.1, longest.0);
    println!("{}", coverage.table());
    println!("broken: {broken:?}");
    if let Some((seed, _)) = broken.values().next() {
        panic!("{}", explain(*seed, &shape));
    }
    assert!(shape.quick || coverage.missing().is_empty(), "never met: {:?}", coverage.missing());
}
