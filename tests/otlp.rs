//! Traces, with the real binary and a collector in the test that decodes what came: a rotation is one trace, over restarts; a
//! collector that hangs holds nothing up; and no value is in it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

#[path = "support/plain.rs"]
mod plain;
#[path = "support/process.rs"]
mod process;
#[path = "support/receiver.rs"]
mod receiver;

use std::collections::{BTreeMap, BTreeSet};

use plain::{FAST, Plain};
use process::Process;
use receiver::{HANG, Receiver};
use serde_json::Value;

const HEADER: &str = "Bearer collector-0123456789";

fn rotad(plain: &Plain, endpoint: &str) -> Process {
    let mut command = plain.command(&["run", "--log", "debug"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_SERVICE_NAME", "rotation-service");
    command.env("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization={}", HEADER.replace(' ', "%20")));
    plain.launch(&mut command)
}

/// One span, as the collector reads it.
#[derive(Debug, Clone)]
struct Span {
    trace: String,
    id: String,
    parent: Option<String>,
    name: String,
    began: i64,
    ended: i64,
    attributes: BTreeMap<String, String>,
}

fn decoded(span: &Value) -> Span {
    let text = |key: &str| span[key].as_str().unwrap().to_owned();
    let attributes = span["attributes"].as_array().unwrap().iter();
    let pair = |attribute: &Value| {
        (attribute["key"].as_str().unwrap().to_owned(), attribute["value"]["stringValue"].as_str().unwrap().to_owned())
    };
    let span = Span {
        trace: text("traceId"),
        id: text("spanId"),
        parent: span["parentSpanId"].as_str().map(str::to_owned),
        name: text("name"),
        began: text("startTimeUnixNano").parse().unwrap(),
        ended: text("endTimeUnixNano").parse().unwrap(),
        attributes: attributes.map(pair).collect(),
    };
    let is_hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hex(&span.trace, 32) && is_hex(&span.id, 16), "{span:?}");
    assert!(span.began > 1_700_000_000_000_000_000 && span.ended >= span.began, "{span:?}");
    span
}

fn spans(collector: &Receiver) -> Vec<Span> {
    let mut spans = Vec::new();
    for received in collector.taken() {
        assert_eq!((received.target.as_str(), received.header("authorization")), ("/v1/traces", Some(HEADER)));
        assert_eq!(received.header("content-type"), Some("application/json"));
        let message = received.json();
        let resource = &message["resourceSpans"][0];
        let service = &resource["resource"]["attributes"][0];
        assert_eq!((&service["key"], &service["value"]["stringValue"]), (&"service.name".into(), &"rotation-service".into()));
        spans.extend(resource["scopeSpans"][0]["spans"].as_array().unwrap().iter().map(decoded));
    }
    spans
}

/// The names of the spans of each trace, with how often they are there.
fn traces(spans: &[Span]) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut traces: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for span in spans {
        *traces.entry(span.trace.clone()).or_default().entry(span.name.clone()).or_default() += 1;
    }
    traces
}

#[test]
fn a_rotation_is_one_trace_over_restarts() {
    let plain = Plain::start();
    let collector = Receiver::start(200);
    plain.configure(&(plain.head() + &plain.credential("etl", "every = \"40s\"\ngrace = \"15s\"\nverify = \"list\"")));
    let mut first = rotad(&plain, &collector.url);
    plain.until("the rotation's span", || spans(&collector).iter().any(|span| span.name == "rotation"));
    let before: BTreeSet<String> = traces(&spans(&collector)).into_keys().collect();
    first.stop();
    // Its token is superseded and revoked by another process.
    let mut second = rotad(&plain, &collector.url);
    plain.until("a revocation in a trace of the process before", || {
        spans(&collector).iter().any(|span| span.name == "revoke" && before.contains(&span.trace))
    });
    second.stop();
    let spans = spans(&collector);
    let ids: BTreeSet<&String> = spans.iter().map(|span| &span.id).collect();
    assert_eq!(ids.len(), spans.len(), "an id twice");
    let revoked = spans.iter().find(|span| span.name == "revoke").unwrap();
    let trace = &traces(&spans)[&revoked.trace];
    let steps: BTreeSet<&str> = trace.keys().map(String::as_str).collect();
    assert_eq!(steps, ["issue", "read", "revoke", "rotation", "verify", "write"].into(), "{trace:?}");
    assert_eq!((trace["issue"], trace["write"], trace["rotation"], trace["revoke"]), (1, 1, 1, 1), "{trace:?}");
    let of_trace: Vec<&Span> = spans.iter().filter(|span| span.trace == revoked.trace).collect();
    let whole = of_trace.iter().find(|span| span.name == "rotation").unwrap();
    assert_eq!(whole.attributes["rotad.outcome"], "promoted");
    assert_eq!(whole.attributes["rotad.rotation"].replace('-', ""), whole.trace);
    for span in &of_trace {
        assert_eq!(span.attributes["rotad.credential"], "etl");
        assert_eq!(span.parent.as_ref(), (span.name != "rotation").then_some(&whole.id), "{span:?}");
        if span.name != "issue" {
            assert_eq!(span.attributes.get("rotad.token_id"), revoked.attributes.get("rotad.token_id"), "{span:?}");
        }
        if span.name != "revoke" {
            assert!(whole.began <= span.began && span.ended <= whole.ended, "{span:?} is not within {whole:?}");
        }
    }
    assert!(revoked.attributes["rotad.token_id"].len() > 8 && revoked.attributes["rotad.outcome"] == "revoked");
    let write = of_trace.iter().find(|span| span.name == "write").unwrap();
    assert!(write.attributes["rotad.place"].starts_with("file:"), "{write:?}");
    holds_no_secret(&plain, &collector);
}

fn holds_no_secret(plain: &Plain, collector: &Receiver) {
    let told: String = collector.received().iter().map(|received| String::from_utf8(received.body.clone()).unwrap()).collect();
    let admin = std::fs::read_to_string(plain.path("admin-token")).unwrap().trim().to_owned();
    for secret in [plain.served("etl").unwrap(), admin, "eyJ".to_owned()] {
        assert!(!told.contains(&secret), "a value is in a trace");
    }
    assert!(!plain.log().contains("collector-0123456789"));
}

#[test]
fn a_collector_that_hangs_or_is_gone_holds_no_rotation_up() {
    let plain = Plain::start();
    let collector = Receiver::start(HANG);
    plain.configure(&(plain.head() + &plain.credential("etl", FAST)));
    let mut hanging = rotad(&plain, &collector.url);
    plain.until("two revocations", || plain.revoked() >= 2);
    plain.until("what was lost to be counted", || {
        plain.metric("rotad_trace_spans_total{outcome=\"lost\"}").is_some_and(|lost| lost > 0.0)
    });
    assert_eq!(plain.log().matches("traces are lost").count(), 1, "{}", plain.log());
    hanging.stop();
    let mut refused = rotad(&plain, "http://collector.example:4318/secret-path");
    let before = plain.revoked();
    plain.until("two more", || plain.revoked() >= before + 2);
    refused.stop();
    let log = plain.log();
    assert!(log.contains("traces are not exported: the address in `OTEL_EXPORTER_OTLP_ENDPOINT` is neither `https://`"), "{log}");
    assert!(!log.contains("secret-path"), "{log}");
}
