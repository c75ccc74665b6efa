//! One history: the driver's loop, the world's answers and everything that goes wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rotad::rotation::{
    Action, Conditions, DeliveryId, Failed, Happened, InstallationId, IssueOutcome, IssueRequest, IssuedToken, ListOutcome,
    ListedToken, Moment, Policy, ProcessId, ReadOutcome, Reason, RevokeOutcome, RotationId, Shows, Steady, TokenType, Turn,
    VerifyOutcome, WriteOutcome,
};

use super::coverage::{Coverage, During, Fault};
use super::oracle::{Look, Memo, Scene, Violation};
use super::process::{Clocks, Journal, PerMinute, Process, Row};
use super::rng::Rng;
use super::setup::{Faults, Setup, account, account_index};
use super::world::{
    Author, DAY, Ended, HOUR, MINUTE, Ms, Place, SECOND, Token, fingerprint, ms_of, span, stamp, token_id, token_index,
};

/// A token that never expires.
pub const NEVER: Ms = 400 * 365 * DAY;
/// How long the caller waits for the API.
const PATIENCE: Ms = 10 * SECOND;
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
}

#[derive(Debug, Clone)]
pub enum Outcome {
    List(usize, ListOutcome),
    Read(DeliveryId, ReadOutcome, Look, u64),
    Issue(RotationId, IssueOutcome, Option<usize>),
    Verify(RotationId, VerifyOutcome),
    Write(DeliveryId, RotationId, WriteOutcome),
    Revoke(RotationId, RevokeOutcome),
}

pub struct Actor<'a> {
    pub version: usize,
    pub policy: &'a Policy,
    pub turn: Option<Turn<'a>>,
    pub generation: u64,
    pub doing: During,
    pub memo: Memo,
    looks: BTreeMap<DeliveryId, Look>,
    read_versions: BTreeMap<DeliveryId, u64>,
    listed: bool,
    turns: VecDeque<Ms>,
}

pub struct Sim<'a> {
    pub now: Ms,
    pub rng: Rng,
    pub setup: &'a Setup,
    pub faults: Faults,
    queue: BTreeMap<(Ms, u64), Event>,
    sequence: u64,
    pub tokens: Vec<Token>,
    pub places: Vec<Place>,
    pub accounts_gone: BTreeSet<usize>,
    pub journal: Journal,
    pub snapshots: Vec<Journal>,
    pub process: Option<Process>,
    died: BTreeMap<u64, Ms>,
    processes: u64,
    limits: PerMinute,
    pub actors: Vec<Actor<'a>>,
    pub another_organization: bool,
    pub api_down_until: Ms,
    pub journal_broken_until: Ms,
    calm: bool,
    pub recovered: bool,
    pub violation: Option<Violation>,
    pub coverage: Coverage,
    hash: u64,
    turns: u64,
    busiest: u32,
    traced: bool,
    pub trace: VecDeque<String>,
    never_left: BTreeMap<usize, ProcessId>,
    /// Tokens that a rebuild found.
    adopted: BTreeSet<usize>,
    ignored: &'a [&'a str],
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
            tokens: Vec::new(),
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
            ignored,
        };
        sim.at(1, Event::Start);
        sim.at(setup.chaos_ends, Event::Calm);
        sim.at(setup.ends, Event::End);
        for credential in 0..setup.plans.len() {
            sim.next_person(credential);
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

    fn fold(&mut self, number: u64) {
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

    fn judge(&mut self, verdict: Result<(), (&'static str, String)>) {
        if let Err((promise, detail)) = verdict {
            self.violate(promise, detail);
        }
    }

    /// Notes that a fault of the outside came while each credential was at what it was at.
    pub fn meet_outside(&mut self, fault: Fault, credential: usize) {
        let during = if self.actors[credential].turn.is_some() { self.actors[credential].doing } else { During::Wait };
        self.coverage.meet(fault, during);
    }

    fn happen(&mut self, event: Event) {
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
            Event::End => {}
        }
    }

    // Processes.

    fn start(&mut self) {
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

    fn compare(&mut self, id: ProcessId) {
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
    fn compare_with_answer(&mut self) {
        let skew = self.rng.between(-3 * SECOND, 3 * SECOND);
        let now = self.now;
        let Some(process) = &mut self.process else { return };
        if process.clocks.is_uncompared() {
            process.clocks.compare(now, skew, false);
            self.tell(|| "the clocks are compared with the list's answer".to_owned());
        }
    }

    fn moment(&self) -> Moment {
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
        if self.process.is_some() {
            self.wake(credential, self.now + 1);
        }
    }

    // Turns.

    fn begin(&mut self, credential: usize) {
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
        actor.turn = Some(Turn::begin(stored, actor.policy, process.facts(&self.journal), in_hand, moment));
        actor.generation += 1;
        actor.looks.clear();
        actor.read_versions.clear();
        actor.listed = false;
        actor.doing = During::Wait;
        self.step(credential);
    }

    fn chance(&mut self, permille: u64) -> bool {
        !self.calm && permille > 0 && self.rng.permille(permille)
    }

    fn step(&mut self, credential: usize) {
        let moment = self.moment();
        let random = self.rng.next();
        let conditions =
            Conditions { frozen: self.process.as_ref().unwrap().clocks.frozen, another_organization: self.another_organization };
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
    fn save(&mut self, credential: usize, turn: &mut Turn<'a>, action: &Action, during: During) -> bool {
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
            self.tell(|| {
                let ids = [
                    entry.rotation.map(|id| id.to_string()),
                    entry.token.map(|id| id.0),
                    entry.delivery.map(|id| id.to_string()),
                ];
                let ids: Vec<String> = ids.into_iter().flatten().collect();
                format!("c{credential} journal: {} {} {}", entry.what.as_str(), ids.join(" "), entry.detail.unwrap_or_default())
            });
        }
        true
    }

    fn rest(&mut self, credential: usize, turn: &Turn<'a>, until: Ms, moment: Moment) {
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

    fn scene(&self, credential: usize) -> Scene<'_> {
        let actor = &self.actors[credential];
        let process = self.process.as_ref().unwrap();
        Scene {
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
            permitted: true,
        }
    }

    // Actions.

    fn dispatch(&mut self, credential: usize, action: Action, during: During, conditions: &Conditions) {
        self.tell(|| format!("c{credential} {}", brief(&action)));
        let process = self.process.as_ref().unwrap().id;
        let quick = self.rng.between(2, 400);
        let half = self.now + quick / 2;
        let generation = self.actors[credential].generation;
        if self.chance(self.faults.crash) {
            self.coverage.meet(Fault::CrashUnderWay, during);
            let at = self.rng.between(self.now, self.now + quick);
            self.at(at, Event::Crash(process));
        }
        let rare = if matches!(during, During::Read | During::List) { 2 } else { 40 };
        if self.faults.persons > 0 && self.chance(rare) {
            let at = self.rng.between(self.now, self.now + quick);
            self.at(at, Event::Meddle(credential));
        }
        match action {
            Action::List { account, .. } => {
                self.at(half, Event::Midway(credential, generation, Effect::List(account_index(&account))))
            }
            Action::Read { delivery } => self.at(half, Event::Midway(credential, generation, Effect::Read(delivery))),
            Action::Issue { rotation, request } => {
                let mut scene = self.scene(credential);
                scene.permitted = self.limits.passed_rotation;
                let memo = Memo { recorded: &scene.memo.recorded - &BTreeSet::from([rotation]), ..scene.memo.clone() };
                scene.memo = &memo;
                let verdict = scene.mint(rotation);
                self.judge(verdict);
                if self.tokens.iter().any(|token| token.name.rotation == rotation) {
                    self.violate("S5", format!("{rotation} is asked for again"));
                }
                let fault = self.issue_fault(&request);
                self.coverage.meet(fault, during);
                self.send_issue(credential, generation, rotation, request, fault, half);
            }
            Action::Verify { rotation } => {
                let disproved = self.chance(self.faults.provider / 4);
                let failed = !disproved && (self.api_down_until > self.now || self.chance(self.faults.provider));
                self.coverage.meet(
                    if disproved {
                        Fault::Disproved
                    } else if failed {
                        Fault::Unavailable
                    } else {
                        Fault::None
                    },
                    during,
                );
                let outcome = match (disproved, failed) {
                    (true, _) => VerifyOutcome::Disproved(Failed::new(Reason::BadAnswer, "another account")),
                    (_, true) => VerifyOutcome::Failed(Failed::new(Reason::Unavailable, "503")),
                    _ => VerifyOutcome::Verified,
                };
                self.at(self.now + quick, Event::Told(credential, generation, Outcome::Verify(rotation, outcome)));
            }
            Action::Write { delivery, rotation } => self.send_write(credential, generation, &delivery, rotation, half),
            Action::Revoke { rotation, token, account, .. } => {
                let index = token_index(&token);
                let never_left = self.never_left.get(&index) == Some(&process)
                    && !self.journal.rows[credential].as_ref().unwrap().memo.attempted.contains(&rotation);
                let mut scene = self.scene(credential);
                scene.permitted = self.limits.passed_revocation;
                let verdict = scene.revocation(rotation, index, never_left && !conditions.another_organization);
                self.judge(verdict);
                let fault = self.revoke_fault(account_index(&account));
                self.coverage.meet(fault, during);
                let at = if fault == Fault::DoneLate { self.now + PATIENCE + self.rng.between(0, 2 * MINUTE) } else { half };
                let sent = self.now;
                self.at(at, Event::Midway(credential, generation, Effect::Revoke { rotation, index, fault, sent }));
                if fault == Fault::DoneLate {
                    let failed = RevokeOutcome::Failed(Failed::new(Reason::TimedOut, "no answer"));
                    self.at(self.now + PATIENCE, Event::Told(credential, generation, Outcome::Revoke(rotation, failed)));
                }
            }
            Action::Wait { .. } => {}
        }
    }

    fn issue_fault(&mut self, request: &IssueRequest) -> Fault {
        if self.faults.accounts && self.chance(100) {
            self.delete_account(account_index(&request.account));
        }
        if self.accounts_gone.contains(&account_index(&request.account)) {
            return Fault::NoSuchAccount;
        }
        if self.api_down_until > self.now {
            return *self.rng.pick(&[Fault::Unavailable, Fault::LostNotDone]);
        }
        if !self.chance(self.faults.provider) {
            return Fault::None;
        }
        if self.chance(self.faults.late) {
            return Fault::DoneLate;
        }
        use Fault as F;
        *self.rng.pick(&[
            F::Throttled,
            F::Unavailable,
            F::Rejected,
            F::NameTaken,
            F::LostNotDone,
            F::LostDone,
            F::LostDone,
            F::TtlDropped,
            F::TypeDropped,
        ])
    }

    fn send_issue(
        &mut self,
        credential: usize,
        generation: u64,
        rotation: RotationId,
        request: IssueRequest,
        fault: Fault,
        half: Ms,
    ) {
        let told = |outcome| Event::Told(credential, generation, Outcome::Issue(rotation, outcome, None));
        let refused = |reason, detail: &str| IssueOutcome::Refused(Failed::new(reason, detail));
        let lost = || IssueOutcome::Unknown(Failed::new(Reason::TimedOut, "no answer"));
        match fault {
            Fault::Throttled => {
                let failed = Failed::new(Reason::Throttled, "429").retry_after(Some(span(30 * SECOND)));
                self.at(half, told(IssueOutcome::Refused(failed)));
            }
            Fault::Unavailable => self.at(half, told(refused(Reason::Unreachable, "no connection"))),
            Fault::Rejected => self.at(half, told(refused(Reason::Rejected, "400"))),
            Fault::NameTaken => self.at(half, told(refused(Reason::NameTaken, "409"))),
            Fault::NoSuchAccount => self.at(half, told(refused(Reason::NoSuchAccount, "404"))),
            Fault::LostNotDone => self.at(self.now + PATIENCE, told(lost())),
            Fault::DoneLate => {
                let until = if self.rng.permille(200) { 50 * MINUTE } else { 2 * MINUTE };
                let at = self.now + PATIENCE + self.rng.between(0, until);
                self.at(self.now + PATIENCE, told(lost()));
                self.at(at, Event::Midway(credential, generation, Effect::Issue { rotation, request, fault }));
            }
            _ => self.at(half, Event::Midway(credential, generation, Effect::Issue { rotation, request, fault })),
        }
    }

    fn revoke_fault(&mut self, account: usize) -> Fault {
        if self.faults.accounts && self.chance(100) {
            self.delete_account(account);
        }
        if self.accounts_gone.contains(&account) {
            return Fault::NoSuchAccount;
        }
        if self.api_down_until > self.now {
            return Fault::LostNotDone;
        }
        if !self.chance(self.faults.provider) {
            return Fault::None;
        }
        if self.chance(self.faults.late) {
            return Fault::DoneLate;
        }
        *self.rng.pick(&[Fault::Throttled, Fault::Unavailable, Fault::LostNotDone, Fault::LostDone])
    }

    fn send_write(&mut self, credential: usize, generation: u64, delivery: &DeliveryId, rotation: RotationId, half: Ms) {
        let process = self.process.as_ref().unwrap();
        let (writer, held) = (process.id, process.hands[credential].get(&rotation).copied());
        let Some(value) = held else {
            return self.violate("S4", format!("{rotation} is to be written, and its value is not in memory"));
        };
        let index = self.places.iter().position(|place| place.id == *delivery).unwrap();
        let place = &self.places[index];
        let (limit, down) = (place.write_limit, place.unwritable_until > self.now);
        let expected = self.actors[credential].read_versions.get(delivery).copied();
        if expected.is_none() {
            return self.violate("S1", format!("`{delivery}` is written without having been read in this turn"));
        }
        let expected = expected.filter(|_| place.conditional);
        let memo = &self.journal.rows[credential].as_ref().unwrap().memo;
        let look = self.actors[credential].looks.get(delivery).and_then(|look| look.value);
        let explained = matches!(place.now().content.shows(), Shows::Value { rotation: Some(_), .. });
        let shown = look
            .filter(|_| explained && look == place.value())
            .and_then(|value| self.tokens.get(value))
            .map(|token| token.name.rotation);
        let back = shown.filter(|shown| memo.reached.get(delivery).is_some_and(|reached| shown < reached));
        let minted = ms_of(rotation.minted_at());
        // Where it never arrived, an earlier one may as well mean that our write failed.
        let back = back.filter(|_| memo.reached.get(delivery).is_some_and(|reached| *reached >= rotation));
        let theirs = look
            .and_then(|value| self.tokens.get(value))
            .is_some_and(|token| token.name.rotation.installation() == InstallationId(0x0bad_cafe));
        if back.is_some()
            && !theirs
            && place.now().author == Author::Person
            && place.now().at > minted + MINUTE
            && memo.recorded.contains(&rotation)
        {
            self.violate(
                "roll-back",
                format!("{rotation} overwrites what a person put back into `{delivery}`, and is not later than that"),
            );
        }
        if self.tokens[value].ended.is_some_and(|(_, by)| by == Ended::ByUs) {
            self.violate("S1", format!("t{value} is written to `{delivery}`, and we have revoked it"));
        }
        let fault = if down {
            *self.rng.pick(&[Fault::Refused, Fault::LostNotDone])
        } else if self.chance(self.faults.sink) {
            if self.chance(self.faults.late) {
                Fault::DoneLate
            } else {
                *self.rng.pick(&[Fault::Refused, Fault::LostNotDone, Fault::LostDone])
            }
        } else {
            Fault::None
        };
        self.never_left.remove(&value);
        self.coverage.meet(fault, During::Write);
        let told = |outcome| Event::Told(credential, generation, Outcome::Write(delivery.clone(), rotation, outcome));
        let unknown = || WriteOutcome::Unknown(Failed::new(Reason::TimedOut, "no answer"));
        let latest = self.now + 3 * limit;
        let effect = Effect::Write { place: index, rotation, value, expected, fault, writer, latest };
        match fault {
            Fault::Refused => self.at(half, told(WriteOutcome::Refused(Failed::new(Reason::Forbidden, "403")))),
            Fault::LostNotDone => self.at(self.now + limit, told(unknown())),
            Fault::LostDone => {
                self.at(half, Event::Midway(credential, generation, effect));
                self.at(self.now + limit, told(unknown()));
            }
            Fault::DoneLate => {
                let ended = self.now + self.rng.between(0, limit);
                let lands = ended + self.rng.between(0, 2 * limit - 1);
                self.at(ended, told(unknown()));
                self.at(lands, Event::Midway(credential, generation, effect));
            }
            _ => self.at(half, Event::Midway(credential, generation, effect)),
        }
    }

    // What truly happens.

    fn midway(&mut self, credential: usize, generation: u64, effect: Effect) {
        let told_at = self.now + self.rng.between(1, 300);
        let outcome = match effect {
            Effect::List(account) => Some(Outcome::List(account, self.list(account))),
            Effect::Read(delivery) => Some(self.look(credential, delivery)),
            Effect::Issue { rotation, request, fault } => self.create(rotation, request, fault),
            Effect::Write { place, rotation, value, expected, fault, writer, latest } => {
                let limit = self.places[place].write_limit;
                let latest = self.died.get(&writer.0).map_or(latest, |died| latest.min(died + 2 * limit));
                self.land(credential, place, rotation, value, expected, fault, latest)
            }
            Effect::Revoke { rotation, index, fault, sent } => self.delete(rotation, index, fault, sent),
        };
        if let Some(outcome) = outcome {
            self.at(told_at, Event::Told(credential, generation, outcome));
        }
    }

    fn list(&mut self, account: usize) -> ListOutcome {
        let failed = |reason, detail: &str| ListOutcome::Failed(Failed::new(reason, detail));
        if self.accounts_gone.contains(&account) {
            self.coverage.meet(Fault::NoSuchAccount, During::List);
            return failed(Reason::NoSuchAccount, "404 NOT_FOUND");
        }
        if self.api_down_until > self.now || self.chance(self.faults.provider) {
            let fault = *self.rng.pick(&[Fault::Throttled, Fault::Unavailable, Fault::Incomplete]);
            self.coverage.meet(fault, During::List);
            return match fault {
                Fault::Throttled => {
                    ListOutcome::Failed(Failed::new(Reason::Throttled, "429").retry_after(Some(span(20 * SECOND))))
                }
                Fault::Unavailable => failed(Reason::Unavailable, "503"),
                _ => failed(Reason::BadAnswer, "a page is missing"),
            };
        }
        let of_account = self.tokens.iter().enumerate().filter(|(_, token)| token.account == account && token.is_live(self.now));
        let (shown, lagging): (Vec<_>, Vec<_>) = of_account.partition(|(_, token)| token.listed_from <= self.now);
        let listed = shown.into_iter().map(|(index, token)| listed(index, token)).collect();
        let fault = if lagging.is_empty() { Fault::None } else { Fault::Lagging };
        self.coverage.meet(fault, During::List);
        ListOutcome::Complete(listed)
    }

    fn look(&mut self, credential: usize, delivery: DeliveryId) -> Outcome {
        let fails = self.chance(self.faults.sink);
        let index = self.places.iter().position(|place| place.id == delivery).unwrap();
        if fails || self.places[index].unreadable_until > self.now {
            self.coverage.meet(Fault::Unreadable, During::Read);
            let failed = ReadOutcome::Failed(Failed::new(Reason::Unavailable, "sealed"));
            return Outcome::Read(delivery, failed, Look { at: self.now, readable: false, value: None }, 0);
        }
        let behind = if self.places[index].lag > 0 { self.rng.between(0, self.places[index].lag) } else { 0 };
        let place = &self.places[index];
        let seen =
            place.versions.iter().rev().find(|version| version.at <= self.now - behind).unwrap_or(&place.versions[0]).clone();
        let lags = seen.number != place.now().number;
        self.coverage.meet(if lags { Fault::Lagging } else { Fault::None }, During::Read);
        let value = if seen.content.scheduled_for_deletion { None } else { seen.content.value };
        self.tell(|| {
            format!(
                "c{credential} `{delivery}` holds {:?}{}",
                value.map(|v| format!("t{v}")),
                if lags { " (as it was)" } else { "" }
            )
        });
        let look = Look { at: self.now, readable: true, value };
        Outcome::Read(delivery, ReadOutcome::Shows(seen.content.shows()), look, seen.number)
    }

    fn create(&mut self, rotation: RotationId, request: IssueRequest, fault: Fault) -> Option<Outcome> {
        let ttl = request.ttl.as_millis() as Ms;
        let expires = if fault == Fault::TtlDropped { NEVER } else { self.now + ttl };
        let token_type = match (fault, request.token_type) {
            (Fault::TypeDropped, TokenType::ReadScaling) => TokenType::ReadWrite,
            (Fault::TypeDropped, TokenType::ReadWrite) => TokenType::ReadScaling,
            (_, asked) => asked,
        };
        let late = if self.chance(100) { self.rng.between(0, 30 * SECOND) } else { 0 };
        let account = account_index(&request.account);
        if self.accounts_gone.contains(&account) {
            return None;
        }
        let index = self.tokens.len();
        self.tokens.push(Token {
            name: request.name,
            account,
            created: self.now,
            expires,
            token_type,
            ended: None,
            listed_from: self.now + late,
        });
        self.tell(|| format!("the API makes t{index} for {rotation} ({fault:?})"));
        if expires < NEVER {
            self.at(expires, Event::Expires(index));
        }
        match fault {
            Fault::DoneLate => None,
            Fault::LostDone => {
                let lost = IssueOutcome::Unknown(Failed::new(Reason::BadAnswer, "the connection broke"));
                Some(Outcome::Issue(rotation, lost, None))
            }
            _ => {
                let issued = IssuedToken { token: listed(index, &self.tokens[index]), fingerprint: fingerprint(index) };
                Some(Outcome::Issue(rotation, IssueOutcome::Issued(issued), Some(index)))
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // one write, as it was sent
    fn land(
        &mut self,
        credential: usize,
        place: usize,
        rotation: RotationId,
        value: usize,
        expected: Option<u64>,
        fault: Fault,
        latest: Ms,
    ) -> Option<Outcome> {
        if self.now > latest {
            return None;
        }
        let owner = self.setup.plans[credential].owner.clone();
        let delivery = self.places[place].id.clone();
        let told = |outcome| (fault == Fault::None).then(|| Outcome::Write(delivery.clone(), rotation, outcome));
        let held = &mut self.places[place];
        if expected.is_some_and(|expected| expected != held.now().number) {
            self.coverage.meet(Fault::Conflict, During::Write);
            return told(WriteOutcome::Conflict);
        }
        if held.now().content.scheduled_for_deletion {
            return told(WriteOutcome::Refused(Failed::new(Reason::Unsuitable, "scheduled for deletion")));
        }
        held.write(self.now, &owner, value, rotation);
        let id = held.id.clone();
        self.tell(|| format!("t{value} lands at `{id}` ({fault:?})"));
        if self.tokens[value].ended.is_some_and(|(_, by)| by == Ended::ByUs) {
            self.violate("S1", format!("t{value} landed at place {place}, and we had revoked it"));
        }
        told(WriteOutcome::Written)
    }

    fn delete(&mut self, rotation: RotationId, index: usize, fault: Fault, sent: Ms) -> Option<Outcome> {
        let failed = |reason, detail: &str| Outcome::Revoke(rotation, RevokeOutcome::Failed(Failed::new(reason, detail)));
        match fault {
            Fault::Throttled => return Some(failed(Reason::Throttled, "429")),
            Fault::Unavailable => return Some(failed(Reason::Unavailable, "503")),
            Fault::NoSuchAccount => return Some(failed(Reason::NoSuchAccount, "404")),
            Fault::LostNotDone => return Some(failed(Reason::TimedOut, "no answer")),
            _ => {}
        }
        if self.tokens[index].is_live(self.now) {
            self.tokens[index].ended = Some((self.now, Ended::ByUs));
            self.tell(|| format!("the API revokes t{index}, as we asked ({fault:?})"));
            let verdict = Scene::revoked(&self.places, index, sent);
            self.judge(verdict);
            if self.recovered {
                self.check_served("after a revocation");
            }
        }
        match fault {
            Fault::DoneLate => None,
            Fault::LostDone => Some(failed(Reason::BadAnswer, "the connection broke")),
            _ => Some(Outcome::Revoke(rotation, RevokeOutcome::Gone)),
        }
    }

    fn told(&mut self, credential: usize, outcome: Outcome) {
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
                    let shown = token.filter(|token| token.name.owner == actor.policy.owner).map(|token| token.name.rotation);
                    actor.memo.looked(&delivery, shown, look.at);
                    actor.memo.settle(actor.policy);
                }
                actor.looks.insert(delivery.clone(), look);
                turn.read(&delivery, outcome, moment);
            }
            Outcome::Issue(rotation, outcome, index) => {
                if let (Some(index), IssueOutcome::Issued(issued)) = (index, &outcome) {
                    let process = self.process.as_mut().unwrap();
                    process.hands[credential].insert(rotation, index);
                    self.never_left.insert(index, process.id);
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
        }
        self.actors[credential].turn = Some(turn);
        self.step(credential);
    }

    // Judging what time brings.

    fn expires(&mut self, index: usize) {
        if self.tokens[index].ended.is_some() {
            return;
        }
        if !self.recovered {
            return self.expires_among_outages(index);
        }
        let serving = self.configured().find(|place| place.value() == Some(index)).map(|place| place.id.clone());
        if let Some(place) = serving {
            self.violate("L1", format!("t{index} expired while `{place}` served it, long after the last fault"));
        }
    }

    /// Where outages are all that goes wrong, a broken delivery keeps no other from its deadline.
    fn expires_among_outages(&mut self, index: usize) {
        let faults = self.setup.faults;
        let chances = faults.crash + faults.save + faults.provider + faults.sink;
        let strikes = faults.hand_revocations || faults.journal || faults.clocks || faults.configuration || faults.accounts;
        if chances > 0 || strikes || faults.second_installation {
            return;
        }
        let Some(place) = self.configured().find(|place| place.value() == Some(index) && place.now().author == Author::Us) else {
            return;
        };
        let policy = self.actors[place.credential].policy;
        let deadline = self.tokens[index].expires - ms_of(stamp(0) + policy.grace + policy.margin());
        let down = place.unreadable_until.max(place.unwritable_until).max(self.api_down_until + HOUR + 5 * MINUTE);
        if down < deadline.max(self.tokens[index].expires - MINUTE) - 5 * MINUTE && place.now().at < deadline {
            let detail = format!("t{index} expired while `{}` served it, and only other places were out of order", place.id);
            self.violate("L1", detail);
        }
    }

    fn configured(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| self.actors[place.credential].policy.deliveries.contains_key(&place.id))
    }

    /// Every configured place serves a live token of its credential.
    fn check_served(&mut self, when: &str) {
        let wrong = self.configured().find(|place| {
            let token = place.value().and_then(|value| self.tokens.get(value));
            let owner = &self.setup.plans[place.credential].owner;
            !token.is_some_and(|token| token.is_live(self.now) && token.name.owner == *owner)
        });
        if let Some(place) = wrong {
            let (id, value) = (place.id.clone(), place.value());
            self.violate("L1", format!("`{id}` serves no live token {when}: {value:?}"));
        }
    }

    fn end(&mut self) {
        self.check_served("at the end");
        for credential in 0..self.actors.len() {
            self.end_of(credential);
        }
    }

    fn end_of(&mut self, credential: usize) {
        let policy = self.actors[credential].policy;
        let Some(row) = self.journal.rows[credential].clone() else {
            return self.violate("L1", format!("c{credential} has no row at the end"));
        };
        if let Some(block) = &row.credential.blocked {
            self.violate("L3", format!("c{credential} is blocked at the end: {} {}", block.reason.as_str(), block.detail));
        }
        let served: BTreeSet<Option<usize>> =
            self.configured().filter(|place| place.credential == credential).map(Place::value).collect();
        if served.len() > 1 {
            // The end may fall into a rotation.
            let young = served.iter().flatten().any(|index| self.now - self.tokens[*index].created < 10 * MINUTE);
            if !young {
                self.violate("L2", format!("c{credential}'s deliveries serve different tokens at the end: {served:?}"));
            }
        }
        let newest_served = served.iter().flatten().max().copied();
        self.check_leaks(credential);
        let patience = patience(policy);
        let every = policy_every(policy);
        let newest = newest_served.map(|index| self.tokens[index].created).unwrap_or_default();
        if self.now - newest > 2 * every + patience && self.violation.is_none() {
            self.violate(
                "L1",
                format!("c{credential}'s newest token is {} h old, due every {} h", (self.now - newest) / HOUR, every / HOUR),
            );
        }
    }

    /// Every recorded token that was superseded for long enough is gone. One that a place may still
    /// serve which is no longer configured is left to expire, and so is one that a rebuild found.
    fn check_leaks(&mut self, credential: usize) {
        let policy = self.actors[credential].policy;
        let Some(row) = &self.journal.rows[credential] else { return };
        let served = self.configured().filter(|place| place.credential == credential).filter_map(Place::value);
        let Some(newest) = served.filter(|value| *value < self.tokens.len()).max() else { return };
        if self.setup.faults.configuration || self.now - self.tokens[newest].created <= patience(policy) {
            return;
        }
        let leaked = self.tokens[..newest].iter().enumerate().find(|(index, token)| {
            let ours = token.name.owner == policy.owner && token.is_live(self.now) && token.expires < NEVER;
            ours && row.memo.recorded.contains(&token.name.rotation) && !self.adopted.contains(index)
        });
        if let Some((index, token)) = leaked {
            let detail = format!("t{index} of {} lives on, superseded for longer than the grace period", token.name.rotation);
            self.violate("L2", detail);
        }
    }

    fn grow_calm(&mut self) {
        self.calm = true;
        self.faults = Faults::NONE;
        self.tell(|| "all faults end, and a person mends what only a person can".to_owned());
        self.mend_as_a_person();
        if self.process.is_none() {
            self.start();
        }
        let longest = self.actors.iter().map(|actor| {
            let policy = actor.policy;
            let ttl = policy.ttl.as_millis() as Ms;
            2 * policy_every(policy).min(ttl) + policy.window.map_or(0, |window| window.as_millis() as Ms)
        });
        let longest = longest.max().unwrap() + 3 * HOUR;
        self.at(self.now + longest, Event::Recovered);
        let patience = self.actors.iter().map(|actor| patience(actor.policy)).max().unwrap();
        self.at(self.now + longest + patience, Event::Swept);
    }
}

impl<'a> Actor<'a> {
    fn new(policy: &'a Policy) -> Self {
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
fn patience(policy: &Policy) -> Ms {
    policy.grace.as_millis() as Ms + policy.sweep_every.as_millis() as Ms + HOUR
}

fn listed(index: usize, token: &Token) -> ListedToken {
    ListedToken {
        id: token_id(index),
        name: Some(token.name.to_string()),
        created_at: stamp(token.created),
        expires_at: (token.expires < NEVER).then(|| stamp(token.expires)),
        token_type: token.token_type,
    }
}

fn during(action: &Action) -> During {
    match action {
        Action::List { .. } => During::List,
        Action::Read { .. } => During::Read,
        Action::Issue { .. } => During::Issue,
        Action::Verify { .. } => During::Verify,
        Action::Write { .. } => During::Write,
        Action::Revoke { .. } => During::Revoke,
        Action::Wait { .. } => During::Wait,
    }
}

fn brief(action: &Action) -> String {
    match action {
        Action::List { account, .. } => format!("list {account}"),
        Action::Read { delivery } => format!("read `{delivery}`"),
        Action::Issue { rotation, .. } => format!("issue {rotation}"),
        Action::Verify { rotation } => format!("verify {rotation}"),
        Action::Write { delivery, rotation } => format!("write {rotation} to `{delivery}`"),
        Action::Revoke { rotation, token, .. } => format!("revoke {token} of {rotation}"),
        Action::Wait { until } => format!("wait until {until}"),
    }
}
