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
    /// One more; gives how many there were within the minute that ends now, and how many of them were not urgent.
    fn add(&mut self, now: Ms, urgent: bool) -> usize {
        while self.within.front().is_some_and(|(at, _)| *at <= now - MINUTE) {
            self.within.pop_front();
        }
        self.within.push_back((now, urgent));
        let held = self.within.iter().filter(|(_, urgent)| !urgent).count();
        self.most = self.most.max(held);
        held
    }
}

/// Counts what begins, and holds it against the limits.
#[derive(Debug, Clone)]
pub struct Blast {
    pub rotations_per_minute: u32,
    pub revocations_per_minute: u32,
    rotations: Count,
    revocations: Count,
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
            urgent: 0,
            all_rotations: 0,
            all_revocations: 0,
        }
    }

    /// A rotation is intended. An urgent one, at its deadline, is counted apart and passes any limit.
    pub fn rotation(&mut self, now: Ms, urgent: bool) -> Result<(), String> {
        self.all_rotations += 1;
        self.urgent += u64::from(urgent);
        let held = self.rotations.add(now, urgent);
        let most = self.rotations_per_minute;
        if urgent || held <= most as usize { Ok(()) } else { Err(format!("{held} rotations began within a minute, {most} may")) }
    }

    pub fn revocation(&mut self, now: Ms) -> Result<(), String> {
        self.all_revocations += 1;
        let held = self.revocations.add(now, false);
        let most = self.revocations_per_minute;
        if held <= most as usize { Ok(()) } else { Err(format!("{held} revocations began within a minute, {most} may")) }
    }

    /// The record of what began is gone: nobody can count it any more.
    pub fn forget(&mut self) {
        self.rotations.within.clear();
        self.revocations.within.clear();
    }

    /// The most rotations, those at their deadline left out, and the most revocations within any minute.
    pub fn most(&self) -> (usize, usize) {
        (self.rotations.most, self.revocations.most)
    }
}
