//! The status page in a real browser, and the JSON beside it held to its own document, both served by the real binary.
//!
//! Needs what `tests/run` gets: Chromium in `target/test-tools/chromium`, schemathesis in `target/test-servers`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

#[path = "../support/plain.rs"]
mod plain;
#[path = "../support/process.rs"]
mod process;

mod browser;
mod document;
mod looks;
