//! What a cron line means in a zone with daylight saving, from the definition alone; which civil times match
//! is `croner`'s judgement.

use croner::Cron;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// Whether `instant` (a whole minute) is due: its civil time matches, and it is the first instant of that time or
/// the line names every hour; or it is a gap's end, and a time in the gap matches.
pub fn is_due(croner: &Cron, zone: &TimeZone, every_hour: bool, instant: Timestamp) -> bool {
    let matches = |civil: jiff::civil::DateTime| croner.is_time_matching(&civil).unwrap();
    let civil = zone.to_datetime(instant);
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    let is_repeat = matches!(ambiguous.offset(), AmbiguousOffset::Fold { .. }) && ambiguous.later().unwrap() == instant;
    if matches(civil) && (every_hour || !is_repeat) {
        return true;
    }
    let minute = SignedDuration::from_mins(1);
    let before = zone.to_datetime(instant - minute);
    let mut skipped = before + minute;
    while skipped < civil {
        if matches(skipped) {
            return true;
        }
        skipped += minute;
    }
    false
}
