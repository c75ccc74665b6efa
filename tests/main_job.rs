//! The main job, end to end, on real servers: one credential delivered to AWS (moto), Vault
//! (OpenBao) and a file at once, while a consumer outside of rotad reads all three.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions
#![allow(clippy::print_stdout)] // how long it took

mod support {
    pub mod bench;
    pub mod consumer;
    pub mod moto;
    pub mod openbao;
    pub mod process;
    pub mod proxy;
}

use std::time::Duration;

use serde_json::json;
use support::bench::{Bench, CREDENTIAL};
use support::proxy::Manner;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_rotations_break_no_consumer_of_three_sinks() {
    let bench = Bench::start("4s", "2s").await;
    let watch = bench.watch();
    let mut rotad = bench.rotad();
    bench.until("the tenth revocation", || bench.revoked() >= 10).await;
    bench.converges().await;
    let ended = rotad.terminate(Duration::from_secs(20)).expect("SIGTERM ends the daemon within 20 s");
    assert!(ended.success(), "{ended}\n{}", bench.log_text());
    let verdict = watch.judge(&bench.stand_in);
    assert!(verdict.revoked >= 10 && verdict.issued > verdict.revoked, "{verdict:?}");
    bench.keeps_its_secrets(false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_sinks_and_api_break_no_consumer() {
    let bench = Bench::start("4s", "2s").await;
    let watch = bench.watch();
    let _rotad = bench.rotad();
    bench.until("the second revocation", || bench.revoked() >= 2).await;
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
    let took = bench.goes_on().await;
    println!("after the last fault all was as it should be within {} s", took.as_secs());
    bench.looks_for_none().await;
    bench.holds_the_limits();
    watch.judge(&bench.stand_in);
}

/// As dense as the moments are random: whatever is under way when it ends, the next process has it for a second or five.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_kills_in_ninety_seconds_break_no_consumer() {
    const KILLS: u64 = 30;
    let bench = Bench::start("4s", "2s").await;
    let watch = bench.watch();
    let mut rotad = bench.rotad();
    bench.until("the second revocation", || bench.revoked() >= 2).await;
    for kill in 0..KILLS {
        // 3 s on average, all of them different.
        tokio::time::sleep(Duration::from_millis(500 + (kill * 7919) % KILLS * 5000 / KILLS)).await;
        assert!(rotad.ended().is_none(), "it ended by itself:\n{}", bench.log_text());
        rotad.kill();
        bench.tells_the_state();
        rotad = bench.rotad();
    }
    let took = bench.goes_on().await;
    println!("after the last of {KILLS} kills all was as it should be within {} s", took.as_secs());
    bench.holds_the_limits();
    bench.keeps_its_secrets(true);
    watch.judge(&bench.stand_in);
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
async fn a_second_daemon_on_the_same_journal_is_refused() {
    let bench = Bench::start("4m", "1m").await;
    let _rotad = bench.rotad();
    bench.until("the first delivery", || bench.path("sinks/etl").exists()).await;
    let second = bench.command(&["run"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("journal.db"), "{told}");
    assert_eq!(bench.status()["credentials"][0]["name"], CREDENTIAL);
}
