//! What a history is about: its fleet, the places, the faults that it is steered to and their rates.
//! All of it follows from the seed before the history begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rotad::rotation::{DeliveryId, DeliveryPolicy, FirstConnection, Mode, Policy, Schedule, TokenType, Verify};

use super::matrix::{Class, Fault, Step, owed};
use crate::simulator::rng::Rng;
use crate::simulator::setup::{account, owner};
use crate::simulator::world::{Author, Content, DAY, FOREIGN, HOUR, MINUTE, Marker, Ms, Place, SECOND, Version, span};

pub const ORGANIZATIONS: [&str; 2] = ["main", "second"];
/// As many cells of the matrix as one history is steered to.
const TARGETS: usize = 16;
/// Seeds from here on are of histories that are steered to one cell alone.
const STEERED: u32 = 32;

/// The seed of the history of this number that is steered to nothing but `cell`, if that cell can be met.
pub fn steered_seed(cell: (Fault, Step), number: u64) -> Option<u64> {
    let index = owed().into_iter().position(|owed| owed == cell)?;
    Some(((index as u64 + 1) << STEERED) + number)
}

/// The cells that the history of this seed is steered to.
fn targets(seed: u64) -> Vec<(Fault, Step)> {
    if let Some(index) = (seed >> STEERED).checked_sub(1) {
        return vec![owed()[index as usize]];
    }
    let cells: Vec<_> = owed().into_iter().flat_map(|cell| std::iter::repeat_n(cell, shares(cell.1))).collect();
    let first = (seed as usize).wrapping_mul(TARGETS);
    // A stride that is prime to the number of cells, so that one history meets cells of different rows.
    (0..TARGETS).map(|number| cells[(first + number).wrapping_mul(53) % cells.len()]).collect()
}

/// The organization of an account.
pub fn organization_of(account: usize) -> usize {
    account % ORGANIZATIONS.len()
}

/// How likely each class of faults is at a call, in permille.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    pub crash: u64,
    pub journal: u64,
    pub api: u64,
    pub sink: u64,
}

/// One credential.
#[derive(Debug, Clone)]
pub struct Plan {
    pub policy: Arc<Policy>,
    /// The longest time between two due times.
    pub gap: Ms,
    /// Every place that it may be configured with, by index; its first configuration has all but the last.
    pub places: Vec<usize>,
}

#[derive(Debug, Clone)]
pub struct Setup {
    pub seed: u64,
    pub plans: Vec<Plan>,
    pub places: Vec<Place>,
    pub rates: Rates,
    /// Cells of the matrix that the history is steered to, and how often each.
    pub targets: Vec<(Fault, Step)>,
    pub injections: u32,
    /// The longest way of a call there or back.
    pub slowest: Ms,
    /// How long a new token may be missing in lists.
    pub list_lag: Ms,
    pub rotations_per_minute: u32,
    pub revocations_per_minute: u32,
    /// The shortest time between two due times.
    pub every: Ms,
    /// Changes from outside come once in this time on average; `None` for never.
    pub outside_every: Option<Ms>,
    /// What comes from outside when it is drawn.
    pub outside: Vec<Fault>,
    pub chaos_ends: Ms,
    pub ends: Ms,
    /// Nothing in this history excuses a token that expires while it is served.
    pub strict: bool,
    pub off: BTreeSet<Class>,
    pub ignored: Vec<&'static str>,
}

/// What makes a history smaller than its seed would have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    pub off: BTreeSet<Class>,
    pub credentials: Option<usize>,
    /// When everything that goes wrong ends.
    pub chaos_ends: Option<Ms>,
    pub ignored: Vec<&'static str>,
}

/// Numbers that a valid configuration may hold together.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub ttl: Ms,
    pub every: Ms,
    pub grace: Ms,
    pub window: Option<Ms>,
}

impl Times {
    pub fn draw(rng: &mut Rng, ttl: Ms) -> Self {
        let every = ttl / *rng.pick(&[2, 3, 4]);
        let grace = (every / *rng.pick(&[2, 3, 10])).max(10 * SECOND);
        let margin = (ttl / 10).min(HOUR);
        let window = rng.permille(200).then_some((ttl - every - grace - margin).clamp(MINUTE, 4 * HOUR));
        let window = window.filter(|window| every + grace + margin + window <= ttl);
        assert!(every + grace + margin <= ttl, "the draw is no valid configuration");
        Self { ttl, every, grace, window }
    }

    /// A policy of these times, and its longest gap between due times. Some rotate by cron.
    pub fn policy(&self, rng: &mut Rng, index: usize, deliveries: BTreeMap<DeliveryId, DeliveryPolicy>) -> (Policy, Ms) {
        let owner = owner(index);
        let (schedule, gap) = self.cron(rng).unwrap_or_else(|| (Schedule::every(span(self.every), &owner), self.every));
        let account_number = if rng.permille(150) { index / 2 } else { index };
        let token_type = *rng.pick(&[TokenType::ReadWrite, TokenType::ReadScaling]);
        let first_connection = match token_type {
            TokenType::ReadScaling if index.is_multiple_of(2) => FirstConnection::ByRotad,
            _ => FirstConnection::NotNeeded,
        };
        let policy = Policy {
            renamed_from: None,
            adopt: [].into(),
            used_by_rotad: false,
            account_is_kept: false,
            first_connection,
            schedule,
            organization: ORGANIZATIONS[organization_of(account_number)].into(),
            account: account(account_number),
            owner,
            token_type,
            ttl: span(self.ttl),
            window: self.window.map(span),
            grace: span(self.grace),
            verify: *rng.pick(&[Verify::None, Verify::List, Verify::Itself]),
            mode: Mode::Rotate,
            deliveries,
            sweep_every: span((self.ttl / 24).clamp(5 * MINUTE, 15 * DAY)),
            tokens_max: 16,
        };
        (policy, gap)
    }

    /// A cron line whose gaps are no longer than `every` and longer than the grace period.
    fn cron(&self, rng: &mut Rng) -> Option<(Schedule, Ms)> {
        if !rng.permille(200) {
            return None;
        }
        let (minutes, hours, days) = (self.every / MINUTE, self.every / HOUR, self.every / DAY);
        let fitting = |most: Ms, of: &[Ms]| of.iter().rev().copied().find(|step| *step <= most);
        let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"];
        // Daylight saving moves times that are hours apart by an hour, and none within the hour where
        // it is a whole one; `tests/schedule.rs` holds what is exactly so.
        let (line, zones, shortest, longest) = if days >= 32 {
            ("17 3 1 * *".to_owned(), &zones[..], 27 * DAY, 32 * DAY)
        } else if hours >= 26 {
            ("17 3 * * *".to_owned(), &zones[..], 22 * HOUR, 26 * HOUR)
        } else if hours >= 2 {
            let step = fitting(hours - 1, &[1, 2, 3, 4, 6, 8, 12])?;
            (format!("5 */{step} * * *"), &zones[..], (step - 1).max(1) * HOUR / 2, (step + 1) * HOUR)
        } else {
            let step = fitting(minutes, &[1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30])?;
            (format!("*/{step} * * * *"), &zones[..2], step * MINUTE, step * MINUTE)
        };
        let margin = (self.ttl / 10).min(HOUR);
        let fits = self.grace < shortest && longest + self.grace + margin + self.window.unwrap_or(0) <= self.ttl;
        let zone: &str = rng.pick::<&str>(zones);
        if fits { Some((Schedule::cron(&line, zone).ok()?, longest)) } else { None }
    }
}

/// How many shares of all histories a step gets: what a turn seldom comes to is steered to more often.
fn shares(step: Step) -> usize {
    use Step::*;
    match step {
        Idle | Load | List | Read | Issue | Write | Note => 1,
        Intend | Record | Verify | Attempt | ReadBack | Confirm => 2,
        IntendRevocation | Revoke => 7,
        RecordRevocation => 12,
    }
}

pub fn deliveries(places: &[Place], chosen: &[usize], take_over: bool) -> BTreeMap<DeliveryId, DeliveryPolicy> {
    let policy = |place: &Place| DeliveryPolicy { take_over, write_limit: span(place.write_limit) };
    chosen.iter().map(|index| (places[*index].id.clone(), policy(&places[*index]))).collect()
}

impl Setup {
    /// A short, dense history: a few credentials with short lives, and faults at chosen boundaries.
    pub fn dense(seed: u64, switches: &Switches) -> Self {
        let mut rng = Rng::new(seed);
        let ttl = *rng.pick(&[20 * MINUTE, 20 * MINUTE, 20 * MINUTE, 2 * HOUR]);
        let times = Times::draw(&mut rng, ttl);
        let size = *rng.pick(&[1, 1, 2, 2, 3, 5, 12]);
        let mut setup = Self::blank(seed, &times, switches);
        setup.targets = targets(seed);
        setup.injections = 24;
        setup.slowest = *rng.pick(&[50, 400, 400, 2000]);
        let lags = setup.targets.iter().any(|(fault, _)| *fault == Fault::Lags);
        setup.list_lag = if lags { 50 * SECOND } else { *rng.pick(&[0, 0, 30 * SECOND]) };
        let rates = [0, 0, 0, 5, 40];
        let mut rate = || *rng.pick(&rates);
        setup.rates = Rates { crash: rate() / 4, journal: rate() / 2, api: rate(), sink: rate() };
        setup.rotations_per_minute = *rng.pick(&[1, 3, 10]);
        setup.revocations_per_minute = *rng.pick(&[1, 3, 10]);
        setup.outside_every = *rng.pick(&[None, None, Some(times.every), Some(times.every / 4)]);
        setup.outside = Fault::ALL.iter().copied().filter(|fault| fault.is_outside()).collect();
        // A minute takes twice what is due in it on average, as the configuration asks for.
        let demand = (2 * size as Ms * MINUTE / times.every + 1) as u32;
        setup.rotations_per_minute = setup.rotations_per_minute.max(demand);
        setup.revocations_per_minute = setup.revocations_per_minute.max(demand);
        let rounds = rng.between(8, 14);
        setup.chaos_ends = switches.chaos_ends.unwrap_or(times.every * rounds);
        let verified = setup.targets.iter().any(|(_, step)| matches!(step, Step::Verify | Step::Record));
        for index in 0..size.min(switches.credentials.unwrap_or(size)) {
            setup.add_credential(&mut rng, index, &times, lags);
            if verified {
                Arc::make_mut(&mut setup.plans[index].policy).verify = Verify::Itself;
            }
        }
        setup.ends = setup.chaos_ends + 4 * times.ttl + 8 * HOUR;
        setup
    }

    /// A long history: a fleet with lives of months, and what goes wrong in years.
    pub fn long(seed: u64, switches: &Switches) -> Self {
        let mut rng = Rng::new(seed);
        let ttl = *rng.pick(&[180 * DAY, 365 * DAY]);
        let times = Times::draw(&mut rng, ttl);
        let size = *rng.pick(&[200, 500, 1000]);
        let mut setup = Self::blank(seed, &times, switches);
        setup.slowest = 300;
        setup.rates = Rates { crash: 0, journal: 1, api: 2, sink: 2 };
        setup.rotations_per_minute = (size / 50).max(10) as u32;
        setup.revocations_per_minute = 10;
        setup.outside_every = Some(60 * DAY);
        use Fault::*;
        setup.outside = vec![
            CrashBefore,
            CrashBefore,
            Stopped,
            Stopped,
            ClockAMinuteAhead,
            ClockAMinuteBack,
            ClockAnHourAhead,
            ClockAnHourBack,
            ClockAYearAhead,
            ClockAYearBack,
            Suspended,
            Unavailable,
            Unavailable,
            Unreachable,
        ];
        setup.strict = true;
        for index in 0..size.min(switches.credentials.unwrap_or(size)) {
            // A fleet's credentials differ.
            let ttl = *rng.pick(&[ttl, ttl / 2]);
            let times = Times::draw(&mut rng, ttl);
            setup.add_credential(&mut rng, index, &times, false);
            let plan = &mut setup.plans[index];
            for place in &plan.places {
                setup.places[*place].versions[0].content = Content::default();
            }
        }
        let years = (1000 / size as Ms).max(1) * rng.between(2, 3);
        setup.chaos_ends = switches.chaos_ends.unwrap_or(years * 365 * DAY);
        setup.ends = setup.chaos_ends + 4 * HOUR;
        setup
    }

    /// A fleet in which nothing goes wrong unless a test says so.
    pub fn calm(seed: u64, size: usize, times: &Times) -> Self {
        let mut setup = Self::blank(seed, times, &Switches::default());
        let mut rng = Rng::new(seed);
        for index in 0..size {
            let first = setup.places.len();
            for number in 0..3 {
                setup.places.push(empty_place(index, number));
            }
            let chosen: Vec<usize> = (first..first + 3).collect();
            let (mut policy, _) = times.policy(&mut rng, index, deliveries(&setup.places, &chosen[..2], false));
            policy.schedule = Schedule::every(span(times.every), &policy.owner);
            policy.account = account(2 * index);
            policy.organization = ORGANIZATIONS[0].into();
            policy.verify = Verify::List;
            policy.first_connection = FirstConnection::NotNeeded;
            policy.window = times.window.map(span);
            setup.plans.push(Plan { policy: Arc::new(policy), gap: times.every, places: chosen });
        }
        setup.chaos_ends = 1000 * 365 * DAY;
        setup.ends = setup.chaos_ends;
        setup.strict = true;
        setup
    }

    fn blank(seed: u64, times: &Times, switches: &Switches) -> Self {
        Self {
            seed,
            plans: Vec::new(),
            places: Vec::new(),
            rates: Rates::default(),
            targets: Vec::new(),
            injections: 0,
            slowest: 200,
            list_lag: 0,
            rotations_per_minute: 10,
            revocations_per_minute: 10,
            every: times.every,
            outside_every: None,
            outside: Vec::new(),
            chaos_ends: 0,
            ends: 0,
            strict: false,
            off: switches.off.clone(),
            ignored: switches.ignored.clone(),
        }
    }

    fn add_credential(&mut self, rng: &mut Rng, index: usize, times: &Times, lags: bool) {
        let count = *rng.pick(&[1, 2, 2, 3]);
        let first = self.places.len();
        for number in 0..=count {
            self.places.push(draw_place(rng, index, number, lags));
        }
        let places: Vec<usize> = (first..first + count + 1).collect();
        let take_over = self.strict || rng.permille(700);
        let (policy, gap) = times.policy(rng, index, deliveries(&self.places, &places[..count], take_over));
        self.plans.push(Plan { policy: Arc::new(policy), gap, places });
    }

    /// How long a fault that was steered to is not repeated, so that rotations go on between.
    pub fn pause_after(&self, fault: Fault) -> Ms {
        match fault {
            Fault::JournalLost
            | Fault::JournalRestored
            | Fault::SecondInstallation
            | Fault::NoSuchAccount
            | Fault::TokenExpired => self.every / 2,
            Fault::CredentialRemoved | Fault::ScheduledForDeletion | Fault::OwnedByOther | Fault::WrongOrganization => {
                self.every / 2
            }
            _ if matches!(fault.class(Step::Idle), Class::Clocks | Class::Reloads | Class::Persons) => self.every / 6,
            Fault::CrashBefore | Fault::CrashUnderWay | Fault::CrashAfter | Fault::Stopped => self.every / 8,
            _ => 0,
        }
    }
}

fn empty_place(credential: usize, number: usize) -> Place {
    let kind = ["file", "vault", "aws"][number % 3];
    Place {
        id: DeliveryId::new(&format!("{kind}:place/{credential}/{number}")),
        credential,
        conditional: true,
        lag: 0,
        write_limit: 10 * SECOND,
        versions: vec![Version { since: 0, at: 0, number: 1, content: Content::default(), author: Author::Person }],
        unreadable_until: 0,
        unwritable_until: 0,
    }
}

fn draw_place(rng: &mut Rng, credential: usize, number: usize, lags: bool) -> Place {
    let empty = empty_place(credential, number + rng.below(3) as usize * 3 + rng.below(3) as usize);
    let content = match rng.below(8) {
        0 => Content { value: Some(FOREIGN + rng.below(1 << 20) as usize), ..Content::default() },
        1 => Content { marker: Some(Marker { owner: owner(credential), pairs: Vec::new() }), ..Content::default() },
        _ => Content::default(),
    };
    let id = DeliveryId::new(&format!("{}/{number}", empty.id));
    Place {
        id,
        conditional: !rng.permille(150),
        lag: if lags { 55 * SECOND } else { *rng.pick(&[0, 0, 0, 5 * SECOND, 55 * SECOND]) },
        write_limit: *rng.pick(&[5 * SECOND, 10 * SECOND, 30 * SECOND]),
        versions: vec![Version { since: 0, at: 0, number: 1, content, author: Author::Person }],
        ..empty
    }
}
