//! Killed at every step boundary, and at random moments: each time the next start finishes what was
//! under way.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rotad::fail_point::Point;
use rustix::process::Signal;

use crate::bench::{Bench, PATIENCE, PER_MINUTE};

/// How many kills there are when `ROTAD_KILLS` does not say.
const KILLS: usize = 40;
/// A write that a crash cut off keeps its credential waiting for a minute or two, as long as it could
/// land or not show yet: there are others that reach the next point meanwhile.
const CREDENTIALS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// How one life of the daemon ends.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// At the `u32`-th passing of the point since the start.
    At(Point, u32),
    /// So long after the start.
    After(Duration),
}

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % end
    }
}

/// How many different passings of a point are worth a kill: some come once in a life, some a dozen
/// times in a rotation.
fn passings(point: Point) -> u32 {
    match point {
        Point::JournalMade | Point::JournalOpened | Point::ScheduleLoaded => 1,
        Point::TurnBegun | Point::TurnSaved | Point::BeforeList | Point::AfterList => 4,
        Point::BeforeSave | Point::BeforeCommit | Point::AfterCommit | Point::BeforeRead | Point::AfterRead => 12,
        Point::BeforeWrite | Point::AfterWrite => 3,
        Point::BeforeIssue
        | Point::AfterIssue
        | Point::BeforeVerify
        | Point::AfterVerify
        | Point::BeforeRevoke
        | Point::AfterRevoke
        | Point::AwsPut
        | Point::VaultMarked
        | Point::FileClaimed
        | Point::FilePrepared
        | Point::FileMarked
        | Point::FileLanded
        | Point::Draining
        | Point::Drained => 1,
    }
}

/// When in the plan a kill comes. A write that is cut off holds its credential up for as long as the
/// write's time limits say: AWS's are the longest, so they begin before the random kills; the others come last.
fn order(kill: &Kill) -> u32 {
    match kill {
        Kill::At(Point::BeforeWrite | Point::AfterWrite | Point::AwsPut, _) => 1,
        Kill::After(_) => 2,
        Kill::At(Point::VaultMarked | Point::FileClaimed | Point::FilePrepared | Point::FileMarked | Point::FileLanded, _) => 3,
        Kill::At(..) => 0,
    }
}

/// So many kills: at each point once and at random moments, `KILLS` in all, and then that again with
/// other passings and other moments.
fn plan(kills: usize) -> Vec<Kill> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut plan = Vec::new();
    while plan.len() < kills {
        // A new journal is made once: see `first_start`.
        let points = Point::ALL.iter().filter(|point| **point != Point::JournalMade);
        let mut round: Vec<Kill> = points.map(|point| Kill::At(*point, 1 + random.below(passings(*point)))).collect();
        while round.len() < KILLS {
            round.push(Kill::After(Duration::from_millis(u64::from(200 + random.below(3000)))));
        }
        round.sort_by_key(order);
        plan.extend(round);
    }
    plan.truncate(kills);
    assert!(kills >= KILLS, "with fewer kills than {KILLS} a point would be left out");
    plan
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_every_step_boundary_and_at_random_moments_it_breaks_no_consumer() {
    let plan = plan(std::env::var("ROTAD_KILLS").map_or(KILLS, |number| number.parse().unwrap()));
    let bench = Bench::start_fleet(&CREDENTIALS, "8s", "2s").await;
    let watch = bench.watch();
    let mut rotad = bench.rotad();
    bench.until("the first revocations", || bench.revoked() >= CREDENTIALS.len()).await;
    rotad.kill();
    for (number, kill) in plan.iter().enumerate() {
        let began = Instant::now();
        end_by(&bench, *kill).await;
        let took = began.elapsed().as_millis();
        let tokens = bench.tells_the_state();
        bench.keeps_its_secrets(true);
        println!("kill {:>3}: {kill:?}, after {took} ms, with {tokens} tokens", number + 1);
    }
    println!("{} kills, at each of {} points and at random moments", plan.len(), Point::ALL.len() - 1);
    let mut rotad = bench.rotad();
    bench.goes_on().await;
    rotad.stop();
    bench.keeps_its_secrets(false);
    let [rotations, revocations] = bench.holds_the_limits();
    println!("at most {rotations} rotations and {revocations} revocations in a minute, of {PER_MINUTE} allowed");
    println!("{:?}", watch.judge(&bench.stand_in));
}

/// Starts the daemon and sees it killed.
async fn end_by(bench: &Bench, kill: Kill) {
    let mut rotad = match kill {
        Kill::After(pause) => {
            let mut rotad = bench.rotad();
            tokio::time::sleep(pause).await;
            assert!(rotad.ended().is_none(), "it ended by itself:\n{}", bench.log_text());
            rotad.kill();
            return;
        }
        Kill::At(point, passing) => {
            let rotad = bench.rotad_failing_at(&format!("{point:?}:{passing}:kill"));
            if matches!(point, Point::Draining | Point::Drained) {
                // Told to stop when turns are under way, as they are soon after a start.
                tokio::time::sleep(Duration::from_secs(1)).await;
                rotad.signal(Signal::TERM);
            }
            rotad
        }
    };
    let patience = Instant::now() + PATIENCE;
    loop {
        if let Some(ended) = rotad.ended() {
            assert_eq!(ended.signal(), Some(9), "it did not end by {kill:?}, but {ended}:\n{}", bench.log_text());
            return;
        }
        assert!(Instant::now() < patience, "{kill:?} was never met:\n{}", bench.log_text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn no_build_for_production_has_fail_points() {
    let manifest = include_str!("../../Cargo.toml");
    assert!(manifest.contains("\ndefault = [\"stand-in\"]\n") && manifest.contains("\nfail-points = []\n"));
    // `tests/packaging.rs` holds that the image is built without any feature.
    let source = include_str!("../../src/fail_point.rs");
    assert!(source.contains("#[cfg(not(feature = \"fail-points\"))]\n#[inline]\npub const fn pass(_: Point) {}\n"));
}
