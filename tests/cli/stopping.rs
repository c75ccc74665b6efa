//! SIGTERM ends the daemon within 20 s, whatever hangs, and the next start finishes what was under way.

use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use crate::plain::{FAST, Plain, SLOW};
use crate::process::fingerprint;

#[test]
fn an_idle_daemon_stops_and_the_next_one_issues_nothing_new() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    plain.rotad_delivering(&["etl"]).stop();
    let before = plain.served("etl");
    let mut rotad = plain.rotad();
    plain.until("the first sweep", || plain.log().matches("address=").count() == 2 && plain.ready().0 == 200);
    rotad.stop();
    assert_eq!((plain.issued(), plain.revoked(), plain.served("etl")), (1, 0, before));
    assert!(plain.log().contains("stopped"), "{}", plain.log());
}

#[test]
fn it_stops_while_the_api_hangs_and_the_lost_token_is_found_and_revoked() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    plain.misbehave(&json!({ "misbehaviour": { "hang": { "carry_out": true } }, "operations": ["create_token"] }));
    let mut rotad = plain.rotad();
    plain.until("the token whose answer is lost", || plain.issued() == 1);
    rotad.stop();
    let lost = plain.effects("create_token").remove(0);
    plain.behave();
    let mut rotad = plain.rotad();
    plain.until("a delivery", || plain.serves_live("etl"));
    plain.until("the lost token's revocation", || plain.effects("revoke_token").contains(&lost));
    rotad.stop();
}

#[test]
fn it_stops_while_a_sink_hangs_and_the_next_start_delivers() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    // Whoever writes a place locks this file: a lock that is held is a file system that hangs.
    let held = std::fs::File::create(plain.path("sinks/.etl.rotad-new")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let mut rotad = plain.rotad();
    plain.until("the token that can't be written", || plain.log().contains("attempted"));
    rotad.stop();
    assert_eq!((plain.issued(), plain.served("etl")), (1, None), "{}", plain.log());
    drop(held);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("a live token in the file", || plain.serves_live("etl"));
    // The value was in memory alone, so another token was needed; the one before is not forgotten.
    let first = plain.effects("create_token").remove(0);
    let served = fingerprint(&plain.served("etl").unwrap());
    if served != first {
        let line = plain.line("etl");
        assert!(line["tokens"]["orphaned"] == 1 || line["tokens"]["retiring"] == 1, "{line}");
    }
    assert_eq!(plain.line("etl")["block"], serde_json::Value::Null);
    rotad.stop();
}
