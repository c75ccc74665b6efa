//! Snapshot and counters as Prometheus text.
//!
//! What happens is counted by `Metrics`, registered with the `prometheus` crate. What is, is rendered
//! from the snapshot: registered gauges for 100,000 credentials would cost 135 MiB.

pub mod catalogue;
mod counters;
mod exposition;

pub use counters::{
    DeliveryOutcome, Metrics, RevocationOutcome, RotationOutcome, SinkOperation, SpanOutcome, Step, WebhookOutcome, sink_of,
};
pub use exposition::{CONTENT_TYPE, Exposition};
