//! A seeded simulator of the whole engine: the daemon's own scheduler, workers, limits and clocks, in
//! simulated time, against a simulated API, places and journal. Everything of a history follows from
//! its seed.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helper code of tests: what is missing here is a fault of the simulator

pub mod api;
pub mod blast;
pub mod claim;
pub mod director;
pub mod journal;
pub mod judge;
pub mod matrix;
pub mod outside;
pub mod panics;
pub mod places;
pub mod play;
pub mod setup;
pub mod shrink;
pub mod soak;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use director::Director;
use matrix::Matrix;
use setup::{Setup, Switches};
use world::World;

use crate::simulator::oracle::Violation;
use crate::simulator::world::{DAY, Ms};

/// What came of one history.
#[derive(Debug)]
pub struct Report {
    pub violation: Option<Violation>,
    pub hash: u64,
    pub matrix: Matrix,
    /// Credentials times simulated days.
    pub days: f64,
    pub turns: u64,
    pub rotations: u64,
    pub revocations: u64,
    pub urgent: u64,
    /// The most rotations and revocations within a minute, as shares of their limits.
    pub blast: (f64, f64),
    pub most_live: usize,
    pub busiest_hour: usize,
    pub trace: Vec<(Option<usize>, String)>,
}

/// Which kind of history a seed makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dense,
    Long,
}

impl Kind {
    pub fn title(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Long => "long",
        }
    }

    pub fn setup(self, seed: u64, switches: &Switches) -> Setup {
        match self {
            Self::Dense => Setup::dense(seed, switches),
            Self::Long => Setup::long(seed, switches),
        }
    }
}

/// A runtime of one thread in simulated time.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Runs the history of `seed`; with `traced` its last events are kept as text.
pub fn run(kind: Kind, seed: u64, switches: &Switches, traced: bool) -> Report {
    panics::watch();
    let _ = panics::take();
    let setup = kind.setup(seed, switches);
    let runtime = runtime();
    let mut director = runtime.block_on(async { Director::new(setup, traced) });
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(director.run())));
    panics::unwatch();
    let report = match ended {
        Ok(()) => runtime.block_on(async { report(&mut director.sim.world()) }),
        Err(_) => panicked(panics::take().unwrap_or_default()),
    };
    drop(director);
    report
}

fn report(world: &mut World) -> Report {
    let most = world.blast.most();
    Report {
        violation: world.violation.clone(),
        hash: world.hash,
        matrix: std::mem::take(&mut world.matrix),
        days: world.now as f64 / DAY as f64 * world.actors.len() as f64,
        turns: world.turns,
        rotations: world.blast.all_rotations,
        revocations: world.blast.all_revocations,
        urgent: world.blast.urgent,
        blast: (
            most.0 as f64 / f64::from(world.blast.rotations_per_minute),
            most.1 as f64 / f64::from(world.blast.revocations_per_minute),
        ),
        most_live: world.most_live,
        busiest_hour: world.busiest_hour,
        trace: std::mem::take(&mut world.trace).into(),
    }
}

fn panicked(detail: String) -> Report {
    let violation = Some(Violation { promise: "panic", detail, at: 0 as Ms });
    Report {
        violation,
        hash: 0,
        matrix: Matrix::default(),
        days: 0.0,
        turns: 0,
        rotations: 0,
        revocations: 0,
        urgent: 0,
        blast: (0.0, 0.0),
        most_live: 0,
        busiest_hour: 0,
        trace: Vec::new(),
    }
}
