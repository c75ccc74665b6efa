//! A seeded simulator of the core: simulated time, API, places, journal and processes, and an
//! oracle that judges by what truly is. Everything of a history follows from its seed.
#![allow(clippy::unwrap_used)] // helper code of tests: what is missing here is a fault of the simulator

pub mod coverage;
pub mod effects;
pub mod ending;
pub mod oracle;
pub mod persons;
pub mod process;
pub mod rng;
pub mod sending;
pub mod setup;
pub mod sim;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use coverage::Coverage;
use oracle::Violation;
use rotad::rotation::Entry;
use setup::Setup;
use sim::Sim;

/// What came of one history.
#[derive(Debug)]
pub struct Report {
    pub violation: Option<Violation>,
    pub hash: u64,
    pub coverage: Coverage,
    /// Credentials times simulated days.
    pub days: f64,
    pub turns: u64,
    pub busiest_hour: u32,
    pub trace: Vec<String>,
}

/// Runs the history of `seed`; with `traced` its last events are kept as text.
pub fn run(seed: u64, traced: bool) -> Report {
    run_as(seed, traced, &Shape::default())
}

/// What narrows histories down to a kind, for what happens too rarely otherwise.
#[derive(Debug, Default, Clone, Copy)]
pub struct Shape {
    /// Short lives of tokens only.
    pub quick: bool,
    /// Changes the faults that were drawn.
    pub faults: Option<fn(&mut setup::Faults)>,
    /// Promises that are not judged, since others mask them.
    pub ignored: &'static [&'static str],
}

pub fn run_as(seed: u64, traced: bool, shape: &Shape) -> Report {
    let mut rng = rng::Rng::new(seed);
    let setup = Setup::draw(&mut rng, shape);
    let mut sim = Sim::new(&setup, rng, traced, shape.ignored);
    let ended = catch_unwind(AssertUnwindSafe(|| sim.run()));
    if let Err(panic) = ended {
        let told = panic.downcast_ref::<String>().cloned();
        let told = told.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        sim.violation = Some(Violation { promise: "panic", detail: told, at: sim.now });
    }
    sim.report()
}

/// The seed's violation with its last events, for people.
pub fn explain(seed: u64, shape: &Shape) -> String {
    let report = run_as(seed, true, shape);
    let Some(violation) = report.violation else { return format!("seed {seed}: no violation") };
    let from = report
        .trace
        .len()
        .saturating_sub(std::env::var("ROTAD_SIMULATION_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(120));
    let mut text = format!("seed {seed}: {} broken at {}: {}\n", violation.promise, clock(violation.at), violation.detail);
    for line in &report.trace[from..] {
        text += line;
        text.push('\n');
    }
    text + &format!("seed {seed}: {} broken at {}: {}", violation.promise, clock(violation.at), violation.detail)
}

/// What was recorded, for a trace.
pub fn in_words(entry: Entry) -> String {
    let ids = [entry.rotation.map(|id| id.to_string()), entry.token.map(|id| id.0), entry.delivery.map(|id| id.to_string())];
    let ids: Vec<String> = ids.into_iter().flatten().collect();
    format!("{} {} {}", entry.what.as_str(), ids.join(" "), entry.detail.unwrap_or_default())
}

pub fn clock(at: world::Ms) -> String {
    let (days, left) = (at / world::DAY, at % world::DAY);
    format!(
        "{days}d{:02}:{:02}:{:02}.{:03}",
        left / world::HOUR,
        left / world::MINUTE % 60,
        left / world::SECOND % 60,
        left % world::SECOND
    )
}
