//! When a credential is due: a function of its name and the time, nothing else.

mod cron_line;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::words::Owner;
pub use cron_line::{CronError, CronLine};

/// A credential's due times.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// `phase + n × every`, from 1970 on.
    Every { every: SignedDuration, phase: SignedDuration },
    /// A cron line in a time zone; shared, since many credentials may have the same.
    Cron(Arc<CronLine>),
}

/// The shortest and the longest time between two due times that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gaps {
    pub shortest: SignedDuration,
    pub longest: SignedDuration,
}

impl Schedule {
    /// Due times every `every`, the phase a hash of the owner's names.
    pub fn every(every: SignedDuration, owner: &Owner) -> Self {
        let every_ms = every.as_millis().max(1).unsigned_abs();
        let phase = i64::try_from(u128::from(hash(&owner.to_string())) % every_ms).unwrap_or(0);
        Self::Every { every, phase: SignedDuration::from_millis(phase) }
    }

    /// Due times at the civil times of a cron line in an IANA zone. 5 fields, or 6 with seconds first.
    ///
    /// # Errors
    /// When the line or the zone can't be understood, or might be understood in two ways, or never comes.
    pub fn cron(expression: &str, zone: &str) -> Result<Self, CronError> {
        CronLine::parse(expression, zone).map(|line| Self::Cron(Arc::new(line)))
    }

    /// The least due time strictly after `after`; `None` if there is none any more.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every { every, phase } => {
                let (every, phase) = (i64::try_from(every.as_millis()).ok()?.max(1), i64::try_from(phase.as_millis()).ok()?);
                // Rounded down, so that a time before 1970 is not taken for a later one.
                let after_ms = i64::try_from(after.as_nanosecond().div_euclid(1_000_000)).ok()?;
                let n = (after_ms - phase).div_euclid(every) + 1;
                Timestamp::from_millisecond(n.checked_mul(every)?.checked_add(phase)?).ok()
            }
            Self::Cron(line) => line.next_after(after),
        }
    }

    /// The shortest and longest gaps between due times: of `cron` those of the five years after `from`,
    /// daylight saving included, never too narrow (the longest may be told too long, the shortest too
    /// short, by a transition that lies between far-apart days of a line with many times a day).
    pub fn gaps(&self, from: Timestamp) -> Gaps {
        match self {
            Self::Every { every, .. } => Gaps { shortest: *every, longest: *every },
            Self::Cron(line) => line.gaps(from),
        }
    }

    /// Tells one schedule from another, the same in every run: what the state remembers of it. Never 0.
    pub fn tag(&self) -> u64 {
        let text = match self {
            Self::Every { every, phase } => format!("every {} {}", every.as_millis(), phase.as_millis()),
            Self::Cron(line) => format!("cron {line}"),
        };
        hash(&text).max(1)
    }
}

fn hash(text: &str) -> u64 {
    let mut head = [0_u8; 8];
    head.copy_from_slice(&Sha256::digest(text.as_bytes())[..8]);
    u64::from_be_bytes(head)
}
