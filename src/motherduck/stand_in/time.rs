//! The stand-in's time: the clock's, sped up and shifted as asked.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;

pub(super) struct Time {
    clock: Arc<Clock>,
    start: Timestamp,
    speed: i32,
    shift: Mutex<(SignedDuration, SignedDuration)>,
}

impl Time {
    pub(super) fn new(clock: Arc<Clock>, speed: u32) -> Self {
        let start = clock.now().wall;
        Self { clock, start, speed: i32::try_from(speed.max(1)).unwrap_or(i32::MAX), shift: Mutex::default() }
    }

    /// The moment by the clock itself, for the log: this is what readers outside compare with.
    pub(super) fn wall(&self) -> Timestamp {
        self.clock.now().wall
    }

    /// The stand-in's own moment: tokens are created and expire by it.
    pub(super) fn now(&self) -> Timestamp {
        let passed = self.wall().duration_since(self.start).saturating_mul(self.speed);
        self.at(passed, self.shifts().0)
    }

    /// The moment that the `Date` header claims.
    pub(super) fn date(&self) -> Timestamp {
        self.now().checked_add(self.shifts().1).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn shift(&self, offset: SignedDuration, date_offset: SignedDuration) {
        *self.shift.lock().unwrap_or_else(PoisonError::into_inner) = (offset, date_offset);
    }

    fn shifts(&self) -> (SignedDuration, SignedDuration) {
        *self.shift.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, passed: SignedDuration, offset: SignedDuration) -> Timestamp {
        self.start.checked_add(passed.saturating_add(offset)).unwrap_or(Timestamp::MAX)
    }
}

/// An HTTP date: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn http_date(moment: Timestamp) -> String {
    // Only years outside of 0 to 9999 have no such form.
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&moment).unwrap_or_default()
}
