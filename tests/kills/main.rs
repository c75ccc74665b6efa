//! The real binary on real servers, killed at every step boundary and at random moments, suspended
//! past its time limits, and lied to about the time. After each, consumers' tokens are live, no value
//! has leaked, and the state is told.
//!
//! `ROTAD_KILLS=200` makes so many kills instead of 40.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions
#![allow(clippy::print_stdout)] // the list of the kills, and what was counted

#[path = "../support/bench.rs"]
mod bench;
#[path = "../support/consumer.rs"]
mod consumer;
#[path = "../support/moto.rs"]
mod moto;
#[path = "../support/openbao.rs"]
mod openbao;
#[path = "../support/plain.rs"]
mod plain;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/proxy.rs"]
mod proxy;

mod clocks;
mod fail_points;
mod first_start;
mod suspended;

/// These wait most of their time: they run at the same time, however few processors there are.
#[test]
fn suspended_past_its_time_limits_or_under_wrong_clocks_it_harms_nobody() {
    std::thread::scope(|scope| {
        for (name, case) in clocks::CASES.iter().chain(suspended::CASES) {
            std::thread::Builder::new().name((*name).to_owned()).spawn_scoped(scope, case).unwrap();
        }
    });
}
