//! When a credential is due: a function of its name and the time, nothing else.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::words::Owner;

/// A credential's due times.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// `phase + n × every`, from 1970 on.
    Every { every: SignedDuration, phase: SignedDuration },
}

impl Schedule {
    /// Due times every `every`, the phase a hash of the owner's names.
    pub fn every(every: SignedDuration, owner: &Owner) -> Self {
        let digest = Sha256::digest(owner.to_string().as_bytes());
        let mut head = [0_u8; 8];
        head.copy_from_slice(&digest[..8]);
        let every_ms = every.as_millis().max(1).unsigned_abs();
        let phase = i64::try_from(u128::from(u64::from_be_bytes(head)) % every_ms).unwrap_or(0);
        Self::Every { every, phase: SignedDuration::from_millis(phase) }
    }

    /// The least due time strictly after `after`; `None` if there is none any more.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every { every, phase } => {
                let (every, phase) = (i64::try_from(every.as_millis()).ok()?, i64::try_from(phase.as_millis()).ok()?);
                let n = (after.as_millisecond() - phase).div_euclid(every) + 1;
                Timestamp::from_millisecond(n.checked_mul(every)?.checked_add(phase)?).ok()
            }
        }
    }

    /// Tells one schedule from another, the same in every run: what the state remembers of it.
    pub fn tag(&self) -> u64 {
        let mut head = [0_u8; 8];
        head.copy_from_slice(&Sha256::digest(format!("{self:?}").as_bytes())[..8]);
        u64::from_be_bytes(head)
    }
}
