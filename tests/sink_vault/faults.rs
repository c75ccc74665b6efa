//! What goes wrong, and how it is told: definite from unknown, and in one sentence what to do.

use super::*;

/// What a write answers while the gate misbehaves at the request that carries the value.
async fn write_under(fault: Fault) -> (WriteOutcome, Bao, Arc<dyn Place>, Gate) {
    let bao = Bao::dev().await;
    let gate = Gate::before(&bao.address).await;
    let store = store_at(&bao, &gate.address, root_auth(&bao)).await;
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    let version = read(&place, "etl").await.version;
    gate.misbehave("POST", "secret/data/app", fault);
    let outcome = place.write(&version, &Delivery::new("etl", 0).payload()).await;
    gate.behave();
    (outcome, bao, place, gate)
}

#[tokio::test]
async fn refusals_are_definite() {
    let cases = [
        (400, r#"{"errors":["nonsense"]}"#, Reason::Rejected),
        (403, r#"{"errors":["permission denied"]}"#, Reason::Forbidden),
        (413, "", Reason::Full),
        (429, r#"{"errors":["rate limit quota exceeded"]}"#, Reason::Throttled),
        (472, "", Reason::Unavailable),
        (473, "", Reason::Unavailable),
        (503, r#"{"errors":["Vault is sealed"]}"#, Reason::Unavailable),
    ];
    for (status, body, reason) in cases {
        let (outcome, _bao, place, _gate) = write_under(Fault::Answer(status, body)).await;
        let WriteOutcome::Refused(failed) = outcome else { panic!("{status}: {outcome:?}") };
        assert_eq!(failed.reason, reason, "{status}: {failed}");
        if reason == Reason::Throttled {
            assert_eq!(failed.retry_after, Some(jiff::SignedDuration::from_secs(7)));
        }
        assert!(matches!(read(&place, "etl").await.shows, Shows::Nothing { .. }));
    }
}

#[tokio::test]
async fn a_server_error_at_the_value_leaves_the_outcome_unknown() {
    for (status, body) in [(500, r#"{"errors":["internal error"]}"#), (502, "<html>"), (503, "busy"), (504, "")] {
        let (outcome, ..) = write_under(Fault::Answer(status, body)).await;
        assert!(
            matches!(&outcome, WriteOutcome::Unknown(failed) if failed.reason == Reason::Unavailable),
            "{status}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_leaves_the_outcome_unknown() {
    let (outcome, _bao, place, _gate) = write_under(Fault::BreakOff).await;
    assert!(matches!(&outcome, WriteOutcome::Unknown(failed) if failed.reason == Reason::BadAnswer), "{outcome:?}");
    // It was written all the same, and a read-back explains it.
    let Shows::Value { rotation, .. } = read(&place, "etl").await.shows else { panic!("it was written") };
    assert_eq!(rotation, Some(Delivery::new("etl", 0).rotation));
}

#[tokio::test]
async fn a_server_that_hangs_at_the_value_leaves_the_outcome_unknown_within_the_limit() {
    let started = std::time::Instant::now();
    let (outcome, _bao, place, _gate) = write_under(Fault::Hang).await;
    assert!(matches!(&outcome, WriteOutcome::Unknown(failed) if failed.reason == Reason::TimedOut), "{outcome:?}");
    let limit = place.write_limit().unsigned_abs();
    assert!(started.elapsed() > limit - std::time::Duration::from_secs(2), "it waits as long as it may");
}

#[tokio::test]
async fn a_server_that_hangs_before_the_value_was_sent_refuses() {
    let bao = Bao::dev().await;
    let gate = Gate::before(&bao.address).await;
    let store = store_at(&bao, &gate.address, root_auth(&bao)).await;
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    let version = read(&place, "etl").await.version;
    gate.misbehave("POST", "secret/metadata/app", Fault::Hang);
    let outcome = place.write(&version, &Delivery::new("etl", 0).payload()).await;
    assert!(matches!(&outcome, WriteOutcome::Refused(failed) if failed.reason == Reason::TimedOut), "{outcome:?}");
    assert_eq!(gate.seen("secret/data/app").iter().filter(|seen| seen.method == "POST").count(), 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_our_token() {
    let trap = Bao::dev().await;
    let trap_gate = Gate::before(&trap.address).await;
    let (outcome, ..) = write_under(Fault::Redirect(format!("{}/v1/secret/data/app", trap_gate.address))).await;
    assert!(matches!(&outcome, WriteOutcome::Refused(failed) if failed.reason == Reason::Unavailable), "{outcome:?}");
    assert_eq!(trap_gate.count(""), 0);
}

#[tokio::test]
async fn a_refused_connection_is_definite_and_told() {
    let bao = Bao::dev().await;
    let address = format!("http://127.0.0.1:{}", openbao::free_port());
    let store = store_at(&bao, &address, root_auth(&bao)).await;
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    let failed = place.read(&question("etl")).await.unwrap_err();
    assert_eq!(failed.reason, Reason::Unreachable, "{failed}");
    assert!(failed.detail.contains(&address) && failed.detail.contains("refused"), "{failed}");
    let outcome = place.write(&rotad::sinks::Version("0 empty -".to_owned()), &Delivery::new("etl", 0).payload()).await;
    assert!(matches!(&outcome, WriteOutcome::Refused(failed) if failed.reason == Reason::Unreachable), "{outcome:?}");
}

#[tokio::test]
async fn a_sealed_server_is_told_and_works_again_when_it_is_unsealed() {
    let bao = Bao::full(None).await;
    let place = root_place(&bao, "app", "token").await;
    deliver(&place, "etl", &Delivery::new("etl", 0)).await;
    let version = read(&place, "etl").await.version;
    bao.seal().await;
    let failed = place.read(&question("etl")).await.unwrap_err();
    assert_eq!((failed.reason, failed.detail.as_str()), (Reason::Unavailable, "the server is sealed; unseal it"));
    let outcome = place.write(&version, &Delivery::new("etl", 1).payload()).await;
    assert!(matches!(&outcome, WriteOutcome::Refused(failed) if failed.reason == Reason::Unavailable), "{outcome:?}");
    bao.unseal().await;
    bao.until("GET", "secret/config", |status| status == 200).await;
    deliver(&place, "etl", &Delivery::new("etl", 1)).await;
}

#[tokio::test]
async fn a_wrong_mount_version_or_address_is_told() {
    let bao = Bao::dev().await;
    bao.ok("POST", "sys/mounts/old", json!({ "type": "kv", "options": { "version": "1" } })).await;
    bao.ok("POST", "sys/mounts/transit", json!({ "type": "transit" })).await;
    let cases = [
        ("old", KvVersion::V2, Reason::Unsuitable, "set `kv_version = 1`"),
        ("secret", KvVersion::V1, Reason::Unsuitable, "set `kv_version = 2`"),
        ("transit", KvVersion::V2, Reason::Unsuitable, "`transit`"),
        ("nowhere", KvVersion::V2, Reason::Missing, "no secrets engine is mounted at `nowhere`"),
    ];
    for (mount, kv_version, reason, part) in cases {
        let store = Store::open(Config { mount: mount.to_owned(), kv_version, ..config(&bao, root_auth(&bao)) }).await.unwrap();
        let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
        let failed = place.read(&question("etl")).await.unwrap_err();
        assert_eq!(failed.reason, reason, "{failed}");
        assert!(failed.detail.contains(part), "{failed}");
        let outcome = place.write(&rotad::sinks::Version("0 empty -".to_owned()), &Delivery::new("etl", 0).payload()).await;
        assert!(matches!(&outcome, WriteOutcome::Refused(failed) if failed.reason == reason), "{outcome:?}");
        assert!(matches!(&place.check().await[..], [.., Finding::Wrong(failed)] if failed.reason == reason));
    }
    assert_eq!(bao.call("GET", "old/data/app", None).await.0, 404, "nothing is written beside the place");

    // A 404 that is not Vault's must not pass for an empty place.
    let gate = Gate::before(&bao.address).await;
    gate.misbehave("GET", "secret/", Fault::Answer(404, "<html>not here</html>"));
    let store = store_at(&bao, &gate.address, root_auth(&bao)).await;
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    assert_eq!(place.read(&question("etl")).await.unwrap_err().reason, Reason::NoRoute);
}

#[tokio::test]
async fn a_read_carries_the_state_that_our_write_made() {
    let bao = Bao::dev().await;
    let gate = Gate::before(&bao.address).await;
    let store = store_at(&bao, &gate.address, root_auth(&bao)).await;
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    gate.misbehave("POST", "secret/data/app", Fault::AddHeader("X-Vault-Index", "djE6b25l"));
    deliver(&place, "etl", &Delivery::new("etl", 0)).await;

    // A standby that has not come that far yet says so, instead of showing what was there before.
    gate.misbehave("GET", "secret/data/app", Fault::Answer(412, r#"{"errors":["required index state not present"]}"#));
    assert_eq!(place.read(&question("etl")).await.unwrap_err().reason, Reason::Unavailable);
    let last = gate.seen("secret/data/app").pop().unwrap();
    assert_eq!((last.method.as_str(), last.headers.get("X-Vault-Index").unwrap().to_str().unwrap()), ("GET", "djE6b25l"));
}

#[tokio::test]
async fn no_log_at_any_level_and_no_error_holds_a_value_or_a_token() {
    let log = Log::of_this_thread();
    let bao = Bao::dev().await;
    let gate = Gate::before(&bao.address).await;
    let (auth, secret_id) = approle(&bao, json!({ "token_policies": ["all"], "token_ttl": "1h" })).await;
    let store = store_at(&bao, &gate.address, auth).await;
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    let mut errors = Vec::new();
    deliver(&place, "etl", &Delivery::new("etl", 0)).await;
    let before = read(&place, "etl").await.version;
    deliver(&place, "etl", &Delivery::new("etl", 1)).await;
    assert_eq!(place.write(&before, &Delivery::new("etl", 2).payload()).await, WriteOutcome::Conflict);
    for (method, fault) in [
        ("GET", Fault::Answer(200, r#"{"data":{"data":{"token":"planted-value-1"#)),
        ("GET", Fault::Answer(404, r#"{"data":{"data":{"token":"planted-value-2"}}"#)),
        ("GET", Fault::Answer(500, r#"planted-value-3"#)),
        ("POST", Fault::Answer(400, r#"{"errors":["no"]}"#)),
        ("POST", Fault::BreakOff),
    ] {
        gate.misbehave(method, "secret/data/app", fault);
        if method == "POST" {
            let version = read(&place, "etl").await.version;
            errors.push(format!("{:?}", place.write(&version, &Delivery::new("etl", 3).payload()).await));
        } else {
            errors.push(format!("{:?}", place.read(&question("etl")).await));
        }
        errors.push(format!("{:?}", place.check().await));
        gate.behave();
    }
    let text = format!("{}\n{}", log.text(), errors.join("\n"));

    let token = gate.seen("secret/data/app")[0].headers.get("X-Vault-Token").unwrap().to_str().unwrap().to_owned();
    assert!(text.contains("secret/data/app") || text.contains("request"), "the log holds something");
    let mut planted: Vec<String> = (0..4).map(|number| Delivery::new("etl", number).value.expose().to_owned()).collect();
    planted.extend([token, secret_id, "planted-value".to_owned()]);
    for secret in planted {
        assert!(!text.contains(&secret), "found in: {}", text.lines().find(|line| line.contains(&secret)).unwrap());
    }
}

#[tokio::test]
async fn the_environment_has_no_influence() {
    // A process of its own, since variables can't be set safely in this one.
    let trap = format!("http://127.0.0.1:{}", openbao::free_port());
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "kv_v2_keeps_the_sink_contract", "--nocapture"]);
    for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "VAULT_ADDR", "BAO_ADDR"] {
        child.env(variable, &trap);
    }
    child
        .env("VAULT_TOKEN", "wrong")
        .env("VAULT_NAMESPACE", "wrong")
        .env("VAULT_SKIP_VERIFY", "")
        .env("VAULT_CACERT", "/nowhere");
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
