//! The main job, end to end, on real servers: one credential delivered to AWS (moto), Vault
//! (OpenBao) and a file at once, while a consumer outside of rotad reads all three.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

mod support {
    pub mod bench;
    pub mod moto;
    pub mod openbao;
    pub mod proxy;
}

use std::time::Duration;

use serde_json::{Value, json};
use support::bench::{Bench, CREDENTIAL, Look, judge};
use support::proxy::Manner;

/// How long anything may take on a busy machine before the test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `met`, looked at ten times a second.
async fn until(what: &str, bench: &Bench, mut met: impl FnMut(&Bench) -> bool) {
    for _ in 0..PATIENCE.as_millis() / 100 {
        if met(bench) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} did not come; the daemon's log:\n{}", bench.log_text());
}

fn revoked(bench: &Bench) -> usize {
    bench.api_log().iter().filter(|record| record["operation"] == "revoke_token" && record["effect"] == true).count()
}

/// Every place serves the one current token, nothing is lost, orphaned or blocked, and the live
/// tokens are the current one and those in grace.
async fn converged(bench: &Bench) -> Result<(), String> {
    let served = bench.serves().await;
    let first = served[0].clone().ok_or("a place is empty")?;
    if served.iter().any(|value| value.as_ref() != Some(&first)) {
        return Err("the places serve different tokens".to_owned());
    }
    let status = bench.status();
    let credential = &status["credentials"][0];
    for count in ["lost", "orphaned", "unfit"] {
        if credential["tokens"][count] != 0 {
            return Err(format!("{count}: {credential}"));
        }
    }
    if !credential["blocked"].is_null() {
        return Err(format!("blocked: {credential}"));
    }
    let tokens = &credential["tokens"];
    let expected = ["current", "retiring", "issued"].iter().map(|phase| tokens[*phase].as_u64().unwrap()).sum::<u64>();
    let state = bench.stand_in_call(reqwest::Method::GET, "state", None).await;
    let live = live_tokens(&state);
    if live as u64 != expected {
        return Err(format!("{live} tokens live, {expected} expected: {credential}"));
    }
    Ok(())
}

fn live_tokens(state: &Value) -> usize {
    let users = state["users"].as_array().unwrap();
    let account = users.iter().find(|user| user["username"] == support::bench::ACCOUNT).unwrap();
    account["live_tokens"].as_array().unwrap().len()
}

/// Convergence within a minute of the last fault; the states in between are allowed to be seen.
async fn converges(bench: &Bench) {
    let mut last = String::new();
    for _ in 0..120 {
        match converged(bench).await {
            Ok(()) => return,
            Err(why) => last = why,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("not converged after 60 s: {last}\n{}", bench.log_text());
}

/// After the faults it converges and rotates again. How far it came meanwhile depends on the machine;
/// that it goes on does not.
async fn goes_on(bench: &Bench) {
    converges(bench).await;
    let before = revoked(bench);
    until("a revocation after the faults", bench, |bench| revoked(bench) > before).await;
}

fn harmed_nobody(bench: &Bench, looks: &[Look]) {
    let verdict = judge(looks, &bench.api_log());
    assert!(verdict.revoked >= 2 && verdict.looks > 1000, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_rotations_break_no_consumer_of_three_sinks() {
    let bench = Bench::start("4s", "2s").await;
    let (looks, watchers) = bench.reader().watch();
    let mut rotad = bench.rotad();
    until("the tenth revocation", &bench, |bench| revoked(bench) >= 10).await;
    converges(&bench).await;
    let ended = rotad.terminate(Duration::from_secs(20)).expect("SIGTERM ends the daemon within 20 s");
    assert!(ended.success(), "{ended}\n{}", bench.log_text());
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    let verdict = judge(&looks.lock().unwrap(), &bench.api_log());
    assert!(verdict.revoked >= 10 && verdict.issued > verdict.revoked && verdict.looks > 1000, "{verdict:?}");
    secrets_stay_secret(&bench);
}

/// S4: no value that was ever issued is in the log, the journal or the status.
fn secrets_stay_secret(bench: &Bench) {
    let value = std::fs::read_to_string(bench.path("sinks/token")).unwrap();
    let admin = std::fs::read_to_string(bench.path("admin-token")).unwrap();
    let mut places = vec![("log", bench.log_text().into_bytes()), ("status", bench.status().to_string().into_bytes())];
    for file in ["journal.db", "journal.db-wal"] {
        if let Ok(bytes) = std::fs::read(bench.path(file)) {
            places.push(("journal", bytes));
        }
    }
    for secret in [value.trim(), admin.trim()] {
        for (name, bytes) in &places {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a value stands in the {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_sinks_and_api_break_no_consumer() {
    let bench = Bench::start("4s", "2s").await;
    let (looks, watchers) = bench.reader().watch();
    let _rotad = bench.rotad();
    until("the second revocation", &bench, |bench| revoked(bench) >= 2).await;
    let fault = Duration::from_secs(10);
    for proxy in [&bench.bao_proxy, &bench.moto_proxy] {
        for manner in [Manner::Refuse, Manner::Hang] {
            proxy.set(manner);
            tokio::time::sleep(fault).await;
            proxy.set(Manner::Pass);
        }
    }
    file_refuses(&bench, fault).await;
    file_hangs(&bench, fault).await;
    bench.misbehave(json!({ "status": { "status": 500 } }), 10).await;
    tokio::time::sleep(fault).await;
    bench.misbehave(json!({ "reset": { "carry_out": true } }), 10).await;
    tokio::time::sleep(fault).await;
    goes_on(&bench).await;
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    harmed_nobody(&bench, &looks.lock().unwrap());
}

/// The file's directory takes no new file: an immutable directory refuses root as well; where the
/// file system has no such flag, the directory's place is taken by a read-only view of it.
async fn file_refuses(bench: &Bench, fault: Duration) {
    let directory = bench.path("sinks");
    let mount = |arguments: &[&str]| {
        let output = std::process::Command::new("mount").args(arguments).arg(&directory).output().unwrap();
        assert!(
            output.status.success(),
            "this test needs root, for a read-only mount: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let path = directory.to_str().unwrap().to_owned();
    mount(&["--bind", &path]);
    mount(&["-o", "remount,bind,ro"]);
    tokio::time::sleep(fault).await;
    let output = std::process::Command::new("umount").arg("--lazy").arg(&directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Somebody holds the lock that a write to the directory needs.
async fn file_hangs(bench: &Bench, fault: Duration) {
    let directory = std::fs::File::open(bench.path("sinks")).unwrap();
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).unwrap();
    tokio::time::sleep(fault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_kills_in_ninety_seconds_break_no_consumer() {
    let bench = Bench::start("4s", "2s").await;
    let (looks, watchers) = bench.reader().watch();
    let mut rotad = bench.rotad();
    until("the first revocation", &bench, |bench| revoked(bench) >= 1).await;
    // A fixed seed: pauses of 1 to 5 s, 3 s on average.
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..30 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(1000 + (random >> 33) % 4000)).await;
        rotad.kill();
        rotad = bench.rotad();
    }
    goes_on(&bench).await;
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    harmed_nobody(&bench, &looks.lock().unwrap());
    drop(rotad);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_the_same_journal_is_refused() {
    let bench = Bench::start("4m", "1m").await;
    let _rotad = bench.rotad();
    until("the first delivery", &bench, |bench| bench.path("sinks/token").exists()).await;
    let second = bench.command(&["run"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("journal.db"), "{told}");
    assert_eq!(bench.status()["credentials"][0]["name"], CREDENTIAL);
}
