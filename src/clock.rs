//! The only reader of time: wall clock, boot-time clock and the API's `Date`, held against each other.
//!
//! `now().wall` is the best guess of the true time: the system's wall clock while it agrees with
//! the boot-time clock, otherwise the boot-time clock counted on from the last time that they
//! agreed, until the API's `Date` settles it. `now().steady` counts only time that has passed by
//! every clock there is.
#![allow(clippy::disallowed_methods)] // the one place where the clocks may be read

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::rotation::{Moment, Steady};

/// How far clocks may differ before revocations and scheduled rotations are frozen (design: Clocks).
pub const SKEW_MAX: SignedDuration = SignedDuration::from_secs(60);

/// Why revocations and scheduled rotations are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Freeze {
    /// The API's `Date` was not seen since the start.
    NotCompared,
    /// The wall clock jumped against the boot-time clock, and was not compared with the API since.
    ClockJump,
    /// The wall clock differs from the API's `Date`.
    ClockSkew,
}

impl Freeze {
    pub const ALL: [Self; 3] = [Self::NotCompared, Self::ClockJump, Self::ClockSkew];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotCompared => "not_compared",
            Self::ClockJump => "clock_jump",
            Self::ClockSkew => "clock_skew",
        }
    }
}

/// Time that runs faster than this machine's, for the demo alone: production has no such switch. What is measured by
/// tokio's own clock stays real: time limits of requests, requests per second.
#[cfg(feature = "stand-in")]
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    times: u32,
    since: Reading,
}

#[cfg(feature = "stand-in")]
impl Speed {
    /// From now on time runs `times` times as fast, at least once.
    pub fn new(times: u32) -> Self {
        Self { times: times.max(1), since: Reading::take() }
    }

    /// A clock of that speed. Several agree with each other, as those of two machines do.
    pub fn clock(self) -> Clock {
        let Self { times, since } = self;
        let factor = i32::try_from(times).unwrap_or(i32::MAX);
        let source = move || {
            let now = Reading::take();
            Reading {
                system: since.system + now.system.duration_since(since.system).saturating_mul(factor),
                boot: since.boot + (now.boot - since.boot).saturating_mul(factor),
            }
        };
        Clock { times, ..Clock::with_source(Box::new(source)) }
    }
}

/// Both local clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub system: Timestamp,
    /// Time since boot, suspends included (`CLOCK_BOOTTIME`).
    pub boot: SignedDuration,
}

/// Microseconds by `CLOCK_MONOTONIC`, as systemd wants to know when a reload began.
pub fn monotonic_micros() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// Where the readings come from: this machine's clocks, or a simulation's.
pub type Source = Box<dyn Fn() -> Reading + Send + Sync>;

impl Reading {
    fn take() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let boot = SignedDuration::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or(0));
        Self { system: Timestamp::now(), boot }
    }
}

/// The clock of one process.
pub struct Clock {
    source: Source,
    /// How many times as fast as this machine's clocks it runs: 1 but in the demo.
    times: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The wall clock's guess at boot time zero: `wall = origin + boot`.
    origin: Timestamp,
    last: Reading,
    steady: Steady,
    /// What passed beyond the whole milliseconds of `steady`: the clock may be read many times in one.
    steady_rest: SignedDuration,
    frozen: Option<Freeze>,
    /// Local wall clock minus the API's `Date`, at the last comparison.
    skew: Option<SignedDuration>,
    jumps: u64,
    /// What `steady` counts of the time before this process.
    carried: i64,
    started: Reading,
    /// The moment up to which an earlier process counted; what came between is counted once the
    /// API's `Date` has confirmed it.
    uncounted_since: Option<Timestamp>,
}

impl Clock {
    /// This machine's clocks. Starts frozen, until the first comparison with the API.
    pub fn new() -> Self {
        Self::with_source(Box::new(Reading::take))
    }

    /// Other clocks than this machine's: simulated ones.
    pub fn with_source(source: Source) -> Self {
        let state = State::starting_with(source());
        Self { source, times: 1, state: Mutex::new(state) }
    }

    /// How long this machine must sleep for `duration` to pass by this clock.
    pub fn to_sleep(&self, duration: SignedDuration) -> std::time::Duration {
        let sleep = std::time::Duration::try_from(duration).unwrap_or_default();
        sleep / self.times
    }

    /// Counts on from an earlier process's last mark. The time between is added at the first
    /// comparison, by the slower of the wall clock and the API's `Date`, less the skew that is tolerated.
    pub fn resume(&self, mark: Moment) {
        let mut state = self.lock();
        state.carry(mark.steady.0);
        state.uncounted_since = Some(mark.wall);
    }

    pub fn now(&self) -> Moment {
        self.lock().advance((self.source)())
    }

    /// Now, with a steady clock that began with this process: it does not leap when the time between two
    /// processes is counted, which the first comparison does.
    pub fn now_in_process(&self) -> Moment {
        let mut state = self.lock();
        let Moment { wall, steady } = state.advance((self.source)());
        Moment { wall, steady: Steady(steady.0 - state.carried) }
    }

    /// Time since boot, suspends included: no less than what truly passed, whatever the wall clock did.
    pub fn boot(&self) -> SignedDuration {
        (self.source)().boot
    }

    /// Compares with the API: `server` is the `Date` of an answer that came just now.
    pub fn saw_api_date(&self, server: Timestamp) {
        self.lock().compare(server, (self.source)());
    }

    pub fn frozen(&self) -> Option<Freeze> {
        self.lock().frozen
    }

    /// Local wall clock minus the API's `Date`, at the last comparison; positive where ours is fast.
    pub fn skew(&self) -> Option<SignedDuration> {
        self.lock().skew
    }

    /// How often the wall clock jumped by more than a minute since the start.
    pub fn jumps(&self) -> u64 {
        self.lock().jumps
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every update leaves the state whole, so a poisoned lock is no worse than a free one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn starting_with(reading: Reading) -> Self {
        Self {
            origin: reading.system - reading.boot,
            last: reading,
            steady: Steady(0),
            steady_rest: SignedDuration::ZERO,
            frozen: Some(Freeze::NotCompared),
            skew: None,
            jumps: 0,
            carried: 0,
            started: reading,
            uncounted_since: None,
        }
    }

    fn advance(&mut self, reading: Reading) -> Moment {
        let passed_boot = reading.boot - self.last.boot;
        let passed_system = reading.system.duration_since(self.last.system);
        let passed = passed_boot.min(passed_system).max(SignedDuration::ZERO);
        let passed = self.steady_rest + passed;
        let whole = i64::try_from(passed.as_millis()).unwrap_or(0);
        self.steady = Steady(self.steady.0 + whole);
        self.steady_rest = passed - SignedDuration::from_millis(whole);
        let jumped = (passed_system - passed_boot).abs() > SKEW_MAX;
        let guessed = self.origin + reading.boot;
        if jumped {
            self.jumps += 1;
            self.frozen = Some(Freeze::ClockJump);
        } else if reading.system.duration_since(guessed).abs() <= SKEW_MAX {
            // The system's clock is followed as it is slewed.
            self.origin = reading.system - reading.boot;
        }
        self.last = reading;
        Moment { wall: self.origin + reading.boot, steady: self.steady }
    }

    /// Counts time of before this process.
    fn carry(&mut self, millis: i64) {
        self.steady = Steady(self.steady.0 + millis);
        self.carried += millis;
    }

    fn compare(&mut self, server: Timestamp, reading: Reading) {
        self.advance(reading);
        // `Date` counts whole seconds, so the true time is half a second later on average.
        let middle = server + SignedDuration::from_millis(500);
        let skew = reading.system.duration_since(middle);
        self.skew = Some(skew);
        if skew.abs() > SKEW_MAX {
            self.frozen = Some(Freeze::ClockSkew);
            self.origin = middle - reading.boot;
        } else {
            self.frozen = None;
            self.origin = reading.system - reading.boot;
        }
        if let Some(mark) = self.uncounted_since.take() {
            let start_by_server = server - (reading.boot - self.started.boot);
            // The mark was made by a clock that may have differed by as much as is tolerated.
            let between = self.started.system.min(start_by_server).duration_since(mark) - SKEW_MAX;
            let between = between.max(SignedDuration::ZERO);
            self.carry(i64::try_from(between.as_millis()).unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: i64 = 1_000;

    fn at(system: i64, boot: i64) -> Reading {
        Reading { system: Timestamp::from_second(1_800_000_000 + system).unwrap(), boot: SignedDuration::from_secs(BOOT + boot) }
    }

    fn server(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn clock() -> State {
        let mut state = State::starting_with(at(0, 0));
        state.compare(server(0), at(0, 0));
        state
    }

    #[cfg(feature = "stand-in")]
    #[test]
    fn two_clocks_of_one_speed_agree_and_run_so_many_times_as_fast() {
        let speed = Speed::new(1_000);
        let (one, two) = (speed.clock(), speed.clock());
        let (from, real) = (one.now(), Reading::take());
        std::thread::sleep(one.to_sleep(SignedDuration::from_secs(20)));
        let (passed, really) = (one.now().wall.duration_since(from.wall), Reading::take().boot - real.boot);
        assert!(passed >= SignedDuration::from_secs(20), "{passed}");
        // Read one after the other, they differ by what passed in between.
        assert!(passed <= (really + SignedDuration::from_secs(1)).saturating_mul(1_000), "{passed} in {really}");
        let before = one.now().wall;
        let between = two.now().wall;
        assert!(before <= between && between <= one.now().wall);
        assert_eq!(Clock::new().to_sleep(SignedDuration::from_secs(3)), std::time::Duration::from_secs(3));
    }

    #[test]
    fn it_is_frozen_until_it_was_compared_with_the_api() {
        let mut state = State::starting_with(at(0, 0));
        assert_eq!(state.frozen, Some(Freeze::NotCompared));
        state.compare(server(0), at(0, 0));
        assert_eq!(state.frozen, None);
    }

    #[test]
    fn a_jump_of_an_hour_either_way_freezes_and_moves_neither_clock() {
        for jump in [3600, -3600] {
            let mut state = clock();
            let before = state.advance(at(10, 10));
            let after = state.advance(at(20 + jump, 20));
            assert_eq!(state.frozen, Some(Freeze::ClockJump), "{jump}");
            assert_eq!(after.wall.duration_since(before.wall), SignedDuration::from_secs(10), "{jump}");
            assert!(after.steady.since(before.steady) <= SignedDuration::from_secs(10), "{jump}");
            assert_eq!(state.jumps, 1);
        }
    }

    #[test]
    fn a_wrong_system_clock_stays_frozen_and_the_api_tells_the_time() {
        let mut state = clock();
        state.advance(at(10 + 86_400, 10));
        state.compare(server(11), at(11 + 86_400, 11));
        assert_eq!(state.frozen, Some(Freeze::ClockSkew));
        assert_eq!(state.advance(at(12 + 86_400, 12)).wall.as_second(), 1_800_000_012);
        state.compare(server(20), at(20, 20));
        assert_eq!(state.frozen, None);
    }

    #[test]
    fn a_corrected_clock_is_followed_after_the_comparison() {
        let mut state = clock();
        // It was an hour slow from the start, as the API tells; then it is set right.
        state.compare(server(3600), at(0, 0));
        assert_eq!(state.frozen, Some(Freeze::ClockSkew));
        state.advance(at(3610, 10));
        assert_eq!(state.frozen, Some(Freeze::ClockJump));
        state.compare(server(3611), at(3611, 11));
        assert_eq!(state.frozen, None);
        assert_eq!(state.advance(at(3612, 12)).wall, server(3612));
    }

    #[test]
    fn a_suspend_is_no_jump() {
        let mut state = clock();
        let before = state.advance(at(10, 10));
        let after = state.advance(at(40_010, 40_010));
        assert_eq!(state.frozen, None);
        assert_eq!(after.steady.since(before.steady), SignedDuration::from_secs(40_000));
    }

    #[test]
    fn readings_closer_than_a_millisecond_add_up() {
        let mut state = clock();
        let later = |micros: i64| {
            let (passed, start) = (SignedDuration::from_micros(micros), at(0, 0));
            Reading { system: start.system + passed, boot: start.boot + passed }
        };
        let before = state.advance(later(0));
        let after = (1..=10_000).map(|number| state.advance(later(number * 300))).last().unwrap();
        assert_eq!(after.steady.since(before.steady), SignedDuration::from_secs(3));
    }

    #[test]
    fn time_spent_stopped_counts_by_the_slower_of_wall_clock_and_api() {
        for (system, api, counted) in [(500, 500, 440), (500, 300, 240), (300, 500, 240), (50, 500, 0), (-50, 500, 0)] {
            let mut state = State::starting_with(at(system, 0));
            state.steady = Steady(7_000);
            state.uncounted_since = Some(server(0));
            state.compare(server(api + 10), at(system + 10, 10));
            let expected = 7_000 + (counted + 10) * 1000;
            assert_eq!(state.steady, Steady(expected), "{system} {api}");
            assert_eq!(state.steady.0 - state.carried, 7_000 + 10_000, "{system} {api}: this process lived no longer for that");
        }
    }
}
