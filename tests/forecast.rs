//! `rotad plan`'s forecast against what then happens: the same core, once run ahead and once lived through.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of test functions

#[allow(dead_code)]
mod rig;

use rig::*;
use rotad::engine::{Forecast, Step, forecast};
use rotad::rotation::{Action, Happened, Order, Why};

const DAYS: i64 = 20;

fn ahead(rig: &Rig, days: i64) -> Vec<Step> {
    let until = wall(rig.second + days * DAY);
    forecast(rig.stored.clone(), &rig.policy, rig.facts, rig.moment(), until, |_| false).steps
}

/// The seconds at which something was forecast.
fn forecast_of(steps: &[Step], what: Happened) -> Vec<i64> {
    let second = |step: &Step| (step.at.as_millisecond() - BEGINNING * 1000).div_euclid(1000);
    steps.iter().filter(|step| step.what == what).map(second).collect()
}

fn lived(rig: &Rig, since: i64, is: fn(&Action) -> bool) -> Vec<i64> {
    rig.actions.iter().filter(|(at, action)| *at >= since && is(action)).map(|(at, _)| *at).collect()
}

/// What is asked for within a second of its time: the rig wakes at whole seconds.
fn agree(forecast: &[i64], lived: &[i64], what: &str) {
    assert_eq!(forecast.len(), lived.len(), "{what}: {forecast:?} {lived:?}");
    for (foretold, came) in forecast.iter().zip(lived) {
        assert!((foretold - came).abs() <= 60, "{what}: foretold for {foretold}, came at {came}");
    }
}

fn holds(mut rig: Rig) {
    let since = rig.second;
    let until = wall(rig.second + DAYS * DAY);
    let Forecast { steps, writes, .. } = forecast(rig.stored.clone(), &rig.policy, rig.facts, rig.moment(), until, |_| false);
    rig.pass(DAYS * DAY);
    let writes: Vec<i64> = writes.iter().map(|(at, _)| (at.as_millisecond() - BEGINNING * 1000).div_euclid(1000)).collect();
    agree(&writes, &lived(&rig, since, |action| matches!(action, Action::Write { .. })), "writes");
    agree(&forecast_of(&steps, Happened::Intended), &lived(&rig, since, is_issue), "rotations");
    agree(&forecast_of(&steps, Happened::Revoked), &lived(&rig, since, is_revoke), "revocations");
}

fn settled() -> Rig {
    let mut rig = Rig::new(&["a", "b"]);
    rig.pass(3 * DAY + HOUR);
    rig
}

#[test]
fn what_is_foretold_comes() {
    let rig = settled();
    let steps = ahead(&rig, DAYS);
    assert_eq!(forecast_of(&steps, Happened::Intended).len(), 20, "{steps:?}");
    assert!(steps.iter().all(|step| step.why.is_none_or(|why| why == Why::Schedule)), "{steps:?}");
    holds(rig);
}

#[test]
fn a_credential_that_never_ran_gets_its_first_token_now() {
    let rig = Rig::new(&["a"]);
    let steps = ahead(&rig, 1);
    assert_eq!((steps[0].what, steps[0].why), (Happened::Intended, Some(Why::First)));
    holds(Rig::new(&["a"]));
}

#[test]
fn orders_are_part_of_the_forecast() {
    let mut rig = settled();
    rig.order(&Order::Rotate { revoke_now: true }).unwrap();
    let why = ahead(&rig, 1).iter().find_map(|step| step.why);
    assert_eq!(why, Some(Why::Ordered));
    holds(rig);
    let mut rig = settled();
    let until = wall(rig.second + 2 * DAY);
    rig.order(&Order::Pause { until, reason: "a migration".to_owned(), let_expire: false }).unwrap();
    assert!(ahead(&rig, DAYS).iter().all(|step| step.what != Happened::Intended || step.at >= until));
    holds(rig);
}

#[test]
fn a_schedule_longer_than_the_token_lives_is_foretold_by_the_deadline() {
    let mut rig = settled();
    rig.policy.schedule = rotad::rotation::Schedule::every(secs(300 * DAY), &owner());
    let steps = ahead(&rig, DAYS);
    assert!(steps.iter().any(|step| step.why == Some(Why::Deadline)), "{steps:?}");
    holds(rig);
}
