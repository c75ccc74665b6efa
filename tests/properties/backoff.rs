//! Waits after failures grow, have an end, and outlive a restart.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rotad::rotation::{Credential, Failed, IssueOutcome, Reason};

use crate::rig::{DAY, HOUR, Rig, is_issue, secs};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A state as it comes back from the journal.
fn reread(state: &Credential) -> Credential {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn each_wait_is_twice_the_one_before_up_to_the_longest(longest in 1..=3_600_i64, failures in 1..60_u32, now in 0..4_000_000_000_i64) {
        let mut state = Credential::default();
        for failure in 0..failures {
            state.issuing.push(at(now), secs(longest), None);
            state = reread(&state);
            let expected = (1_i64 << failure.min(20)).min(longest);
            prop_assert_eq!(state.issuing.wait(at(now)), Some(at(now + expected)), "failure {}", failure);
            prop_assert_eq!(state.issuing.wait(at(now + expected)), None, "a wait that is over");
        }
        state.issuing.reset();
        prop_assert_eq!(reread(&state).issuing.wait(at(now)), None);
    }

    #[test]
    fn it_waits_as_long_as_it_was_told_but_never_more_than_an_hour(told in any::<i64>(), failures in 1..40_u32, longest in 1..=3_600_i64) {
        let (mut state, now) = (Credential::default(), at(1_800_000_000));
        let told = SignedDuration::from_secs(told);
        for _ in 0..failures {
            state.issuing.push(now, secs(longest), Some(told));
        }
        let wait = reread(&state).issuing.wait(now).unwrap().duration_since(now);
        prop_assert!(wait >= told.min(secs(3_600)) && wait <= secs(3_600), "{} for {}", wait, told);
        prop_assert!(wait > SignedDuration::ZERO);
    }

    /// Whatever a wall clock does between a failure and the next look, nothing waits for more than an hour.
    #[test]
    fn no_clock_makes_it_wait_for_long(failed_at in 0..4_000_000_000_i64, now in 0..4_000_000_000_i64, failures in 1..40_u32) {
        let mut state = Credential::default();
        (0..failures).for_each(|_| state.issuing.push(at(failed_at), secs(3_600), None));
        let wait = state.issuing.wait(at(now));
        prop_assert!(wait.is_none_or(|until| until > at(now) && until <= at(now + 3_600)), "{:?}", wait);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The core asks an API that refuses again and again at growing intervals, restarts or not.
    #[test]
    fn an_api_that_refuses_is_asked_ever_less_often(restarts in prop::collection::btree_set(0..40_usize, 0..10), lost in any::<bool>()) {
        let mut rig = Rig::new(&["a"]);
        let failed = Failed::new(Reason::Rejected, "no");
        rig.wrong.issue = Some(if lost { IssueOutcome::Unknown(failed) } else { IssueOutcome::Refused(failed) });
        for portion in 0..40 {
            if restarts.contains(&portion) {
                rig.restart();
            }
            rig.pass(DAY / 40);
        }
        let asked: Vec<i64> = rig.actions.iter().filter(|(_, action)| is_issue(action)).map(|(second, _)| *second).collect();
        let gaps: Vec<i64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (failure, gap) in gaps.iter().enumerate() {
            let least = (1_i64 << failure.min(20)).min(HOUR);
            prop_assert!(*gap >= least, "attempt {} after {} s, of {:?}", failure + 2, gap, gaps);
        }
        // 12 doublings to an hour, then hourly; a lost token holds the next attempt up by nothing else.
        prop_assert!(gaps.len() >= 30, "{:?}", gaps);
    }
}
