//! The blast radius, counted by true time: how many rotations and revocations began within a minute.

use std::collections::VecDeque;

use crate::simulator::world::{MINUTE, Ms};

/// What began within the last minute, and the most that ever did.
#[derive(Debug, Default, Clone)]
struct Count {
    within: VecDeque<(Ms, bool)>,
    most: usize,
}

impl Count {
    /// One more; gives how many began within the minute that ends now, the urgent ones left out.
    fn add(&mut self, now: Ms, urgent: bool) -> usize {
        while self.within.front().is_some_and(|(at, _)| *at <= now - MINUTE) {
            self.within.pop_front();
        }
        self.within.push_back((now, urgent));
        self.within.iter().filter(|(_, urgent)| !urgent).count()
    }
}

/// Counts what begins, and holds it against the limits.
///
/// What began within the minute before is known from the journal. Where that was lost, or restored from before, nobody can
/// know it: from then on the minute is a new one, so that what begins within any one is at most a limit for each journal.
#[derive(Debug, Clone)]
pub struct Blast {
    pub rotations_per_minute: u32,
    pub revocations_per_minute: u32,
    rotations: Count,
    revocations: Count,
    /// When the journal's record of what began was lost, within the last minute.
    lost: VecDeque<Ms>,
    pub urgent: u64,
    pub all_rotations: u64,
    pub all_revocations: u64,
}

impl Blast {
    pub fn new(rotations_per_minute: u32, revocations_per_minute: u32) -> Self {
        Self {
            rotations_per_minute,
            revocations_per_minute,
            rotations: Count::default(),
            revocations: Count::default(),
            lost: VecDeque::new(),
            urgent: 0,
            all_rotations: 0,
            all_revocations: 0,
        }
    }

    /// What may begin within the minute that ends now, in limits: one, and one for each journal that was lost in it.
    fn limits(&mut self, now: Ms) -> usize {
        while self.lost.front().is_some_and(|at| *at <= now - MINUTE) {
            self.lost.pop_front();
        }
        1 + self.lost.len()
    }

    /// A rotation is intended. An urgent one, at its deadline, is counted apart and passes any limit.
    pub fn rotation(&mut self, now: Ms, urgent: bool) -> Result<(), String> {
        self.all_rotations += 1;
        self.urgent += u64::from(urgent);
        let held = self.rotations.add(now, urgent);
        let limits = self.limits(now);
        self.rotations.most = self.rotations.most.max(held.div_ceil(limits));
        let most = limits * self.rotations_per_minute as usize;
        if urgent || held <= most { Ok(()) } else { Err(format!("{held} rotations began within a minute, {most} may")) }
    }

    pub fn revocation(&mut self, now: Ms) -> Result<(), String> {
        self.all_revocations += 1;
        let held = self.revocations.add(now, false);
        let limits = self.limits(now);
        self.revocations.most = self.revocations.most.max(held.div_ceil(limits));
        let most = limits * self.revocations_per_minute as usize;
        if held <= most { Ok(()) } else { Err(format!("{held} revocations began within a minute, {most} may")) }
    }

    /// The record of what began is gone.
    pub fn journal_lost(&mut self, now: Ms) {
        self.lost.push_back(now);
    }

    /// The most rotations, those at their deadline left out, and the most revocations within any minute, for each of its journals.
    pub fn most(&self) -> (usize, usize) {
        (self.rotations.most, self.revocations.most)
    }
}
