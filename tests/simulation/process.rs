//! The journal, a run of the daemon and its clocks.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rotad::rotation::{Credential, Facts, InstallationId, Limits, Moment, ProcessId, RotationId, Steady};

use super::oracle::Memo;
use super::world::{MINUTE, Ms, SECOND, ms_of, stamp};

/// How far the wall clock is off at most while it is believed.
pub const WALL_ERROR: Ms = 3 * SECOND;

#[derive(Debug, Clone)]
pub struct Row {
    pub credential: Credential,
    pub memo: Memo,
    /// When the credential asked to be looked at again, by its wall clock.
    pub wake: Ms,
}

/// The durable record. What a snapshot of it holds is all that a restore brings back.
#[derive(Debug, Clone)]
pub struct Journal {
    pub installation: InstallationId,
    pub created_at: Timestamp,
    pub rows: Vec<Option<Row>>,
    /// The clocks at the last save that was made while they were believed.
    pub mark: Moment,
}

/// Both clocks of a process, as `clock.rs` keeps them.
#[derive(Debug, Clone)]
pub struct Clocks {
    pub started: Ms,
    /// Wall clock minus true time.
    pub skew: Ms,
    steady: Ms,
    /// The mark of an earlier process, until the time between was counted.
    uncounted_since: Option<Ms>,
    pub frozen: bool,
}

impl Clocks {
    pub fn start(now: Ms, skew: Ms, mark: Moment) -> Self {
        Self { started: now, skew, steady: mark.steady.0, uncounted_since: Some(ms_of(mark.wall)), frozen: true }
    }

    pub fn moment(&self, now: Ms) -> Moment {
        Moment { wall: stamp(now + self.skew), steady: Steady(self.steady + now - self.started) }
    }

    /// The API's `Date` was seen: the wall clock is right to within `skew`.
    pub fn compare(&mut self, now: Ms, skew: Ms, frozen: bool) {
        let began = self.started + self.skew.min(0);
        self.skew = skew;
        self.frozen = frozen;
        if let Some(mark) = self.uncounted_since.take() {
            // Both walls may be some seconds off: what may not have passed is not counted.
            self.steady += (began.min(self.started) - mark - 2 * WALL_ERROR).max(0);
        }
        let _ = now;
    }

    pub fn is_uncompared(&self) -> bool {
        self.uncounted_since.is_some()
    }

    /// The steady clock falls behind: the slower of two clocks is what counts.
    pub fn fall_behind(&mut self, now: Ms, by: Ms) {
        self.steady -= by.min(now - self.started).max(0);
        self.started += 0;
    }
}

/// One run of the daemon.
#[derive(Debug)]
pub struct Process {
    pub id: ProcessId,
    pub since: Moment,
    pub clocks: Clocks,
    /// Token values in memory, for each credential.
    pub hands: Vec<BTreeMap<RotationId, usize>>,
}

impl Process {
    pub fn facts(&self, journal: &Journal) -> Facts {
        Facts {
            installation: journal.installation,
            journal_created_at: journal.created_at,
            process: self.id,
            process_since: self.since,
        }
    }
}

/// So many a minute; remembers whether it let anything pass in the last call.
#[derive(Debug)]
pub struct PerMinute {
    pub most: u32,
    rotations: Vec<Ms>,
    revocations: Vec<Ms>,
    pub passed_rotation: bool,
    pub passed_revocation: bool,
}

impl PerMinute {
    pub fn new(most: u32) -> Self {
        Self { most, rotations: Vec::new(), revocations: Vec::new(), passed_rotation: false, passed_revocation: false }
    }
}

fn take(taken: &mut Vec<Ms>, most: u32, now: Ms, urgent: bool) -> Result<(), Timestamp> {
    taken.retain(|at| *at > now - MINUTE && *at <= now);
    if taken.len() >= most as usize && !urgent {
        let first = taken.iter().min().copied().unwrap_or(now);
        return Err(stamp(first + MINUTE));
    }
    taken.push(now);
    Ok(())
}

impl Limits for PerMinute {
    fn rotation(&mut self, now: Timestamp, urgent: bool) -> Result<(), Timestamp> {
        take(&mut self.rotations, self.most, ms_of(now), urgent)?;
        self.passed_rotation = true;
        Ok(())
    }

    fn revocation(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        take(&mut self.revocations, self.most, ms_of(now), false)?;
        self.passed_revocation = true;
        Ok(())
    }
}
