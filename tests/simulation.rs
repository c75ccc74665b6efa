//! The core under a seeded simulator: every promise of the design, checked against what truly is.

#[allow(dead_code)] // shared with `breakages.rs`, which uses other parts
#[path = "simulation/mod.rs"]
mod simulator;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use simulator::coverage::Coverage;
use simulator::{Shape, explain, run};

#[test]
fn a_seed_given_by_the_environment_is_replayed() {
    let Ok(seed) = std::env::var("ROTAD_SIMULATION_SEED") else { return };
    let seed = seed.parse().unwrap();
    let report = run(seed, true);
    println!("{}", explain(seed, &Shape::default()));
    assert!(report.violation.is_none());
}

#[test]
fn a_history_replays_exactly() {
    for seed in 0..100 {
        let (first, second) = (run(seed, false), run(seed, true));
        assert_eq!(first.hash, second.hash, "seed {seed} ran differently the second time");
    }
}

#[test]
fn every_promise_holds_in_every_history() {
    let first: u64 = std::env::var("ROTAD_SIMULATION_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seconds: u64 = std::env::var("ROTAD_SIMULATION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut histories, mut days, mut turns, mut busiest) = (0_u64, 0.0, 0, 0);
    let mut coverage = Coverage::default();
    // By promise: the first seed, and how many.
    let mut broken: BTreeMap<&str, (u64, u32)> = BTreeMap::new();
    while Instant::now() < until {
        let report = run(first + histories, false);
        if let Some(violation) = report.violation {
            broken.entry(violation.promise).or_insert((first + histories, 0)).1 += 1;
        }
        histories += 1;
        days += report.days;
        turns += report.turns;
        busiest = busiest.max(report.busiest_hour);
        coverage.add(&report.coverage);
    }
    println!("{histories} histories, {:.0} credential-years, {turns} turns, at most {busiest} in an hour", days / 365.25);
    println!("{}", coverage.table());
    println!("broken: {broken:?}");
    if let Some((seed, _)) = broken.values().next() {
        panic!("{}", explain(*seed, &Shape::default()));
    }
    assert!(coverage.missing().is_empty(), "never met: {:?}", coverage.missing());
}
