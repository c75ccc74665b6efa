//! What is done about the accounts of the configuration, by what looks and lists show: nothing is asked for twice blindly, a
//! person's user and an observed account are never touched, and what can be made as configured is, once what failed works.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests too

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rotad::rotation::{Account, AccountState, Chore, Created, Failed, Found, Moment, NameListed, Reason, Steady, Upkeep};

const EVERY: i64 = 15 * 60;
const PACE_MILLIS: i64 = 400;
const HOUR: i64 = 3600;
/// How long one call takes.
const CALL_MILLIS: i64 = 100;

fn moment(millis: i64) -> Moment {
    Moment { wall: Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap(), steady: Steady(millis) }
}

fn account(number: usize) -> Account {
    Account::new(&format!("tenant_{number}"))
}

fn failed(reason: Reason) -> Failed {
    Failed::new(reason, "as the test has it")
}

/// What becomes of the next creation's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lost {
    /// The request was never carried out.
    Never,
    /// It is carried out so many seconds later.
    After(i64),
}

/// An organization, and the accounts that are to be there.
struct World {
    upkeep: Upkeep,
    now: i64,
    /// Those that are there, and whether they are as configured.
    there: BTreeMap<Account, bool>,
    persons: BTreeSet<Account>,
    observed: BTreeSet<Account>,
    /// Creations on their way.
    landing: Vec<(i64, Account)>,
    /// What the API answers whatever it is asked for, and what it answers a change alone.
    broken: Option<Reason>,
    unchangeable: Option<Reason>,
    lost: Option<Lost>,
    /// The end of the last call, and what was called when.
    called_at: Option<i64>,
    calls: Vec<(i64, Chore)>,
    /// When an account was asked for without a definite refusal, as long as no look has shown it.
    asked: BTreeMap<Account, i64>,
    looked: BTreeMap<Account, (i64, Found)>,
}

impl World {
    fn new(accounts: usize) -> Self {
        let upkeep = Upkeep::new(SignedDuration::from_secs(EVERY), SignedDuration::from_millis(PACE_MILLIS));
        let mut world = Self {
            upkeep,
            now: 0,
            there: BTreeMap::new(),
            persons: BTreeSet::new(),
            observed: BTreeSet::new(),
            landing: Vec::new(),
            broken: None,
            unchangeable: None,
            lost: None,
            called_at: None,
            calls: Vec::new(),
            asked: BTreeMap::new(),
            looked: BTreeMap::new(),
        };
        (0..accounts).for_each(|number| world.upkeep.configure(&account(number), false));
        world
    }

    fn with_one() -> Self {
        Self::new(1)
    }

    fn land(&mut self) {
        let now = self.now;
        let (landed, rest): (Vec<_>, Vec<_>) = self.landing.drain(..).partition(|(at, _)| *at <= now);
        self.landing = rest;
        for (_, account) in landed {
            self.there.entry(account).or_insert(false);
        }
    }

    /// One step; how long it was waited otherwise.
    fn step(&mut self, most: i64) -> Option<i64> {
        self.land();
        let chore = self.upkeep.next(moment(self.now), true);
        if let Chore::Wait(wait) = chore {
            let wait = i64::try_from(wait.as_millis()).unwrap();
            assert!(wait > 0, "it spins");
            return Some(wait.min(most));
        }
        if let Some(at) = self.called_at {
            assert!(self.now - at >= PACE_MILLIS, "{chore:?} comes {} ms after the last call", self.now - at);
        }
        self.calls.push((self.now, chore.clone()));
        let began = self.now;
        self.judge(&chore);
        self.carry_out(&chore, began);
        self.called_at = Some(self.now);
        None
    }

    /// What holds of each call, by what truly is.
    fn judge(&self, chore: &Chore) {
        let (Chore::Create(account) | Chore::Set(account)) = chore else { return };
        assert!(!self.observed.contains(account) && !self.persons.contains(account), "{chore:?}");
        let (looked_at, found) = self.looked.get(account).unwrap();
        assert!(self.now - looked_at <= 31_000, "{chore:?} rests on a look of {} ms ago", self.now - looked_at);
        match chore {
            Chore::Create(_) => {
                assert_eq!(*found, Found::Missing);
                if let Some(asked_at) = self.asked.get(account) {
                    assert!(self.now - asked_at >= 60_000, "asked for again after {} ms", self.now - asked_at);
                }
            }
            _ => assert_eq!(*found, Found::Differs),
        }
    }

    fn carry_out(&mut self, chore: &Chore, began: i64) {
        self.now += CALL_MILLIS;
        self.land();
        let (now, start, broken) = (moment(self.now), moment(began), self.broken);
        match chore {
            Chore::Wait(_) => {}
            Chore::Look(account) => {
                let found = match (self.persons.contains(account), self.there.get(account)) {
                    (true, _) | (false, Some(false)) => Found::Differs,
                    (false, Some(true)) => Found::AsConfigured,
                    (false, None) => Found::Missing,
                };
                if broken.is_none() {
                    self.looked.insert(account.clone(), (self.now, found));
                    if found != Found::Missing {
                        self.asked.remove(account);
                    }
                }
                self.upkeep.looked(account, broken.map_or(Ok(found), |reason| Err(failed(reason))), now);
            }
            Chore::List => {
                let (there, persons) = (self.there.clone(), self.persons.clone());
                let who = move |account: &Account| match (persons.contains(account), there.contains_key(account)) {
                    (true, _) => NameListed::Unfit,
                    (false, true) => NameListed::Service,
                    (false, false) => NameListed::Nobody,
                };
                self.upkeep.listed(broken.map_or(Ok(who), |reason| Err(failed(reason))), start, now);
            }
            Chore::Create(account) => {
                let outcome = self.create(account, began);
                self.upkeep.created(account, outcome, start, now);
            }
            Chore::Set(account) => {
                let refusal = broken.or(self.unchangeable);
                if refusal.is_none() {
                    self.there.insert(account.clone(), true);
                }
                self.upkeep.set(account, refusal.map_or(Ok(()), |reason| Err(failed(reason))), now);
            }
        }
    }

    fn create(&mut self, account: &Account, began: i64) -> Created {
        if let Some(reason) = self.broken.or(self.unchangeable) {
            return Created::Refused(failed(reason));
        }
        match self.lost.take() {
            Some(lost) => {
                if let Lost::After(seconds) = lost {
                    self.landing.push((self.now + seconds * 1000, account.clone()));
                }
                self.asked.insert(account.clone(), began);
                Created::Unknown(failed(Reason::TimedOut))
            }
            None if self.there.contains_key(account) => Created::Refused(failed(Reason::NameTaken)),
            None => {
                self.there.insert(account.clone(), false);
                self.asked.insert(account.clone(), began);
                Created::Done
            }
        }
    }

    fn pass(&mut self, seconds: i64) {
        let end = self.now + seconds * 1000;
        while self.now < end {
            if let Some(wait) = self.step(end - self.now) {
                self.now += wait;
            }
        }
    }

    fn heal(&mut self) {
        (self.broken, self.unchangeable, self.lost) = (None, None, None);
    }

    fn state(&self, number: usize) -> AccountState {
        self.upkeep.standing(&account(number)).unwrap().state
    }

    fn failure(&self, number: usize) -> Option<Reason> {
        self.upkeep.standing(&account(number)).unwrap().failed
    }

    fn count(&self, matches: impl Fn(&Chore) -> bool) -> usize {
        self.calls.iter().filter(|(_, chore)| matches(chore)).count()
    }

    fn creations(&self) -> usize {
        self.count(|chore| matches!(chore, Chore::Create(_)))
    }

    fn sets(&self) -> usize {
        self.count(|chore| matches!(chore, Chore::Set(_)))
    }
}

#[test]
fn an_account_that_is_missing_is_created_and_set_and_then_looked_at_every_quarter_of_an_hour() {
    let mut world = World::with_one();
    assert_eq!(world.state(0), AccountState::Unseen);
    world.pass(10);
    let account = account(0);
    let expected = [
        Chore::Look(account.clone()),
        Chore::List,
        Chore::Create(account.clone()),
        Chore::Look(account.clone()),
        Chore::Set(account.clone()),
    ];
    assert_eq!(world.calls.iter().map(|(_, chore)| chore.clone()).collect::<Vec<_>>(), expected);
    assert_eq!((world.state(0), world.failure(0)), (AccountState::AsConfigured, None));
    world.calls.clear();
    world.pass(HOUR);
    assert_eq!(world.calls.len(), 4);
    assert!(world.calls.iter().all(|(_, chore)| *chore == Chore::Look(account.clone())));
}

#[test]
fn a_change_by_somebody_else_is_undone_with_the_next_look_and_an_observed_one_is_told() {
    let mut world = World::new(2);
    world.observed.insert(account(1));
    world.upkeep.configure(&account(1), true);
    world.there = BTreeMap::from([(account(0), true), (account(1), true)]);
    world.pass(10);
    world.there = BTreeMap::from([(account(0), false), (account(1), false)]);
    world.pass(EVERY);
    assert_eq!((world.sets(), world.there[&account(0)], world.there[&account(1)]), (1, true, false));
    assert_eq!((world.state(1), world.failure(1)), (AccountState::Differs, None));
    // Gone altogether: the one that is kept comes again, the other is told.
    world.there.clear();
    world.pass(EVERY + 10);
    assert_eq!((world.state(0), world.state(1), world.creations()), (AccountState::AsConfigured, AccountState::Missing, 1));
}

#[test]
fn a_creation_whose_answer_was_lost_is_looked_for_and_repeated_after_a_minute_at_the_earliest() {
    for (lost, creations) in [(Lost::After(0), 1), (Lost::After(40), 1), (Lost::Never, 2)] {
        let mut world = World::with_one();
        world.lost = Some(lost);
        world.pass(50);
        assert_eq!(world.creations(), 1, "{lost:?}");
        world.pass(4 * 60);
        assert_eq!((world.creations(), world.state(0)), (creations, AccountState::AsConfigured), "{lost:?}");
    }
}

#[test]
fn one_that_comes_after_it_was_asked_for_again_is_refused_as_taken_and_then_found() {
    let mut world = World::with_one();
    world.lost = Some(Lost::After(130));
    world.pass(30 * 60);
    assert_eq!((world.state(0), world.failure(0)), (AccountState::AsConfigured, None));
}

#[test]
fn a_person_s_user_is_neither_created_nor_changed() {
    let mut world = World::with_one();
    world.persons.insert(account(0));
    world.pass(6 * HOUR);
    assert_eq!((world.creations(), world.sets()), (0, 0));
    assert_eq!((world.state(0), world.failure(0)), (AccountState::Unfit, Some(Reason::Unsuitable)));
    assert!(world.calls.len() < 60, "{} calls", world.calls.len());
}

#[test]
fn what_the_api_refuses_is_told_and_tried_ever_more_rarely() {
    for reason in [Reason::Unauthorized, Reason::Forbidden, Reason::Throttled, Reason::Unavailable, Reason::Unreachable] {
        let mut world = World::new(50);
        world.broken = Some(reason);
        world.pass(6 * HOUR);
        assert!(world.calls.len() < 25, "{reason:?}: {} calls for 50 accounts", world.calls.len());
        assert!((0..50).any(|number| world.failure(number) == Some(reason)), "{reason:?}");
        // Another admin token need not wait.
        world.heal();
        world.upkeep.try_anew(moment(world.now));
        world.pass(5 * 60);
        assert!((0..50).all(|number| world.state(number) == AccountState::AsConfigured), "{reason:?}");
    }
}

#[test]
fn a_size_that_the_plan_lacks_keeps_no_other_account_waiting() {
    let mut world = World::new(3);
    world.there = (0..3).map(|number| (account(number), number != 1)).collect();
    world.unchangeable = Some(Reason::Rejected);
    world.pass(6 * HOUR);
    assert_eq!((world.state(1), world.failure(1)), (AccountState::Differs, Some(Reason::Rejected)));
    assert!(world.sets() < 25, "{} tries", world.sets());
    for other in [0, 2] {
        let looks = world.count(|chore| *chore == Chore::Look(account(other)));
        assert!((23..=25).contains(&looks), "{looks} looks at account {other}");
    }
}

#[test]
fn nothing_is_done_in_what_may_be_another_organization() {
    let world = World::new(3);
    assert!(matches!(world.upkeep.next(moment(0), false), Chore::Wait(wait) if wait.is_positive()));
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    Pass(i64),
    Break(Reason),
    Unchangeable(Reason),
    Lose(Lost),
    Heal,
    Delete(usize),
    Resize(usize),
    AppearsByHand(usize),
    TryAnew,
    Reconfigure(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 0..4_usize;
    prop_oneof![
        8 => prop_oneof![1..60_i64, 60..HOUR, HOUR..6 * HOUR].prop_map(Step::Pass),
        2 => prop::sample::select(Reason::ALL.to_vec()).prop_map(Step::Break),
        2 => prop::sample::select(Reason::ALL.to_vec()).prop_map(Step::Unchangeable),
        3 => prop_oneof![Just(Lost::Never), (0..300_i64).prop_map(Lost::After)].prop_map(Step::Lose),
        4 => Just(Step::Heal),
        2 => number().prop_map(Step::Delete),
        2 => number().prop_map(Step::Resize),
        1 => number().prop_map(Step::AppearsByHand),
        1 => Just(Step::TryAnew),
        1 => number().prop_map(Step::Reconfigure),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Four accounts, the last of which is a person's, and a fifth that is observed. `World::judge` holds at each call.
    #[test]
    fn whatever_happens_nothing_is_done_blindly_and_all_is_as_configured_in_the_end(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new(5);
        world.persons.insert(account(3));
        world.observed.insert(account(4));
        world.upkeep.configure(&account(4), true);
        for step in steps {
            match step {
                Step::Pass(seconds) => world.pass(seconds),
                Step::Break(reason) => world.broken = Some(reason),
                Step::Unchangeable(reason) => world.unchangeable = Some(reason),
                Step::Lose(lost) => world.lost = Some(lost),
                Step::Heal => world.heal(),
                Step::Delete(number) => drop(world.there.remove(&account(number))),
                Step::Resize(number) => drop(world.there.get_mut(&account(number)).map(|holds| *holds = false)),
                Step::AppearsByHand(number) if number != 3 => drop(world.there.entry(account(number)).or_insert(false)),
                Step::AppearsByHand(_) => {}
                Step::TryAnew => world.upkeep.try_anew(moment(world.now)),
                Step::Reconfigure(number) => {
                    // What was asked for is forgotten, as by a restart.
                    world.asked.remove(&account(number));
                    world.upkeep.configure(&account(number), false);
                }
            }
        }
        world.heal();
        world.pass(3 * HOUR);
        for number in 0..3 {
            prop_assert_eq!((world.state(number), world.failure(number)), (AccountState::AsConfigured, None));
            prop_assert_eq!(world.there.get(&account(number)), Some(&true));
        }
        prop_assert_eq!(world.state(3), AccountState::Unfit);
        prop_assert!(matches!(world.state(4), AccountState::Missing | AccountState::Differs));
    }
}
