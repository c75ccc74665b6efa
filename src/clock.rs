//! The only reader of time.
#![allow(clippy::disallowed_methods)] // the one place where the clocks may be read

use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};

use crate::rotation::{Moment, Steady};

/// Wall clock, boot-time clock and the API's `Date`, kept beside each other.
#[derive(Debug)]
pub struct Clock {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The last reading of both clocks, from which the next one counts on.
    last: Moment,
    last_boot: SignedDuration,
}

/// Time since boot, suspends included (`CLOCK_BOOTTIME`).
fn boot_time() -> SignedDuration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    SignedDuration::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Clock {
    pub fn new() -> Self {
        Self { state: Mutex::new(State { last: Moment { wall: Timestamp::now(), steady: Steady(0) }, last_boot: boot_time() }) }
    }

    /// Now, by both clocks.
    pub fn now(&self) -> Moment {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (wall, boot) = (Timestamp::now(), boot_time());
        let wall_passed = wall.duration_since(state.last.wall);
        let passed = wall_passed.min(boot - state.last_boot).max(SignedDuration::ZERO);
        let steady = Steady(state.last.steady.0 + i64::try_from(passed.as_millis()).unwrap_or(0));
        state.last = Moment { wall, steady };
        state.last_boot = boot;
        state.last
    }

    /// Tells of an API answer's `Date`: `server` as the header said, received at `received`.
    pub fn saw_api_date(&self, _server: Timestamp, _received: Moment) {}
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
