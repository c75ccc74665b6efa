//! A scrape of 100,000 credentials: how long it takes, how much text it is, and what it adds to the
//! process's peak of memory. `cargo bench --bench scrape`
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints what it found, and ends if it can't run")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rotad::metrics::{Exposition, Metrics};
use rotad::rotation::{Moment, Steady};
use rotad::snapshot::{Board, CredentialState, Summary};

const CREDENTIALS: u32 = 100_000;
const SCRAPES: usize = 11;

fn main() {
    let now = Moment { wall: Timestamp::from_second(1_790_000_000).expect("a valid moment"), steady: Steady(0) };
    let at = |second: i64| Timestamp::from_millisecond(1_790_000_000_123 + second * 1000).expect("a valid moment").into();
    let metrics = Metrics::new().expect("the catalogue is well formed");
    let empty = resident_kib("VmRSS");
    let board = Board::new(now);
    let main = board.organization("main");
    for number in 0..CREDENTIALS {
        let summary = Summary {
            state: CredentialState::Current,
            expires_at: at(i64::from(number)),
            due_at: at(i64::from(number) / 2),
            deadline_at: at(i64::from(number) / 3),
            last_success_at: at(-i64::from(number)),
            ..Summary::new(main)
        };
        board.put(&format!("credential-{number:06}").parse().expect("a valid name"), summary);
    }
    let board = Arc::new(board);
    let filled = resident_kib("VmRSS");
    let mut bytes = 0;
    let mut times: Vec<_> = (0..SCRAPES)
        .map(|_| {
            let (start, ran) = (Instant::now(), processor_time());
            bytes = Exposition::new(&metrics, Arc::clone(&board), now, true).map(|portion| portion.len()).sum();
            (processor_time() - ran, start.elapsed())
        })
        .collect();
    times.sort();
    let text = Instant::now();
    let snapshot = board.snapshot(now);
    println!("credentials           {CREDENTIALS}");
    println!("text of a scrape      {:.1} MB", f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1e6);
    let (processor, elapsed) = times[SCRAPES / 2];
    println!("a scrape              {processor:?} of processor time, {elapsed:?} elapsed (median of {SCRAPES})");
    println!("a snapshot's totals   {:?} ({} current)", text.elapsed(), snapshot.credentials.of(CredentialState::Current));
    println!("the board             {} KiB resident", filled.saturating_sub(empty));
    println!("peak above the board  {} KiB", resident_kib("VmHWM").saturating_sub(filled));
}

/// How long this thread ran: on a busy machine that says more than the time that passed.
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
    Duration::from_nanos(statistics.split(' ').next().and_then(|ran| ran.parse().ok()).expect("nanoseconds"))
}

/// A line of this process's `/proc/self/status`, in KiB.
fn resident_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("a number of KiB")
}
