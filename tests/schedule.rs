//! Due times: by interval and phase, and by cron lines through daylight saving, against `croner`,
//! against the definition checked minute by minute, and against times computed by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

#[path = "support/civil.rs"]
mod civil;

use std::str::FromStr;

use civil::is_due;
use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rotad::rotation::schedule::{CronError, Gaps};
use rotad::rotation::{Owner, Schedule};

const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "Antarctica/Troll",
];

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(line: &str, zone: &str) -> Schedule {
    Schedule::cron(line, zone).unwrap()
}

const PHASE_OF_PROD_ETL: i64 = 57_358_157;
const TAG_OF_EVERY: u64 = 0x10ee4ad6542e29f7;
const TAG_OF_CRON: u64 = 0x341c15ef0a57d673;

/// The due times from `after` on, as texts.
fn due(line: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = cron(line, zone);
    std::iter::successors(schedule.next_after(at(after)), |at| schedule.next_after(*at))
        .take(count)
        .map(|at| at.to_string())
        .collect()
}

fn owner(credential: &str) -> Owner {
    Owner { deployment: "prod".parse().unwrap(), credential: credential.parse().unwrap() }
}

#[test]
fn an_intervals_due_times_are_phase_plus_multiples_and_strictly_later() {
    let schedule = Schedule::every(SignedDuration::from_hours(24), &owner("etl"));
    let Schedule::Every { every, phase } = &schedule else { panic!("an interval") };
    assert!(SignedDuration::ZERO <= *phase && phase < every);
    for start in ["2026-11-22T17:00:00Z", "2026-11-22T17:00:00.999999999Z", "1969-12-31T23:59:59.9999Z", "1970-01-01T00:00:00Z"] {
        let next = schedule.next_after(at(start)).unwrap();
        assert!(next > at(start) && next - *every <= at(start), "{start}: {next}");
        assert_eq!((next.as_millisecond() - phase.as_millis() as i64).rem_euclid(every.as_millis() as i64), 0);
        assert_eq!(schedule.next_after(next), Some(next + *every));
    }
}

/// Worked out beside the code: the first 8 bytes of SHA-256 of `prod/etl`, modulo a day in milliseconds.
#[test]
fn a_phase_is_the_same_after_a_restart() {
    let schedule = Schedule::every(SignedDuration::from_hours(24), &owner("etl"));
    let expected = SignedDuration::from_millis(PHASE_OF_PROD_ETL);
    assert_eq!(schedule, Schedule::Every { every: SignedDuration::from_hours(24), phase: expected });
}

#[test]
fn phases_of_100_000_names_are_no_herd() {
    let mut hours = [0_u32; 24];
    for n in 0..100_000 {
        let Schedule::Every { phase, .. } = Schedule::every(SignedDuration::from_hours(24), &owner(&format!("c{n}"))) else {
            panic!("an interval")
        };
        hours[phase.as_hours() as usize] += 1;
    }
    // 4,167 are expected in each hour, with a standard deviation of 63.
    assert!(hours.iter().all(|count| (3_850..4_480).contains(count)), "{hours:?}");
}

/// The journal remembers tags, so they must be these in every version of rotad.
#[test]
fn a_tag_is_the_same_in_every_run_and_changes_with_the_schedule() {
    let day = SignedDuration::from_hours(24);
    assert_eq!(Schedule::every(day, &owner("etl")).tag(), TAG_OF_EVERY);
    assert_eq!(cron("0 3 * * mon", "Europe/Berlin").tag(), TAG_OF_CRON);
    assert_eq!(cron("0 0  3 * * MON", "europe/berlin").tag(), TAG_OF_CRON, "the same schedule, written otherwise");
    assert_eq!(cron("0 3 * * MON", "Europe/Berlin"), cron("0 3 * * mon", "europe/berlin"));
    let others = [
        Schedule::every(day, &owner("etl2")),
        Schedule::every(day / 2, &owner("etl")),
        cron("0 4 * * MON", "Europe/Berlin"),
        cron("0 3 * * MON", "Europe/Paris"),
    ];
    for other in others {
        assert!(other.tag() != TAG_OF_EVERY && other.tag() != TAG_OF_CRON, "{other:?}");
        assert_ne!(other, cron("0 3 * * MON", "Europe/Berlin"));
    }
}

#[test]
fn a_time_in_a_gap_is_due_at_the_gaps_end() {
    let cases = [
        // Berlin goes from 02:00 to 03:00 on 28 March 2027, at 01:00 UTC.
        ("30 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]),
        ("0 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", ["2027-03-28T01:00:00Z", "2027-03-29T00:00:00Z"]),
        ("0 3 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", ["2027-03-28T01:00:00Z", "2027-03-29T01:00:00Z"]),
        // Two times in the gap and its end are one due time.
        ("15,45 2,3 * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", ["2027-03-28T01:00:00Z", "2027-03-28T01:15:00Z"]),
        ("30 * * * *", "Europe/Berlin", "2027-03-28T00:30:00Z", ["2027-03-28T01:00:00Z", "2027-03-28T01:30:00Z"]),
        // New York: from 02:00 to 03:00 on 14 March 2027, at 07:00 UTC.
        ("59 2 * * *", "America/New_York", "2027-03-13T12:00:00Z", ["2027-03-14T07:00:00Z", "2027-03-15T06:59:00Z"]),
        // Lord Howe: from 02:00 to 02:30 on 3 October 2027, at 15:30 UTC of the day before.
        ("15 2 * * *", "Australia/Lord_Howe", "2027-10-02T00:00:00Z", ["2027-10-02T15:30:00Z", "2027-10-03T15:15:00Z"]),
        // Cairo: from 00:00 to 01:00 on 30 April 2027, at 22:00 UTC of the day before.
        ("30 0 * * *", "Africa/Cairo", "2027-04-29T00:00:00Z", ["2027-04-29T22:00:00Z", "2027-04-30T21:30:00Z"]),
    ];
    for (line, zone, after, expected) in cases {
        assert_eq!(due(line, zone, after, 2), expected, "`{line}` in {zone}");
    }
}

#[test]
fn a_time_in_an_overlap_is_due_at_its_first_instant_and_twice_if_every_hour_is_named() {
    let cases = [
        // Berlin goes from 03:00 back to 02:00 on 31 October 2027, at 01:00 UTC.
        ("30 2 * * *", "Europe/Berlin", "2027-10-30T12:00:00Z", ["2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"]),
        ("0 3 * * *", "Europe/Berlin", "2027-10-30T12:00:00Z", ["2027-10-31T02:00:00Z", "2027-11-01T02:00:00Z"]),
        ("30 * * * *", "Europe/Berlin", "2027-10-31T00:29:00Z", ["2027-10-31T00:30:00Z", "2027-10-31T01:30:00Z"]),
        ("30 0-23 * * *", "Europe/Berlin", "2027-10-31T00:31:00Z", ["2027-10-31T01:30:00Z", "2027-10-31T02:30:00Z"]),
        ("*/30 2 * * *", "Europe/Berlin", "2027-10-31T00:00:00Z", ["2027-10-31T00:30:00Z", "2027-11-01T01:00:00Z"]),
        // New York: from 02:00 back to 01:00 on 7 November 2027, at 06:00 UTC.
        ("15 1 * * *", "America/New_York", "2027-11-06T12:00:00Z", ["2027-11-07T05:15:00Z", "2027-11-08T06:15:00Z"]),
        // Lord Howe: from 02:00 back to 01:30 on 4 April 2027, at 15:00 UTC of the day before.
        ("45 1 * * *", "Australia/Lord_Howe", "2027-04-03T00:00:00Z", ["2027-04-03T14:45:00Z", "2027-04-04T15:15:00Z"]),
        // Cairo: from 24:00 back to 23:00 on 28 October 2027, at 21:00 UTC.
        ("30 23 * * *", "Africa/Cairo", "2027-10-28T00:00:00Z", ["2027-10-28T20:30:00Z", "2027-10-29T21:30:00Z"]),
    ];
    for (line, zone, after, expected) in cases {
        assert_eq!(due(line, zone, after, 2), expected, "`{line}` in {zone}");
    }
    // Asked from inside the second pass, a time of the first is not due again.
    for inside in ["2027-10-31T01:00:00Z", "2027-10-31T01:15:00Z", "2027-10-31T01:30:00Z", "2027-10-31T01:59:59.5Z"] {
        assert_eq!(due("30 2 * * *", "Europe/Berlin", inside, 1), ["2027-11-01T01:30:00Z"], "{inside}");
    }
}

/// A loop that sleeps until the next due time once ran 181 times in half an hour of an overlap.
#[test]
fn a_loop_through_an_overlap_runs_as_often_as_the_line_says() {
    let run = |line: &str, from: &str, to: &str| {
        let schedule = cron(line, "Europe/Berlin");
        std::iter::successors(schedule.next_after(at(from)), |at| schedule.next_after(*at))
            .take_while(|due| *due < at(to))
            .count()
    };
    for (line, expected) in [("30 2 * * *", 1), ("*/10 2 * * *", 6), ("*/10 * * * *", 24), ("*/10 * * * * *", 1_440)] {
        assert_eq!(run(line, "2027-10-30T23:59:59Z", "2027-10-31T04:00:00Z"), expected, "`{line}`");
    }
}

#[test]
fn six_fields_have_seconds_and_five_have_none() {
    assert_eq!(due("30 0 3 * * *", "UTC", "2027-01-01T00:00:00Z", 1), ["2027-01-01T03:00:30Z"]);
    assert_eq!(due("0 3 * * *", "UTC", "2027-01-01T03:00:00Z", 1), ["2027-01-02T03:00:00Z"]);
    assert_eq!(due("0 3 * * *", "UTC", "2027-01-01T02:59:59.999999999Z", 1), ["2027-01-01T03:00:00Z"]);
    assert_eq!(due("0 0 29 feb ?", "UTC", "2026-01-01T00:00:00Z", 2), ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
    assert_eq!(due("0 0 * * mon-wed,Sat", "UTC", "2027-01-01T00:00:00Z", 2), ["2027-01-02T00:00:00Z", "2027-01-04T00:00:00Z"]);
    assert_eq!(cron("0 3 * * *", "UTC").next_after(at("2101-01-01T00:00:00Z")), None);
    assert_eq!(due("0 3 * * *", "UTC", "-000044-03-15T00:00:00Z", 1), ["1970-01-01T03:00:00Z"]);
}

#[test]
fn a_line_that_is_wrong_or_could_mean_two_things_is_refused_with_what_would_be_right() {
    let refused = |line: &str| Schedule::cron(line, "Europe/Berlin").unwrap_err();
    for weekdays in ["1", "1-5", "MON,3", "0", "7/2", "5L", "FRI#2"] {
        assert_eq!(refused(&format!("0 3 * * {weekdays}")), CronError::NumericWeekday(weekdays.to_owned()));
    }
    assert_eq!(
        refused("0 3 * * 1").to_string(),
        "weekday `1` is a number, and some crons count from Sunday, some from Monday, some from 0, some from 1"
    );
    assert_eq!(
        refused("0 3 1 * MON").to_string(),
        "day of the month `1` and weekday `MON` are both restricted, and crons differ in whether one or both must match"
    );
    assert_eq!(refused("@daily").to_string(), "`@daily` is a nickname, which not every cron knows");
    assert_eq!(refused("@daily").help(), "write it out, such as `0 0 * * *` for every midnight");
    for (line, found) in [("", 0), ("0 3 * *", 4), ("0 0 3 * * * 2027", 7)] {
        assert_eq!(refused(line), CronError::FieldCount { expression: line.to_owned(), found });
    }
    let fields = [
        ("60 0 3 * * *", "second", "60"),
        ("61 3 * * *", "minute", "61"),
        ("0 24 * * *", "hour", "24"),
        ("0 3 0 * *", "day of the month", "0"),
        ("0 3 L * *", "day of the month", "L"),
        ("0 3 * 13 *", "month", "13"),
        ("0 3 * MAI *", "month", "MAI"),
        ("0 3 * * SAT-MON", "weekday", "SAT-MON"),
        ("0 3 * * MO", "weekday", "MO"),
        ("5-1 3 * * *", "minute", "5-1"),
        ("*/0 3 * * *", "minute", "*/0"),
        ("-1 3 * * *", "minute", "-1"),
        ("1,,2 3 * * *", "minute", "1,,2"),
    ];
    for (line, name, text) in fields {
        let error = refused(line);
        assert!(
            matches!(&error, CronError::Field { field, found, .. } if (*field, found.as_str()) == (name, text)),
            "`{line}`: {error}"
        );
    }
    assert_eq!(
        refused("0 24 * * *").help(),
        "`*`, or values, ranges (not backwards) and steps of 0 to 23, such as `5`, `1-5`, `10,20` or `*/5`"
    );
    for line in ["0 3 31 2 *", "0 3 30 2 *", "0 3 31 2,4,6,9,11 *"] {
        assert!(matches!(refused(line), CronError::Never(_)), "`{line}`");
    }
    assert_eq!(refused("0 3 31 2 *").to_string(), "`0 0 3 31 2 *` never comes: no month that it names has such a day");
    assert_eq!(refused(&"1,".repeat(200)), CronError::TooLong(400));
}

#[test]
fn a_zone_that_is_not_known_is_refused_with_a_hint() {
    let refused = |zone: &str| {
        let error = Schedule::cron("0 3 * * *", zone).unwrap_err();
        format!("{error}: {}", error.help())
    };
    assert_eq!(refused("Berlin"), "time zone `Berlin` is not known: did you mean `Europe/Berlin`?");
    assert_eq!(refused("US/New York"), "time zone `US/New York` is not known: did you mean `America/New_York`?");
    for zone in ["", "+02:00", "Mars/Olympus", "../../etc/passwd", "Etc/Unknown"] {
        assert!(refused(zone).contains("such as `Europe/Berlin` or `UTC`"), "{}", refused(zone));
    }
}

#[test]
fn gaps_are_those_of_five_years_with_daylight_saving() {
    let (second, minute, hour, day) = (1, 60, 3_600, 86_400);
    let cases = [
        ("0 3 * * *", "UTC", day, day),
        ("0 3 * * *", "Europe/Berlin", 23 * hour, 25 * hour),
        ("0 3 * * *", "Australia/Lord_Howe", 23 * hour + 30 * minute, 24 * hour + 30 * minute),
        ("0 3 * * MON", "Europe/Berlin", 167 * hour, 169 * hour),
        ("0 3 * * MON-FRI", "Europe/Berlin", 24 * hour, 73 * hour),
        ("30 * * * *", "Europe/Berlin", 30 * minute, hour),
        ("0 * * * *", "Europe/Berlin", hour, hour),
        ("0 0 1 * *", "UTC", 28 * day, 31 * day),
        ("0 0 29 2 *", "UTC", 1_461 * day, 1_461 * day),
        ("* * * * * *", "Europe/Berlin", second, second),
        ("*/7 * * * *", "UTC", 4 * minute, 7 * minute),
        // From 05:59 until 03:00 of the next day, an hour longer when summer time ends in between.
        ("* 3-5 * * *", "Europe/Berlin", minute, 22 * hour + minute),
        ("* 3-5 * * *", "UTC", minute, 21 * hour + minute),
        ("* 3-5 * * SUN", "UTC", minute, 6 * day + 21 * hour + minute),
    ];
    for (line, zone, shortest, longest) in cases {
        let expected = Gaps { shortest: SignedDuration::from_secs(shortest), longest: SignedDuration::from_secs(longest) };
        assert_eq!(cron(line, zone).gaps(at("2026-11-22T17:00:00Z")), expected, "`{line}` in {zone}");
    }
    let every = SignedDuration::from_secs(4);
    assert_eq!(Schedule::every(every, &owner("etl")).gaps(at("2026-11-22T17:00:00Z")), Gaps { shortest: every, longest: every });
}

/// A field with values of `range`: all, a step, a value, a list, a range, a range with a step.
fn field(range: std::ops::Range<u32>) -> impl Strategy<Value = String> {
    let last = range.end - 1;
    let value = range.clone();
    prop_oneof![
        2 => Just("*".to_owned()),
        1 => (1..=last).prop_map(|step| format!("*/{step}")),
        2 => value.clone().prop_map(|value| value.to_string()),
        1 => proptest::collection::btree_set(value.clone(), 1..4)
            .prop_map(|values| values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        2 => (value.clone(), value, 1..=last).prop_map(|(a, b, step)| {
            if a == b { a.to_string() } else { format!("{}-{}/{step}", a.min(b), a.max(b)) }
        }),
    ]
}

/// A line of five fields that has a next time.
fn line() -> impl Strategy<Value = String> {
    let names = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let weekdays = prop_oneof![
        Just("*".to_owned()),
        (0..7_usize, 0..7_usize).prop_map(move |(a, b)| {
            if a == b { names[a].to_owned() } else { format!("{}-{}", names[a.min(b)], names[a.max(b)]) }
        }),
    ];
    let days = prop_oneof![
        3 => weekdays.prop_map(|weekdays| ("*".to_owned(), weekdays)),
        1 => field(1..29).prop_map(|day| (day, "*".to_owned())),
    ];
    let months = prop_oneof![4 => Just("*".to_owned()), 1 => field(1..13)];
    (field(0..60), field(0..24), days, months)
        .prop_map(|(minute, hour, (day, weekday), month)| format!("{minute} {hour} {day} {month} {weekday}"))
}

/// The transitions of a zone in the years that the tests look at.
fn transitions(zone: &TimeZone) -> Vec<Timestamp> {
    let end = at("2036-01-01T00:00:00Z");
    let found: Vec<_> =
        zone.following(at("2020-01-01T00:00:00Z")).map(|found| found.timestamp()).take_while(|at| *at < end).collect();
    // Ordinary days do for a zone without transitions.
    if found.is_empty() { vec![at("2027-03-28T01:00:00Z")] } else { found }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn on_ordinary_days_croner_agrees(line in line(), zone in 0..ZONES.len(), start in 1_767_225_600_i64..1_925_000_000) {
        let (schedule, croner) = (cron(&line, ZONES[zone]), Cron::from_str(&line).unwrap());
        let zone = TimeZone::get(ZONES[zone]).unwrap();
        let day = SignedDuration::from_hours(24);
        let mut at = Timestamp::from_second(start).unwrap();
        for _ in 0..20 {
            let expected = croner.find_next_occurrence(&at.to_zoned(zone.clone()), false).unwrap().timestamp();
            let changes_soon = zone.following(at - day).next().is_some_and(|found| found.timestamp() < expected + day);
            if !changes_soon {
                prop_assert_eq!(schedule.next_after(at), Some(expected), "`{}` after {}", line, at);
            }
            at = expected;
        }
    }

    #[test]
    fn around_every_transition_due_times_are_those_of_the_definition(line in line(), zone in 0..ZONES.len(), pick in any::<prop::sample::Index>()) {
        let (schedule, croner) = (cron(&line, ZONES[zone]), Cron::from_str(&line).unwrap());
        let every_hour = line.split(' ').nth(1).is_some_and(|hour| matches!(hour, "*" | "*/1" | "0-23/1"));
        let zone = TimeZone::get(ZONES[zone]).unwrap();
        let found = transitions(&zone);
        let transition = found[pick.index(found.len())];
        let (minute, half) = (SignedDuration::from_mins(1), SignedDuration::from_hours(6));
        let mut expected = (0..720_i32).map(|n| transition - half + minute * n).filter(|at| is_due(&croner, &zone, every_hour, *at));
        let end = transition + half;
        let mut after = transition - half - minute;
        loop {
            let next = schedule.next_after(after).filter(|next| *next < end);
            prop_assert_eq!(next, expected.next(), "`{}` after {}", line, after);
            let Some(next) = next else { break };
            after = next;
        }
    }

    #[test]
    fn the_next_due_time_is_always_later_and_none_lies_between(line in line(), zone in 0..ZONES.len(), pick in any::<prop::sample::Index>(),
                                                               offset in -10_800_000_i64..10_800_000) {
        let schedule = cron(&line, ZONES[zone]);
        let found = transitions(&TimeZone::get(ZONES[zone]).unwrap());
        let start = found[pick.index(found.len())] + SignedDuration::from_millis(offset);
        let next = schedule.next_after(start).unwrap();
        prop_assert!(next > start);
        // From anywhere before `next`, it is the same one.
        let between = start + next.duration_since(start) / 2;
        prop_assert_eq!(schedule.next_after(between).filter(|_| between < next), Some(next));
        prop_assert_eq!(schedule.next_after(next - SignedDuration::from_nanos(1)), Some(next));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever way they were found, no two due times of a year around are closer or further apart.
    #[test]
    fn no_gap_is_outside_of_the_told_ones(line in line(), zone in 0..ZONES.len(), start in 1_767_225_600_i64..1_800_000_000) {
        let schedule = cron(&line, ZONES[zone]);
        let start = Timestamp::from_second(start).unwrap();
        let gaps = schedule.gaps(start);
        let mut before = schedule.next_after(start).unwrap();
        for _ in 0..2_000 {
            let next = schedule.next_after(before).unwrap();
            if next > start + SignedDuration::from_hours(24 * 365 * 5) {
                break;
            }
            let gap = next.duration_since(before);
            prop_assert!(gaps.shortest <= gap && gap <= gaps.longest, "`{}`: {} from {} to {}, told {:?}", line, gap, before, next, gaps);
            before = next;
        }
    }
}
