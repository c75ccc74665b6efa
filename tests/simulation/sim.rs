//! One history: the driver's loop, the world's answers and everything that goes wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rotad::rotation::{
    Action, Conditions, DeliveryId, FirstConnection, Happened, InstallationId, IssueOutcome, IssueRequest, ListOutcome,
    ListedToken, Moment, Order, Policy, ProcessId, ReadOutcome, Reason, RevokeOutcome, RotationId, Steady, TokenType, Turn,
    VerifyOutcome, WriteOutcome,
};

use super::coverage::{Coverage, During, Fault};
use super::in_words;
use super::oracle::{Look, Memo, Scene, Violation};
use super::process::{Clocks, Journal, PerMinute, Process, Row};
use super::rng::Rng;
use super::setup::{Faults, Setup, account, account_index, is_of};
use super::world::{DAY, HOUR, MINUTE, Ms, Place, SECOND, Token, fingerprint, ms_of, stamp, token_id, token_index};

/// A token that never expires.
pub const NEVER: Ms = 400 * 365 * DAY;
/// How long the caller waits for the API.
pub const PATIENCE: Ms = 10 * SECOND;
/// The most turns of a credential within an hour: more is spinning (L3).
const TURNS_PER_HOUR_MAX: u32 = 1500;

#[derive(Debug, Clone)]
pub enum Event {
    Wake(usize, u64),
    /// The effect happens, or the look is taken.
    Midway(usize, u64, Effect),
    Told(usize, u64, Outcome),
    Crash(ProcessId),
    Start,
    Compare(ProcessId),
    Person(usize),
    Meddle(usize),
    Calm,
    Recovered,
    Swept,
    /// rotad reads its own token from the first credential's first place.
    ReadOwn(ProcessId),
    Expires(usize),
    End,
}

#[derive(Debug, Clone)]
pub enum Effect {
    List(usize),
    Read(DeliveryId),
    Issue { rotation: RotationId, request: IssueRequest, fault: Fault },
    Write { place: usize, rotation: RotationId, value: usize, expected: Option<u64>, fault: Fault, writer: ProcessId, latest: Ms },
    Revoke { rotation: RotationId, index: usize, fault: Fault, sent: Ms },
    Connect { rotation: RotationId, index: usize, fault: Fault },
}

#[derive(Debug, Clone)]
pub enum Outcome {
    List(usize, ListOutcome),
    Read(DeliveryId, ReadOutcome, Look, u64),
    Issue(RotationId, IssueOutcome, Option<usize>),
    Verify(RotationId, VerifyOutcome),
    Write(DeliveryId, RotationId, WriteOutcome),
    Revoke(RotationId, RevokeOutcome),
    Connect(RotationId, VerifyOutcome),
}

pub struct Actor<'a> {
    pub version: usize,
    pub policy: &'a Policy,
    pub turn: Option<Turn<'a>>,
    pub generation: u64,
    pub doing: During,
    pub memo: Memo,
    pub looks: BTreeMap<DeliveryId, Look>,
    pub read_versions: BTreeMap<DeliveryId, u64>,
    pub listed: bool,
    pub turns: VecDeque<Ms>,
    /// The value of a set-up token that this turn got.
    pub set_up: Option<(RotationId, usize)>,
    /// What a person ordered, for the next turn.
    pub orders: Vec<Order>,
}

pub struct Sim<'a> {
    pub now: Ms,
    pub rng: Rng,
    pub setup: &'a Setup,
    pub faults: Faults,
    pub queue: BTreeMap<(Ms, u64), Event>,
    pub sequence: u64,
    pub tokens: Vec<Token>,
    pub places: Vec<Place>,
    pub accounts_gone: BTreeSet<usize>,
    pub journal: Journal,
    pub snapshots: Vec<Journal>,
    pub process: Option<Process>,
    pub died: BTreeMap<u64, Ms>,
    pub processes: u64,
    pub limits: PerMinute,
    pub actors: Vec<Actor<'a>>,
    pub another_organization: bool,
    pub api_down_until: Ms,
    pub journal_broken_until: Ms,
    pub calm: bool,
    pub recovered: bool,
    pub violation: Option<Violation>,
    pub coverage: Coverage,
    pub hash: u64,
    pub turns: u64,
    pub busiest: u32,
    pub traced: bool,
    pub trace: VecDeque<String>,
    pub never_left: BTreeMap<usize, ProcessId>,
    /// Tokens that a rebuild found.
    pub adopted: BTreeSet<usize>,
    /// The journal was lost, or restored from before: it may not know of places that were configured once.
    pub journal_struck: bool,
    /// The value that the calls are made with, and since when a sweep with it was over, by true time.
    pub own: Option<(usize, Option<Ms>)>,
    /// Accounts whose read-scaling tokens work.
    pub connected: BTreeSet<usize>,
    /// Rotations whose tokens are there to connect with, and for nothing else.
    pub set_ups: BTreeSet<RotationId>,
    pub ignored: &'a [&'a str],
}

impl<'a> Sim<'a> {
    pub fn new(setup: &'a Setup, mut rng: Rng, traced: bool, ignored: &'a [&'a str]) -> Self {
        let actors = setup.plans.iter().map(|plan| Actor::new(&plan.versions[0])).collect();
        let mark = Moment { wall: stamp(0), steady: Steady(0) };
        let journal = Journal {
            installation: InstallationId(rng.next() as u32),
            created_at: stamp(0),
            rows: vec![None; setup.plans.len()],
            mark,
        };
        let mut sim = Self {
            now: 0,
            rng,
            setup,
            faults: setup.faults,
            queue: BTreeMap::new(),
            sequence: 0,
            tokens: setup.by_hand.clone(),
            places: setup.places.clone(),
            accounts_gone: BTreeSet::new(),
            journal,
            snapshots: Vec::new(),
            process: None,
            died: BTreeMap::new(),
            processes: 0,
            limits: PerMinute::new(setup.per_minute),
            actors,
            another_organization: false,
            api_down_until: 0,
            journal_broken_until: 0,
            calm: false,
            recovered: false,
            violation: None,
            coverage: Coverage::default(),
            hash: 0xcbf2_9ce4_8422_2325,
            turns: 0,
            busiest: 0,
            traced,
            trace: VecDeque::new(),
            never_left: BTreeMap::new(),
            adopted: BTreeSet::new(),
            journal_struck: false,
            own: None,
            connected: BTreeSet::new(),
            set_ups: BTreeSet::new(),
            ignored,
        };
        (0..setup.plans.len()).for_each(|credential| sim.connect_as_a_person(credential));
        sim.at(1, Event::Start);
        sim.at(setup.chaos_ends, Event::Calm);
        sim.at(setup.ends, Event::End);
        for credential in 0..setup.plans.len() {
            sim.next_person(credential);
        }
        for (index, token) in setup.by_hand.iter().enumerate().filter(|(_, token)| token.expires < NEVER) {
            sim.at(token.expires, Event::Expires(index));
        }
        sim
    }

    pub fn run(&mut self) {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            if matches!(event, Event::End) {
                self.end();
                return;
            }
            self.happen(event);
            if self.violation.is_some() {
                return;
            }
        }
    }

    pub fn report(self) -> super::Report {
        super::Report {
            violation: self.violation,
            hash: self.hash,
            coverage: self.coverage,
            days: self.now as f64 / DAY as f64 * self.actors.len() as f64,
            turns: self.turns,
            busiest_hour: self.busiest,
            trace: self.trace.into(),
        }
    }

    pub fn at(&mut self, at: Ms, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if !self.traced {
            return;
        }
        if self.trace.len() > 4000 {
            self.trace.pop_front();
        }
        let text = format!("{} {}", super::clock(self.now), line());
        self.trace.push_back(text);
    }

    pub fn fold(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn violate(&mut self, promise: &'static str, detail: String) {
        self.tell(|| format!("BROKEN {promise}: {detail}"));
        if self.violation.is_none() && !self.ignored.contains(&promise) {
            self.violation = Some(Violation { promise, detail, at: self.now });
        }
    }

    pub fn judge(&mut self, verdict: Result<(), (&'static str, String)>) {
        if let Err((promise, detail)) = verdict {
            self.violate(promise, detail);
        }
    }

    /// Notes that a fault of the outside came while each credential was at what it was at.
    pub fn meet_outside(&mut self, fault: Fault, credential: usize) {
        let during = if self.actors[credential].turn.is_some() { self.actors[credential].doing } else { During::Wait };
        self.coverage.meet(fault, during);
    }

    pub fn happen(&mut self, event: Event) {
        self.fold(self.now as u64);
        match event {
            Event::Wake(credential, generation) => {
                if self.actors[credential].generation == generation && self.process.is_some() {
                    self.begin(credential);
                }
            }
            Event::Midway(credential, generation, effect) => self.midway(credential, generation, effect),
            Event::Told(credential, generation, outcome) => {
                if self.actors[credential].generation == generation && self.process.is_some() {
                    self.told(credential, outcome);
                }
            }
            Event::Crash(process) => {
                if self.process.as_ref().is_some_and(|running| running.id == process) {
                    self.crash();
                }
            }
            Event::Start => self.start(),
            Event::Compare(process) => self.compare(process),
            Event::Person(credential) => self.person(credential),
            Event::Meddle(credential) => {
                if !self.calm {
                    self.meddle(credential);
                }
            }
            Event::Calm => self.grow_calm(),
            Event::Recovered => {
                self.recovered = true;
                self.check_served("after the faults had ended");
            }
            Event::Swept => {
                for credential in 0..self.actors.len() {
                    self.check_leaks(credential);
                }
            }
            Event::Expires(index) => self.expires(index),
            Event::ReadOwn(process) => self.read_own(process),
            Event::End => {}
        }
    }

    // Processes.

    pub fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        self.processes += 1;
        let id = ProcessId(self.processes);
        let wild = self.faults.clocks && !self.calm && self.rng.permille(300);
        let skew = if wild { self.rng.between(-400 * DAY, 400 * DAY) } else { self.rng.between(-2 * SECOND, 2 * SECOND) };
        let clocks = Clocks::start(self.now, skew, self.journal.mark);
        let since = clocks.moment(self.now);
        if wild {
            self.coverage.meet(Fault::ClockSkewed, During::Wait);
        }
        self.tell(|| format!("process {} starts, its clock {} s off", id.0, skew / SECOND));
        self.process = Some(Process { id, since, clocks, hands: vec![BTreeMap::new(); self.actors.len()] });
        self.own = None;
        if self.setup.faults.admin {
            self.at(self.now + SECOND, Event::ReadOwn(id));
        }
        let compared = self.now + self.rng.between(100, 20 * SECOND);
        self.at(compared, Event::Compare(id));
        // The sweep runs on start.
        for credential in 0..self.actors.len() {
            let at = self.now + self.rng.between(1, 5 * SECOND);
            self.wake(credential, at);
        }
    }

    pub fn wake(&mut self, credential: usize, at: Ms) {
        let actor = &mut self.actors[credential];
        if actor.turn.is_some() {
            return;
        }
        actor.generation += 1;
        let generation = actor.generation;
        self.at(at, Event::Wake(credential, generation));
    }

    pub fn crash(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.tell(|| format!("process {} dies", process.id.0));
        self.died.insert(process.id.0, self.now);
        for actor in &mut self.actors {
            actor.turn = None;
            actor.generation += 1;
        }
        let down = match self.rng.below(20) {
            0 => self.setup.plans[0].versions[0].schedule_every() / 2,
            1 => HOUR,
            2 => 5 * MINUTE,
            _ => self.rng.between(100, 20 * SECOND),
        };
        self.at(self.now + down, Event::Start);
    }

    /// The value may be of any place that serves one; a sweep with it takes its time, and begins anew with each value.
    fn read_own(&mut self, id: ProcessId) {
        if self.process.as_ref().is_none_or(|running| running.id != id) {
            return;
        }
        let places = self.places.iter().filter(|place| self.actors[0].policy.deliveries.contains_key(&place.id));
        let values: Vec<usize> = places.filter_map(super::world::Place::value).collect();
        let (now, swept) = (self.now, self.calm || self.rng.permille(200));
        match (values.first(), &mut self.own) {
            (Some(value), Some((own, since))) if own == value => {
                if since.is_none() && swept {
                    *since = Some(now);
                }
            }
            (Some(value), own) => *own = Some((*value, None)),
            // What can't be read is as it was.
            (None, _) => {}
        }
        let again = if self.calm { MINUTE } else { self.rng.between(10 * SECOND, 5 * MINUTE) };
        self.at(self.now + again, Event::ReadOwn(id));
    }

    /// What holds for the credential's turn.
    fn conditions(&self, credential: usize) -> Conditions {
        let frozen = self.process.as_ref().unwrap().clocks.frozen;
        let conditions = Conditions { frozen, another_organization: self.another_organization, ..Conditions::default() };
        if !self.actors[credential].policy.used_by_rotad {
            return conditions;
        }
        let in_use = self.own.filter(|(_, since)| since.is_some()).map(|(value, _)| fingerprint(value));
        let blocked = |row: &Option<Row>| row.as_ref().is_some_and(|row| row.credential.blocked.is_some());
        let others = self.journal.rows.iter().enumerate().any(|(index, row)| index != credential && blocked(row));
        Conditions { in_use, others_blocked: others, ..conditions }
    }

    pub fn compare(&mut self, id: ProcessId) {
        let down = self.api_down_until > self.now;
        let again = self.now + if down { MINUTE } else { HOUR + self.rng.between(0, MINUTE) };
        let (skew, wrong) =
            (self.rng.between(-3 * SECOND, 3 * SECOND), self.faults.clocks && !self.calm && self.rng.permille(30));
        let behind = self.rng.between(0, 20 * SECOND);
        let Some(process) = self.process.as_mut().filter(|process| process.id == id) else { return };
        if !down {
            let changed = process.clocks.frozen != wrong;
            process.clocks.compare(self.now, skew, wrong);
            if wrong {
                // The system's clock jumped: what the API told is believed until it is right again.
                process.clocks.fall_behind(self.now, behind);
                self.coverage.meet(Fault::ClockSkewed, During::Wait);
            }
            self.tell(|| format!("the clocks are compared, frozen: {wrong}"));
            for credential in 0..if changed { self.actors.len() } else { 0 } {
                self.wake(credential, self.now + 1);
            }
        }
        self.at(again, Event::Compare(id));
    }

    /// The first answer of the API carries its `Date`: a process that has not compared its clocks does.
    pub fn compare_with_answer(&mut self) {
        let skew = self.rng.between(-3 * SECOND, 3 * SECOND);
        let now = self.now;
        let Some(process) = &mut self.process else { return };
        if process.clocks.is_uncompared() {
            process.clocks.compare(now, skew, false);
            self.tell(|| "the clocks are compared with the list's answer".to_owned());
        }
    }

    pub fn moment(&self) -> Moment {
        self.process.as_ref().unwrap().clocks.moment(self.now)
    }

    /// A version of the configuration comes into force: a turn under way is dropped and begun anew.
    pub fn reschedule(&mut self, credential: usize, version: usize) {
        let setup = self.setup;
        let actor = &mut self.actors[credential];
        let policy = &setup.plans[credential].versions[version];
        if actor.policy.schedule != policy.schedule
            && let Some(row) = &mut self.journal.rows[credential]
        {
            row.memo.scheduled_from = self.now;
        }
        actor.version = version;
        actor.policy = policy;
        actor.turn = None;
        actor.generation += 1;
        self.connect_as_a_person(credential);
        if self.process.is_some() {
            self.wake(credential, self.now + 1);
        }
    }

    /// Who says in the configuration that an account was connected to has done it.
    fn connect_as_a_person(&mut self, credential: usize) {
        let policy = self.actors[credential].policy;
        if policy.first_connection == FirstConnection::NotNeeded && policy.token_type == TokenType::ReadScaling {
            self.connected.insert(account_index(&policy.account));
        }
    }

    // Turns.

    pub fn begin(&mut self, credential: usize) {
        self.turns += 1;
        let now = self.now;
        let recent = &mut self.actors[credential].turns;
        recent.push_back(now);
        while recent.front().is_some_and(|at| *at < now - HOUR) {
            recent.pop_front();
        }
        let busy = recent.len() as u32;
        self.busiest = self.busiest.max(busy);
        if busy > TURNS_PER_HOUR_MAX {
            return self.violate("L3", format!("c{credential} had {busy} turns within an hour"));
        }
        let moment = self.moment();
        let process = self.process.as_ref().unwrap();
        let row = self.journal.rows[credential].as_ref();
        let in_hand = process.hands[credential].keys().copied().collect();
        let actor = &mut self.actors[credential];
        let stored = row.map(|row| row.credential.clone());
        actor.memo = row.map(|row| row.memo.clone()).unwrap_or_default();
        let mut turn = Turn::begin(stored, actor.policy, process.facts(&self.journal), in_hand, moment);
        for order in std::mem::take(&mut actor.orders) {
            if turn.obey(&order, "a person", moment).is_ok() {
                actor.memo.ordered(&order, turn.credential());
            }
        }
        actor.turn = Some(turn);
        actor.generation += 1;
        actor.looks.clear();
        actor.set_up = None;
        actor.read_versions.clear();
        actor.listed = false;
        actor.doing = During::Wait;
        self.step(credential);
    }

    pub fn chance(&mut self, permille: u64) -> bool {
        !self.calm && permille > 0 && self.rng.permille(permille)
    }

    pub fn step(&mut self, credential: usize) {
        let moment = self.moment();
        let random = self.rng.next();
        let conditions = self.conditions(credential);
        if let Some((value, Some(since))) = self.own.filter(|_| conditions.in_use.is_some())
            && let Some(token) = self.tokens.get(value)
            && self.actors[credential].memo.used.is_none_or(|(used, _)| used != token.name.rotation)
        {
            self.actors[credential].memo.used = Some((token.name.rotation, since));
        }
        self.limits.passed_rotation = false;
        self.limits.passed_revocation = false;
        let Some(mut turn) = self.actors[credential].turn.take() else { return };
        let action = turn.next(moment, random, &conditions, &mut self.limits);
        let during = during(&action);
        self.actors[credential].doing = during;
        if self.chance(self.faults.crash / 2) {
            self.coverage.meet(Fault::CrashBeforeSave, during);
            return self.crash();
        }
        if !self.save(credential, &mut turn, &action, during) {
            return;
        }
        if self.chance(self.faults.crash / 2) {
            self.coverage.meet(Fault::CrashAfterSave, during);
            return self.crash();
        }
        self.fold(during as u64);
        if let Action::Wait { until } = action {
            return self.rest(credential, &turn, ms_of(until), moment);
        }
        self.actors[credential].turn = Some(turn);
        self.dispatch(credential, action, during, &conditions);
    }

    /// Saves what is unsaved; without it nothing is done, and the turn is begun anew later.
    pub fn save(&mut self, credential: usize, turn: &mut Turn<'a>, action: &Action, during: During) -> bool {
        let broken = self.journal_broken_until > self.now;
        let fails = broken || self.chance(self.faults.save);
        let frozen = self.process.as_ref().unwrap().clocks.frozen;
        let moment = self.moment();
        let Some((state, entries)) = turn.unsaved() else { return true };
        if fails {
            self.coverage.meet(Fault::SaveFails, during);
            self.tell(|| format!("c{credential} the journal can't be written"));
            let retry = self.now + self.rng.between(SECOND, 30 * SECOND);
            self.wake(credential, retry);
            return false;
        }
        let memo = &mut self.actors[credential].memo;
        if entries.iter().any(|entry| entry.what == Happened::Vanished) {
            memo.connected = None;
        }
        if let Action::Issue { rotation, .. } = action {
            memo.recorded.insert(*rotation);
        }
        if let Action::Write { rotation, .. } = action {
            memo.attempted.insert(*rotation);
        }
        let policy = self.actors[credential].policy;
        self.actors[credential].memo.settle(policy);
        let memo = self.actors[credential].memo.clone();
        // What the journal holds is what its text says.
        let text = if self.traced || self.sequence.is_multiple_of(64) { serde_json::to_string(state).ok() } else { None };
        let credential_state = text.map_or_else(|| state.clone(), |text| serde_json::from_str(&text).unwrap());
        assert_eq!(credential_state, *state, "the journal's text lost something");
        self.journal.rows[credential] = Some(Row { credential: credential_state, memo, wake: 0 });
        if !frozen {
            self.journal.mark = moment;
        }
        for entry in entries {
            self.fold(entry.what as u64);
            if let (Happened::Rebuilt, Some(token)) = (entry.what, &entry.token) {
                self.adopted.insert(token_index(token));
            }
            self.tell(|| format!("c{credential} journal: {}", in_words(entry)));
        }
        true
    }

    pub fn rest(&mut self, credential: usize, turn: &Turn<'a>, until: Ms, moment: Moment) {
        let wall = ms_of(moment.wall);
        let longest = self.actors[credential].policy.sweep_every.as_millis() as Ms;
        if until <= wall || until > wall + longest.max(10 * MINUTE) + SECOND {
            return self.violate(
                "L3",
                format!("c{credential} waits for {} s, the sweep is every {} s", (until - wall) / SECOND, longest / SECOND),
            );
        }
        let keeps = turn.keeps();
        let hands = &mut self.process.as_mut().unwrap().hands[credential];
        hands.retain(|id, _| Some(*id) == keeps);
        if let Some(row) = &mut self.journal.rows[credential] {
            row.wake = until;
        }
        self.tell(|| {
            let blocked = turn.credential().blocked.as_ref().map(|block| format!(", blocked: {}", block.reason.as_str()));
            format!("c{credential} waits {:.1} s{}", (until - wall) as f64 / 1000.0, blocked.unwrap_or_default())
        });
        let at = self.now + until - wall;
        self.wake(credential, at);
        if self.chance(self.faults.crash / 4) {
            self.coverage.meet(Fault::CrashUnderWay, During::Wait);
            let process = self.process.as_ref().unwrap().id;
            let at = self.rng.between(self.now, at);
            self.at(at, Event::Crash(process));
        }
    }

    pub fn scene(&self, credential: usize) -> Scene<'_> {
        let actor = &self.actors[credential];
        let process = self.process.as_ref().unwrap();
        Scene {
            credential,
            now: self.now,
            policy: actor.policy,
            memo: &self.journal.rows[credential].as_ref().unwrap().memo,
            tokens: &self.tokens,
            places: &self.places,
            looks: &actor.looks,
            listed: actor.listed,
            frozen: process.clocks.frozen,
            in_hand: &process.hands[credential],
            another_organization: self.another_organization,
            unseen: false,
            permitted: true,
            own: self.own,
        }
    }

    pub fn told(&mut self, credential: usize, outcome: Outcome) {
        let during = self.actors[credential].doing;
        if matches!(outcome, Outcome::List(_, ListOutcome::Complete(_))) {
            self.compare_with_answer();
        }
        let moment = self.moment();
        if self.chance(self.faults.crash) {
            self.coverage.meet(Fault::CrashBeforeTold, during);
            return self.crash();
        }
        let Some(mut turn) = self.actors[credential].turn.take() else { return };
        match outcome {
            Outcome::List(index, outcome) => {
                let asked = if *turn.policy().account.as_str() == *account(index).as_str() {
                    turn.policy().account.clone()
                } else {
                    account(index)
                };
                if matches!(outcome, ListOutcome::Complete(_)) && asked == turn.policy().account {
                    self.actors[credential].listed = true;
                }
                if matches!(&outcome, ListOutcome::Failed(failed) if failed.reason == Reason::NoSuchAccount) {
                    self.actors[credential].memo.connected = None;
                }
                turn.listed(&asked, outcome, moment);
            }
            Outcome::Read(delivery, outcome, look, version) => {
                if let Some(value) = look.value
                    && let Some(rotation) = turn.wants(&fingerprint(value))
                {
                    self.process.as_mut().unwrap().hands[credential].insert(rotation, value);
                }
                let actor = &mut self.actors[credential];
                if !look.readable {
                    actor.memo.unreadable.insert(delivery.clone());
                } else {
                    actor.memo.unreadable.remove(&delivery);
                    actor.read_versions.insert(delivery.clone(), version);
                    let token = look.value.and_then(|value| self.tokens.get(value));
                    let shown = token.filter(|token| is_of(&token.name.owner, credential)).map(|token| token.name.rotation);
                    actor.memo.looked(&delivery, shown, look.at);
                    actor.memo.settle(actor.policy);
                }
                actor.looks.insert(delivery.clone(), look);
                turn.read(&delivery, outcome, moment);
            }
            Outcome::Issue(rotation, outcome, index) => {
                if matches!(&outcome, IssueOutcome::Refused(failed) if failed.reason == Reason::NoSuchAccount) {
                    self.actors[credential].memo.connected = None;
                }
                if let (Some(index), IssueOutcome::Issued(issued)) = (index, &outcome) {
                    let set_up = self.is_set_up(index);
                    let process = self.process.as_mut().unwrap();
                    self.never_left.insert(index, process.id);
                    match set_up {
                        true => self.actors[credential].set_up = Some((rotation, index)),
                        false => drop(process.hands[credential].insert(rotation, index)),
                    }
                    let policy = turn.policy();
                    let life = issued.token.expires_at.map(|expires| expires.duration_since(issued.token.created_at));
                    if life == Some(policy.ttl) && issued.token.token_type == policy.token_type {
                        self.actors[credential].memo.newest = Some(rotation);
                    }
                }
                turn.issued(rotation, outcome, moment);
            }
            Outcome::Verify(rotation, outcome) => {
                if matches!(outcome, VerifyOutcome::Disproved(_)) {
                    self.actors[credential].memo.newest = None;
                }
                turn.verified(rotation, outcome, moment);
            }
            Outcome::Write(delivery, rotation, outcome) => {
                self.actors[credential].looks.remove(&delivery);
                self.actors[credential].read_versions.remove(&delivery);
                turn.written(&delivery, rotation, outcome, moment);
            }
            Outcome::Revoke(rotation, outcome) => turn.revoked(rotation, outcome, moment),
            Outcome::Connect(rotation, outcome) => {
                if outcome == VerifyOutcome::Verified {
                    self.actors[credential].memo.connected = Some(account_index(&turn.policy().account));
                }
                turn.connected(rotation, outcome, moment);
            }
        }
        self.actors[credential].turn = Some(turn);
        self.step(credential);
    }
}

impl<'a> Actor<'a> {
    pub fn new(policy: &'a Policy) -> Self {
        Self {
            version: 0,
            policy,
            turn: None,
            generation: 0,
            doing: During::Wait,
            memo: Memo::default(),
            looks: BTreeMap::new(),
            read_versions: BTreeMap::new(),
            listed: false,
            orders: Vec::new(),
            set_up: None,
            turns: VecDeque::new(),
        }
    }
}

pub trait Every {
    fn schedule_every(&self) -> Ms;
}

impl Every for Policy {
    fn schedule_every(&self) -> Ms {
        policy_every(self)
    }
}

pub fn policy_every(policy: &Policy) -> Ms {
    let first = policy.schedule.next_after(stamp(0)).map_or(0, ms_of);
    policy.schedule.next_after(stamp(first)).map_or(0, ms_of) - first
}

/// How long after its successor was made a token may live on while nothing fails.
pub fn patience(policy: &Policy) -> Ms {
    policy.grace.as_millis() as Ms + policy.sweep_every.as_millis() as Ms + HOUR
}

pub fn listed(index: usize, token: &Token) -> ListedToken {
    ListedToken {
        id: token_id(index),
        name: Some(if token.by_hand { format!("made by hand {index}") } else { token.name.to_string() }),
        created_at: stamp(token.created),
        expires_at: (token.expires < NEVER).then(|| stamp(token.expires)),
        token_type: token.token_type,
    }
}

pub fn during(action: &Action) -> During {
    match action {
        Action::List { .. } => During::List,
        Action::Read { .. } => During::Read,
        Action::Issue { .. } => During::Issue,
        Action::Verify { .. } => During::Verify,
        Action::Connect { .. } => During::Connect,
        Action::Write { .. } => During::Write,
        Action::Revoke { .. } => During::Revoke,
        Action::Wait { .. } => During::Wait,
    }
}

pub fn brief(action: &Action) -> String {
    match action {
        Action::List { account, .. } => format!("list {account}"),
        Action::Read { delivery } => format!("read `{delivery}`"),
        Action::Issue { rotation, .. } => format!("issue {rotation}"),
        Action::Verify { rotation } => format!("verify {rotation}"),
        Action::Connect { rotation, account, .. } => format!("connect to {account} with {rotation}"),
        Action::Write { delivery, rotation } => format!("write {rotation} to `{delivery}`"),
        Action::Revoke { rotation, token, .. } => format!("revoke {token} of {rotation}"),
        Action::Wait { until } => format!("wait until {until}"),
    }
}
