//! `rotad plan`: what comes next, for a fleet that runs, one that never ran, and another configuration.

use serde_json::{Value, json};

use crate::ordering::controlled;
use crate::plain::{FAST, Plain, SLOW};

fn plan(plain: &Plain, arguments: &[&str]) -> Value {
    let answer = plain.ask(&[&["plan", "--json"], arguments].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
    serde_json::from_str(&answer.out).unwrap()
}

fn steps(plan: &Value, what: &str) -> Vec<Value> {
    let steps = plan["credentials"][0]["steps"].as_array().unwrap();
    steps.iter().filter(|step| step["what"] == what).cloned().collect()
}

#[test]
fn the_plan_begins_with_a_first_token_and_goes_on_with_the_schedule_s_time() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let before = plan(&plain, &[]);
    assert_eq!(steps(&before, "intended")[0]["why"], "first");
    assert!(!plain.path("journal/journal.db").exists(), "a plan makes no journal");
    plain.rotad_delivering(&["etl"]).stop();
    let calls = plain.stand_in.records().len();
    let after = plan(&plain, &["etl"]);
    let due = plain.line("etl")["due_at"].as_str().unwrap().to_owned();
    let intended = &steps(&after, "intended")[0];
    assert_eq!(intended["why"], "schedule");
    assert_eq!(intended["at"].as_str().unwrap()[..19], due[..19]);
    assert_eq!(steps(&after, "revoked").len(), 1, "the token of today goes after its grace period: {after}");
    assert_eq!(steps(&plan(&plain, &["--for", "60d"]), "intended").len(), 3);
    assert_eq!(plain.stand_in.records().len(), calls, "a plan asks nobody");
    let api = &after["load"]["organizations"][0];
    assert!(api["calls_in_a_minute"].as_u64() >= Some(4) && api["calls_per_minute_limit"].as_u64().is_some(), "{api}");
    let disk = &after["load"]["sinks"][0];
    assert!(disk["calls_in_a_minute"] == 1 && disk["calls_per_minute_limit"].is_null(), "{disk}");
    let text = plain.ask(&["plan"]).out;
    assert!(text.contains("the schedule's time") && text.contains("  in ") && text.contains("1 rotation;"), "{text}");
    assert!(text.contains("organization `main`: at most ") && text.contains("sink `disk`: at most 1 write within"), "{text}");
    plain.ask(&["plan", "wbe"]).complains(2, &["`wbe`"]);
}

#[test]
fn a_plan_tells_what_another_configuration_would_change() {
    let plain = Plain::start();
    plain.configure_with(&["etl", "web"], SLOW);
    let same = plain.path("same.toml");
    std::fs::copy(plain.path("rotad.toml"), &same).unwrap();
    assert_eq!(plain.ask(&["plan", "--diff", same.to_str().unwrap()]).out, "nothing would change\n");
    let other = plain.path("other.toml");
    let moved = plain.credential("etl", SLOW).replace("sinks/etl", "sinks/elsewhere");
    std::fs::write(&other, plain.head() + &moved + &plain.credential("new", SLOW)).unwrap();
    let text = plain.ask(&["plan", "--diff", other.to_str().unwrap()]).out;
    for line in ["+ new", "~ etl", "+ file:", "sinks/elsewhere: filled", "rotad forget", "- web: let go"] {
        assert!(text.contains(line), "`{line}` is not in:\n{text}");
    }
}

/// The next rotation of the plan's first credential.
fn next(plan: &Value) -> Value {
    steps(plan, "intended")[0].clone()
}

/// The plan as text has this.
fn tells(plain: &Plain, words: &[&str]) {
    let text = plain.ask(&["plan"]).out;
    words.iter().for_each(|word| assert!(text.contains(word), "`{word}` is not in:\n{text}"));
}

#[test]
fn a_schedule_is_named_with_its_own_rule_and_its_spread() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    plain.rotad_delivering(&["etl"]).stop();
    let by_interval = plan(&plain, &[]);
    let schedule = &by_interval["credentials"][0]["schedule"];
    assert_eq!((&schedule["every"], &schedule["cron"]), (&json!("20d"), &Value::Null));
    let spread = schedule["spread"].as_str().unwrap();
    tells(&plain, &[&format!("the schedule's time (every 20d, spread by {spread})")]);
    plain.configure_with(&["etl"], "ttl = \"30d\"\ncron = \"0 3 * * *\"\ntimezone = \"Europe/Berlin\"");
    let by_cron = plan(&plain, &[]);
    let schedule = json!({ "every": null, "spread": null, "cron": "0 3 * * *", "timezone": "Europe/Berlin", "window": null });
    assert_eq!(by_cron["credentials"][0]["schedule"], schedule);
    let step = next(&by_cron);
    assert_eq!((&step["why"], &step["due_at"], &step["put_off"]), (&json!("schedule"), &step["at"], &json!([])));
    tells(&plain, &["the schedule's time (cron 0 3 * * *, Europe/Berlin)"]);
}

#[test]
fn the_limit_that_puts_a_rotation_off_is_named() {
    let plain = Plain::start();
    let head = plain.head().replace("rotations_per_minute = 600", "rotations_per_minute = 1");
    plain.configure(&(head + &plain.credential("etl", SLOW) + &plain.credential("web", SLOW)));
    let plan = plan(&plain, &[]);
    assert_eq!((&plan["load"]["rotations_put_off"], &plan["load"]["rotations_in_a_minute"]), (&json!(1), &json!(1)));
    let of = |index: usize| plan["credentials"][index]["steps"][0].clone();
    assert_eq!((&of(0)["why"], &of(0)["put_off"]), (&json!("first"), &json!([])));
    assert_eq!((&of(1)["why"], &of(1)["due_at"]), (&json!("first"), &of(0)["at"]));
    assert_eq!(of(1)["put_off"], json!([{ "by": "limit", "until": of(1)["at"] }]));
    tells(&plain, &["put off by the limit of 1 rotation per minute", "and the limit is 1: 1 comes later for it"]);
    let alone = plain.ask(&["plan", "web", "--json"]).out;
    assert!(alone.contains("\"limit\""), "the others take their part of it: {alone}");
}

#[test]
fn a_missed_window_is_named() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], &format!("{FAST}\nwindow = \"1s\""));
    plain.rotad_delivering(&["etl"]).stop();
    plain.until("a window that was missed", || next(&plan(&plain, &[]))["put_off"][0]["by"] == "window");
    let step = next(&plan(&plain, &["--for", "10s"]));
    assert_eq!(step["why"], "schedule");
    plain.until("the words", || plain.ask(&["plan"]).out.contains("; the window of 1s from 2"));
}

#[test]
fn a_backoff_is_named_with_what_failed_and_how_often() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let throttled = json!({ "status": { "status": 429, "retry_after": { "seconds": 600 } } });
    plain.misbehave(&json!({ "operations": ["create_token"], "misbehaviour": throttled }));
    let mut rotad = plain.rotad();
    plain.until("the failure", || next(&plan(&plain, &[]))["put_off"][0]["by"] == "backoff");
    rotad.stop();
    let step = next(&plan(&plain, &[]));
    let put_off = &step["put_off"][0];
    assert_eq!((&step["why"], &put_off["by"], &put_off["of"]), (&json!("first"), &json!("backoff"), &json!("issue")));
    assert_eq!((&put_off["failures"], &put_off["until"]), (&json!(1), &step["at"]));
    tells(&plain, &["there is none yet; backoff after 1 failure to issue it, until 20"]);
}

#[test]
fn a_deadline_is_named_with_what_it_comes_before() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    plain.rotad_delivering(&["etl"]).stop();
    plain.configure_with(&["etl"], "ttl = \"200d\"\nevery = \"150d\"\ngrace = \"27d\"");
    let step = next(&plan(&plain, &[]));
    assert_eq!((&step["why"], &step["due_at"]), (&json!("deadline"), &step["at"]));
    tells(&plain, &["the old one's deadline, its expiry less grace and margin, as the schedule (every 150d, spread by "]);
}

#[test]
fn a_pause_is_named() {
    let plain = controlled(&["etl"]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let schedule_s_time = next(&plan(&plain, &[]))["at"].clone();
    assert_eq!(plain.ask(&["pause", "etl", "--for", "25d", "--reason", "an audit"]).code, 0);
    let step = next(&plan(&plain, &[]));
    assert_eq!((&step["why"], &step["due_at"]), (&json!("schedule"), &schedule_s_time));
    assert_eq!(step["put_off"], json!([{ "by": "pause", "until": step["at"] }]));
    tells(&plain, &["; paused until 20", "paused until ", "by root (uid 0): an audit"]);
    rotad.stop();
}
