//! What a running daemon tells: status, metrics, and never a secret.

use crate::plain::{FAST, Plain, SLOW};

#[test]
fn status_tells_the_same_whether_the_daemon_runs_or_not() {
    let plain = Plain::start();
    plain.configure_with(&["etl", "odd"], SLOW);
    plain.ask(&["status"]).complains(1, &["journal.db", "has not run yet"]);
    std::fs::write(plain.path("sinks/odd"), "planted-by-hand").unwrap();
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the block", || plain.line("odd")["blocked"] == "take_over_needed");
    plain.until("the delivery", || plain.line("etl")["state"] == "current");
    let running = plain.status();
    let text = plain.ask(&["status"]).out;
    for word in ["CREDENTIAL", "etl", "1 of 1", "odd", "blocked since", "take_over"] {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
    assert!(text.find("odd").unwrap() < text.find("etl").unwrap(), "what is blocked comes first:\n{text}");
    rotad.stop();
    let stopped = plain.status();
    assert_eq!(running["credentials"], stopped["credentials"]);
    let block = plain.line("odd")["block"].clone();
    assert!(block["detail"].as_str().is_some_and(|detail| detail.contains("take_over = true")), "{block}");
    assert_eq!(plain.served("odd").as_deref(), Some("planted-by-hand"));
    assert!(!(text + &running.to_string() + &plain.log()).contains("planted-by-hand"));
}

#[test]
fn status_says_when_nobody_answers_where_the_daemon_should_be() {
    let plain = Plain::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let head = plain.head().replace("127.0.0.1:0", &free.to_string());
    plain.configure(&(head + &plain.credential("etl", SLOW)));
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the delivery", || plain.line("etl")["state"] == "current");
    let text = plain.ask(&["status"]).out;
    assert!(text.starts_with("If rotad stopped now, every consumer would keep working for "), "{text}");
    assert_eq!(plain.status()["daemon_answers"], true);
    rotad.stop();
    let text = plain.ask(&["status"]).out;
    assert!(text.starts_with("rotad does not answer: does it run? Every consumer keeps working for "), "{text}");
    assert_eq!(plain.status()["daemon_answers"], false);
}

#[test]
fn metrics_count_what_was_done() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("two revocations", || plain.revoked() >= 2);
    plain.until("their count", || plain.metric("rotad_revocations_total{outcome=\"revoked\"}") >= Some(2.0));
    let value = |series: &str| plain.metric(series).unwrap_or_else(|| panic!("no {series}:\n{}", plain.http("/metrics").1));
    assert!(value("rotad_rotations_total{outcome=\"succeeded\"}") >= 3.0);
    assert!(value("rotad_deliveries_total{outcome=\"confirmed\",sink=\"file\"}") >= 3.0);
    assert!(value("rotad_rotation_margin_seconds_count") >= 2.0);
    assert!(value("rotad_journal_commit_duration_seconds_count") >= 3.0);
    assert!(value("rotad_sink_request_duration_seconds_count{operation=\"write\",sink=\"file\"}") >= 3.0);
    assert!(value("rotad_provider_requests_total{code=\"200\",operation=\"issue\"}") >= 3.0, "{}", plain.http("/metrics").1);
    let heartbeat = value("rotad_scheduler_heartbeat_timestamp_seconds");
    let survival = value("rotad_survival_deadline_timestamp_seconds");
    assert!(survival > heartbeat && survival < heartbeat + 601.0, "{survival} {heartbeat}");
    assert!(value("rotad_token_expiry_timestamp_seconds{credential=\"etl\"}") >= survival);
    assert!(value("rotad_deadline_timestamp_seconds{credential=\"etl\"}") < survival);
    for series in
        ["rotad_lost", "rotad_orphans", "rotad_unknown_tokens", "rotad_foreign_tokens", "rotad_credentials_past_deadline"]
    {
        assert_eq!(value(series), 0.0, "{series}");
    }
    assert_eq!(value("rotad_clock_jumps_total"), 0.0);
    assert!(value("rotad_clock_skew_seconds").abs() < 60.0);
    assert_eq!(value(&format!("rotad_build_info{{version=\"{}\",revision=\"unknown\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    // What the stand-in's admin token claims of itself.
    assert_eq!(value("rotad_admin_token_expiry_timestamp_seconds{organization=\"main\"}"), 4_102_444_800.0);
    assert_eq!(plain.http("/healthz").0, 200);
    rotad.stop();
}

#[test]
fn no_secret_leaves_by_any_way() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let mut rotad = plain.rotad_with(&["--log", "trace"]);
    let mut secrets = vec![std::fs::read_to_string(plain.path("admin-token")).unwrap().trim().to_owned()];
    plain.until("two revocations", || {
        secrets.extend(plain.served("etl").filter(|value| secrets.last() != Some(value)));
        plain.revoked() >= 2
    });
    let process = format!("/proc/{}", rotad.0.id());
    let limits = std::fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    for task in std::fs::read_dir(format!("{process}/task")).unwrap() {
        let children = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap();
        assert_eq!(children, "", "the daemon has children");
    }
    let mut told = vec![
        ("metrics", plain.http("/metrics").1.into_bytes()),
        ("JSON", plain.http("/api/v1/status").1.into_bytes()),
        ("credential's JSON", plain.http("/api/v1/credentials/etl").1.into_bytes()),
        ("status page", plain.http("/").1.into_bytes()),
        ("credential's page", plain.http("/credential/etl").1.into_bytes()),
        ("history's page", plain.http("/credential/etl/history").1.into_bytes()),
        ("status", plain.ask(&["status", "--json"]).out.into_bytes()),
        ("environment", std::fs::read(format!("{process}/environ")).unwrap()),
        ("arguments", std::fs::read(format!("{process}/cmdline")).unwrap()),
    ];
    rotad.stop();
    let log = plain.log();
    assert!(log.contains("DEBUG rotad::"), "the log is not at its lowest level");
    told.push(("log", log.into_bytes()));
    for entry in std::fs::read_dir(plain.path("journal")).unwrap() {
        told.push(("journal", std::fs::read(entry.unwrap().path()).unwrap()));
    }
    assert!(secrets.len() >= 3 && secrets.iter().all(|secret| secret.len() > 20), "{} secrets", secrets.len());
    for (place, bytes) in &told {
        for secret in &secrets {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "a secret stands in the {place}");
        }
    }
    let mut left: Vec<_> = std::fs::read_dir(plain.path("sinks")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".etl.rotad", "etl"], "something is left beside the file");
}

#[test]
fn another_organization_s_admin_token_freezes_everything_and_is_told() {
    const FROZEN: &str = "rotad_revocations_frozen{reason=\"another_organization\"}";
    let mut plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    assert_eq!(plain.metric(FROZEN), Some(0.0));
    rotad.stop();
    let served = plain.served("etl");
    plain.become_another_organization();
    plain.configure_with(&["etl"], SLOW);
    let mut rotad = plain.rotad();
    plain.until("the block", || plain.line("etl")["blocked"] == "another_organization");
    plain.until("the freeze", || plain.metric(FROZEN) == Some(1.0));
    assert_eq!(plain.served("etl"), served);
    assert!(plain.line("etl")["block"]["detail"].as_str().is_some_and(|detail| detail.contains("admin token")));
    rotad.stop();
}

#[test]
fn the_admin_token_s_expiry_is_watched_and_followed_when_it_is_replaced() {
    const EXPIRY: &str = "rotad_admin_token_expiry_timestamp_seconds{organization=\"main\"}";
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    // The claims are `{"exp":1600000000}`, long ago, and `{"exp":4000000000}`, in 2096.
    for (claims, expiry) in [("eyJleHAiOjE2MDAwMDAwMDB9", 1_600_000_000.0), ("eyJleHAiOjQwMDAwMDAwMDB9", 4_000_000_000.0)] {
        std::fs::write(plain.path("admin-token"), format!("eyJhbGciOiJIUzI1NiJ9.{claims}.c2ln")).unwrap();
        plain.until("the expiry", || plain.metric(EXPIRY) == Some(expiry));
        plain.until("its end to be told", || plain.log().contains("the admin token has expired"));
        assert_eq!(plain.log().matches("the admin token has expired").count(), 1, "{}", plain.log());
    }
    std::fs::write(plain.path("admin-token"), "says-nothing").unwrap();
    plain.until("the expiry to be unknown", || plain.metric(EXPIRY).is_none());
    rotad.stop();
}

#[test]
fn a_support_bundle_has_what_a_report_needs_and_no_secret() {
    let plain = Plain::start();
    let odd = plain.credential("odd", SLOW).replace("[credential.odd]", "[credential.odd] # hunter2");
    plain.configure(&(plain.head() + &plain.credential("etl", FAST) + &odd));
    plain.put("odd", "planted-by-hand");
    let bundle = |plain: &Plain| -> (serde_json::Value, String) {
        let answer = plain.ask(&["support"]);
        assert_eq!(answer.code, 0, "{answer:?}");
        (serde_json::from_str(&answer.out).unwrap(), answer.out)
    };
    let (before, _) = bundle(&plain);
    assert!(before["status"]["failed"].as_str().is_some_and(|why| why.contains("has not run yet")), "{before}");
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the block", || plain.line("odd")["blocked"] == "take_over_needed");
    plain.until("a revocation", || plain.revoked() >= 1);
    let secrets = [std::fs::read_to_string(plain.path("admin-token")).unwrap(), plain.served("etl").unwrap()];
    let (found, text) = bundle(&plain);
    rotad.stop();
    for secret in secrets.iter().map(|secret| secret.trim()).chain(["planted-by-hand", "hunter2"]) {
        assert!(!text.contains(secret), "a secret or a comment stands in the bundle");
    }
    assert_eq!(found["build"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(found["warnings"][0].as_str().is_some_and(|warning| warning.contains("`grace` of 2s")), "{found}");
    assert_eq!(found["configuration"]["credential"]["etl"]["grace"], "2s");
    assert_eq!(found["needing_attention"][0]["concerns"][0]["attention"], "blocked");
    assert!(found["history"].as_array().unwrap().iter().any(|line| line["step"]["what"] == "revoked"), "{found}");
    assert!(found["metrics"]["failed"].as_str().is_some_and(|why| why.contains("port 0")) && found["journal"]["bytes"].is_u64());
    plain.configure("deployment = 7");
    let (wrong, _) = bundle(&plain);
    assert!(wrong["configuration"]["failed"].as_str().is_some_and(|why| why.contains("`deployment`")), "{wrong}");
}

#[test]
fn a_support_bundle_has_the_running_daemon_s_answers() {
    let plain = Plain::start();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    plain.configure(&(plain.head().replace("127.0.0.1:0", &format!("127.0.0.1:{port}")) + &plain.credential("etl", SLOW)));
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let found: serde_json::Value = serde_json::from_str(&plain.ask(&["support"]).out).unwrap();
    rotad.stop();
    assert_eq!((&found["healthz"]["status"], &found["healthz"]["text"]), (&200.into(), &"alive\n".into()));
    assert!(found["metrics"]["text"].as_str().is_some_and(|text| text.contains("rotad_build_info")), "{found}");
}

#[test]
fn a_credential_is_found_by_its_name_its_account_and_its_labels() {
    let plain = Plain::start();
    let labelled = format!("{SLOW}\nlabels = {{ team = \"Data\" }}");
    plain.configure(&(plain.head() + &plain.credential("etl", &labelled) + &plain.credential("web", SLOW)));
    let mut rotad = plain.rotad_delivering(&["etl", "web"]);
    let found = |part: &str| -> Vec<String> {
        let (_, answer) = plain.http(&format!("/api/v1/credentials?q={part}"));
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        answer["credentials"].as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found("WEB"), ["web"]);
    assert_eq!(found("team=data"), ["etl"]);
    assert_eq!(found("_test").len(), 2, "both are of the account");
    assert_eq!(found("nobody").len(), 0);
    rotad.stop();
}

#[test]
fn the_health_check_asks_the_daemon_whatever_else_the_file_says() {
    let plain = Plain::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = plain.head().replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{free}\"")) + &plain.credential("etl", SLOW);
    plain.configure(&text);
    plain.ask(&["healthcheck"]).complains(1, &[&free.to_string()]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let answer = plain.ask(&["healthcheck"]);
    assert_eq!((answer.code, answer.out.as_str()), (0, "alive\n"), "{answer:?}");
    plain.until("readiness", || plain.ask(&["healthcheck", "--ready"]).code == 0);
    // The daemon has not taken what is wrong, so it is as well as before.
    plain.configure(&(text + "\n[credential.broken\n"));
    assert_eq!(plain.ask(&["healthcheck"]).code, 0);
    rotad.signal(rustix::process::Signal::STOP);
    plain.until("the suspension", || rotad.is_stopped());
    plain.ask(&["healthcheck"]).complains(1, &[&free.to_string()]);
    rotad.signal(rustix::process::Signal::CONT);
    rotad.stop();
}
