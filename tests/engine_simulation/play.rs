//! A small world for one scenario: nothing goes wrong but what the test has go wrong, and every
//! promise is judged all the same.

use std::sync::MutexGuard;

use rotad::rotation::{Credential, CredentialName, Happened};
use tokio::runtime::Runtime;

use super::director::Director;
use super::matrix::{Fault, Step};
use super::panics;
use super::setup::{Setup, Times};
use super::world::World;
use crate::simulator::world::{DAY, HOUR, Ms};

/// The built-in defaults: a week's life, rotated daily, half a day of grace.
pub const DAILY: Times = Times { ttl: 7 * DAY, every: DAY, grace: 12 * HOUR, window: None };
/// For ever, as a count of a script.
pub const ALWAYS: u32 = u32::MAX;

pub struct Play {
    runtime: Runtime,
    pub director: Director,
}

impl Play {
    /// A fleet of `size` credentials, with two places each and a third to add.
    pub fn new(size: usize, times: &Times) -> Self {
        Self::with(size, times, |_| {})
    }

    pub fn with(size: usize, times: &Times, change: impl FnOnce(&mut Setup)) -> Self {
        panics::watch();
        let _ = panics::take();
        let mut setup = Setup::calm(7, size, times);
        change(&mut setup);
        let runtime = super::runtime();
        let director = runtime.block_on(async { Director::new(setup, true) });
        panics::unwatch();
        let play = Self { runtime, director };
        play.world().record.history_max = usize::MAX;
        play
    }

    /// Lets time pass. Ends the test where a promise was broken.
    pub fn pass(&mut self, period: Ms) {
        panics::watch();
        self.runtime.block_on(async {
            let until = self.director.now() + period;
            self.director.advance(until).await;
        });
        panics::unwatch();
        self.sound();
    }

    fn sound(&self) {
        let world = self.world();
        if let Some(violation) = &world.violation {
            let lines: Vec<&str> = world.trace.iter().rev().take(80).map(|(_, line)| line.as_str()).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            panic!("{}: {}\n{}", violation.promise, violation.detail, lines.join("\n"));
        }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        let _entered = self.runtime.enter();
        self.director.sim.world()
    }

    /// What needs the history's clock, within its runtime.
    pub fn entered<T>(&self, look: impl FnOnce(&Self) -> T) -> T {
        let _entered = self.runtime.enter();
        look(self)
    }

    /// The next `times` calls of this kind, of one credential or of any, meet a fault.
    pub fn next(&self, step: Step, credential: impl Into<Option<usize>>, fault: Fault, times: u32) {
        self.world().script.push((step, credential.into(), fault, times));
    }

    pub fn outside(&self, fault: Fault, credential: usize) {
        assert!(self.world().outside(fault, credential), "{fault:?} could not be");
    }

    /// The daemon dies and is not started for `period`.
    pub fn down_for(&mut self, period: Ms) {
        self.director.held_down = true;
        self.world().crash();
        self.pass(period);
        self.director.held_down = false;
        self.runtime.block_on(self.director.start());
    }

    pub fn restart(&mut self) {
        self.down_for(1000);
    }

    pub fn now(&self) -> Ms {
        self.world().now
    }

    pub fn rotations(&self) -> u64 {
        self.world().blast.all_rotations
    }

    pub fn revocations(&self) -> u64 {
        self.world().blast.all_revocations
    }

    /// The index of the token that each configured place of the credential serves.
    pub fn served(&self, credential: usize) -> Vec<Option<usize>> {
        let world = self.world();
        world.configured().filter(|(of, _)| *of == credential).map(|(_, place)| place.value()).collect()
    }

    pub fn is_live(&self, token: usize) -> bool {
        let world = self.world();
        world.tokens[token].is_live(world.now)
    }

    /// The live tokens of the credential's name, whoever made them.
    pub fn live(&self, credential: usize) -> Vec<usize> {
        let world = self.world();
        let owner = &world.actors[credential].policy.owner;
        (0..world.tokens.len())
            .filter(|index| world.tokens[*index].is_live(world.now) && world.tokens[*index].name.owner == *owner)
            .collect()
    }

    pub fn name(credential: usize) -> CredentialName {
        format!("c{credential}").parse().unwrap()
    }

    pub fn state(&self, credential: usize) -> Credential {
        let world = self.world();
        serde_json::from_str(&world.record.row(&Self::name(credential)).unwrap().state).unwrap()
    }

    pub fn blocked(&self, credential: usize) -> Option<rotad::rotation::Blocked> {
        self.state(credential).blocked.map(|block| block.reason)
    }

    /// How often this happened to the credential, of what the history keeps.
    pub fn happened(&self, credential: usize, what: Happened) -> usize {
        let name = Self::name(credential);
        let world = self.world();
        world.record.history().filter(|line| line.credential == name && line.entry.what == what).count()
    }

    /// Lets time pass until the credential asks for a token.
    pub fn pass_to_a_rotation(&mut self, credential: usize) {
        let before = self.happened(credential, Happened::Intended);
        for _ in 0..20_000 {
            self.pass(crate::simulator::world::MINUTE);
            if self.happened(credential, Happened::Intended) > before {
                return;
            }
        }
        panic!("c{credential} did not rotate in two weeks");
    }

    /// Lets time pass to a quarter of an hour before the credential is due.
    pub fn pass_to_before_a_rotation(&mut self, credential: usize) {
        let (now, due) = {
            let world = self.world();
            let schedule = &world.actors[credential].policy.schedule;
            let after = world.now + 20 * crate::simulator::world::MINUTE;
            let due = schedule.next_after(crate::simulator::world::stamp(after)).unwrap();
            (world.now, crate::simulator::world::ms_of(due))
        };
        self.pass(due - 15 * crate::simulator::world::MINUTE - now);
    }
}
