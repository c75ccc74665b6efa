//! S4: no secret is anywhere but in the sinks and in memory. The real binary, at every level of its log, through
//! successes and through answers that repeat what was sent, and every byte that it left is searched.
//!
//! Needs root, for a daemon of another user and for a core limit to raise.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

#[path = "support/aws_proxy.rs"]
mod aws_proxy;
#[path = "support/moto.rs"]
mod moto;
#[path = "support/openbao.rs"]
mod openbao;
#[path = "support/plain.rs"]
mod plain;
#[path = "support/process.rs"]
mod process;
#[path = "support/vault_gate.rs"]
mod vault_gate;

#[path = "secrets/crash.rs"]
mod crash;
#[path = "secrets/found.rs"]
mod found;
#[path = "secrets/inline.rs"]
mod inline;
#[path = "secrets/search.rs"]
mod search;
#[path = "secrets/surroundings.rs"]
mod surroundings;
