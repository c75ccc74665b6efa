//! A new configuration comes into force by SIGHUP, or by itself within seconds of its file's change.

use rustix::process::Signal;
use serde_json::json;

use crate::plain::{Plain, SLOW};

const SUCCESSFUL: &str = "rotad_config_last_reload_successful";

#[test]
fn an_added_credential_gets_its_token_and_a_removed_one_keeps_what_it_has() {
    let plain = Plain::start();
    plain.configure_with(&["one", "two"], SLOW);
    let mut rotad = plain.rotad_delivering(&["one", "two"]);
    let kept = plain.served("two");
    plain.configure_with(&["one", "three"], SLOW);
    rotad.signal(Signal::HUP);
    plain.until("the added credential's token", || plain.served("three").is_some());
    assert_eq!(plain.metric(SUCCESSFUL), Some(1.0));
    assert_eq!((plain.issued(), plain.revoked()), (3, 0), "{}", plain.log());
    assert_eq!(plain.served("two"), kept, "a credential that was let go lost its token");
    let line = plain.line("two");
    assert_eq!(line["let_go"], true, "{line}");
    assert_eq!(plain.line("three")["let_go"], false);
    let text = plain.ask(&["status"]).out;
    assert!(text.lines().any(|line| line.starts_with("two") && line.contains("let go")), "{text}");
    let told = || plain.http("/").1.contains("<li>two, its last token until");
    // Its turn may still be confirming what it delivered.
    plain.until("its last token's end", told);
    assert!(plain.http("/api/v1/status").1.contains("\"let_go\":[{\"credential\":\"two\""));
    rotad.stop();
    let mut rotad = plain.rotad_delivering(&["one", "three"]);
    assert!(told(), "a restart forgets it: {}", plain.http("/").1);
    plain.configure_with(&["one", "two", "three"], SLOW);
    rotad.signal(Signal::HUP);
    plain.until("its return", || !told());
    rotad.stop();
}

#[test]
fn a_change_of_the_file_comes_into_force_by_itself_and_an_invalid_one_does_not() {
    let plain = Plain::start();
    plain.configure_with(&["one"], SLOW);
    let mut rotad = plain.rotad_delivering(&["one"]);
    assert_eq!(plain.metric(SUCCESSFUL), Some(1.0));
    plain.configure(&(plain.head() + &plain.credential("one", "every = 5")));
    plain.until("the refusal", || plain.metric(SUCCESSFUL) == Some(0.0));
    assert!(plain.log().contains("the one before stays in force"), "{}", plain.log());
    assert!(plain.http("/api/v1/status").1.contains("\"name\":\"one\""));
    plain.configure_with(&["one", "two"], SLOW);
    plain.until("the added credential's token", || plain.served("two").is_some());
    assert_eq!(plain.metric(SUCCESSFUL), Some(1.0));
    rotad.stop();
}

#[test]
fn letting_go_of_many_waits_for_a_persons_word() {
    let names = ["a", "b", "c", "d", "e"];
    let plain = Plain::start();
    plain.configure_with(&names, SLOW);
    let mut rotad = plain.rotad_delivering(&names);
    plain.configure_with(&names[..1], SLOW);
    plain.until("the refusal", || plain.metric(SUCCESSFUL) == Some(0.0));
    assert!(plain.log().contains("lets go of 4 of 5") && plain.log().contains("SIGHUP"), "{}", plain.log());
    let held = |name: &str| plain.http("/api/v1/status").1.contains(&format!("\"name\":\"{name}\""));
    assert!(names.iter().all(|name| held(name)));
    rotad.signal(Signal::HUP);
    plain.until("the confirmed reload", || !held("e"));
    assert!(held("a") && plain.metric(SUCCESSFUL) == Some(1.0));
    assert!(names.iter().all(|name| plain.serves_live(name)));
    rotad.stop();
}

#[test]
fn a_credential_that_comes_back_while_its_turn_hangs_has_one_turn() {
    let plain = Plain::start();
    plain.configure_with(&["one", "two"], SLOW);
    plain.misbehave(&json!({ "misbehaviour": { "delay": { "seconds": 8 } }, "operations": ["create_token"] }));
    let mut rotad = plain.rotad();
    plain.until("the requests under way", || plain.log().matches("intended").count() == 2);
    plain.configure_with(&["one"], SLOW);
    rotad.signal(Signal::HUP);
    plain.until("the reload", || plain.log().contains("let go, its tokens"));
    plain.configure_with(&["one", "two"], SLOW);
    rotad.signal(Signal::HUP);
    plain.until("the delivery", || plain.served("one").is_some() && plain.served("two").is_some());
    plain.until("the next look", || plain.line("two")["state"] == "current");
    assert_eq!(plain.issued(), 2, "{}", plain.log());
    assert!(!plain.log().contains("another writer"), "{}", plain.log());
    assert!(plain.http("/api/v1/status").1.contains("\"name\":\"two\""));
    rotad.stop();
}

/// Its first token is issued and delivered by the turn that was under way: it was not known when it was let go.
#[test]
fn what_is_let_go_while_its_turn_hangs_is_told_with_the_token_of_that_turn() {
    let plain = Plain::start();
    plain.configure_with(&["one", "two"], SLOW);
    plain.misbehave(&json!({ "misbehaviour": { "delay": { "seconds": 8 } }, "operations": ["create_token"] }));
    let mut rotad = plain.rotad();
    plain.until("the requests under way", || plain.log().matches("intended").count() == 2);
    plain.configure_with(&["one"], SLOW);
    rotad.signal(Signal::HUP);
    plain.until("the reload", || plain.log().contains("let go, its tokens"));
    plain.until("the token that was under way", || plain.http("/").1.contains("<li>two, its last token until"));
    assert!(plain.serves_live("two"), "{}", plain.log());
    rotad.stop();
}

#[test]
fn a_section_that_needs_a_restart_is_named() {
    let plain = Plain::start();
    plain.configure_with(&["one"], SLOW);
    let mut rotad = plain.rotad_delivering(&["one"]);
    for (before, after, section) in [
        ("journal.db", "other.db", "`[journal]`"),
        ("127.0.0.1:0", "127.0.0.2:0", "`[server]`"),
        ("\"test\"", "\"prod\"", "deployment"),
    ] {
        let text = plain.head() + &plain.credential("one", SLOW) + &plain.credential("two", SLOW);
        plain.configure(&text.replace(before, after));
        rotad.signal(Signal::HUP);
        plain.until("the refusal", || plain.log().lines().any(|line| line.contains(section) && line.contains("needs a restart")));
        assert_eq!(plain.metric(SUCCESSFUL), Some(0.0));
    }
    assert!(plain.served("two").is_none() && !plain.path("journal/other.db").exists());
    rotad.stop();
}

/// `credential`'s section under another name, at the same place.
fn renamed(plain: &Plain, to: &str, from: &str, more: &str) -> String {
    plain.credential(from, &format!("{SLOW}\n{more}")).replace(&format!("[credential.{from}]"), &format!("[credential.{to}]"))
}

#[test]
fn another_name_at_the_same_place_is_blocked_until_it_says_what_it_was() {
    let plain = Plain::start();
    plain.configure_with(&["old"], SLOW);
    let mut rotad = plain.rotad_delivering(&["old"]);
    let served = plain.served("old");
    plain.configure(&(plain.head() + &renamed(&plain, "new", "old", "")));
    rotad.signal(Signal::HUP);
    plain.until("the block", || plain.line("new")["blocked"] == "owned_by_other");
    let detail = plain.line("new")["block"]["detail"].clone();
    let told = |word: &str| detail.as_str().is_some_and(|detail| detail.contains(word));
    assert!(told("old") && told("renamed_from"), "{detail}");
    assert_eq!(plain.line("old")["let_go"], true);
    plain.configure(&(plain.head() + &renamed(&plain, "new", "old", "renamed_from = \"old\"")));
    rotad.signal(Signal::HUP);
    plain.until("the history carried on", || plain.line("new")["state"] == "current");
    assert!(plain.line("old").is_null(), "{}", plain.line("old"));
    assert_eq!((plain.issued(), plain.revoked(), plain.served("old")), (1, 0, served), "{}", plain.log());
    rotad.stop();
}

#[test]
fn a_credential_renamed_while_its_turn_hangs_waits_for_that_turn() {
    let plain = Plain::start();
    plain.configure_with(&["old"], SLOW);
    plain.misbehave(&json!({ "misbehaviour": { "delay": { "seconds": 8 } }, "operations": ["create_token"] }));
    let mut rotad = plain.rotad();
    plain.until("the request under way", || plain.log().contains("intended"));
    plain.configure(&(plain.head() + &renamed(&plain, "new", "old", "renamed_from = \"old\"")));
    rotad.signal(Signal::HUP);
    plain.until("the reload", || plain.log().contains("let go, its tokens"));
    plain.until("the history carried on", || plain.line("new")["state"] == "current");
    assert_eq!((plain.issued(), plain.revoked()), (1, 0), "{}", plain.log());
    assert!(plain.serves_live("old") && !plain.log().contains("another writer"), "{}", plain.log());
    rotad.stop();
}
