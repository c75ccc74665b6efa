//! When a credential is due, as the configuration says it: `every`, or `cron` in a time zone.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::rotation::schedule::{CronError, Gaps};
use crate::rotation::{Owner, Schedule};

/// How often, shared by the credentials that say the same.
#[derive(Debug, Clone, PartialEq)]
pub enum Pace {
    Every(SignedDuration),
    Cron { expression: Arc<str>, zone: Arc<str>, schedule: Schedule, shortest: SignedDuration, longest: SignedDuration },
}

impl Eq for Pace {}

impl Hash for Pace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Every(every) => every.hash(state),
            Self::Cron { expression, zone, .. } => (expression, zone).hash(state),
        }
    }
}

impl Pace {
    /// Due times of one credential: `every` has a phase of its own for each.
    pub fn schedule(&self, owner: &Owner) -> Schedule {
        match self {
            Self::Every(every) => Schedule::every(*every, owner),
            Self::Cron { schedule, .. } => schedule.clone(),
        }
    }

    /// The shortest time between two due times.
    pub fn shortest(&self) -> SignedDuration {
        match self {
            Self::Every(every) => *every,
            Self::Cron { shortest, .. } => *shortest,
        }
    }

    /// The longest time between two due times.
    pub fn longest(&self) -> SignedDuration {
        match self {
            Self::Every(every) => *every,
            Self::Cron { longest, .. } => *longest,
        }
    }
}

/// The pace of a cron line, as far as 5 years from `now` show it.
pub(super) fn cron(expression: &str, zone: &str, now: Timestamp) -> Result<Pace, CronError> {
    let schedule = Schedule::cron(expression, zone)?;
    let Gaps { shortest, longest } = schedule.gaps(now);
    Ok(Pace::Cron { expression: expression.into(), zone: zone.into(), schedule, shortest, longest })
}
