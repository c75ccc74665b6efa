//! What is shipped beside the program: rules, dashboard, manifests and documents, each read or run by
//! the tool that it is made for. `tests/run` gets those tools.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

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

mod alerting;
mod debian;
mod documents;
mod kubernetes;
mod names;
mod release;
mod rules;
mod systemd;
mod tools;
