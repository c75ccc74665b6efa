//! Properties that hold for whatever comes: of the schedule, of the waits after failures, and of the ledger of tokens,
//! which is what a credential's state records of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

#[path = "support/civil.rs"]
mod civil;
#[allow(dead_code)]
mod rig;

#[path = "properties/backoff.rs"]
mod backoff;
#[path = "properties/daylight.rs"]
mod daylight;
#[path = "properties/forecast.rs"]
mod forecast;
#[path = "properties/ledger.rs"]
mod ledger;
#[path = "properties/schedule.rs"]
mod schedule;
