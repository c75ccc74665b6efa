//! Daylight saving in four zones, both ways: when the core asks for a token, held against `croner`.
//!
//! `tests/schedule.rs` holds the schedule alone against the definition, in twelve zones and for any line. Here it is
//! the whole course: turns, list, deliveries, and the wait that each turn asks for.

use std::str::FromStr;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rotad::rotation::{Happened, Schedule};

use crate::civil::is_due;
use crate::rig::{DAY, HOUR, Rig, is_issue, secs, wall};

/// Zones that differ: by an hour at 01:00 UTC; by an hour at 02:00 local; by half an hour, in the south; by an hour at midnight.
const ZONES: [&str; 4] = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"];
/// Before, at, in and after what a transition skips or repeats in one of the zones, and lines of several times.
const LINES: [&str; 12] = [
    "0 3 * * *",
    "30 2 * * *",
    "0 2 * * *",
    "59 1 * * *",
    "30 1 * * *",
    "45 1 * * *",
    "15 2 * * *",
    "30 0 * * *",
    "30 23 * * *",
    "0 0 * * *",
    "0 */3 * * *",
    "0 * * * *",
];

/// The two transitions of a zone in 2027, as seconds of the rig: spring's and autumn's of the north.
fn transitions(zone: &TimeZone) -> Vec<i64> {
    let (begin, end): (Timestamp, Timestamp) = ("2027-02-01T00:00:00Z".parse().unwrap(), "2028-01-01T00:00:00Z".parse().unwrap());
    zone.following(begin)
        .map(|found| found.timestamp())
        .take_while(|at| *at < end)
        .map(|at| at.duration_since(wall(0)).as_secs())
        .collect()
}

/// The seconds in which the core asks for a token, from the day before a transition until the day after it.
fn asked(line: &str, zone: &str, transition: i64) -> Vec<i64> {
    let mut rig = Rig::new(&["a"]);
    rig.policy.schedule = Schedule::cron(line, zone).unwrap();
    rig.policy.grace = secs(HOUR / 4);
    rig.second = transition - DAY - HOUR / 2;
    rig.facts.journal_created_at = wall(rig.second);
    let end = transition + DAY;
    rig.pass(end - rig.second);
    assert_eq!(rig.happened(Happened::DeadlineForced), 0, "`{line}` in {zone}");
    let asked = rig.actions.iter().filter(|(_, action)| is_issue(action)).map(|(second, _)| *second);
    // The first token is asked for at once.
    asked.skip(1).filter(|second| *second < end).collect()
}

#[test]
fn the_core_rotates_at_croners_times_through_both_transitions_in_four_zones() {
    let mut seen = 0;
    for name in ZONES {
        let zone = TimeZone::get(name).unwrap();
        let found = transitions(&zone);
        let forward = |at: &i64| {
            let offset = |at: i64| zone.to_offset(wall(at)).seconds();
            offset(*at) > offset(*at - 1)
        };
        assert_eq!(found.iter().map(forward).collect::<std::collections::BTreeSet<_>>().len(), 2, "{name} changes both ways");
        for transition in found {
            for line in LINES {
                let (croner, every_hour) = (Cron::from_str(line).unwrap(), line == "0 * * * *");
                let minutes = (transition - DAY - HOUR / 2 + 1..transition + DAY).filter(|second| second % 60 == 0);
                let expected: Vec<i64> = minutes.filter(|second| is_due(&croner, &zone, every_hour, wall(*second))).collect();
                assert_eq!(asked(line, name, transition), expected, "`{line}` in {name} around {}", wall(transition));
                seen += expected.len();
            }
        }
    }
    assert!(seen > 400, "{seen} due times");
}

/// What `croner` itself would do next differs from the definition only within the hours of a transition.
#[test]
fn a_day_before_and_a_day_after_a_transition_croners_next_time_is_ours() {
    for name in ZONES {
        let zone = TimeZone::get(name).unwrap();
        for transition in transitions(&zone) {
            for line in LINES {
                let (schedule, croner) = (Schedule::cron(line, name).unwrap(), Cron::from_str(line).unwrap());
                for from in [transition - 2 * DAY, transition + HOUR * 3] {
                    let next = croner.find_next_occurrence(&wall(from).to_zoned(zone.clone()), false).unwrap().timestamp();
                    let away = next.duration_since(wall(transition)).abs() > SignedDuration::from_hours(2);
                    assert!(!away || schedule.next_after(wall(from)) == Some(next), "`{line}` in {name} after {}", wall(from));
                }
            }
        }
    }
}
