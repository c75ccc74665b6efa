//! The blast radius: how many rotations and revocations may begin in a minute.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use crate::clock::SKEW_MAX;
use crate::journal::HistoryLine;
use crate::rotation::breakage::{Breakage, broken};
use crate::rotation::{Happened, Limits, Moment, Steady};

/// What a minute holds.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// What began within the last minute: so many, and no more, in whichever minute one looks at.
#[derive(Debug)]
struct Window {
    per_minute: u32,
    /// When each began, oldest first, by the steady clock: a wall clock that is set ahead frees nothing.
    begun: VecDeque<Steady>,
    /// What an earlier process began, by its wall clock, until ours can be held against it.
    recalled: Vec<Timestamp>,
    recalled_at: Option<Steady>,
    /// Up to when permits were promised to those who were refused, so that they come back one by one.
    promised_until: Option<Timestamp>,
}

impl Window {
    fn new(per_minute: u32) -> Self {
        Self { per_minute, begun: VecDeque::new(), recalled: Vec::new(), recalled_at: None, promised_until: None }
    }

    /// The time between two permits if they are spread evenly.
    fn interval(&self) -> SignedDuration {
        MINUTE / i32::try_from(self.per_minute.max(1)).unwrap_or(i32::MAX)
    }

    /// Urgent ones are counted and never refused.
    fn take(&mut self, now: Moment, urgent: bool) -> Result<(), Timestamp> {
        while self.begun.front().is_some_and(|at| now.steady.since(*at) >= MINUTE) {
            self.begun.pop_front();
        }
        let begun = self.begun.len() + self.recalled.len();
        if urgent || begun < self.per_minute as usize || broken(Breakage::LimitsIgnored) {
            self.begun.push_back(now.steady);
            return Ok(());
        }
        let free_in = self.begun.front().map_or(MINUTE, |first| MINUTE - now.steady.since(*first));
        let free_at = now.wall + free_in;
        let longest = now.wall + SignedDuration::from_hours(1);
        let promised = self.promised_until.filter(|until| (now.wall..longest).contains(until));
        let until = promised.map_or(free_at, |promised| (promised + self.interval()).max(free_at));
        self.promised_until = Some(until);
        Err(until)
    }

    /// Counts what an earlier process began within the last minute. The wall clock is right by now.
    fn count_recalled(&mut self, now: Moment, frozen: bool) {
        let first = *self.recalled_at.get_or_insert(now.steady);
        if self.recalled.is_empty() {
            return;
        }
        if frozen {
            // How long ago it was can't be told yet; a minute from now it was a minute ago for certain.
            if now.steady.since(first) >= MINUTE {
                self.recalled.clear();
            }
            return;
        }
        for at in std::mem::take(&mut self.recalled) {
            // Either clock may be as far off as is tolerated, one this way and one that way.
            let ago = now.wall.duration_since(at) - SKEW_MAX * 2;
            if ago < MINUTE && ago > -(MINUTE + SKEW_MAX * 4) {
                let ago = i64::try_from(ago.as_millis().max(0)).unwrap_or(0);
                self.begun.push_back(Steady(now.steady.0.saturating_sub(ago)));
            }
        }
        self.begun.make_contiguous().sort_unstable();
    }
}

/// The limits of one daemon, shared by its workers under a lock.
#[derive(Debug)]
pub struct BlastRadius {
    rotations: Window,
    revocations: Window,
    /// The daemon is stopping: nothing new begins.
    pub draining: bool,
}

impl BlastRadius {
    pub fn new(rotations_per_minute: u32, revocations_per_minute: u32) -> Self {
        Self { rotations: Window::new(rotations_per_minute), revocations: Window::new(revocations_per_minute), draining: false }
    }

    /// Takes over other numbers; what was used of the minute stays used.
    pub fn resize(&mut self, rotations_per_minute: u32, revocations_per_minute: u32) {
        self.rotations.per_minute = rotations_per_minute;
        self.revocations.per_minute = revocations_per_minute;
    }

    /// Takes note of what an earlier process began, so that a restart gives no second minute's permits.
    pub fn recall(&mut self, history: &[HistoryLine]) {
        for line in history {
            let window = match line.entry.what {
                Happened::Intended | Happened::SetUpIntended => &mut self.rotations,
                Happened::RevocationIntended => &mut self.revocations,
                _ => continue,
            };
            if !broken(Breakage::RestartUncounted) {
                window.recalled.push(line.entry.at);
            }
        }
    }

    /// The permits that can be had now; `frozen` while the clocks disagree or were not compared.
    pub fn at(&mut self, now: Moment, frozen: bool) -> Permits<'_> {
        self.rotations.count_recalled(now, frozen);
        self.revocations.count_recalled(now, frozen);
        Permits { limits: self, now }
    }
}

/// The limits at one moment.
pub struct Permits<'a> {
    limits: &'a mut BlastRadius,
    now: Moment,
}

impl Limits for Permits<'_> {
    fn rotation(&mut self, now: Timestamp, urgent: bool) -> Result<(), Timestamp> {
        if self.limits.draining { Err(now + MINUTE) } else { self.limits.rotations.take(self.now, urgent) }
    }

    fn revocation(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        if self.limits.draining { Err(now + MINUTE) } else { self.limits.revocations.take(self.now, false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::Entry;

    fn at(millis: i64) -> Moment {
        Moment { wall: Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap(), steady: Steady(millis) }
    }

    fn granted(limits: &mut BlastRadius, now: Moment) -> usize {
        (0..100).filter(|_| limits.at(now, false).rotation(now.wall, false).is_ok()).count()
    }

    #[test]
    fn any_minute_has_its_permits_and_no_more() {
        let mut limits = BlastRadius::new(10, 10);
        let mut begun = Vec::new();
        for second in 0..600 {
            let now = at(second * 700);
            begun.extend((0..granted(&mut limits, now)).map(|_| second * 700));
        }
        for from in &begun {
            let within = begun.iter().filter(|at| (*from..from + 60_000).contains(at)).count();
            assert!(within <= 10, "{within} within a minute");
        }
        assert!(begun.len() >= 60, "seven minutes have seven minutes' permits: {}", begun.len());
    }

    #[test]
    fn whoever_is_refused_comes_back_one_by_one() {
        let mut limits = BlastRadius::new(60, 60);
        granted(&mut limits, at(0));
        let first = limits.at(at(0), false).rotation(at(0).wall, false).unwrap_err();
        let second = limits.at(at(0), false).rotation(at(0).wall, false).unwrap_err();
        assert!(first >= at(60_000).wall);
        assert_eq!(second.duration_since(first), SignedDuration::from_secs(1));
    }

    #[test]
    fn an_urgent_rotation_is_counted_and_never_refused() {
        let mut limits = BlastRadius::new(1, 1);
        assert!((0..5).all(|_| limits.at(at(0), false).rotation(at(0).wall, true).is_ok()));
        assert!(limits.at(at(59_999), false).rotation(at(59_999).wall, false).is_err(), "the urgent ones were not counted");
        assert!(limits.at(at(60_000), false).rotation(at(60_000).wall, false).is_ok());
    }

    #[test]
    fn a_wall_clock_that_is_set_grants_nothing_extra() {
        let mut limits = BlastRadius::new(10, 10);
        granted(&mut limits, at(0));
        for wall in [-60_000, 60_000, 86_400_000] {
            let now = Moment { wall: at(wall).wall, steady: Steady(1_000) };
            assert_eq!(granted(&mut limits, now), 0, "{wall}");
        }
    }

    #[test]
    fn a_restart_gives_no_second_minutes_permits() {
        let line = |millis: i64, what| {
            let entry = Entry {
                at: at(millis).wall,
                what,
                rotation: None,
                token: None,
                delivery: None,
                reason: None,
                detail: None,
                by: None,
            };
            HistoryLine { credential: "etl".parse().unwrap(), entry }
        };
        let history: Vec<HistoryLine> = (0..10)
            .rev()
            .map(|number| line(number * 1000, if number % 2 == 0 { Happened::Intended } else { Happened::SetUpIntended }))
            .chain([line(-90_000, Happened::Intended)])
            .collect();
        let mut limits = BlastRadius::new(10, 10);
        limits.recall(&history);
        // A clock that was not compared yet says nothing of how long ago that was.
        let wrong = Moment { wall: at(86_400_000).wall, steady: Steady(19_000) };
        assert!(limits.at(wrong, true).rotation(wrong.wall, true).is_ok(), "what is urgent does not wait");
        assert_eq!(granted(&mut limits, at(20_000)), 0);
        assert_eq!(granted(&mut limits, at(79_900)), 0, "they count as begun now: either clock may be a minute off");
        assert_eq!(granted(&mut limits, at(80_100)), 10);
        assert!(limits.at(at(20_000), false).revocation(at(20_000).wall).is_ok(), "rotations count for rotations");
    }
}
