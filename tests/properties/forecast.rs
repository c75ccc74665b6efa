//! What a plan says of a rotation's time: what it rests on and what puts it off add up to it.

use jiff::SignedDuration;
use proptest::prelude::*;
use rotad::engine::{BlastRadius, Step, Subject, forecast};
use rotad::rotation::{Failed, Happened, IssueOutcome, Order, PutOff, Reason, Schedule, Why};

use crate::rig::{DAY, HOUR, Rig, secs, wall};

/// What went on before the plan is asked for, and for how long.
#[derive(Debug, Clone, Copy)]
enum Before {
    Nothing,
    NeverRan,
    NotRunning(i64),
    ApiDown(i64),
    Refused(i64),
    Unreadable(i64),
    Paused(i64),
}

fn before() -> impl Strategy<Value = Before> {
    prop_oneof![
        Just(Before::Nothing),
        Just(Before::NeverRan),
        (0..3 * DAY).prop_map(Before::NotRunning),
        (0..DAY).prop_map(Before::ApiDown),
        (0..DAY).prop_map(Before::Refused),
        (0..DAY).prop_map(Before::Unreadable),
        (HOUR..2 * DAY).prop_map(Before::Paused),
    ]
}

/// A credential after that, at a second that all have in common.
fn credential(every: i64, window: Option<i64>, before: Before, now: i64) -> Rig {
    let mut rig = Rig::new(&["a", "b"]);
    rig.policy.schedule = Schedule::every(secs(every), &rig.policy.owner);
    rig.policy.window = window.map(secs);
    rig.policy.grace = secs(every / 3);
    let failed = Failed::new(Reason::Unavailable, "503");
    let ran = |rig: &mut Rig, without: i64| {
        rig.pass(now - without);
        without
    };
    let rest = match before {
        Before::NeverRan => 0,
        Before::Nothing | Before::Paused(_) => ran(&mut rig, 0),
        Before::NotRunning(seconds) => ran(&mut rig, seconds),
        Before::ApiDown(seconds) | Before::Refused(seconds) | Before::Unreadable(seconds) => ran(&mut rig, seconds),
    };
    match before {
        Before::ApiDown(_) => rig.wrong.list = Some(failed),
        Before::Refused(_) => rig.wrong.issue = Some(IssueOutcome::Refused(failed)),
        Before::Unreadable(_) => ["a", "b"].into_iter().for_each(|place| rig.break_reading(place)),
        Before::Paused(seconds) => {
            let until = wall(now + seconds);
            rig.order(&Order::Pause { until, reason: "an audit".to_owned(), let_expire: false }).unwrap();
        }
        Before::Nothing | Before::NeverRan | Before::NotRunning(_) => {}
    }
    if !matches!(before, Before::NotRunning(_) | Before::NeverRan) {
        rig.pass(rest);
    }
    rig.second = now;
    rig
}

/// The parts of a rotation's time: what it is due by, what puts it off, and then nothing more.
fn adds_up(step: &Step, now: i64, schedule: &Schedule) -> Result<(), TestCaseError> {
    /// What was due already is tried again this soon, and no wait is shorter than the least.
    const SLACK: SignedDuration = SignedDuration::from_secs(6);
    let due_at = step.due_at.unwrap();
    let mut at = due_at;
    for put_off in &step.put_off {
        prop_assert!(put_off.until() >= at, "{:?} puts nothing off", put_off);
        at = put_off.until();
    }
    let begins = at.max(wall(now));
    prop_assert!(begins <= step.at && step.at <= begins + SLACK, "{} is not {}: {:?}", begins, step.at, step);
    if step.why == Some(Why::Schedule) {
        prop_assert_eq!(schedule.next_after(due_at - SignedDuration::from_millis(1)), Some(due_at), "no time of the schedule");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn what_a_time_rests_on_and_what_puts_it_off_add_up_to_it(
        all in prop::collection::vec((2 * HOUR..3 * DAY, prop::option::of(HOUR..DAY), before()), 1..6), per_minute in 1..4_u32,
    ) {
        let now = 8 * DAY;
        let rigs: Vec<Rig> = all.iter().map(|(every, window, before)| credential(*every, *window, *before, now)).collect();
        let subject = |rig: &Rig| Subject { stored: rig.stored.clone(), policy: rig.policy.clone(), is_wanted: true };
        let subjects = rigs.iter().map(subject).collect();
        let mut limits = BlastRadius::new(per_minute, per_minute);
        let plan = forecast(subjects, rigs[0].facts, rigs[0].moment(), &mut limits, wall(now + 4 * DAY), |_| false);
        let mut begun = Vec::new();
        for (rig, ahead) in rigs.iter().zip(&plan) {
            for step in &ahead.steps {
                prop_assert_eq!(step.why.is_some(), step.what == Happened::Intended);
                prop_assert!(step.why.is_some() || (step.put_off.is_empty() && step.due_at.is_none()));
                if step.why.is_some() {
                    adds_up(step, now, &rig.policy.schedule)?;
                    begun.push((step.at, step));
                }
            }
        }
        begun.sort_by_key(|(at, _)| *at);
        for (at, step) in &begun {
            // By what began in the minute before, the limit was in the way of whom it is said to be.
            let within = |from: SignedDuration| begun.iter().filter(|(other, _)| *at - from < *other && other < at).count();
            if step.put_off.iter().any(|put_off| matches!(put_off, PutOff::Limit { .. })) {
                prop_assert!(within(secs(120)) >= per_minute as usize, "{:?}", begun);
            }
            prop_assert!(within(secs(60)) < per_minute as usize || step.why != Some(Why::Schedule), "{:?}", begun);
        }
    }
}
