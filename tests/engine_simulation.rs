//! The whole engine under a seeded simulator, in simulated time: every promise of the design, checked
//! against what truly is, with every fault at every step.
//!
//! `ROTAD_ENGINE_SEED` and its like replay one history; `ROTAD_ENGINE_FIRST`, `ROTAD_ENGINE_DENSE` and
//! `ROTAD_ENGINE_LONG` choose the first seed and how many histories of each kind are run.
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

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::matrix::Matrix;
use engine::setup::Switches;
use engine::shrink::{given, shrink};
use engine::{Kind, Report, run};

/// Histories of each kind that CI runs: so many that every cell of the matrix is met often enough.
const DENSE: u64 = 1200;
const LONG: u64 = 5;
/// How often each fault must have met each step.
const LEAST: u64 = 100;
const CREDENTIAL_YEARS_LEAST: f64 = 10_000.0;

#[test]
fn a_seed_given_by_the_environment_is_replayed() {
    let Some((kind, seed, switches)) = given() else { return };
    let shrunk = shrink(kind, seed, &switches);
    println!("{}", shrunk.tell(kind, seed));
    assert!(shrunk.report.violation.is_none());
}

#[test]
fn a_history_replays_exactly() {
    for seed in 0..100 {
        let switches = Switches::default();
        let (first, second) = (run(Kind::Dense, seed, &switches, false), run(Kind::Dense, seed, &switches, true));
        assert_eq!(first.hash, second.hash, "seed {seed} ran differently the second time");
    }
}

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

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(format!("ROTAD_ENGINE_{name}")).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What came of many histories.
#[derive(Default)]
struct Soaked {
    histories: u64,
    days: f64,
    turns: u64,
    rotations: u64,
    revocations: u64,
    urgent: u64,
    blast: (f64, f64),
    most_live: usize,
    busiest_hour: usize,
    matrix: Matrix,
    /// By seed: the promise and what was found.
    broken: BTreeMap<u64, String>,
}

impl Soaked {
    fn add(&mut self, seed: u64, report: Report) {
        if let Some(violation) = &report.violation {
            self.broken.insert(seed, format!("{}: {}", violation.promise, violation.detail));
        }
        self.histories += 1;
        self.days += report.days;
        self.turns += report.turns;
        self.rotations += report.rotations;
        self.revocations += report.revocations;
        self.urgent += report.urgent;
        self.blast = (self.blast.0.max(report.blast.0), self.blast.1.max(report.blast.1));
        self.most_live = self.most_live.max(report.most_live);
        self.busiest_hour = self.busiest_hour.max(report.busiest_hour);
        self.matrix.add(&report.matrix);
    }

    fn tell(&self, kind: Kind) {
        println!(
            "{kind:?}: {} histories, {:.0} credential-years, {} turns, {} rotations ({} at their deadline), {} revocations",
            self.histories,
            self.days / 365.25,
            self.turns,
            self.rotations,
            self.urgent,
            self.revocations
        );
        println!(
            "at most {:.0} % of the rotations and {:.0} % of the revocations that a minute may have; at most {} tokens of one \
             credential alive, {} turns of one within an hour",
            100.0 * self.blast.0,
            100.0 * self.blast.1,
            self.most_live,
            self.busiest_hour
        );
        println!("broken: {:#?}", self.broken);
        if let Some((seed, _)) = self.broken.first_key_value() {
            panic!("{}", shrink(kind, *seed, &Switches::default()).tell(kind, *seed));
        }
    }
}

/// Runs histories of one kind on every core. What comes of it follows from the seeds alone.
fn soak(kind: Kind, histories: u64) -> Soaked {
    let first = number("FIRST", 1);
    let (next, soaked) = (AtomicU64::new(first), Mutex::new(Soaked::default()));
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + histories {
                        break;
                    }
                    let report = run(kind, seed, &Switches::default(), false);
                    soaked.lock().unwrap().add(seed, report);
                }
            });
        }
    });
    soaked.into_inner().unwrap()
}
