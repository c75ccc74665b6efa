//! The blast radius: how many rotations and revocations may begin in a minute.

use jiff::{SignedDuration, Timestamp};

use crate::rotation::Limits;

/// A bucket that holds one minute's permits and fills evenly.
#[derive(Debug)]
struct Bucket {
    per_minute: u32,
    /// Thousandths of a permit; below zero after urgent ones, which are counted and never refused.
    thousandths: i64,
    filled_at: Option<Timestamp>,
    /// Up to when permits were promised to those who were refused, so that they come back one by one.
    promised_until: Option<Timestamp>,
}

impl Bucket {
    fn new(per_minute: u32) -> Self {
        Self { per_minute, thousandths: i64::from(per_minute) * 1000, filled_at: None, promised_until: None }
    }

    /// The time in which one permit comes in.
    fn interval(&self) -> SignedDuration {
        SignedDuration::from_mins(1) / i32::try_from(self.per_minute.max(1)).unwrap_or(i32::MAX)
    }

    fn fill(&mut self, now: Timestamp) {
        let full = i64::from(self.per_minute) * 1000;
        // A clock that went back fills nothing, and starts to count from there.
        let passed = self.filled_at.map_or(0, |at| now.duration_since(at).as_millis().clamp(0, 60_000));
        let came = i64::try_from(passed).unwrap_or(0) * full / 60_000;
        if came > 0 || self.filled_at.is_none_or(|at| at > now) {
            self.thousandths = (self.thousandths + came).min(full);
            self.filled_at = Some(now);
        }
    }

    fn take(&mut self, now: Timestamp, urgent: bool) -> Result<(), Timestamp> {
        self.fill(now);
        if urgent || self.thousandths >= 1000 {
            self.thousandths -= 1000;
            return Ok(());
        }
        let longest = now + SignedDuration::from_hours(1);
        let promised = self.promised_until.filter(|until| (now..longest).contains(until)).unwrap_or(now);
        let until = promised + self.interval();
        self.promised_until = Some(until);
        Err(until)
    }
}

/// The limits of one daemon, shared by its workers under a lock.
#[derive(Debug)]
pub struct BlastRadius {
    rotations: Bucket,
    revocations: Bucket,
    /// The daemon is stopping: nothing new begins.
    pub draining: bool,
}

impl BlastRadius {
    pub fn new(rotations_per_minute: u32, revocations_per_minute: u32) -> Self {
        Self { rotations: Bucket::new(rotations_per_minute), revocations: Bucket::new(revocations_per_minute), draining: false }
    }

    /// Takes over other numbers; what was used of the minute stays used.
    pub fn resize(&mut self, rotations_per_minute: u32, revocations_per_minute: u32) {
        for (bucket, per_minute) in [(&mut self.rotations, rotations_per_minute), (&mut self.revocations, revocations_per_minute)]
        {
            if bucket.per_minute != per_minute {
                let used = i64::from(bucket.per_minute) * 1000 - bucket.thousandths;
                bucket.per_minute = per_minute;
                bucket.thousandths = i64::from(per_minute) * 1000 - used;
            }
        }
    }
}

impl Limits for BlastRadius {
    fn rotation(&mut self, now: Timestamp, urgent: bool) -> Result<(), Timestamp> {
        if self.draining { Err(now + SignedDuration::from_mins(1)) } else { self.rotations.take(now, urgent) }
    }

    fn revocation(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        if self.draining { Err(now + SignedDuration::from_mins(1)) } else { self.revocations.take(now, false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn a_minute_has_its_permits_and_no_more() {
        let mut limits = BlastRadius::new(10, 10);
        let granted = (0..100).filter(|_| limits.rotation(at(0), false).is_ok()).count();
        assert_eq!(granted, 10);
        let later = (0..100).filter(|_| limits.rotation(at(30_000), false).is_ok()).count();
        assert_eq!(later, 5);
    }

    #[test]
    fn whoever_is_refused_comes_back_one_by_one() {
        let mut limits = BlastRadius::new(60, 60);
        while limits.rotation(at(0), false).is_ok() {}
        let first = limits.rotation(at(0), false).unwrap_err();
        let second = limits.rotation(at(0), false).unwrap_err();
        assert_eq!(second.duration_since(first), SignedDuration::from_secs(1));
    }

    #[test]
    fn an_urgent_rotation_is_counted_and_never_refused() {
        let mut limits = BlastRadius::new(1, 1);
        assert!((0..5).all(|_| limits.rotation(at(0), true).is_ok()));
        assert!(limits.rotation(at(60_000), false).is_err(), "the urgent ones were not counted");
    }

    #[test]
    fn a_clock_that_goes_back_grants_nothing_extra() {
        let mut limits = BlastRadius::new(10, 10);
        while limits.rotation(at(0), false).is_ok() {}
        let granted = (0..60).filter(|minute| limits.rotation(at(-60_000 * minute), false).is_ok()).count();
        assert_eq!(granted, 0);
    }
}
