//! rotad rotates the access tokens of MotherDuck service accounts. The modules, from the ground up:

pub mod cause; // what lies under an error
pub mod clock; // the only reader of time
pub mod fail_point; // where tests end the process; nothing in a production build
pub mod hardening; // what the process gives up at its start
pub mod http; // the client by which others are told
pub mod identities; // names of users and groups
pub mod json; // reading JSON of others
pub mod notify; // telling systemd how the daemon is
pub mod postgres; // PostgreSQL's wire: verified TLS, what an error says
pub mod rotation; // the core: pure, holds the promises
pub mod secret; // a value that can't be printed

pub mod journal; // the durable record of intents and outcomes
pub mod motherduck; // the provider: issues, lists and revokes tokens
pub mod sinks; // the stores that tokens are delivered to

pub mod config; // text to a checked configuration, every problem at once

pub mod logging; // one line per step, never a value
pub mod metrics; // the snapshot as Prometheus text; every metric's name
pub mod snapshot; // one read-only picture of everything

pub mod engine; // scheduler, workers, limits
pub mod fleet; // from the configuration to what the engine works with

pub mod control; // commands over a Unix socket
pub mod otlp; // rotations as traces of OpenTelemetry
pub mod web; // metrics, health and status over HTTP
pub mod webhook; // what needs a person, told without Prometheus

pub mod daemon; // all of it put together

pub mod cli; // the commands
