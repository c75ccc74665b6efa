//! A cron line in a time zone, as a function from one instant to the next.
//!
//! The `cron` crate finds civil times; it is only ever shown civil time dressed as UTC, since in a
//! zone with daylight saving it skips times in a gap and goes backwards in an overlap. What a civil
//! time means there is decided here: a time in a gap means the gap's end, a time in an overlap its
//! first instant, or both if the line names every hour. Everything is counted in whole seconds
//! since 1970; a civil second is what it would be in UTC.

use std::fmt;

use cron::TimeUnitSpec;
use jiff::tz::{self, TimeZone};
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use super::Gaps;

const DAY: i64 = 86_400;

/// Over how many years a line's gaps are looked at.
const GAP_YEARS: i64 = 5;

/// A line with at most this many times a day is walked time by time for its gaps (hourly: 43,800 steps).
const WALKED_TIMES_A_DAY: usize = 24;

/// The longest cron line that is read: no sensible one comes near, and it ends up in messages.
const EXPRESSION_MAX: usize = 256;

/// What each field is called, what may stand in it, and where it stands among six.
const FIELDS: [(&str, &str); 6] = [
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12 or `JAN` to `DEC`"),
    ("weekday", "names, `SUN` to `SAT`"),
];

/// Why a cron line or its time zone is refused: what was found. `help` says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CronError {
    #[error("a cron line of {0} characters is not sensible: at most {EXPRESSION_MAX} are read")]
    TooLong(usize),
    #[error("`{0}` is a nickname, which not every cron knows")]
    Nickname(String),
    #[error("`{expression}` has {found} fields, and 5 or 6 are needed")]
    FieldCount { expression: String, found: usize },
    #[error("weekday `{0}` is a number, and some crons count from Sunday, some from Monday, some from 0, some from 1")]
    NumericWeekday(String),
    #[error("{field} `{found}` is not understood")]
    Field { field: &'static str, found: String, expected: &'static str, example: &'static str },
    #[error(
        "day of the month `{day}` and weekday `{weekday}` are both restricted, and crons differ in whether one or both must match"
    )]
    BothDays { day: String, weekday: String },
    #[error("`{0}` never comes: no month that it names has such a day")]
    Never(String),
    #[error("time zone `{name}` is not known")]
    Zone { name: String, hint: String },
}

impl CronError {
    /// What would be right.
    pub fn help(&self) -> String {
        match self {
            Self::TooLong(_) => "write it shorter, with ranges and steps such as `1-5` or `*/5`".to_owned(),
            Self::Nickname(_) => "write it out, such as `0 0 * * *` for every midnight".to_owned(),
            Self::FieldCount { .. } => {
                "minute, hour, day of the month, month, weekday, such as `0 3 * * *`; or 6 with the second before them".to_owned()
            }
            Self::NumericWeekday(_) => "write names, such as `MON-FRI`".to_owned(),
            Self::Field { expected, example, .. } => {
                format!("`*`, or values, ranges (not backwards) and steps of {expected}, such as {example}")
            }
            Self::BothDays { .. } => "leave one of them `*`".to_owned(),
            Self::Never(_) => "name a day that one of its months has".to_owned(),
            Self::Zone { hint, .. } => hint.clone(),
        }
    }
}

/// A cron line in an IANA time zone.
pub struct CronLine {
    line: cron::Schedule,
    zone: TimeZone,
    /// Six fields, single spaces, upper case.
    expression: String,
    zone_name: String,
    /// Whether the line names every hour: then it follows elapsed time through an overlap.
    every_hour: bool,
}

impl CronLine {
    pub(super) fn parse(expression: &str, zone: &str) -> Result<Self, CronError> {
        let (expression, line) = read(expression)?;
        let zone = find_zone(zone)?;
        let zone_name = zone.iana_name().unwrap_or("UTC").to_owned();
        let every_hour = line.hours().count() == 24;
        let parsed = Self { line, zone, expression, zone_name, every_hour };
        match parsed.match_after(0) {
            Some(_) => Ok(parsed),
            None => Err(CronError::Never(parsed.expression)),
        }
    }

    /// The line as cron has it: five fields, or six where the second is not 0; single spaces, upper case.
    pub fn expression(&self) -> &str {
        self.expression.strip_prefix("0 ").unwrap_or(&self.expression)
    }

    /// The zone's IANA name.
    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// The least due instant strictly after `after`; `None` after the year 2100, where the `cron` crate ends.
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        // `as_second` rounds towards zero, so both sides of 1970 are due there at the earliest.
        Timestamp::from_second(self.next(after.as_second().max(0))?).ok()
    }

    /// The shortest and the longest time between due times of the five years after `from`.
    pub(super) fn gaps(&self, from: Timestamp) -> Gaps {
        let from = from.as_second().max(0);
        let end = from.saturating_add(GAP_YEARS * 366 * DAY);
        let times_a_day = self.line.hours().count() * self.line.minutes().count() * self.line.seconds().count();
        let mut found = Extremes::default();
        if times_a_day as usize <= WALKED_TIMES_A_DAY {
            self.walk(from, end, usize::MAX, &mut found);
        } else {
            self.gaps_of_days(from, end, &mut found);
            self.gaps_at_transitions(from, end, &mut found);
        }
        found.into()
    }

    /// Steps through the due instants after `from`, until the first one after `end` or `steps` are done,
    /// but in any case until there was a gap.
    fn walk(&self, from: i64, end: i64, steps: usize, found: &mut Extremes) {
        let mut before: Option<i64> = None;
        let mut at = from;
        for step in 0.. {
            let Some(next) = self.next(at) else { break };
            if let Some(before) = before {
                found.add(next - before);
                if next > end || step >= steps {
                    break;
                }
            }
            before = Some(next);
            at = next;
        }
    }

    /// The gaps of civil time, as if there were no transitions: those of one day, and those between the
    /// last time of a day and the first of the next such day. Where every pair of such days has a
    /// transition between them, this is on the safe side by that transition.
    fn gaps_of_days(&self, from: i64, end: i64, found: &mut Extremes) {
        let (mut first, mut last) = (None, None);
        for hour in self.line.hours().iter() {
            for minute in self.line.minutes().iter() {
                for second in self.line.seconds().iter() {
                    let time = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
                    if let Some(last) = last {
                        found.add(time - last);
                    }
                    first = first.or(Some(time));
                    last = Some(time);
                }
            }
        }
        let (Some(first), Some(last)) = (first, last) else { return };
        let mut before: Option<i64> = None;
        let mut at = from;
        while let Some(time) = self.match_after(at) {
            let day = time.div_euclid(DAY) * DAY;
            if let Some(before) = before {
                found.add(day + first - (before + last));
                if day > end {
                    break;
                }
            }
            before = Some(day);
            at = day + DAY - 1;
        }
    }

    /// The gaps beside each transition: from the last civil time before it, three steps on.
    fn gaps_at_transitions(&self, from: i64, end: i64, found: &mut Extremes) {
        let mut at = from;
        while let Some(transition) = self.transition_after(at).filter(|transition| *transition <= end) {
            let offset = self.offset(transition - 1);
            if let Some(last) = self.match_before(transition + offset) {
                self.walk(last - offset - 1, i64::MAX, 3, found);
            }
            at = transition;
        }
    }

    /// The least due instant strictly after `after`: looks through one stretch of constant offset after the other.
    fn next(&self, after: i64) -> Option<i64> {
        let (mut at, mut offset) = (after, self.offset(after));
        // Civil times after this one are looked at; fixed hours are not due again in an overlap's second pass.
        let mut civil_after = after + offset;
        if !self.every_hour {
            civil_after = civil_after.max(self.passed_before(after) - 1);
        }
        loop {
            let civil = self.match_after(civil_after)?;
            let Some(transition) = self.transition_after(at) else { return Some(civil - offset) };
            if civil < transition + offset {
                return Some(civil - offset);
            }
            let next_offset = self.offset(transition);
            if civil < transition + next_offset {
                // In the gap: due at its end.
                return Some(transition);
            }
            let is_overlap = next_offset < offset;
            civil_after = transition + if is_overlap && !self.every_hour { offset } else { next_offset } - 1;
            (at, offset) = (transition, next_offset);
        }
    }

    /// The civil time that had been reached just before the last transition at or before `at`.
    fn passed_before(&self, at: i64) -> i64 {
        let Some(transition) = timestamp(at + 1).and_then(|before| self.zone.preceding(before).next()) else {
            return i64::MIN + 1;
        };
        let transition = transition.timestamp().as_second();
        transition + self.offset(transition - 1)
    }

    fn transition_after(&self, at: i64) -> Option<i64> {
        self.zone.following(timestamp(at)?).next().map(|transition| transition.timestamp().as_second())
    }

    /// The offset from UTC in seconds that holds at `at`.
    fn offset(&self, at: i64) -> i64 {
        timestamp(at).map_or(0, |at| i64::from(self.zone.to_offset(at).seconds()))
    }

    /// The first civil time of the line strictly after `civil`.
    fn match_after(&self, civil: i64) -> Option<i64> {
        let civil = chrono::DateTime::from_timestamp(civil, 0)?;
        self.line.after(&civil).next().map(|next| next.timestamp())
    }

    /// The last civil time of the line strictly before `civil`.
    fn match_before(&self, civil: i64) -> Option<i64> {
        let civil = chrono::DateTime::from_timestamp(civil, 0)?;
        self.line.after(&civil).next_back().map(|previous| previous.timestamp())
    }
}

impl PartialEq for CronLine {
    fn eq(&self, other: &Self) -> bool {
        (&self.expression, &self.zone_name) == (&other.expression, &other.zone_name)
    }
}

impl fmt::Debug for CronLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CronLine({self})")
    }
}

impl fmt::Display for CronLine {
    /// The line with all six fields, and its zone: the same text for the same schedule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.expression, self.zone_name)
    }
}

/// The shortest and the longest of what was added.
#[derive(Default)]
struct Extremes(Option<(i64, i64)>);

impl Extremes {
    fn add(&mut self, gap: i64) {
        let (shortest, longest) = self.0.unwrap_or((gap, gap));
        self.0 = Some((shortest.min(gap), longest.max(gap)));
    }
}

impl From<Extremes> for Gaps {
    /// Without a second due time there is no end of the gap.
    fn from(found: Extremes) -> Self {
        let (shortest, longest) = found.0.unwrap_or((i64::MAX, i64::MAX));
        Self { shortest: SignedDuration::from_secs(shortest), longest: SignedDuration::from_secs(longest) }
    }
}

fn timestamp(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

/// The line with six fields, as text and as the `cron` crate has it.
fn read(expression: &str) -> Result<(String, cron::Schedule), CronError> {
    let length = expression.chars().count();
    if length > EXPRESSION_MAX {
        return Err(CronError::TooLong(length));
    }
    let upper = expression.to_ascii_uppercase();
    let mut fields: Vec<&str> = upper.split_ascii_whitespace().collect();
    if fields.first().is_some_and(|field| field.starts_with('@')) {
        return Err(CronError::Nickname(expression.trim().to_owned()));
    }
    match fields.len() {
        5 => fields.insert(0, "0"),
        6 => {}
        found => return Err(CronError::FieldCount { expression: expression.to_owned(), found }),
    }
    if names_a_number(fields[5]) {
        return Err(CronError::NumericWeekday(fields[5].to_owned()));
    }
    for (index, field) in fields.iter().enumerate() {
        check_field(index, field)?;
    }
    if is_restricted(fields[3]) && is_restricted(fields[5]) {
        return Err(CronError::BothDays { day: fields[3].to_owned(), weekday: fields[5].to_owned() });
    }
    let text = fields.join(" ");
    let line = text.parse().map_err(|_| CronError::FieldCount { expression: expression.to_owned(), found: fields.len() })?;
    Ok((text, line))
}

/// Whether a weekday is given as a number; the number of a step (`*/2`) is none.
fn names_a_number(weekdays: &str) -> bool {
    weekdays.split(',').any(|part| part.split('/').next().unwrap_or("").contains(|c: char| c.is_ascii_digit()))
}

fn is_restricted(days: &str) -> bool {
    !matches!(days, "*" | "?")
}

/// Reads a field alone, since the `cron` crate does not tell which one it stumbled over.
fn check_field(index: usize, text: &str) -> Result<(), CronError> {
    let (field, expected) = FIELDS[index];
    let mut alone = ["*"; 6];
    alone[index] = text;
    let example = match index {
        4 => "`1,7` or `JAN-JUN`",
        5 => "`SUN` or `MON-FRI`",
        _ => "`5`, `1-5`, `10,20` or `*/5`",
    };
    let read: Result<cron::Schedule, _> = alone.join(" ").parse();
    read.map(|_| ()).map_err(|_| CronError::Field { field, found: text.to_owned(), expected, example })
}

fn find_zone(name: &str) -> Result<TimeZone, CronError> {
    match TimeZone::get(name) {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        _ => Err(CronError::Zone { name: name.to_owned(), hint: zone_hint(name) }),
    }
}

/// Zones whose last part is the one that was written, or an example.
fn zone_hint(name: &str) -> String {
    let city = |name: &str| name.rsplit('/').next().unwrap_or(name).replace(' ', "_").to_ascii_lowercase();
    let wanted = city(name);
    let alike: Vec<String> =
        tz::db().available().filter(|known| city(known.as_str()) == wanted).take(3).map(|known| format!("`{known}`")).collect();
    if alike.is_empty() {
        "an IANA name is needed, such as `Europe/Berlin` or `UTC`; an offset says nothing of daylight saving".to_owned()
    } else {
        format!("did you mean {}?", alike.join(" or "))
    }
}
