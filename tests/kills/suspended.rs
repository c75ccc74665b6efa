//! Suspended by SIGSTOP in the middle of an effect, for longer than the effect may take, and continued:
//! what was decided before is not carried out on stale knowledge.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::bench::{Bench, PATIENCE};
use crate::plain::{FAST, Plain, SLOW};
use crate::process::{Process, fingerprint};

pub const CASES: &[(&str, fn())] = &[
    ("in a write or before a revocation", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(in_a_write_or_before_a_revocation());
    }),
    ("a roll-back meanwhile", a_roll_back_meanwhile_is_seen_before_the_revocation),
    ("while a token is asked for", || during_a_request_whose_outcome_it_finds_out("create_token")),
    ("while a token is revoked", || during_a_request_whose_outcome_it_finds_out("revoke_token")),
    ("a fleet that sleeps through its due times", a_fleet_that_slept_through_its_due_times),
];

/// The file sink's time limit is 10 s.
const PAST_FILE: Duration = Duration::from_secs(11);
/// Vault's is 15 s for a write.
const PAST_VAULT: Duration = Duration::from_secs(16);
/// The API's is 30 s, and so is that of each of AWS's two steps.
const PAST_API: Duration = Duration::from_secs(31);

/// Has it continue after `pause`, which is longer than what it was doing may take.
fn continue_after(rotad: &Process, pause: Duration) {
    std::thread::sleep(pause);
    assert!(rotad.is_stopped(), "somebody else had it continue");
    rotad.signal(Signal::CONT);
}

async fn suspended(bench: &Bench, rotad: &mut Process) {
    let patience = Instant::now() + PATIENCE;
    while !rotad.is_stopped() {
        assert!(rotad.ended().is_none() && Instant::now() < patience, "it was not suspended:\n{}", bench.log_text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Between the marker and the value of each sink, and right before a revocation.
async fn in_a_write_or_before_a_revocation() {
    let bench = Bench::start("3s", "2s").await;
    let watch = bench.watch();
    let mut rotad = bench.rotad();
    bench.until("the first revocation", || bench.revoked() >= 1).await;
    rotad.stop();
    let points = [("FileMarked", PAST_FILE), ("VaultMarked", PAST_VAULT), ("AwsPut", PAST_API), ("BeforeRevoke", PAST_API)];
    for (point, pause) in points {
        let mut rotad = bench.rotad_failing_at(&format!("{point}:1:stop"));
        suspended(&bench, &mut rotad).await;
        // Suspended is not gone: nobody takes its journal over, and what it did is told.
        let second = bench.command(&["run"]).output().unwrap();
        assert_eq!(second.status.code(), Some(1), "{second:?}");
        assert!(String::from_utf8_lossy(&second.stderr).contains("is in use by process"), "{second:?}");
        assert_eq!(bench.status()["credentials"][0]["name"], "etl");
        tokio::task::block_in_place(|| continue_after(&rotad, pause));
        let revoked = bench.revoked();
        bench.until("a revocation afterwards", || bench.revoked() > revoked).await;
        assert!(rotad.ended().is_none(), "it ended by itself:\n{}", bench.log_text());
        rotad.stop();
    }
    let mut rotad = bench.rotad();
    bench.goes_on().await;
    rotad.stop();
    bench.keeps_its_secrets(false);
    println!("{:?}", watch.judge(&bench.stand_in));
}

fn plainly_suspended(plain: &Plain, rotad: &Process) {
    plain.until("the suspension", || rotad.is_stopped());
}

fn a_roll_back_meanwhile_is_seen_before_the_revocation() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    // Between two rotations: one token lives, and the next to be revoked is that one.
    loop {
        let mut rotad = plain.rotad_delivering(&["etl"]);
        plain.until("the one token", || plain.live().len() == 1);
        rotad.stop();
        if plain.live().len() == 1 {
            break;
        }
    }
    let before = plain.served("etl").unwrap();
    let mut rotad = plain.rotad_failing_at("BeforeRevoke:1:stop");
    plainly_suspended(&plain, &rotad);
    assert_ne!(plain.served("etl"), Some(before.clone()), "a successor was delivered");
    assert!(plain.live().contains(&fingerprint(&before)), "it is in its grace period");
    // A person suspects the new token, and puts the last one back.
    plain.put("etl", &before);
    continue_after(&rotad, PAST_FILE);
    plain.until("what it sees", || {
        plain.serves_nothing_dead("etl");
        plain.log().contains("rolled_back")
    });
    plain.until("the next rotation", || {
        plain.serves_nothing_dead("etl");
        plain.served("etl").as_ref() != Some(&before)
    });
    rotad.stop();
}

fn during_a_request_whose_outcome_it_finds_out(operation: &str) {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the first revocation", || plain.revoked() >= 1);
    let before = plain.effects(operation).len();
    // Carried out, and answered only once nobody listens.
    let delay = json!({ "misbehaviour": { "delay": { "seconds": 5.0 } }, "operations": [operation], "requests": 1 });
    plain.misbehave(&delay);
    plain.until("the request", || plain.effects(operation).len() > before);
    rotad.signal(Signal::STOP);
    plainly_suspended(&plain, &rotad);
    let (issued, revoked) = (plain.issued(), plain.revoked());
    continue_after(&rotad, PAST_API);
    plain.until("what follows", || {
        let line = plain.line("etl");
        plain.serves_nothing_dead("etl");
        plain.issued() > issued + 1 && plain.revoked() > revoked + 1 && line["tokens"]["lost"] == 0
    });
    assert_eq!(plain.line("etl")["block"], serde_json::Value::Null);
    rotad.stop();
}

fn a_fleet_that_slept_through_its_due_times() {
    let names: Vec<String> = (0..30).map(|number| format!("etl{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let plain = Plain::start();
    plain.configure_with(&names, SLOW);
    plain.rotad_delivering(&names).stop();
    // From now on every one of them is due every 20 s, and 10 in a minute may begin.
    let fast: String = names.iter().map(|name| plain.credential(name, "every = \"20s\"\ngrace = \"10s\"")).collect();
    plain.configure(&(plain.head().replace("rotations_per_minute = 600", "rotations_per_minute = 10") + &fast));
    let issued = plain.issued();
    let mut rotad = plain.rotad();
    plain.until("the first rotation", || plain.issued() > issued);
    rotad.signal(Signal::STOP);
    plainly_suspended(&plain, &rotad);
    continue_after(&rotad, PAST_API);
    std::thread::sleep(Duration::from_secs(10));
    plain.holds_the_limit(issued, 10);
    assert!(names.iter().all(|name| plain.serves_live(name)));
    rotad.stop();
}
