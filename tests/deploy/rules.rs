//! Each alert fires for what it is for, and for nothing less: `promtool test rules` on simulated series.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use super::names::rules;
use super::tools::{repository, said, text, unpacked};

/// Minutes that the series go on for: longer than the longest `for`, which is a day.
const MINUTES: u32 = 1560;
/// Minutes that are looked at where nothing waits for a day.
const MOST: u32 = 240;

/// A healthy rotad's series, in promtool's notation, a value a minute: `a+bxn`. Time begins at 0.
const HEALTHY: &[(&str, &str)] = &[
    ("up", "1+0x"),
    ("rotad_scheduler_heartbeat_timestamp_seconds", "0+60x"),
    ("rotad_credentials_past_deadline", "0+0x"),
    ("rotad_due_timestamp_seconds{credential=\"etl\"}", "100000+0x"),
    ("rotad_deadline_timestamp_seconds{credential=\"etl\"}", "500000+0x"),
    ("rotad_token_expiry_timestamp_seconds{credential=\"etl\"}", "600000+0x"),
    ("rotad_last_success_timestamp_seconds{credential=\"etl\"}", "0+0x"),
    ("rotad_survival_deadline_timestamp_seconds", "600000+0x"),
    ("rotad_blocked{reason=\"rolled_back\"}", "0+0x"),
    ("rotad_deliveries_unconfirmed{sink=\"vault\"}", "0+0x"),
    ("rotad_revocation_oldest_due_timestamp_seconds", "200000+0x"),
    ("rotad_revocations_frozen{reason=\"clock_skew\"}", "0+0x"),
    ("rotad_orphans", "0+0x"),
    ("rotad_admin_token_expiry_timestamp_seconds{organization=\"main\"}", "9000000+0x"),
    ("rotad_fleet_accounts{fleet=\"tenants\"}", "40+0x"),
    ("rotad_fleet_letting_go_refused{fleet=\"tenants\"}", "0+0x"),
    ("rotad_fleet_list_last_success_timestamp_seconds{fleet=\"tenants\"}", "0+60x"),
    ("rotad_accounts{state=\"as_configured\"}", "40+0x"),
    ("rotad_accounts{state=\"missing\"}", "0+0x"),
    ("rotad_accounts{state=\"differs\"}", "0+0x"),
    ("rotad_accounts_failing", "0+0x"),
    ("rotad_provider_requests_total{operation=\"list\",code=\"200\"}", "0+60x"),
    ("rotad_provider_requests_total{operation=\"list\",code=\"429\"}", "0+0x"),
    ("rotad_provider_requests_total{operation=\"list\",code=\"401\"}", "0+0x"),
    ("rotad_provider_requests_total{operation=\"list\",code=\"timeout\"}", "0+0x"),
    ("rotad_clock_jumps_total", "0+0x"),
    ("rotad_config_last_reload_successful", "1+0x"),
    ("rotad_standby", "0+0x"),
    // Another replica, which stands by.
    ("other/rotad_standby", "1+0x"),
];

/// What is wrong, and which alert tells of it.
struct Case {
    alert: &'static str,
    severity: &'static str,
    /// The healthy series that read otherwise; `x` alone stands for all minutes.
    wrong: &'static [(&'static str, &'static str)],
    /// A minute at which nothing fires yet, and one at which exactly this alert does.
    quiet_at: u32,
    fires_at: u32,
    /// What is nearly as wrong, and never fires.
    harmless: &'static [(&'static str, &'static str)],
}

const CASES: &[Case] = &[
    Case {
        alert: "RotadAbsent",
        severity: "critical",
        wrong: &[("up", "1+0x9 0+0x")],
        quiet_at: 12,
        fires_at: 17,
        harmless: &[("up", "1+0x9 0 0 0 1+0x")],
    },
    Case {
        alert: "RotadAbsent",
        severity: "critical",
        // Not even a target that does not answer.
        wrong: &[("up", "_x")],
        quiet_at: 3,
        fires_at: 7,
        harmless: &[],
    },
    Case {
        alert: "RotadHeartbeatOld",
        severity: "critical",
        wrong: &[("rotad_scheduler_heartbeat_timestamp_seconds", "0+60x9 600+0x")],
        quiet_at: 13,
        fires_at: 16,
        // A minute's sleep of the scheduler, and one that was missed.
        harmless: &[("rotad_scheduler_heartbeat_timestamp_seconds", "-120+60x")],
    },
    Case {
        alert: "RotadPastDeadline",
        severity: "critical",
        wrong: &[("rotad_credentials_past_deadline", "0+0x9 2+0x")],
        quiet_at: 10,
        fires_at: 12,
        harmless: &[("rotad_credentials_past_deadline", "0+0x9 2 0+0x")],
    },
    Case {
        // Due after 100 minutes, with a deadline after 200: half of its own slack is gone after 150.
        alert: "RotadMarginLow",
        severity: "warning",
        wrong: &[
            ("rotad_due_timestamp_seconds{credential=\"etl\"}", "6000+0x"),
            ("rotad_deadline_timestamp_seconds{credential=\"etl\"}", "12000+0x"),
        ],
        quiet_at: 155,
        fires_at: 165,
        // Overdue for as long, with a deadline that is weeks away.
        harmless: &[
            ("rotad_due_timestamp_seconds{credential=\"etl\"}", "6000+0x"),
            ("rotad_deadline_timestamp_seconds{credential=\"etl\"}", "2000000+0x"),
        ],
    },
    Case {
        // A new token is on its way (then nothing is due before its deadline), and the old one is past the half of its life.
        alert: "RotadMarginLow",
        severity: "warning",
        wrong: &[
            ("rotad_due_timestamp_seconds{credential=\"etl\"}", "500000+0x"),
            ("rotad_token_expiry_timestamp_seconds{credential=\"etl\"}", "12000+0x"),
        ],
        quiet_at: 105,
        fires_at: 115,
        harmless: &[("rotad_due_timestamp_seconds{credential=\"etl\"}", "500000+0x")],
    },
    Case {
        alert: "RotadSurvivalLow",
        severity: "critical",
        wrong: &[("rotad_survival_deadline_timestamp_seconds", "90000+0x")],
        quiet_at: 60,
        fires_at: 70,
        harmless: &[("rotad_survival_deadline_timestamp_seconds", "87000+60x")],
    },
    Case {
        alert: "RotadBlocked",
        severity: "critical",
        wrong: &[("rotad_blocked{reason=\"rolled_back\"}", "0+0x9 1+0x")],
        quiet_at: 10,
        fires_at: 12,
        harmless: &[("rotad_blocked{reason=\"rolled_back\"}", "0+0x9 1 0+0x")],
    },
    Case {
        alert: "RotadDeliveriesFailing",
        severity: "warning",
        wrong: &[("rotad_deliveries_unconfirmed{sink=\"vault\"}", "0+0x9 3+0x")],
        quiet_at: 22,
        fires_at: 27,
        // Each rotation leaves them unconfirmed for a while.
        harmless: &[("rotad_deliveries_unconfirmed{sink=\"vault\"}", "0+0x9 3+0x10 0+0x")],
    },
    Case {
        alert: "RotadRevocationsOverdue",
        severity: "warning",
        wrong: &[("rotad_revocation_oldest_due_timestamp_seconds", "600+0x")],
        quiet_at: 68,
        fires_at: 77,
        // They wait for something that another alert tells of. It is not frozen for two hours.
        harmless: &[
            ("rotad_revocation_oldest_due_timestamp_seconds", "600+0x120 _x"),
            ("rotad_revocations_frozen{reason=\"clock_skew\"}", "0+0x60 1+0x100 0+0x"),
        ],
    },
    Case {
        alert: "RotadRevocationsFrozen",
        severity: "warning",
        wrong: &[("rotad_revocations_frozen{reason=\"clock_skew\"}", "0+0x9 1+0x")],
        quiet_at: 125,
        fires_at: 132,
        harmless: &[("rotad_revocations_frozen{reason=\"clock_skew\"}", "0+0x9 1+0x100 0+0x")],
    },
    Case {
        alert: "RotadOrphans",
        severity: "warning",
        wrong: &[("rotad_orphans", "0+0x9 1+0x")],
        quiet_at: 1440,
        fires_at: 1455,
        harmless: &[("rotad_orphans", "0+0x9 1+0x800 0+0x")],
    },
    Case {
        alert: "RotadAdminTokenExpiring",
        severity: "critical",
        wrong: &[("rotad_admin_token_expiry_timestamp_seconds{organization=\"main\"}", "1212600+0x")],
        quiet_at: 50,
        fires_at: 60,
        harmless: &[("rotad_admin_token_expiry_timestamp_seconds{organization=\"main\"}", "1400000+0x")],
    },
    Case {
        alert: "RotadFleetLettingGoRefused",
        severity: "warning",
        wrong: &[("rotad_fleet_letting_go_refused{fleet=\"tenants\"}", "0+0x9 1+0x")],
        quiet_at: 12,
        fires_at: 17,
        harmless: &[("rotad_fleet_letting_go_refused{fleet=\"tenants\"}", "0+0x9 1 1 1 0+0x")],
    },
    Case {
        alert: "RotadFleetUnlisted",
        severity: "warning",
        wrong: &[("rotad_fleet_list_last_success_timestamp_seconds{fleet=\"tenants\"}", "0+0x")],
        quiet_at: 18,
        fires_at: 23,
        harmless: &[("rotad_fleet_list_last_success_timestamp_seconds{fleet=\"tenants\"}", "_ _ _ 180+60x")],
    },
    Case {
        alert: "RotadAccountApart",
        severity: "warning",
        wrong: &[("rotad_accounts{state=\"differs\"}", "0+0x9 1+0x")],
        quiet_at: 38,
        fires_at: 41,
        // Created and set within the quarter of an hour, again and again.
        harmless: &[("rotad_accounts{state=\"missing\"}", "0+0x9 3+0x25 0+0x")],
    },
    Case {
        alert: "RotadAccountApart",
        severity: "warning",
        wrong: &[("rotad_accounts_failing", "0+0x9 2+0x")],
        quiet_at: 38,
        fires_at: 41,
        harmless: &[("rotad_accounts{state=\"as_configured\"}", "0+0x")],
    },
    Case {
        alert: "RotadApiThrottled",
        severity: "warning",
        wrong: &[("rotad_provider_requests_total{operation=\"list\",code=\"429\"}", "0+0x29 0+10x")],
        quiet_at: 40,
        fires_at: 60,
        // One in a hundred.
        harmless: &[("rotad_provider_requests_total{operation=\"list\",code=\"429\"}", "0+0.6x")],
    },
    Case {
        alert: "RotadApiFailing",
        severity: "warning",
        wrong: &[
            ("rotad_provider_requests_total{operation=\"list\",code=\"200\"}", "0+60x29 1740+0x"),
            ("rotad_provider_requests_total{operation=\"list\",code=\"401\"}", "0+0x29 0+30x"),
            ("rotad_provider_requests_total{operation=\"list\",code=\"timeout\"}", "0+0x29 0+30x"),
        ],
        quiet_at: 35,
        fires_at: 65,
        harmless: &[("rotad_provider_requests_total{operation=\"list\",code=\"timeout\"}", "0+30x")],
    },
    Case {
        alert: "RotadClockJump",
        severity: "warning",
        wrong: &[("rotad_clock_jumps_total", "0+0x29 1+0x")],
        quiet_at: 29,
        fires_at: 31,
        harmless: &[("rotad_clock_jumps_total", "5+0x")],
    },
    Case {
        alert: "RotadNoneActive",
        severity: "critical",
        wrong: &[("rotad_standby", "0+0x9 1+0x")],
        quiet_at: 12,
        fires_at: 14,
        // Another takes over.
        harmless: &[("rotad_standby", "0+0x9 1+0x"), ("other/rotad_standby", "1+0x10 0+0x")],
    },
    Case {
        alert: "RotadReloadFailed",
        severity: "warning",
        wrong: &[("rotad_config_last_reload_successful", "1+0x9 0+0x")],
        quiet_at: 10,
        fires_at: 12,
        harmless: &[("rotad_config_last_reload_successful", "1+0x9 0 1+0x")],
    },
];

/// The healthy series with some of them otherwise, each to the simulation's end.
fn series(otherwise: &[(&str, &str)]) -> Vec<Value> {
    let unheard: Vec<_> = otherwise.iter().filter(|(name, _)| HEALTHY.iter().all(|(healthy, _)| healthy != name)).collect();
    assert!(unheard.is_empty(), "a healthy rotad has no {unheard:?}");
    let written = HEALTHY.iter().map(|(name, healthy)| {
        let values = otherwise.iter().find(|(other, _)| other == name).map_or(*healthy, |(_, values)| values);
        let values = if values.ends_with('x') { format!("{values}{MINUTES}") } else { values.to_owned() };
        json!({ "series": from_rotad(name), "values": values })
    });
    written.collect()
}

/// The series as a scrape names it.
fn from_rotad(name: &str) -> String {
    let (instance, name) = name.split_once('/').unwrap_or(("one", name));
    match name.split_once('{') {
        None => format!("{name}{{job=\"rotad\",instance=\"{instance}\"}}"),
        Some((name, labels)) => format!("{name}{{job=\"rotad\",instance=\"{instance}\",{labels}"),
    }
}

/// Which alerts fire at a minute: exactly these.
fn firing(minute: u32, alerts: &[(&str, &str)]) -> Value {
    let samples: Vec<Value> = alerts
        .iter()
        .map(|(alert, severity)| json!({ "labels": format!("{{alertname=\"{alert}\",severity=\"{severity}\"}}"), "value": 1 }))
        .collect();
    json!({
        "expr": "count by (alertname, severity) (ALERTS{alertstate=\"firing\"})",
        "eval_time": format!("{minute}m"),
        "exp_samples": samples,
    })
}

fn promtool_passes(tests: &[Value]) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tests.yml");
    // JSON is YAML.
    let rules = repository("deploy/prometheus/rotad.rules.yml");
    std::fs::write(&file, json!({ "rule_files": [rules], "evaluation_interval": "1m", "tests": tests }).to_string()).unwrap();
    let output = super::tools::ran(Command::new(unpacked("promtool")).args(["test", "rules"]).arg(&file));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn test(name: &str, otherwise: &[(&str, &str)], expected: Vec<Value>) -> Value {
    json!({ "name": name, "interval": "1m", "input_series": series(otherwise), "promql_expr_test": expected })
}

#[test]
fn each_alert_fires_for_its_cause_alone_and_not_before() {
    let tests: Vec<Value> = CASES
        .iter()
        .map(|case| {
            let fires = firing(case.fires_at, &[(case.alert, case.severity)]);
            test(case.alert, case.wrong, vec![firing(case.quiet_at, &[]), fires])
        })
        .collect();
    promtool_passes(&tests).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn no_alert_fires_for_less_or_while_all_is_well() {
    let looks = |to: u32| (0..to).step_by(5).map(|minute| firing(minute, &[])).collect();
    let mut tests = vec![test("all is well", &[], looks(MOST))];
    let harmless = CASES.iter().filter(|case| !case.harmless.is_empty());
    tests.extend(harmless.map(|case| {
        let to = if case.fires_at > MOST { MINUTES } else { MOST };
        test(&format!("nearly {}", case.alert), case.harmless, looks(to))
    }));
    promtool_passes(&tests).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn a_wrong_expectation_is_noticed() {
    let case = &CASES[0];
    let missed = test("missed", case.wrong, vec![firing(case.fires_at, &[])]);
    assert!(promtool_passes(&[missed]).unwrap_err().contains("RotadAbsent"));
    let other = test("other", &[], vec![firing(1, &[(case.alert, case.severity)])]);
    assert!(promtool_passes(&[other]).unwrap_err().contains("RotadAbsent"));
}

#[test]
fn every_alert_is_tested_and_says_what_it_means_and_what_to_do() {
    let rules = rules();
    let alerts: Vec<&Value> = rules.iter().filter(|rule| rule["alert"].is_string()).collect();
    let tested: BTreeSet<&str> = CASES.iter().map(|case| case.alert).collect();
    let existing: BTreeSet<&str> = alerts.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    assert_eq!(tested, existing);
    let quiet: BTreeSet<&str> = CASES.iter().filter(|case| !case.harmless.is_empty()).map(|case| case.alert).collect();
    assert_eq!(quiet, existing, "every alert has something that it does not fire for");
    let runbook = text("docs/runbook.md");
    let sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    for rule in alerts {
        let name = rule["alert"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap_or_default()), "{rule}");
        for key in ["summary", "description"] {
            assert!(rule["annotations"][key].as_str().is_some_and(|text| text.len() > 10), "`{name}` lacks its {key}");
        }
        let url = format!("https://rotad.example/docs/runbook.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], url.as_str());
        assert!(sections.contains(name), "docs/runbook.md has no section `## {name}`");
    }
    let stray: Vec<_> = sections.iter().filter(|section| section.starts_with("Rotad") && !existing.contains(*section)).collect();
    assert!(stray.is_empty(), "sections of no alert: {stray:?}");
}

#[test]
fn prometheus_and_alertmanager_accept_what_is_shipped_for_them() {
    let shipped = |name: &str| repository("deploy/prometheus").join(name);
    said(Command::new(unpacked("promtool")).args(["check", "config"]).arg(shipped("prometheus.yml")));
    said(Command::new(unpacked("amtool")).arg("check-config").arg(shipped("alertmanager.yml")));
}
