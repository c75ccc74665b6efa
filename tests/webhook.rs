//! The webhook, with the real binary: what needs a person is told once, through refusals, restarts and reloads, and so is
//! its end; and never a secret.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

#[path = "support/plain.rs"]
mod plain;
#[path = "support/process.rs"]
mod process;
#[path = "support/receiver.rs"]
mod receiver;

use std::time::Duration;

use plain::{ACCOUNT, Plain, SLOW};
use receiver::{HANG, Receiver};
use rustix::process::Signal;
use serde_json::Value;

const PLANTED: &str = "planted-by-hand";
const AUTHORIZATION: &str = "Bearer hook-authorization-0123456789";
/// Longer than the settling time of these tests, several times.
const QUIET: Duration = Duration::from_secs(5);

/// A webhook whose address is a secret, and a state that is told after a second.
fn webhook(plain: &Plain, receiver: &Receiver) -> String {
    std::fs::write(plain.path("hook-url"), format!("{}/services/T0/hook-path-0123456789?sig=abc\n", receiver.url)).unwrap();
    std::fs::write(plain.path("hook-authorization"), format!("{AUTHORIZATION}\n")).unwrap();
    let directory = plain.path("");
    let directory = directory.display();
    format!(
        "\n[webhook]\nurl = {{ file = \"{directory}/hook-url\" }}\nauthorization = {{ file = \"{directory}/hook-authorization\" }}\n\
         settle = \"1s\"\n"
    )
}

/// `etl`, which works, and `odd`, whose place holds what somebody put there.
fn configure(plain: &Plain, webhook: &str, take_over: bool) {
    let odd = plain.credential("odd", SLOW).replace("path =", &format!("take_over = {take_over}, path ="));
    plain.configure(&(plain.head() + webhook + &plain.credential("etl", SLOW) + &odd));
}

fn events(message: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    message["events"].as_array().unwrap().iter().map(|event| (text(&event["event"]), text(&event["credential"]))).collect()
}

#[test]
fn a_block_is_told_once_through_refusals_and_a_restart_and_so_is_its_end() {
    let plain = Plain::start();
    let receiver = Receiver::start(500);
    let hook = webhook(&plain, &receiver);
    plain.put("odd", PLANTED);
    configure(&plain, &hook, false);
    let mut rotad = plain.rotad();
    plain.until("two refused attempts", || receiver.received().len() >= 2);
    assert_eq!(receiver.taken().len(), 0);
    assert!(plain.metric("rotad_webhook_messages_total{outcome=\"failed\"}") >= Some(2.0));
    assert_eq!(plain.log().matches("the webhook can't be told").count(), 1, "{}", plain.log());
    // Where a redirection leads is not asked.
    receiver.answer(307);
    let redirected = || receiver.received().iter().any(|received| received.answered == 307);
    plain.until("a redirection", redirected);
    receiver.answer(204);
    plain.until("the block to be told", || !receiver.taken().is_empty());
    plain.until("its count", || plain.metric("rotad_webhook_messages_total{outcome=\"sent\"}") == Some(1.0));
    let received = receiver.received();
    assert!(received.iter().all(|received| received.target == "/services/T0/hook-path-0123456789?sig=abc"), "{received:?}");
    assert!(received.iter().all(|received| received.header("authorization") == Some(AUTHORIZATION)));
    let message = receiver.taken()[0].json();
    assert_eq!(events(&message), [("blocked".to_owned(), "odd".to_owned())]);
    assert_eq!((&message["deployment"], &message["counts"]["blocked"]), (&"test".into(), &1.into()));
    let event = &message["events"][0];
    assert_eq!(event["reason"], "take_over_needed");
    for part in ["since", "happened", "next", "next_at", "remedy"] {
        assert!(event[part].as_str().is_some_and(|part| part.len() > 8), "{part}: {event}");
    }
    assert!(message["text"].as_str().unwrap().contains("`odd` blocked"), "{message}");
    rotad.stop();

    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the block", || plain.line("odd")["blocked"] == "take_over_needed");
    std::thread::sleep(QUIET);
    assert_eq!(receiver.taken().len(), 1, "told again after a restart: {:?}", receiver.taken());

    configure(&plain, &hook, true);
    rotad.signal(Signal::HUP);
    plain.until("the delivery", || plain.served("odd").is_some_and(|value| value != PLANTED));
    plain.until("the recovery to be told", || receiver.taken().len() >= 2);
    let message = receiver.taken()[1].json();
    assert_eq!(events(&message), [("recovered".to_owned(), "odd".to_owned())]);
    std::thread::sleep(QUIET);
    assert_eq!(receiver.taken().len(), 2);
    rotad.stop();
    tells_no_secret(&plain, &receiver);
}

fn tells_no_secret(plain: &Plain, receiver: &Receiver) {
    let told: String = receiver.received().iter().map(|received| String::from_utf8(received.body.clone()).unwrap()).collect();
    let values = ["etl", "odd"].map(|name| plain.served(name).unwrap());
    let admin = std::fs::read_to_string(plain.path("admin-token")).unwrap().trim().to_owned();
    let log = plain.log();
    for secret in values.iter().chain([&admin, &PLANTED.to_owned()]) {
        assert!(!told.contains(secret.as_str()) && !log.contains(secret.as_str()), "a secret was told");
    }
    for secret in ["hook-path-0123456789", "hook-authorization-0123456789", "sig=abc"] {
        assert!(!log.contains(secret) && !told.contains(secret), "{log}");
        assert!(!plain.ask(&["support"]).out.contains(secret));
    }
}

#[test]
fn an_address_that_hangs_holds_nothing_up_and_a_reload_leads_to_another() {
    let plain = Plain::start();
    let (hanging, working) = (Receiver::start(HANG), Receiver::start(200));
    plain.put("odd", PLANTED);
    configure(&plain, &webhook(&plain, &hanging), false);
    let mut rotad = plain.rotad_with(&["--log", "trace"]);
    plain.until("the attempt that hangs", || !hanging.received().is_empty());
    plain.until("the delivery", || plain.served("etl").is_some());
    // The file's content is another address: it is read before each message, without a reload.
    let hook = webhook(&plain, &working);
    plain.until("the message at the other address", || !working.taken().is_empty());
    assert_eq!(events(&working.taken()[0].json()), [("blocked".to_owned(), "odd".to_owned())]);
    // A credential that is let go of is not waited for.
    plain.configure(&(plain.head() + &hook + &plain.credential("etl", SLOW)));
    rotad.signal(Signal::HUP);
    plain.until("the end to be told", || working.taken().len() >= 2);
    let message = working.taken()[1].json();
    assert_eq!(events(&message), [("recovered".to_owned(), "odd".to_owned())]);
    assert_eq!(message["events"][0]["happened"], "it is not configured any more");
    rotad.stop();
    for secret in ["hook-path-0123456789", "hook-authorization-0123456789", "sig=abc"] {
        assert!(!plain.log().contains(secret), "`{secret}` stands in the log");
    }
}

#[test]
fn an_account_that_is_not_as_it_is_configured_is_told_and_so_is_its_end() {
    let plain = Plain::start();
    let receiver = Receiver::start(200);
    let account = format!("\n[account.{ACCOUNT}]\nread_write = {{ size = \"jumbo\", cooldown = \"5m\" }}\nmode = \"observe\"\n");
    plain.configure(&(plain.head() + &webhook(&plain, &receiver) + &plain.credential("etl", SLOW) + &account));
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the difference to be told", || !receiver.taken().is_empty());
    let message = receiver.taken()[0].json();
    let event = &message["events"][0];
    assert_eq!(
        (&event["event"], &event["account"], &event["credential"]),
        (&"account_apart".into(), &ACCOUNT.into(), &Value::Null)
    );
    assert!(message["text"].as_str().unwrap().contains(&format!("\n- `{ACCOUNT}` account apart: ")), "{message}");
    rotad.stop();
    let mut rotad = plain.rotad_delivering(&["etl"]);
    std::thread::sleep(QUIET);
    assert_eq!(receiver.taken().len(), 1, "told again, or as over, after a restart: {:?}", receiver.taken());
    plain.configure(&(plain.head() + &webhook(&plain, &receiver) + &plain.credential("etl", SLOW)));
    rotad.signal(Signal::HUP);
    plain.until("the end to be told", || receiver.taken().len() >= 2);
    let event = receiver.taken()[1].json()["events"][0].clone();
    assert_eq!(
        (&event["event"], &event["of"], &event["account"]),
        (&"recovered".into(), &"account_apart".into(), &ACCOUNT.into())
    );
    rotad.stop();
}

#[test]
fn what_concerns_rotad_as_a_whole_is_told() {
    let plain = Plain::start();
    let receiver = Receiver::start(200);
    let hook = webhook(&plain, &receiver).replace("url = {", "unknown = 1\nurl = {");
    let refused = plain.head() + &hook + &plain.credential("etl", SLOW);
    plain.configure(&refused.replace("unknown = 1\n", ""));
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.configure(&refused);
    rotad.signal(Signal::HUP);
    plain.until("the refusal to be told", || !receiver.taken().is_empty());
    let message = receiver.taken()[0].json();
    assert_eq!(message["counts"], serde_json::json!({ "configuration_refused": 1 }));
    assert_eq!(message["events"][0]["credential"], Value::Null);
    // The claims are `{"exp":1600000000}`, long ago.
    std::fs::write(plain.path("admin-token"), "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE2MDAwMDAwMDB9.c2ln").unwrap();
    let told = |word: &str| receiver.taken().iter().any(|received| received.json()["counts"][word] == 1);
    plain.until("the admin token's end to be told", || told("admin_token_expired"));
    plain.configure(&refused.replace("unknown = 1\n", ""));
    plain.until("the recovery to be told", || told("recovered"));
    let admin = receiver.taken().into_iter().find(|received| received.json()["counts"]["admin_token_expired"] == 1).unwrap();
    assert_eq!(admin.json()["events"][0]["organization"], "main");
    rotad.stop();
}
