//! What is scraped: every name that is promised, nothing else, in a form that `promtool` accepts, and
//! without the memory of 100,000 registered gauges.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rotad::metrics::{
    self, Exposition, Metrics, RevocationOutcome, RotationOutcome, SinkOperation, SpanOutcome, Step, WebhookOutcome, catalogue,
};
use rotad::motherduck::{Code, Observer, Operation};
use rotad::rotation::{Blocked, CredentialName, DeliveryId, Entry, Happened, Moment, Reason, Steady};
use rotad::sinks::Kind;
use rotad::snapshot::{At, Board, CredentialState, FleetSummary, FreezeReason, JournalState, SinkCounts, Summary, TokenCounts};

/// The names and labels that dashboards and alerts rely on, as the design promises them. They are
/// spelled out here a second time, so that renaming one in the code alone is noticed.
const PROMISED: &[&str] = &[
    "rotad_rotations_total{outcome}",
    "rotad_step_failures_total{step,reason}",
    "rotad_deliveries_total{sink,outcome}",
    "rotad_provider_requests_total{operation,code}",
    "rotad_revocations_total{outcome}",
    "rotad_clock_jumps_total",
    "rotad_webhook_messages_total{outcome}",
    "rotad_trace_spans_total{outcome}",
    "rotad_provider_request_duration_seconds{operation}",
    "rotad_sink_request_duration_seconds{sink,operation}",
    "rotad_journal_commit_duration_seconds",
    "rotad_schedule_lag_seconds",
    "rotad_rotation_margin_seconds",
    "rotad_token_expiry_timestamp_seconds{credential}",
    "rotad_due_timestamp_seconds{credential}",
    "rotad_deadline_timestamp_seconds{credential}",
    "rotad_last_success_timestamp_seconds{credential}",
    "rotad_credentials{state}",
    "rotad_blocked{reason}",
    "rotad_tokens{phase}",
    "rotad_lost",
    "rotad_orphans",
    "rotad_unknown_tokens",
    "rotad_foreign_tokens",
    "rotad_deliveries_unconfirmed{sink}",
    "rotad_credentials_past_due",
    "rotad_credentials_paused",
    "rotad_credentials_past_deadline",
    "rotad_earliest_expiry_timestamp_seconds{organization}",
    "rotad_revocations_pending",
    "rotad_revocation_oldest_due_timestamp_seconds",
    "rotad_revocations_frozen{reason}",
    "rotad_clock_skew_seconds",
    "rotad_survival_deadline_timestamp_seconds",
    "rotad_admin_token_expiry_timestamp_seconds{organization}",
    "rotad_fleet_accounts{fleet}",
    "rotad_fleet_accounts_missing{fleet}",
    "rotad_fleet_letting_go_refused{fleet}",
    "rotad_fleet_list_last_success_timestamp_seconds{fleet}",
    "rotad_accounts{state}",
    "rotad_accounts_failing",
    "rotad_sweep_last_success_timestamp_seconds{organization}",
    "rotad_scheduler_heartbeat_timestamp_seconds",
    "rotad_standby",
    "rotad_config_last_reload_successful",
    "rotad_config_last_reload_success_timestamp_seconds",
    "rotad_build_info{version,revision}",
];

fn moment(seconds: i64) -> Moment {
    Moment { wall: Timestamp::from_second(1_790_000_000 + seconds).unwrap(), steady: Steady(seconds * 1000) }
}

fn at(seconds: i64) -> At {
    moment(seconds).wall.into()
}

fn name(text: &str) -> CredentialName {
    text.parse().unwrap()
}

/// A board on which every moment is known and no total is 0.
fn full_board() -> Arc<Board> {
    let board = Board::new(moment(0));
    let main = board.organization("main");
    board.configuration_loaded(moment(1).wall);
    board.journal(JournalState::Writable);
    board.freeze(FreezeReason::JournalUnwritable, true);
    board.freeze(FreezeReason::ClockSkew, true);
    board.clock_skew(SignedDuration::from_millis(-61_250));
    board.admin_token_expires(main, Some(moment(90_000).wall));
    board.beat(Moment { wall: moment(100).wall + SignedDuration::from_millis(250), ..moment(100) });
    let etl = Summary {
        state: CredentialState::Retiring,
        expires_at: at(600_000),
        due_at: at(80_000),
        deadline_at: at(500_000),
        last_success_at: at(40),
        served_until: at(600_000),
        last_sweep_at: at(50),
        revocation_oldest_due_at: at(43_240),
        paused_until: at(90_000),
        revocations_pending: 1,
        tokens: TokenCounts { current: 1, retiring: 1, ..TokenCounts::default() },
        tokens_foreign: 2,
        ..Summary::new(main)
    };
    board.put(&name("etl"), etl);
    let reports = Summary {
        state: CredentialState::Blocked,
        blocked: Some(Blocked::RolledBack),
        due_at: at(90),
        deadline_at: at(99),
        last_sweep_at: at(60),
        tokens: TokenCounts { issued: 1, orphaned: 1, lost: 1, unfit: 1, ..TokenCounts::default() },
        tokens_unknown: 1,
        deliveries_unconfirmed: SinkCounts { aws: 1, file: 2, vault: 3 },
        ..Summary::new(main)
    };
    board.put(&name("reports"), reports);
    board.fleets(vec![FleetSummary {
        name: "tenants".into(),
        accounts: 40,
        missing: 5,
        left_out: 1,
        refused_since: at(20),
        may_go: Some(4),
        listed_at: at(70),
        failing: None,
    }]);
    Arc::new(board)
}

/// Counts one of everything.
fn counted() -> Metrics {
    let metrics = Metrics::new().unwrap();
    metrics.rotation_finished(RotationOutcome::Succeeded);
    metrics.step_failed(Step::Write, Reason::Forbidden);
    metrics.delivery(Kind::Vault, metrics::DeliveryOutcome::Refused);
    metrics.request(Operation::Issue, Code::of_status(429), 0.08);
    metrics.request(Operation::List, Code::Timeout, 30.0);
    metrics.request(Operation::List, Code::of_status(418), 0.02);
    metrics.sink_request(Kind::Aws, SinkOperation::Write, SignedDuration::from_millis(40));
    metrics.journal_commit(SignedDuration::from_micros(3600));
    metrics.schedule_lag(SignedDuration::from_secs(2));
    metrics.rotation_margin(SignedDuration::from_secs(-7));
    metrics.revocation(RevocationOutcome::Expired);
    metrics.clock_jump();
    metrics.webhook_message(WebhookOutcome::Failed);
    metrics.trace_spans(SpanOutcome::Lost, 3);
    metrics
}

fn scraped(metrics: &Metrics, board: Arc<Board>, per_credential: bool) -> String {
    Exposition::new(metrics, board, moment(100), per_credential).collect()
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Each family's name with the label names of its first series, those of histograms' series removed.
fn families(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut families = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone(), BTreeSet::new()).is_none(), "`{family}` is there twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&family), "`{line}` stands below `{family}`");
            let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
            let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label.to_owned());
            families.get_mut(&family).unwrap().extend(labels.filter(|label| label != "le"));
        }
    }
    families
}

fn spelled(name: &str, labels: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let labels: Vec<_> = labels.into_iter().map(|label| label.as_ref().to_owned()).collect();
    if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) }
}

#[test]
fn the_exposition_is_the_golden_text() {
    let text = scraped(&counted(), full_board(), true).replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let revision = format!("revision=\"{}\"", rotad::snapshot::Build::THIS.revision);
    let text = text.replace(&revision, "revision=\"REVISION\"");
    let golden = repository("tests/golden/metrics.txt");
    if std::env::var_os("ROTAD_BLESS").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    let difference = text.lines().zip(expected.lines()).find(|(is, should)| is != should);
    assert!(text == expected, "first difference: {difference:?}; if it is meant, run this test once with ROTAD_BLESS=1");
}

#[test]
fn every_promised_metric_is_exported_with_its_labels_and_no_other() {
    let exported = families(&scraped(&counted(), full_board(), true));
    let promised: BTreeMap<_, _> = PROMISED
        .iter()
        .map(|promise| {
            let (name, labels) = promise.trim_end_matches('}').split_once('{').unwrap_or((promise, ""));
            (name.to_owned(), labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect::<BTreeSet<_>>())
        })
        .collect();
    assert_eq!(exported, promised);
    let catalogue: BTreeSet<_> = catalogue::ALL.iter().map(|metric| spelled(metric.name, metric.labels)).collect();
    assert_eq!(catalogue, PROMISED.iter().map(|promise| (*promise).to_owned()).collect());
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let local = repository("target/test-tools/promtool");
    let program = if local.exists() { local } else { PathBuf::from("promtool") };
    let mut command = Command::new(program);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            panic!("`promtool` can't be run ({error}); install Debian's `prometheus`, or call `tests/run`, which gets it")
        }
    };
    let text = scraped(&counted(), full_board(), true);
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", output.status);
}

#[test]
fn counters_are_there_from_the_start_and_the_labels_stay_closed() {
    let series = |text: &str| -> BTreeSet<String> {
        let counted = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
        counted.filter(|series| !series.contains("_seconds")).collect()
    };
    let fresh = scraped(&Metrics::new().unwrap(), full_board(), true);
    let used = scraped(&counted(), full_board(), true);
    assert_eq!(series(&fresh), series(&used));
    let failures = fresh.lines().filter(|line| line.starts_with("rotad_step_failures_total{")).count();
    assert_eq!(failures, 8 * Reason::ALL.len());
    assert!(used.contains(r#"rotad_provider_requests_total{code="4xx",operation="list"} 1"#));
    assert!(used.contains(r#"rotad_provider_requests_total{code="timeout",operation="list"} 1"#));
}

#[test]
fn a_moment_that_is_not_known_is_absent_and_not_0() {
    let board = Board::new(moment(0));
    board.put(&name("etl"), Summary::new(board.organization("main")));
    let text = scraped(&Metrics::new().unwrap(), Arc::new(board), true);
    let moments: Vec<_> = text.lines().filter(|line| !line.starts_with('#') && line.contains("_timestamp_seconds")).collect();
    assert_eq!(moments, ["rotad_scheduler_heartbeat_timestamp_seconds 1790000000"]);
    assert!(!text.contains("rotad_clock_skew_seconds"));
}

#[test]
fn series_per_credential_can_be_switched_off() {
    let text = scraped(&counted(), full_board(), false);
    assert!(!text.contains("etl") && !text.contains("{credential="), "{text}");
    assert!(text.contains("rotad_credentials{state=\"retiring\"} 1\n"));
}

#[test]
fn a_line_of_the_history_is_counted_once_in_every_metric_that_it_belongs_to() {
    let metrics = Metrics::new().unwrap();
    let entry = |what, reason, delivery: Option<&str>| Entry {
        at: moment(0).wall,
        what,
        rotation: None,
        token: None,
        delivery: delivery.map(DeliveryId::new),
        reason,
        detail: None,
        by: None,
    };
    metrics.happened(&entry(Happened::Intended, None, None));
    metrics.happened(&entry(Happened::Lost, Some(Reason::TimedOut), None));
    metrics.happened(&entry(Happened::WriteUnknown, Some(Reason::BadAnswer), Some("vault:https://v/secret/etl#token")));
    metrics.happened(&entry(Happened::Confirmed, None, Some("file:/run/etl/token")));
    metrics.happened(&entry(Happened::Promoted, None, None));
    metrics.happened(&entry(Happened::RevokeFailed, Some(Reason::Throttled), None));
    let text = scraped(&metrics, full_board(), false);
    let counted: BTreeSet<_> =
        text.lines().filter(|line| line.contains("_total") && !line.starts_with('#') && !line.ends_with(" 0")).collect();
    let expected = [
        r#"rotad_deliveries_total{outcome="confirmed",sink="file"} 1"#,
        r#"rotad_deliveries_total{outcome="unknown",sink="vault"} 1"#,
        r#"rotad_revocations_total{outcome="failed"} 1"#,
        r#"rotad_rotations_total{outcome="lost"} 1"#,
        r#"rotad_rotations_total{outcome="succeeded"} 1"#,
        r#"rotad_step_failures_total{reason="bad_answer",step="write"} 1"#,
        r#"rotad_step_failures_total{reason="throttled",step="revoke"} 1"#,
        r#"rotad_step_failures_total{reason="timed_out",step="issue"} 1"#,
    ];
    assert_eq!(counted, expected.into());
}

#[test]
fn a_hundred_thousand_credentials_are_rendered_in_portions_of_64_kib() {
    let board = Board::new(moment(0));
    let main = board.organization("main");
    let known = Summary { expires_at: at(1), due_at: at(2), deadline_at: at(3), last_success_at: at(4), ..Summary::new(main) };
    for number in 0..100_000 {
        // As long as a name can be, and in an order that is not that of the names.
        let credential = format!("{:05}{}", (number * 7) % 100_000, "-".repeat(58));
        board.put(&name(&credential), known);
    }
    let (mut lines, mut largest) = (0, 0);
    for portion in Exposition::new(&counted(), Arc::new(board), moment(100), true) {
        largest = largest.max(portion.capacity());
        lines += portion.lines().filter(|line| line.contains("{credential=")).count();
    }
    assert_eq!(lines, 4 * 100_000);
    // Room is left for the allocator's rounding; the whole text has more than 45 MB.
    assert!(largest <= 80 * 1024, "a portion took {largest} bytes");
}

#[test]
fn the_documentation_lists_exactly_the_metrics_that_exist() {
    let document = std::fs::read_to_string(repository("docs/metrics.md")).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| `rotad_"));
    let documented: BTreeSet<(String, String)> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let labels: Vec<_> =
                cells[3].split(',').map(|label| label.trim().trim_matches('`')).filter(|l| !l.is_empty()).collect();
            (spelled(cells[1].trim_matches('`'), labels), cells[2].to_owned())
        })
        .collect();
    let existing: BTreeSet<_> =
        catalogue::ALL.iter().map(|metric| (spelled(metric.name, metric.labels), metric.kind.as_str().to_owned())).collect();
    assert_eq!(documented, existing);
}
