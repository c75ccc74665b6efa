//! Many histories at once, and what came of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::matrix::{Fault, Matrix, Step};
use super::setup::{Switches, steered_seed};
use super::shrink::shrink;
use super::{Kind, Report, run};

/// As many histories of a round are steered to each cell that was met too seldom.
const STEERED_EACH: u64 = 2;

pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(format!("ROTAD_ENGINE_{name}")).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What came of many histories.
#[derive(Default)]
pub struct Soaked {
    histories: u64,
    pub days: f64,
    turns: u64,
    rotations: u64,
    revocations: u64,
    urgent: u64,
    blast: (f64, f64),
    most_live: usize,
    busiest_hour: usize,
    pub matrix: Matrix,
    /// By seed: the promise and what was found.
    broken: BTreeMap<u64, String>,
}

impl Soaked {
    /// Runs the histories of these seeds on every core. What comes of them follows from the seeds alone.
    pub fn run(&mut self, kind: Kind, seeds: &[u64]) {
        let (next, soaked) = (AtomicUsize::new(0), Mutex::new(self));
        let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let report = run(kind, *seed, &Switches::default(), false);
                        soaked.lock().unwrap().add(*seed, report);
                    }
                });
            }
        });
    }

    /// Runs histories that are steered to what was met less than `least` times, until nothing is, in
    /// at most `rounds` rounds.
    pub fn fill(&mut self, least: u64, rounds: u64) {
        for round in 0..rounds {
            let short = self.matrix.short_of(least);
            let numbers = || (0..STEERED_EACH).map(|number| round * STEERED_EACH + number);
            let seeds = |(fault, step, _): &(Fault, Step, u64)| {
                numbers().filter_map(|number| steered_seed((*fault, *step), number)).collect::<Vec<_>>()
            };
            self.run(Kind::Dense, &short.iter().flat_map(seeds).collect::<Vec<_>>());
        }
    }

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

    /// Tells what came of it.
    ///
    /// # Panics
    /// With a shortened trace of the first history that broke a promise.
    pub fn tell(&self, kind: Kind) {
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

/// Runs the first histories of one kind; `ROTAD_ENGINE_FIRST` is the first one's seed.
pub fn soak(kind: Kind, histories: u64) -> Soaked {
    let first = number("FIRST", 1);
    let mut soaked = Soaked::default();
    soaked.run(kind, &(first..first + histories).collect::<Vec<_>>());
    soaked
}
