//! Traces for OpenTelemetry: each rotation is one, its steps are spans, over turns and restarts.
//!
//! OTLP as JSON over HTTP, written here: the crates of OpenTelemetry bring protobuf along even for JSON, and their spans begin
//! and end in one process, where a rotation outlives many. A trace's id is the rotation's own, so nothing has to be kept.

#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod span;

use std::sync::Arc;

use crate::engine::Witness;
use crate::metrics::Metrics;
use crate::rotation::Deployment;

/// The variables of which one says where traces go: the whole address, or one to which `/v1/traces` is added.
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// A variable of the environment that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Whether the environment asks for traces.
fn is_asked_for() -> bool {
    let off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    !off && (variable(TRACES_ENDPOINT).is_some() || variable(ENDPOINT).is_some())
}

/// The witness itself, and beside it the export of traces where the environment asks for it. What is wrong with that is
/// logged: a rotation is worth more than its trace.
pub fn beside(witness: Arc<dyn Witness>, deployment: &Deployment, metrics: &Arc<Metrics>) -> Arc<dyn Witness> {
    if !is_asked_for() {
        return witness;
    }
    #[cfg(feature = "otlp")]
    match export::Export::from_environment(deployment, metrics.clone()) {
        Ok(export) => return Arc::new(export.beside(witness)),
        Err(wrong) => tracing::error!("traces are not exported: {wrong}"),
    }
    #[cfg(not(feature = "otlp"))]
    {
        let _ = (deployment, metrics);
        tracing::warn!(
            "`{ENDPOINT}` asks for traces, and this build can't export them: build rotad with `--features otlp`, or set \
             `OTEL_SDK_DISABLED=true` for it"
        );
    }
    witness
}
