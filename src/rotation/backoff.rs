//! Waiting longer after each failure, across restarts.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The longest wait between two attempts of anything: an hour, so that a repaired cause is noticed
/// within one.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// How often something failed in a row, and when it may be tried again. Persisted with the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backoff {
    pub failures: u32,
    pub until: Option<Timestamp>,
}

impl Backoff {
    /// Counts an attempt or a failure: the next one may come 1 s later, then 2 s, doubling to
    /// `longest`, and not before `retry_after` where the other side asked for that.
    pub fn push(&mut self, now: Timestamp, longest: SignedDuration, retry_after: Option<SignedDuration>) {
        let doubled = SignedDuration::from_secs(1_i64 << self.failures.min(20));
        let wait = doubled.min(longest).max(retry_after.unwrap_or_default()).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.until = now.checked_add(wait).ok();
    }

    /// When the next attempt may come, if not now. No wait is ever longer than `LONGEST`, so one
    /// that seems to be was counted from a wall clock that has gone back since: it is over.
    pub fn wait(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.until?;
        let latest = now.checked_add(LONGEST).unwrap_or(until);
        (now < until && until <= latest).then_some(until)
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_from_a_second_to_the_longest() {
        let now = Timestamp::UNIX_EPOCH;
        let mut backoff = Backoff::default();
        let waits: Vec<i64> = (0..8)
            .map(|_| {
                backoff.push(now, SignedDuration::from_secs(60), None);
                backoff.wait(now).unwrap().as_second()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn it_waits_as_told_but_an_hour_at_most() {
        let now = Timestamp::UNIX_EPOCH;
        let mut backoff = Backoff::default();
        backoff.push(now, LONGEST, Some(SignedDuration::from_secs(30)));
        assert_eq!(backoff.wait(now).unwrap().as_second(), 30);
        backoff.push(now, LONGEST, Some(SignedDuration::from_hours(48)));
        assert_eq!(backoff.wait(now).unwrap().as_second(), 3600);
    }

    #[test]
    fn a_wall_clock_that_went_back_a_year_does_not_stop_it() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut backoff = Backoff::default();
        backoff.push(now, LONGEST, None);
        let year_ago = now - SignedDuration::from_hours(24 * 365);
        assert_eq!(backoff.wait(year_ago), None);
    }
}
