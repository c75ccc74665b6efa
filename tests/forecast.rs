//! `rotad plan`'s forecast against what then happens: the same core, once run ahead and once lived through.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of test functions

#[allow(dead_code)]
mod rig;

use rig::*;
use rotad::engine::{BlastRadius, Forecast, Step, Subject, forecast};
use rotad::rotation::{Action, Failed, Happened, IssueOutcome, Order, PutOff, Reason, Tried, Why, WriteOutcome};

const DAYS: i64 = 20;

/// What comes of credentials that share a limit of rotations per minute.
fn shared(rigs: &[&Rig], days: i64, per_minute: u32) -> Vec<Forecast> {
    let subject = |rig: &&Rig| Subject { stored: rig.stored.clone(), policy: rig.policy.clone(), is_wanted: true };
    let until = wall(rigs[0].second + days * DAY);
    let (facts, now, mut limits) = (rigs[0].facts, rigs[0].moment(), BlastRadius::new(per_minute, per_minute));
    forecast(rigs.iter().map(subject).collect(), facts, now, &mut limits, until, |_| false)
}

fn alone(rig: &Rig, days: i64) -> Forecast {
    shared(&[rig], days, 1_000).remove(0)
}

fn ahead(rig: &Rig, days: i64) -> Vec<Step> {
    alone(rig, days).steps
}

/// The first rotation that is to come.
fn next(rig: &Rig) -> Step {
    ahead(rig, DAYS).into_iter().find(|step| step.what == Happened::Intended).unwrap()
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
    let Forecast { steps, writes, .. } = alone(&rig, DAYS);
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
    let step = next(&rig);
    assert_eq!((step.why, step.at, step.put_off), (Some(Why::Schedule), until, vec![PutOff::Pause { until }]));
    assert_eq!(step.due_at, rig.policy.schedule.next_after(wall(rig.second)));
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

#[test]
fn a_missed_window_puts_a_rotation_off_to_the_schedule_s_next_time() {
    let mut rig = settled();
    let due = rig.policy.schedule.next_after(wall(rig.second)).unwrap();
    rig.policy.window = Some(secs(HOUR));
    // Nothing ran for a day and a half.
    rig.second += 36 * HOUR;
    let until = rig.policy.schedule.next_after(wall(rig.second)).unwrap();
    let step = next(&rig);
    assert_eq!((step.why, step.due_at, step.at), (Some(Why::Schedule), Some(due), until));
    assert_eq!(step.put_off, [PutOff::Window { until }]);
    holds(rig);
}

#[test]
fn failures_put_a_rotation_off_and_are_told_by_what_failed_and_how_often() {
    let failed = Failed::new(Reason::Unavailable, "503");
    let mut rig = settled();
    rig.wrong.issue = Some(IssueOutcome::Refused(failed.clone()));
    while rig.credential().issuing.failures < 9 {
        rig.pass_to_an_issue();
    }
    rig.wrong.issue = None;
    rig.second += 1;
    let until = rig.credential().issuing.until.unwrap();
    let step = next(&rig);
    assert_eq!((step.why, step.at), (Some(Why::Schedule), until));
    assert_eq!(step.put_off, [PutOff::Backoff { of: Tried::Issue, failures: 9, until }]);
    assert!(step.due_at.unwrap() < wall(rig.second));
    holds(rig);
    let mut rig = settled();
    rig.wrong.list = Some(failed);
    rig.pass(DAY);
    rig.wrong.list = None;
    let step = next(&rig);
    assert!(matches!(step.put_off[..], [PutOff::Backoff { of: Tried::List, until, .. }] if until == step.at), "{step:?}");
    holds(rig);
}

#[test]
fn a_place_that_can_t_be_written_keeps_the_token_to_its_deadline() {
    let mut rig = settled();
    rig.wrong.write = Some(WriteOutcome::Refused(Failed::new(Reason::Unavailable, "sealed")));
    rig.pass(DAY);
    let step = next(&rig);
    assert_eq!((step.why, step.put_off.len()), (Some(Why::Undelivered), 0), "{step:?}");
}

#[test]
fn rotations_that_are_due_at_once_are_spread_by_the_limit_and_say_so() {
    let rigs: Vec<Rig> = (0..5).map(|_| Rig::new(&["a"])).collect();
    let all = shared(&rigs.iter().collect::<Vec<_>>(), 1, 2);
    let firsts: Vec<&Step> = all.iter().map(|ahead| &ahead.steps[0]).collect();
    for (index, step) in firsts.iter().enumerate() {
        assert_eq!((step.what, step.why, step.due_at), (Happened::Intended, Some(Why::First), Some(wall(0))), "{step:?}");
        let limited = matches!(step.put_off[..], [PutOff::Limit { until }] if until == step.at);
        assert_eq!((limited, step.put_off.len()), (index >= 2, usize::from(index >= 2)), "{step:?}");
    }
    let minutes: Vec<i64> = firsts.iter().map(|step| step.at.duration_since(wall(0)).as_secs() / 60).collect();
    assert_eq!(minutes, [0, 0, 1, 1, 2]);
}

#[test]
fn who_is_not_asked_for_takes_its_part_of_the_limit() {
    let rig = Rig::new(&["a"]);
    let subject = |is_wanted| Subject { stored: None, policy: rig.policy.clone(), is_wanted };
    let (until, mut limits) = (wall(DAY), BlastRadius::new(1, 1));
    let all =
        forecast(vec![subject(false), subject(true)], rig.facts, rig.moment(), &mut limits, until, |steps| !steps.is_empty());
    assert!(matches!(all[1].steps[0].put_off[..], [PutOff::Limit { .. }]), "{all:?}");
}
