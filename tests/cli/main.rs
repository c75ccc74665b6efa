//! The real binary as a user and an operator meet it: bad input, probes, full disks, stops, reloads,
//! lost journals, and what is told of all that.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

#[path = "../support/plain.rs"]
mod plain;
#[path = "../support/process.rs"]
mod process;

mod accounts;
mod disk;
mod errors;
mod importing;
mod journal;
mod looking;
mod online;
mod ordering;
mod planning;
mod probing;
mod refusals;
mod reloading;
mod shapes;
mod stopping;
mod watching;
