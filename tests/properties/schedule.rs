//! Intervals of any length for any name, and what an accepted configuration promises of a credential's course.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rotad::config::{self, FileFact, Surroundings};
use rotad::rotation::{DeliveryId, Happened, Owner, Policy, Schedule};

use crate::rig::{DAY, Rig, is_issue, place, secs, wall};

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9_-]{1,63}"
}

fn owner() -> impl Strategy<Value = Owner> {
    (name(), name()).prop_map(|(deployment, credential)| format!("{deployment}/{credential}").parse().unwrap())
}

/// Any time that a clock may show, some before 1970, with fractions of any length.
fn time() -> impl Strategy<Value = Timestamp> {
    (-60_000_000_000_i64..200_000_000_000, 0..1_000_000_000_i32).prop_map(|(second, nano)| Timestamp::new(second, nano).unwrap())
}

proptest! {
    #[test]
    fn the_next_due_time_is_the_least_one_strictly_later(every in 1..3_153_600_000_i64, owner in owner(), after in time()) {
        let schedule = Schedule::every(secs(every), &owner);
        let next = schedule.next_after(after).unwrap();
        prop_assert!(next > after && next - secs(every) <= after, "{} after {}", next, after);
        prop_assert_eq!(schedule.next_after(next - SignedDuration::from_nanos(1)), Some(next));
        prop_assert_eq!(schedule.next_after(next), Some(next + secs(every)));
        let gaps = schedule.gaps(after);
        prop_assert_eq!((gaps.shortest, gaps.longest), (secs(every), secs(every)));
    }

    /// The same after a restart, for another replica, and wherever one begins to count.
    #[test]
    fn a_phase_belongs_to_the_name_and_to_nothing_else(every in 1..3_153_600_000_i64, owner in owner(), one in time(), other in time()) {
        let schedule = Schedule::every(secs(every), &owner);
        let Schedule::Every { phase, .. } = &schedule else { panic!("an interval") };
        prop_assert!(SignedDuration::ZERO <= *phase && *phase < secs(every));
        prop_assert_eq!(&Schedule::every(secs(every), &owner), &schedule);
        let again: Owner = owner.to_string().parse().unwrap();
        prop_assert_eq!(Schedule::every(secs(every), &again).tag(), schedule.tag());
        let apart = schedule.next_after(one).unwrap().duration_since(schedule.next_after(other).unwrap());
        prop_assert_eq!(apart.as_millis() % i128::from(every * 1000), 0);
    }
}

/// Every file is there.
struct Anywhere;

impl Surroundings for Anywhere {
    fn now(&self) -> Timestamp {
        wall(0)
    }

    fn file(&self, _: &Path) -> FileFact {
        FileFact::Readable { mode: 0o600 }
    }

    fn has_variable(&self, _: &str) -> bool {
        true
    }
}

/// What the core gets from a configuration with these lines; `None` where it is refused.
fn accepted(lines: &str) -> Option<Policy> {
    let text = format!(
        "deployment = \"sim\"\n[organization.main]\nadmin_token = {{ env = \"TOKEN\" }}\n[sink.disk.file]\n[credential.etl]\n\
         account = \"etl_prod\"\nverify = \"none\"\n{lines}\ndeliver = [{{ sink = \"disk\", path = \"/run/etl\" }}]\n"
    );
    let config = config::parse(&text, "rotad.toml", &Anywhere).ok()?;
    let (name, credential) = config.credentials.first_key_value()?;
    let owner = Owner { deployment: config.deployment.clone(), credential: name.clone() };
    let places: [(DeliveryId, SignedDuration); 1] = [(place("a"), secs(10))];
    Some(credential.policy(owner, 16, &places, secs(3_600), false))
}

fn lines() -> impl Strategy<Value = String> {
    let every = (60..200_000_i64).prop_map(|every| format!("every = \"{every}s\""));
    let lines = ["0 3 * * *", "30 2 * * *", "15 */6 * * *", "0 0,12 * * *", "0 9 * * MON-FRI", "30 * * * *"];
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"];
    let cron = (prop::sample::select(lines.to_vec()), prop::sample::select(zones.to_vec()))
        .prop_map(|(line, zone)| format!("cron = \"{line}\"\ntimezone = \"{zone}\""));
    let window = prop::option::of(600..20_000_i64)
        .prop_map(|window| window.map(|window| format!("\nwindow = \"{window}s\"")).unwrap_or_default());
    (prop_oneof![every, cron], window, 300..900_000_i64, 30..100_000_i64)
        .prop_map(|(pace, window, ttl, grace)| format!("{pace}{window}\nttl = \"{ttl}s\"\ngrace = \"{grace}s\""))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_global_rejects: 20_000, ..ProptestConfig::default() })]

    /// The arithmetic that a configuration is accepted by is the core's: in a world where all works no deadline
    /// is ever near, each due time is met, and no token expires while it is served.
    #[test]
    fn an_accepted_configuration_is_kept_without_ever_passing_a_deadline(policy in lines().prop_filter_map("refused", |lines| accepted(&lines)),
                                                                         start in 0..20_000_000_i64) {
        let mut rig = Rig::new(&["a"]);
        rig.second = start;
        rig.facts.journal_created_at = wall(start);
        let (longest, ttl) = (policy.schedule.gaps(wall(0)).longest.as_secs(), policy.ttl.as_secs());
        rig.policy = policy;
        // As many rotations as tell something, and no more than the rig has values for.
        rig.pass((4 * ttl).min(40 * longest).min(60 * DAY));
        prop_assert_eq!(rig.happened(Happened::DeadlineForced), 0);
        prop_assert_eq!(rig.happened(Happened::Promoted), rig.happened(Happened::Issued));
        let issues: Vec<i64> = rig.actions.iter().filter(|(_, action)| is_issue(action)).map(|(second, _)| *second).collect();
        let mut due = rig.policy.schedule.next_after(wall(start)).unwrap();
        for second in &issues[1..] {
            // The rig wakes at whole seconds.
            let late = SignedDuration::from_secs(*second) - due.duration_since(wall(0));
            prop_assert!(SignedDuration::ZERO <= late && late < secs(1), "due at {}, rotated {} late", due, late);
            due = rig.policy.schedule.next_after(due).unwrap();
        }
        prop_assert!(rig.tokens.iter().all(|token| token.expires_at.unwrap() > wall(rig.second)));
    }
}
