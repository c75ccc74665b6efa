//! One state of the model: the world, the journals, the processes and the calls under way.

use std::collections::{BTreeMap, BTreeSet};

use rotad::rotation::{
    Credential, DeliveryId, DeliveryPolicy, Facts, FirstConnection, InstallationId, Mode, Moment, Policy, ProcessId, RotationId,
    Schedule, Steady, TokenName, TokenType, Verify,
};

use crate::simulator::oracle::Memo;
use crate::simulator::setup::{account, owner};
use crate::simulator::world::{Author, Content, MINUTE, Ms, Place, SECOND, Token, Version, span, stamp};

/// Small numbers, so that the space closes, in the proportions of a real configuration: the
/// deadline is 11 minutes before the expiry, two rotations are missed before it.
pub const TTL: Ms = 60 * MINUTE;
pub const EVERY: Ms = 20 * MINUTE;
pub const GRACE: Ms = 5 * MINUTE;
pub const SWEEP: Ms = 10 * MINUTE;
pub const WRITE_LIMIT: Ms = 5 * SECOND;
/// How long the caller waits for the API.
pub const PATIENCE: Ms = 30 * SECOND;
/// How long a place may show what it held before.
pub const READ_LAG: Ms = 55 * SECOND;
/// How long after the caller has given up a POST may land: until then its token is lost.
pub const POST_LATE: Ms = 10 * MINUTE;
pub const DELETE_LATE: Ms = 2 * MINUTE;
/// How far two readings of a wall clock may be off, as the simulator has it.
const WALL_ERROR: Ms = 6 * SECOND;

#[derive(Debug, Clone)]
pub struct State {
    pub now: Ms,
    /// Those that live, and dead ones that something still refers to.
    pub tokens: Vec<Token>,
    pub places: Vec<Place>,
    pub flights: Vec<Flight>,
    /// The installations: each with its journal and at most one process.
    pub sites: Vec<Site>,
    pub faults_left: u8,
    /// Take-overs that are no fault: a process dies with its call under way, and another one begins.
    pub takeovers_left: u8,
    /// Second installations that are yet to begin.
    pub newcomers_left: u8,
}

#[derive(Debug, Clone)]
pub struct Site {
    pub journal: Journal,
    /// As it was before the last rotation: what a restore brings back.
    pub backup: Option<Box<Journal>>,
    pub process: Option<Process>,
    /// How many there were so far: the id of the last one.
    pub processes: u64,
    /// When the next turn begins, or the next process.
    pub wake: Ms,
    /// Which of the model's policies is in force.
    pub config: usize,
}

#[derive(Debug, Clone)]
pub struct Journal {
    pub installation: InstallationId,
    pub created_at: Ms,
    pub row: Option<Row>,
    /// The clocks at the last save that was made while they were believed.
    pub mark: Moment,
}

#[derive(Debug, Clone)]
pub struct Row {
    pub credential: Credential,
    pub memo: Memo,
}

#[derive(Debug, Clone)]
pub struct Process {
    pub id: ProcessId,
    pub since: Moment,
    pub clock: Clock,
    /// Token values in memory.
    pub hands: BTreeMap<RotationId, usize>,
    /// Tokens that this process issued and whose value it never sent anywhere.
    pub unsent: BTreeSet<RotationId>,
}

/// The clocks of one process, as `clock.rs` keeps them while they agree.
#[derive(Debug, Clone)]
pub struct Clock {
    pub read_at: Ms,
    /// What `Steady` was at `read_at`.
    pub steady: i64,
    /// The time between two processes, until the API's `Date` confirms it.
    pub uncounted: Option<Ms>,
    /// Not compared with the API since the start.
    pub frozen: bool,
}

/// A call whose caller waits no longer, or is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    pub call: Call,
    pub site: usize,
    /// It lands before this, or never.
    pub until: Ms,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Issue { name: TokenName, ttl: Ms, token_type: TokenType },
    Write { place: usize, rotation: RotationId, value: usize, expected: Option<u64> },
    Revoke { index: usize, sent: Ms },
}

/// What an exploration is about.
#[derive(Debug)]
pub struct Model {
    /// Both deliveries; without the second; the second moved to another place; a third one beside both.
    pub policies: Vec<Policy>,
    pub faults: u8,
    pub takeovers: u8,
    pub newcomers: u8,
    /// Promises that are not judged, since a companion of the breakage at hand breaks them.
    pub ignored: &'static [&'static str],
    /// A store without conditional writes.
    pub unconditional: bool,
}

impl Model {
    pub fn new(faults: u8) -> Self {
        Self {
            policies: vec![policy(&[0, 1]), policy(&[0]), policy(&[0, 2]), policy(&[0, 1, 2])],
            faults,
            takeovers: 0,
            newcomers: 0,
            ignored: &[],
            unconditional: false,
        }
    }

    /// Nothing was ever issued, and the places are empty. No due time is near.
    pub fn first(&self) -> State {
        let now = 10 * EVERY + 7 * MINUTE;
        State {
            now,
            tokens: Vec::new(),
            places: (0..3).map(place).collect(),
            flights: Vec::new(),
            sites: vec![Site::new(InstallationId(1), now)],
            faults_left: self.faults,
            takeovers_left: self.takeovers,
            newcomers_left: self.newcomers,
        }
    }
}

fn place_id(index: usize) -> DeliveryId {
    DeliveryId::new(["a", "b", "c"][index])
}

fn place(index: usize) -> Place {
    // Not by a person: the oracle is to excuse nothing by it.
    let first = Version { since: 0, at: 0, number: 1, content: Content::default(), author: Author::Us };
    Place {
        id: place_id(index),
        credential: 0,
        conditional: true,
        lag: READ_LAG,
        write_limit: WRITE_LIMIT,
        versions: vec![first],
        unreadable_until: 0,
        unwritable_until: 0,
    }
}

fn policy(places: &[usize]) -> Policy {
    let delivery = DeliveryPolicy { take_over: false, write_limit: span(WRITE_LIMIT) };
    Policy {
        renamed_from: None,
        adopt: [].into(),
        used_by_rotad: false,
        account_is_kept: false,
        first_connection: FirstConnection::NotNeeded,
        owner: owner(0),
        organization: "main".into(),
        account: account(0),
        token_type: TokenType::ReadWrite,
        ttl: span(TTL),
        // Due times are the multiples of `EVERY` since the model's beginning.
        schedule: Schedule::Every { every: span(EVERY), phase: span(stamp(0).as_millisecond() % EVERY) },
        window: None,
        grace: span(GRACE),
        verify: Verify::None,
        mode: Mode::Rotate,
        deliveries: places.iter().map(|index| (place_id(*index), delivery.clone())).collect(),
        sweep_every: span(SWEEP),
        tokens_max: 16,
    }
}

impl Site {
    pub fn new(installation: InstallationId, now: Ms) -> Self {
        let journal = Journal::new(installation, now, Moment { wall: stamp(now), steady: Steady(0) });
        Self { journal, backup: None, process: None, processes: 0, wake: now, config: 0 }
    }

    pub fn memo(&self) -> Memo {
        self.journal.row.as_ref().map_or_else(|| Memo { scheduled_from: -TTL, ..Memo::default() }, |row| row.memo.clone())
    }

    pub fn start(&mut self, now: Ms) {
        let mark = self.journal.mark;
        let uncounted = now - crate::simulator::world::ms_of(mark.wall) - WALL_ERROR;
        let clock = Clock { read_at: now, steady: mark.steady.0, uncounted: Some(uncounted.max(0)), frozen: true };
        self.processes += 1;
        let (id, since) = (ProcessId(self.processes), clock.moment(now));
        self.process = Some(Process { id, since, clock, hands: BTreeMap::new(), unsent: BTreeSet::new() });
    }

    pub fn facts(&self) -> Facts {
        let process = self.process.as_ref().unwrap();
        Facts {
            installation: self.journal.installation,
            journal_created_at: stamp(self.journal.created_at),
            process: process.id,
            process_since: process.since,
        }
    }
}

impl Journal {
    pub fn new(installation: InstallationId, now: Ms, mark: Moment) -> Self {
        Self { installation, created_at: now, row: None, mark }
    }
}

impl Clock {
    pub fn moment(&self, now: Ms) -> Moment {
        Moment { wall: stamp(now), steady: Steady(self.steady + now - self.read_at) }
    }

    pub fn compare(&mut self) {
        self.frozen = false;
        self.steady += self.uncounted.take().unwrap_or(0);
    }
}
