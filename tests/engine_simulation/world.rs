//! The simulated world: true time, what the API and the places hold, the journal's record, and what
//! is known of each credential by whoever judges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rotad::clock::Reading;
use rotad::rotation::{DeliveryId, Fingerprint, FirstConnection, Policy, RotationId, TokenType};
use rotad::secret::Secret;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::blast::Blast;
use super::journal::Record;
use super::matrix::{Class, Fault, Matrix, Step};
use super::setup::Setup;
use crate::simulator::oracle::{Memo, Violation};
use crate::simulator::rng::Rng;
use crate::simulator::setup::account_index;
use crate::simulator::world::{FOREIGN, Ms, Place, SECOND, Token, span, stamp};

/// The most turns of a credential within an hour: more is spinning (L3).
const TURNS_PER_HOUR_MAX: usize = 1500;
/// As many lines of a history as are kept while it is traced.
const TRACE_MAX: usize = 20_000;
/// Since when the simulated machine runs: the boot-time clock's reading at the beginning.
const BOOTED: Ms = 1_000 * SECOND;

/// True time and this machine's clocks: simulated time passes as the runtime's does, and by leaps
/// while the machine is suspended, which the runtime's clock does not count.
#[derive(Debug)]
pub struct Time {
    started: Instant,
    suspended: AtomicI64,
    /// The wall clock minus true time.
    offset: AtomicI64,
}

impl Time {
    pub fn new() -> Self {
        Self { started: Instant::now(), suspended: AtomicI64::new(0), offset: AtomicI64::new(0) }
    }

    pub fn now(&self) -> Ms {
        self.started.elapsed().as_millis() as Ms + self.suspended.load(Ordering::Relaxed)
    }

    pub fn reading(&self) -> Reading {
        let now = self.now();
        Reading { system: stamp(now + self.offset()), boot: span(now + BOOTED) }
    }

    pub fn offset(&self) -> Ms {
        self.offset.load(Ordering::Relaxed)
    }

    pub fn set_offset(&self, offset: Ms) {
        self.offset.store(offset, Ordering::Relaxed);
    }

    pub fn suspend(&self, period: Ms) {
        self.suspended.fetch_add(period, Ordering::Relaxed);
    }
}

/// One run of the daemon, as the world sees it.
#[derive(Debug)]
pub struct Life {
    pub id: u64,
    pub dead: AtomicBool,
}

impl Life {
    /// A process that has ended does nothing any more: whoever asks waits for ever.
    pub async fn gate(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

/// What the director is told by the world.
#[derive(Debug)]
pub enum Signal {
    /// The process has ended; it is started again.
    Crashed,
    /// SIGTERM.
    Stop,
    /// The configuration changed.
    Reload,
    /// This is to happen at a moment that comes.
    Later(Ms, Fault, usize),
    /// A token expires then.
    Expires(Ms, usize),
    /// Someone mends something then.
    Mend(Ms, Mend),
    /// An admin token was replaced: the daemon notices within ten seconds.
    NewAdminToken,
    /// A promise was broken.
    Over,
}

/// What is put right again after a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    Clock,
    Place(usize),
    Account(usize),
    Organization,
    Credential(usize),
    /// A token of another installation is removed.
    Token(usize),
}

/// One credential: its configuration, and what is known of it beside the engine.
pub struct Actor {
    pub policy: Arc<Policy>,
    /// The longest time between two due times.
    pub gap: Ms,
    pub configured: bool,
    /// Its configuration changed, so that tokens may rightly be left to expire.
    pub changed: bool,
    /// Every place that it may be configured with, by index.
    pub places: Vec<usize>,
    pub step: Step,
    /// Of the turn under way.
    pub memo: Memo,
    /// The policy that the turn under way goes by: a reload comes into force with the next one.
    pub turn_policy: Arc<Policy>,
    /// The policy that the next turn goes by.
    pub next_policy: Arc<Policy>,
    /// Values that the process holds for it.
    pub hands: BTreeMap<RotationId, usize>,
    pub turns: VecDeque<Ms>,
    pub turned_at: Ms,
    /// The clocks were frozen when the intent under way was saved.
    pub frozen: bool,
    pub intended_at: Ms,
}

pub struct World {
    pub now: Ms,
    pub time: Arc<Time>,
    pub setup: Arc<Setup>,
    rngs: BTreeMap<u8, Rng>,
    pub tokens: Vec<Token>,
    fingerprints: Vec<Fingerprint>,
    live: BTreeMap<usize, Vec<usize>>,
    pub places: Vec<Place>,
    pub place_of: BTreeMap<DeliveryId, usize>,
    pub actors: Vec<Actor>,
    pub record: Record,
    pub snapshots: Vec<Record>,
    pub journal_broken_until: Ms,
    pub life: Option<Arc<Life>>,
    pub died: BTreeMap<u64, Ms>,
    /// Tokens whose value never left the process that issued them.
    pub never_left: BTreeMap<usize, u64>,
    pub adopted: BTreeSet<usize>,
    /// Accounts whose read-scaling tokens work.
    pub connected: BTreeSet<usize>,
    /// Rotations whose tokens are there to connect with, and for nothing else.
    pub set_ups: BTreeSet<RotationId>,
    pub accounts_gone: BTreeSet<usize>,
    /// The organization whose admin token is another one's.
    pub wrong_organization: Option<usize>,
    pub wrong_since: Ms,
    /// How many other organizations there were: each wrong admin token is one of its own.
    pub others: usize,
    /// The engine was told that this organization's admin token is another one.
    pub flagged: BTreeSet<usize>,
    pub api_down_until: Ms,
    /// The last list lacked a token that is not shown yet.
    pub lagged: bool,
    /// By target: how often it may still come, and not before when.
    targets: Vec<(Fault, Step, u32, Ms)>,
    /// What a test wants to happen the next times that a step comes, for one credential or for any.
    pub script: Vec<(Step, Option<usize>, Fault, u32)>,
    /// Every call, while the history is traced.
    pub calls: Vec<(Ms, usize, Step)>,
    /// Everything works, and what only a person can mend is mended.
    pub calm: bool,
    /// Everything has worked for long enough that nothing may expire.
    pub recovered: bool,
    pub matrix: Matrix,
    pub blast: Blast,
    pub violation: Option<Violation>,
    pub hash: u64,
    pub turns: u64,
    pub rotations: u64,
    pub busiest_hour: usize,
    pub most_live: usize,
    pub traced: bool,
    pub trace: VecDeque<(Option<usize>, String)>,
    pub signals: UnboundedSender<Signal>,
}

/// The world, shared by everything that is simulated.
pub struct Sim {
    pub time: Arc<Time>,
    world: Mutex<World>,
}

impl Sim {
    pub fn new(world: World) -> Self {
        Self { time: world.time.clone(), world: Mutex::new(world) }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap();
        world.now = self.time.now();
        world
    }
}

/// What comes with a call: the fault that it meets, and how long it takes there and back.
#[derive(Debug, Clone, Copy)]
pub struct Met {
    pub fault: Option<Fault>,
    pub there: Ms,
    pub back: Ms,
}

impl World {
    pub fn new(setup: Arc<Setup>, traced: bool, signals: UnboundedSender<Signal>) -> Self {
        let actors = setup.plans.iter().map(|plan| Actor {
            policy: plan.policy.clone(),
            gap: plan.gap,
            configured: true,
            changed: false,
            places: plan.places.clone(),
            step: Step::Idle,
            memo: Memo::default(),
            turn_policy: plan.policy.clone(),
            next_policy: plan.policy.clone(),
            hands: BTreeMap::new(),
            turns: VecDeque::new(),
            turned_at: 0,
            frozen: true,
            intended_at: 0,
        });
        let actors = actors.collect();
        let place_of = setup.places.iter().enumerate().map(|(index, place)| (place.id.clone(), index)).collect();
        let targets = setup.targets.iter().map(|(fault, step)| (*fault, *step, setup.injections, 0)).collect();
        let installation = Rng::new(setup.seed ^ 0xabcd).next() as u32;
        Self {
            now: 0,
            time: Arc::new(Time::new()),
            rngs: BTreeMap::new(),
            tokens: Vec::new(),
            fingerprints: Vec::new(),
            live: BTreeMap::new(),
            places: setup.places.clone(),
            place_of,
            actors,
            record: Record::new(installation, 0),
            snapshots: Vec::new(),
            journal_broken_until: 0,
            life: None,
            died: BTreeMap::new(),
            never_left: BTreeMap::new(),
            adopted: BTreeSet::new(),
            connected: setup.plans.iter().filter_map(|plan| connected_by_a_person(&plan.policy)).collect(),
            set_ups: BTreeSet::new(),
            accounts_gone: BTreeSet::new(),
            wrong_organization: None,
            wrong_since: 0,
            others: 0,
            flagged: BTreeSet::new(),
            api_down_until: 0,
            lagged: false,
            targets,
            script: Vec::new(),
            calls: Vec::new(),
            calm: false,
            recovered: setup.strict,
            matrix: Matrix::default(),
            blast: Blast::new(setup.rotations_per_minute, setup.revocations_per_minute),
            violation: None,
            hash: 0xcbf2_9ce4_8422_2325,
            turns: 0,
            rotations: 0,
            busiest_hour: 0,
            most_live: 0,
            traced,
            trace: VecDeque::new(),
            signals,
            setup,
        }
    }

    /// Random numbers of one kind: a class of faults that is switched off draws none, and leaves the others'.
    pub fn rng(&mut self, stream: u8) -> &mut Rng {
        let seed = self.setup.seed;
        self.rngs.entry(stream).or_insert_with(|| Rng::new(seed.wrapping_mul(0x1_0001).wrapping_add(u64::from(stream) << 48)))
    }

    pub fn class_rng(&mut self, class: Class) -> &mut Rng {
        self.rng(class as u8)
    }

    pub fn latency_rng(&mut self) -> &mut Rng {
        self.rng(100)
    }

    fn steering_rng(&mut self) -> &mut Rng {
        self.rng(101)
    }

    pub fn fold(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn tell(&mut self, credential: Option<usize>, line: impl FnOnce() -> String) {
        if !self.traced {
            return;
        }
        if self.trace.len() >= TRACE_MAX {
            self.trace.pop_front();
        }
        let who = credential.map_or(String::new(), |index| format!("c{index} "));
        let text = format!("{} {who}{}", crate::simulator::clock(self.now), line());
        self.trace.push_back((credential, text));
    }

    pub fn violate(&mut self, promise: &'static str, credential: Option<usize>, detail: String) {
        if let Some(index) = credential.filter(|_| self.traced) {
            let held = self.record.in_words(&self.actors[index].policy.owner.credential);
            self.tell(credential, || format!("the journal holds {held}"));
        }
        self.tell(credential, || format!("BROKEN {promise}: {detail}"));
        if self.violation.is_none() && !self.setup.ignored.contains(&promise) {
            self.violation = Some(Violation { promise, detail, at: self.now });
            // The director may have ended already.
            let _ = self.signals.send(Signal::Over);
        }
    }

    pub fn judge(&mut self, credential: usize, verdict: Result<(), (&'static str, String)>) {
        if let Err((promise, detail)) = verdict {
            self.violate(promise, Some(credential), format!("c{credential}: {detail}"));
        }
    }

    pub fn signal(&self, signal: Signal) {
        let _ = self.signals.send(signal);
    }

    // Calls.

    /// A call begins: what it meets. An outside change may come with it.
    pub fn meet(&mut self, step: Step, credential: usize) -> Met {
        self.actors[credential].step = step;
        let now = self.now as u64;
        self.fold(now);
        self.fold(((credential as u64) << 8) | step as u64);
        let slowest = if step.is_save() || step == Step::Load { 5 } else { self.setup.slowest };
        let there = self.latency_rng().between(1, slowest);
        let back = self.latency_rng().between(1, slowest);
        let mut met = Met { fault: None, there, back };
        if self.traced {
            self.calls.push((self.now, credential, step));
        }
        if self.calm {
            return met;
        }
        met.fault = self.scripted(step, credential);
        if met.fault.is_none() {
            met.fault = self.steered(step, credential, &met).or_else(|| self.drawn(step));
        }
        if let Some(fault) = met.fault {
            self.matrix.meet(fault, step);
            self.tell(Some(credential), || format!("{} meets {fault:?}", step.title()));
            if fault == Fault::Slow {
                let most = if step == Step::Write { 4 * SECOND } else { 20 * SECOND };
                met.there += self.latency_rng().between(SECOND, most);
            }
        }
        met
    }

    fn scripted(&mut self, step: Step, credential: usize) -> Option<Fault> {
        let fits = |(at, of, _, left): &&mut (Step, Option<usize>, Fault, u32)| {
            *at == step && *left > 0 && of.is_none_or(|of| of == credential)
        };
        let (_, _, fault, left) = self.script.iter_mut().find(fits)?;
        *left -= 1;
        Some(*fault)
    }

    /// The faults that this history is about, where they belong.
    fn steered(&mut self, step: Step, credential: usize, met: &Met) -> Option<Fault> {
        let mut fault = None;
        for index in 0..self.targets.len() {
            let (wanted, at, left, not_before) = self.targets[index];
            if at != step || left == 0 || not_before > self.now || self.is_off(wanted.class(step)) {
                continue;
            }
            if !self.steering_rng().permille(600) {
                continue;
            }
            if wanted.is_outside() {
                // At the begin of the call, or while it is under way.
                if self.steering_rng().permille(500) {
                    if !self.outside(wanted, credential) {
                        continue;
                    }
                } else {
                    let at = self.now + self.steering_rng().between(0, met.there + met.back);
                    self.signal(Signal::Later(at, wanted, credential));
                }
            } else if fault.is_none() {
                fault = Some(wanted);
            } else {
                continue;
            }
            let pause = self.setup.pause_after(wanted);
            self.targets[index].2 -= 1;
            self.targets[index].3 = self.now + pause;
        }
        fault
    }

    /// A fault by chance, of those that can come here.
    fn drawn(&mut self, step: Step) -> Option<Fault> {
        use Fault as F;
        let rates = self.setup.rates;
        if step.is_asked_of_the_api() && self.api_down_until > self.now {
            return Some(if step == Step::Issue || step == Step::Revoke { F::TimedOutNotDone } else { F::Unavailable });
        }
        if step.is_save() && self.journal_broken_until > self.now {
            return Some(F::JournalUnwritable);
        }
        if rates.crash > 0 && !self.is_off(Class::Crash) && self.class_rng(Class::Crash).permille(rates.crash) {
            let fault = *self.class_rng(Class::Crash).pick(&[F::CrashBefore, F::CrashUnderWay, F::CrashAfter]);
            return fault.cannot(step).is_none().then_some(fault);
        }
        let class = if step.is_save() || step == Step::Load {
            Class::Journal
        } else if step.is_asked_of_the_api() {
            Class::Api
        } else {
            Class::Sink
        };
        let rate = match class {
            Class::Journal => rates.journal,
            Class::Api => rates.api,
            _ => rates.sink,
        };
        if rate == 0 || self.is_off(class) || !self.class_rng(class).permille(rate) {
            return None;
        }
        let fits: &[Fault] = match class {
            Class::Journal => &[F::JournalUnwritable],
            _ => &[
                F::Throttled,
                F::ThrottledUntil,
                F::Unavailable,
                F::Unauthorized,
                F::Unreachable,
                F::TimedOutNotDone,
                F::TimedOutDone,
                F::DoneLate,
                F::Slow,
                F::Rejected,
                F::NameTaken,
                F::TtlDropped,
                F::TypeDropped,
                F::PageMissing,
            ],
        };
        let fault = *self.class_rng(class).pick(fits);
        fault.cannot(step).is_none().then_some(fault)
    }

    pub fn is_off(&self, class: Class) -> bool {
        self.setup.off.contains(&class)
    }

    /// A target for the time between two turns, if this history has one that may come now.
    pub fn idle_target(&mut self) -> Option<Fault> {
        let now = self.now;
        let ready: Vec<usize> = (0..self.targets.len())
            .filter(|index| {
                let (fault, step, left, not_before) = self.targets[*index];
                step == Step::Idle && left > 0 && not_before <= now && !self.is_off(fault.class(step))
            })
            .collect();
        if ready.is_empty() {
            return None;
        }
        let index = *self.steering_rng().pick(&ready);
        let fault = self.targets[index].0;
        self.targets[index].2 -= 1;
        self.targets[index].3 = now + self.setup.pause_after(fault);
        Some(fault)
    }

    /// The process ends at this very moment.
    pub fn crash(&mut self) {
        let Some(life) = self.life.take() else { return };
        life.dead.store(true, Ordering::Relaxed);
        let now = self.now;
        self.tell(None, || format!("process {} ends", life.id));
        self.died.insert(life.id, now);
        self.no_process();
        self.signal(Signal::Crashed);
    }

    /// What a process held is gone with it.
    pub fn no_process(&mut self) {
        for actor in &mut self.actors {
            actor.hands.clear();
            actor.step = Step::Idle;
        }
    }

    /// A turn begins.
    pub fn begin_turn(&mut self, credential: usize, memo: Memo) {
        self.turns += 1;
        let now = self.now;
        let actor = &mut self.actors[credential];
        actor.memo = memo;
        actor.turn_policy = actor.next_policy.clone();
        actor.turned_at = now;
        actor.turns.push_back(now);
        while actor.turns.front().is_some_and(|at| *at <= now - 3600 * SECOND) {
            actor.turns.pop_front();
        }
        let busy = actor.turns.len();
        self.busiest_hour = self.busiest_hour.max(busy);
        if busy > TURNS_PER_HOUR_MAX {
            self.violate("L3", Some(credential), format!("c{credential} had {busy} turns within an hour"));
        }
    }

    // Tokens.

    pub fn add_token(&mut self, token: Token) -> usize {
        let index = self.tokens.len();
        self.live.entry(token.account).or_default().push(index);
        self.tokens.push(token);
        self.fingerprints.push(value(index).fingerprint());
        index
    }

    /// The live tokens of an account, oldest first.
    pub fn live_of(&mut self, account: usize) -> Vec<usize> {
        let (now, tokens) = (self.now, &self.tokens);
        let Some(known) = self.live.get_mut(&account) else { return Vec::new() };
        known.retain(|index| tokens[*index].is_live(now));
        known.clone()
    }

    pub fn fingerprint(&self, value: usize) -> Fingerprint {
        self.fingerprints.get(value).copied().unwrap_or_else(|| self::value(value).fingerprint())
    }
}

/// Who says in the configuration that an account was connected to has done it.
pub fn connected_by_a_person(policy: &Policy) -> Option<usize> {
    let done = policy.first_connection == FirstConnection::NotNeeded && policy.token_type == TokenType::ReadScaling;
    done.then(|| account_index(&policy.account))
}

/// The text of the value with this index: a token's, or what a person put.
pub fn value(index: usize) -> Secret {
    let kind = if index >= FOREIGN { "foreign" } else { PLANTED };
    Secret::new(format!("{kind}-{index:012}"))
}

/// What every simulated token's value begins with: it must never be found in the journal.
pub const PLANTED: &str = "planted-token-value";
