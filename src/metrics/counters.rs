//! What is counted as it happens: counters and histograms, there from the start with every label value.

use jiff::SignedDuration;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

use super::catalogue::{self, Definition};
use crate::motherduck::{Code, Observer, Operation};
use crate::rotation::{DeliveryId, Entry, Happened, Reason};
use crate::sinks;
use crate::snapshot::{Label, label};

label!(
    /// How a rotation ended.
    RotationOutcome {
        /// Confirmed at every delivery.
        Succeeded = "succeeded",
        /// The API refused to issue.
        Refused = "refused",
        /// The outcome of the request is unknown; its token is looked for.
        Lost = "lost",
        /// The token was not the one asked for.
        Unfit = "unfit",
        /// Its value was gone before every delivery had it.
        Orphaned = "orphaned",
    }
);

label!(
    /// A step that may fail.
    Step {
        Issue = "issue",
        Verify = "verify",
        /// An account's first connection.
        Connect = "connect",
        List = "list",
        Read = "read",
        Write = "write",
        Revoke = "revoke",
        /// A save to the journal.
        Commit = "commit",
    }
);

label!(
    /// How a delivery went.
    DeliveryOutcome {
        /// A read-back showed the rotation.
        Confirmed = "confirmed",
        Refused = "refused",
        /// The place changed between read and write; nothing was written.
        Conflict = "conflict",
        /// It may have been written.
        Unknown = "unknown",
    }
);

label!(
    /// How an attempt to revoke went.
    RevocationOutcome {
        /// Revoked, or found to be gone.
        Revoked = "revoked",
        Failed = "failed",
        /// The token expired before it was revoked.
        Expired = "expired",
    }
);

label!(
    /// How a message to the webhook went.
    WebhookOutcome {
        Sent = "sent",
        Failed = "failed",
    }
);

label!(
    /// How a trace's span ended up.
    SpanOutcome {
        Sent = "sent",
        /// The collector did not take it in time.
        Lost = "lost",
    }
);

label!(
    /// What is asked of a sink.
    SinkOperation {
        Read = "read",
        Write = "write",
    }
);

/// An API across a continent answers in 0.1 s; the top is beyond the client's time limit.
const PROVIDER_BUCKETS: &[f64] = &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// From a file on a fast disk (1 ms) to a store in another region, and to its time limit.
const SINK_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A durable commit takes 0.5 to 10 ms on a local disk; above 1 s the disk is in trouble.
const COMMIT_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The scheduler wakes within a second; limits add minutes; windows and outages add hours and days.
const LAG_BUCKETS: &[f64] = &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0];

/// At 0 a consumer failed. The rest go from seconds (drills) over the default (6 days) to a year.
const MARGIN_BUCKETS: &[f64] = &[
    -86_400.0,
    -3_600.0,
    0.0,
    10.0,
    60.0,
    600.0,
    3_600.0,
    14_400.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    31_536_000.0,
];

/// The handles that the program counts with. Labels are closed enums: no text gets in.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    rotations: IntCounterVec,
    step_failures: IntCounterVec,
    deliveries: IntCounterVec,
    provider_requests: IntCounterVec,
    revocations: IntCounterVec,
    clock_jumps: IntCounter,
    webhook_messages: IntCounterVec,
    trace_spans: IntCounterVec,
    provider_request_duration: HistogramVec,
    sink_request_duration: HistogramVec,
    journal_commit_duration: Histogram,
    schedule_lag: Histogram,
    rotation_margin: Histogram,
}

impl Metrics {
    /// Every counter and histogram at 0, with every value of every label.
    ///
    /// # Errors
    /// Only if a definition in the catalogue is malformed or there twice.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            rotations: counters(&registry, &catalogue::ROTATIONS)?,
            step_failures: counters(&registry, &catalogue::STEP_FAILURES)?,
            deliveries: counters(&registry, &catalogue::DELIVERIES)?,
            provider_requests: counters(&registry, &catalogue::PROVIDER_REQUESTS)?,
            revocations: counters(&registry, &catalogue::REVOCATIONS)?,
            clock_jumps: registered(&registry, IntCounter::with_opts(options(&catalogue::CLOCK_JUMPS))?)?,
            webhook_messages: counters(&registry, &catalogue::WEBHOOK_MESSAGES)?,
            trace_spans: counters(&registry, &catalogue::TRACE_SPANS)?,
            provider_request_duration: histograms(&registry, &catalogue::PROVIDER_REQUEST_DURATION, PROVIDER_BUCKETS)?,
            sink_request_duration: histograms(&registry, &catalogue::SINK_REQUEST_DURATION, SINK_BUCKETS)?,
            journal_commit_duration: histogram(&registry, &catalogue::JOURNAL_COMMIT_DURATION, COMMIT_BUCKETS)?,
            schedule_lag: histogram(&registry, &catalogue::SCHEDULE_LAG, LAG_BUCKETS)?,
            rotation_margin: histogram(&registry, &catalogue::ROTATION_MARGIN, MARGIN_BUCKETS)?,
            registry,
        };
        metrics.create_every_series();
        Ok(metrics)
    }

    fn create_every_series(&self) {
        each::<RotationOutcome>(|outcome| drop(self.rotations.with_label_values(&[outcome])));
        each::<RevocationOutcome>(|outcome| drop(self.revocations.with_label_values(&[outcome])));
        each::<WebhookOutcome>(|outcome| drop(self.webhook_messages.with_label_values(&[outcome])));
        each::<SpanOutcome>(|outcome| drop(self.trace_spans.with_label_values(&[outcome])));
        each::<Step>(|step| {
            Reason::ALL.iter().for_each(|reason| drop(self.step_failures.with_label_values(&[step, reason.as_str()])));
        });
        each::<sinks::Kind>(|sink| {
            each::<DeliveryOutcome>(|outcome| drop(self.deliveries.with_label_values(&[sink, outcome])));
            each::<SinkOperation>(|operation| drop(self.sink_request_duration.with_label_values(&[sink, operation])));
        });
        for operation in Operation::ALL.map(Operation::as_str) {
            Code::ALL.iter().for_each(|code| drop(self.provider_requests.with_label_values(&[operation, code.as_str()])));
            drop(self.provider_request_duration.with_label_values(&[operation]));
        }
    }

    /// Counts what a line of the history says: rotations, failed steps, deliveries and revocations. One
    /// call for each entry that was saved; what has no entry has a method of its own below.
    pub fn happened(&self, entry: &Entry) {
        match entry.what {
            Happened::Promoted => self.rotation_finished(RotationOutcome::Succeeded),
            Happened::IssueRefused => self.rotation_finished(RotationOutcome::Refused),
            Happened::Lost => self.rotation_finished(RotationOutcome::Lost),
            Happened::Unfit => self.rotation_finished(RotationOutcome::Unfit),
            Happened::Orphaned => self.rotation_finished(RotationOutcome::Orphaned),
            Happened::Confirmed => self.delivered(entry, DeliveryOutcome::Confirmed),
            Happened::WriteRefused => self.delivered(entry, DeliveryOutcome::Refused),
            Happened::WriteConflict => self.delivered(entry, DeliveryOutcome::Conflict),
            Happened::WriteUnknown => self.delivered(entry, DeliveryOutcome::Unknown),
            Happened::Revoked => self.revocation(RevocationOutcome::Revoked),
            Happened::RevokeFailed => self.revocation(RevocationOutcome::Failed),
            Happened::Expired => self.revocation(RevocationOutcome::Expired),
            _ => {}
        }
        if let (Some(step), Some(reason)) = (failed_step(entry.what), entry.reason) {
            self.step_failed(step, reason);
        }
    }

    fn delivered(&self, entry: &Entry, outcome: DeliveryOutcome) {
        if let Some(sink) = entry.delivery.as_ref().and_then(sink_of) {
            self.delivery(sink, outcome);
        }
    }

    pub fn rotation_finished(&self, outcome: RotationOutcome) {
        self.rotations.with_label_values(&[outcome.as_str()]).inc();
    }

    pub fn step_failed(&self, step: Step, reason: Reason) {
        self.step_failures.with_label_values(&[step.as_str(), reason.as_str()]).inc();
    }

    pub fn delivery(&self, sink: sinks::Kind, outcome: DeliveryOutcome) {
        self.deliveries.with_label_values(&[sink.as_str(), outcome.as_str()]).inc();
    }

    pub fn revocation(&self, outcome: RevocationOutcome) {
        self.revocations.with_label_values(&[outcome.as_str()]).inc();
    }

    /// One read or write of a place ended, with whatever outcome, after `took`.
    pub fn sink_request(&self, sink: sinks::Kind, operation: SinkOperation, took: SignedDuration) {
        self.sink_request_duration.with_label_values(&[sink.as_str(), operation.as_str()]).observe(took.as_secs_f64());
    }

    pub fn journal_commit(&self, took: SignedDuration) {
        self.journal_commit_duration.observe(took.as_secs_f64());
    }

    /// From a rotation's due time to its start.
    pub fn schedule_lag(&self, lag: SignedDuration) {
        self.schedule_lag.observe(lag.as_secs_f64());
    }

    /// From the delivery everywhere to the old token's expiry; negative if that came first.
    pub fn rotation_margin(&self, margin: SignedDuration) {
        self.rotation_margin.observe(margin.as_secs_f64());
    }

    pub fn clock_jump(&self) {
        self.clock_jumps.inc();
    }

    pub fn webhook_message(&self, outcome: WebhookOutcome) {
        self.webhook_messages.with_label_values(&[outcome.as_str()]).inc();
    }

    pub fn trace_spans(&self, outcome: SpanOutcome, spans: usize) {
        self.trace_spans.with_label_values(&[outcome.as_str()]).inc_by(spans as u64);
    }

    /// Appends all of it in Prometheus's text format, families in the order of their names.
    pub(super) fn render(&self, text: &mut String) {
        let written = text.len();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), text) {
            // A family without a series is the encoder's only complaint, and each has one from the start.
            text.truncate(written);
            tracing::error!(%error, "the counters can't be rendered");
        }
    }
}

impl Observer for Metrics {
    fn request(&self, operation: Operation, code: Code, seconds: f64) {
        self.provider_requests.with_label_values(&[operation.as_str(), code.as_str()]).inc();
        self.provider_request_duration.with_label_values(&[operation.as_str()]).observe(seconds);
    }
}

/// The kind of sink that a delivery goes to: its id begins with the kind.
pub fn sink_of(delivery: &DeliveryId) -> Option<sinks::Kind> {
    let (kind, _) = delivery.as_str().split_once(':')?;
    sinks::Kind::ALL.into_iter().find(|known| known.as_str() == kind)
}

/// The step whose failure an entry tells of.
fn failed_step(what: Happened) -> Option<Step> {
    match what {
        Happened::IssueRefused | Happened::Lost | Happened::Unfit => Some(Step::Issue),
        Happened::VerifyFailed => Some(Step::Verify),
        Happened::ConnectFailed => Some(Step::Connect),
        Happened::ListFailed => Some(Step::List),
        Happened::ReadFailed => Some(Step::Read),
        Happened::WriteRefused | Happened::WriteConflict | Happened::WriteUnknown => Some(Step::Write),
        Happened::RevokeFailed => Some(Step::Revoke),
        _ => None,
    }
}

fn each<L: Label>(mut visit: impl FnMut(&'static str)) {
    L::ALL.iter().for_each(|label| visit(label.as_str()));
}

fn options(definition: &Definition) -> Opts {
    Opts::new(definition.name, definition.help)
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counters(registry: &Registry, definition: &Definition) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(options(definition), definition.labels)?)
}

fn bucketed(definition: &Definition, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(definition.name, definition.help).buckets(buckets.to_vec())
}

fn histograms(registry: &Registry, definition: &Definition, buckets: &[f64]) -> prometheus::Result<HistogramVec> {
    registered(registry, HistogramVec::new(bucketed(definition, buckets), definition.labels)?)
}

fn histogram(registry: &Registry, definition: &Definition, buckets: &[f64]) -> prometheus::Result<Histogram> {
    registered(registry, Histogram::with_opts(bucketed(definition, buckets))?)
}
