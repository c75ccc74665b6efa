//! `rotad plan`: what comes next, for a fleet that runs, one that never ran, and another configuration.

use serde_json::Value;

use crate::plain::{Plain, SLOW};

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
    assert!(text.contains("organization `main`: at most ") && text.contains("sink `disk`: at most 1 writes"), "{text}");
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
