//! One history: starts and ends the daemon's processes, and lets happen what is to happen.
//!
//! The engine and its scheduler are the daemon's own, on one thread, in the runtime's simulated time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rotad::clock::Clock;
use rotad::engine::{BlastRadius, Engine, Handle, Parts, Scheduler, Witness};
use rotad::journal::{CLOCK_MARK, Journal};
use rotad::metrics::Metrics;
use rotad::rotation::{CredentialName, Entry, Moment};
use rotad::snapshot::Board;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::claim::SimRoster;
use super::journal::SimJournal;
use super::matrix::{Class, Fault};
use super::setup::{ORGANIZATIONS, Setup};
use super::world::{Life, Mend, Signal, Sim, World};
use crate::simulator::sim::patience;
use crate::simulator::world::{DAY, HOUR, MINUTE, Ms, SECOND};

/// How often the daemon looks after what it must look after now and then.
const LOOK_AFTER: Ms = 10 * SECOND;

struct Silent;

impl Witness for Silent {
    fn happened(&self, _: &CredentialName, _: &Entry) {}
}

/// One run of the daemon.
pub struct Process {
    pub life: Arc<Life>,
    pub clock: Arc<Clock>,
    pub engine: Arc<Engine>,
    handle: Handle,
    stop: watch::Sender<bool>,
    scheduler: JoinHandle<()>,
}

#[derive(Debug)]
enum Event {
    Start,
    Outside(Fault, usize),
    /// Something is drawn that comes from outside.
    Draw,
    Idle,
    Snapshot,
    LookAfter,
    Expires(usize),
    Mend(Mend),
    Calm,
    Recovered,
    Swept,
    End,
}

pub struct Director {
    pub sim: Arc<Sim>,
    pub process: Option<Process>,
    signals: UnboundedReceiver<Signal>,
    queue: BTreeMap<(Ms, u64), Event>,
    sequence: u64,
    processes: u64,
    /// Shared by all processes, since nothing of them is judged and they are dear to make.
    metrics: Arc<Metrics>,
    /// The next start is not before, since a test holds the daemon down.
    pub held_down: bool,
    pub over: bool,
}

impl Director {
    /// A world before its first process. To be called within the history's runtime.
    pub fn new(setup: Setup, traced: bool) -> Self {
        let setup = Arc::new(setup);
        let (sender, signals) = unbounded_channel();
        let sim = Arc::new(Sim::new(World::new(setup.clone(), traced, sender)));
        let mut director = Self {
            sim,
            process: None,
            signals,
            queue: BTreeMap::new(),
            sequence: 0,
            processes: 0,
            metrics: Arc::new(Metrics::new().unwrap()),
            held_down: false,
            over: false,
        };
        director.at(0, Event::Start);
        director.at(setup.chaos_ends, Event::Calm);
        director.at(setup.ends, Event::End);
        if setup.outside_every.is_some() {
            director.at(1, Event::Draw);
        }
        if !setup.targets.is_empty() {
            director.at(setup.every / 3, Event::Idle);
            director.at(MINUTE, Event::Snapshot);
        }
        director
    }

    fn at(&mut self, at: Ms, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    pub fn now(&self) -> Ms {
        self.sim.time.now()
    }

    /// Lets everything happen until the history is over.
    pub async fn run(&mut self) {
        while !self.over {
            self.advance(Ms::MAX).await;
        }
    }

    /// Lets everything happen that comes before `until`.
    pub async fn advance(&mut self, until: Ms) {
        while !self.over && self.now() < until {
            let next = self.queue.first_key_value().map_or(Ms::MAX, |((at, _), _)| *at).min(until);
            let wait = Duration::from_millis((next - self.now()).max(0) as u64);
            let ended = self.process.as_mut().map(|process| &mut process.scheduler);
            let ended = async {
                match ended {
                    Some(scheduler) => scheduler.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(signal) = self.signals.recv() => self.obey(signal).await,
                outcome = ended => self.scheduler_ended(outcome.is_err()),
                () = tokio::time::sleep(wait) => {}
            }
            self.watch_for_panics();
            while !self.over
                && let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.sim.time.now()
            {
                let event = entry.remove();
                self.happen(event).await;
            }
        }
    }

    fn watch_for_panics(&mut self) {
        if let Some(message) = super::panics::take() {
            self.sim.world().violate("panic", None, message);
            self.over = true;
        }
    }

    async fn obey(&mut self, signal: Signal) {
        match signal {
            Signal::Crashed => {
                self.drop_process();
                let down = self.down_time();
                self.at(self.now() + down, Event::Start);
            }
            Signal::Stop => {
                if let Some(process) = &self.process {
                    process.stop.send_replace(true);
                }
            }
            Signal::Reload => self.reload().await,
            Signal::Later(at, fault, credential) => self.at(at, Event::Outside(fault, credential)),
            Signal::Expires(at, index) => self.at(at, Event::Expires(index)),
            Signal::Mend(at, mend) => self.at(at, Event::Mend(mend)),
            Signal::NewAdminToken => {
                let within = self.sim.world().rng(103).between(0, LOOK_AFTER);
                self.at(self.now() + within, Event::LookAfter);
            }
            Signal::Over => self.over = true,
        }
    }

    fn down_time(&mut self) -> Ms {
        let mut world = self.sim.world();
        // A day is what every credential of a fleet survives, whenever it comes.
        let longest = (world.setup.every / 2).min(DAY);
        let rng = world.class_rng(Class::Crash);
        match rng.below(20) {
            0 => longest,
            1 => 5 * MINUTE,
            _ => rng.between(50, 20 * SECOND),
        }
    }

    fn drop_process(&mut self) {
        if let Some(process) = self.process.take() {
            process.scheduler.abort();
        }
    }

    fn scheduler_ended(&mut self, panicked: bool) {
        self.process = None;
        let mut world = self.sim.world();
        if panicked {
            world.violate("panic", None, "the scheduler panicked".to_owned());
        }
        if let Some(life) = world.life.take() {
            let now = world.now;
            world.died.insert(life.id, now);
            life.dead.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        world.no_process();
        world.tell(None, || "the daemon has stopped".to_owned());
        drop(world);
        let down = self.down_time();
        self.at(self.now() + down, Event::Start);
    }

    /// Starts the daemon as its `start` does: clocks, journal, engine, schedule.
    pub async fn start(&mut self) {
        if self.process.is_some() || self.held_down {
            return;
        }
        self.processes += 1;
        let life = Arc::new(Life { id: self.processes, dead: false.into() });
        let time = self.sim.time.clone();
        let clock = Arc::new(Clock::with_source(Box::new(move || time.reading())));
        let board = Arc::new(Board::new(clock.now()));
        let limits = {
            let mut world = self.sim.world();
            world.life = Some(life.clone());
            let id = life.id;
            world.tell(None, || format!("process {id} starts"));
            (world.setup.rotations_per_minute, world.setup.revocations_per_minute)
        };
        let journal = Arc::new(SimJournal::open(&self.sim, &life, &clock));
        if let Ok(Some(mark)) = journal.fact(CLOCK_MARK).await {
            clock.resume(serde_json::from_str::<Moment>(&mark).unwrap());
        }
        let roster = SimRoster::now(&self.sim, &life, &clock, &board);
        let drawer = self.sim.clone();
        let engine = Arc::new(Engine::new(Parts {
            witness: Arc::new(Silent),
            journal,
            clock: clock.clone(),
            metrics: self.metrics.clone(),
            board,
            limits: BlastRadius::new(limits.0, limits.1),
            random: Box::new(move || drawer.world().rng(102).next()),
        }));
        let (mut scheduler, handle) = Scheduler::new(engine.clone(), roster);
        scheduler.load().await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let scheduler = tokio::spawn(scheduler.run(stopped));
        self.process = Some(Process { life, clock, engine, handle, stop, scheduler });
        self.look_after().await;
    }

    /// The process, unless it has ended in this very moment.
    fn living(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| !process.life.dead.load(std::sync::atomic::Ordering::Relaxed))
    }

    async fn reload(&mut self) {
        let Some(process) = self.living() else { return };
        let roster = SimRoster::now(&self.sim, &process.life, &process.clock, &process.engine.board);
        process.handle.reload(roster).await;
    }

    /// What the daemon looks after: whether an admin token is another one than was proven.
    async fn look_after(&mut self) {
        let Some(process) = self.living() else { return };
        let (engine, mut settled) = (process.engine.clone(), true);
        for (index, organization) in ORGANIZATIONS.iter().enumerate() {
            let admin_token = self.sim.world().admin_token_in_use(index);
            let watched = engine.watch_admin_token(&Arc::from(*organization), admin_token.fingerprint()).await;
            settled &= watched.unwrap_or(false);
        }
        if !settled {
            self.at(self.now() + LOOK_AFTER, Event::LookAfter);
        }
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::Start => self.start().await,
            Event::Outside(fault, credential) => drop(self.sim.world().outside(fault, credential)),
            Event::Draw => self.draw(),
            Event::Idle => self.idle(),
            Event::Snapshot => {
                let mut world = self.sim.world();
                world.take_snapshot();
                let at = world.now + world.setup.every / 3;
                drop(world);
                self.at(at, Event::Snapshot);
            }
            Event::LookAfter => self.look_after().await,
            Event::Expires(index) => self.sim.world().expires(index),
            Event::Mend(mend) => self.sim.world().mend(mend),
            Event::Calm => self.grow_calm(),
            Event::Recovered => {
                let mut world = self.sim.world();
                world.recovered = true;
                world.check_served("after the faults had ended");
            }
            Event::Swept => {
                let mut world = self.sim.world();
                for credential in 0..world.actors.len() {
                    world.check_leaks(credential);
                }
            }
            Event::End => {
                self.sim.world().end();
                self.over = true;
            }
        }
    }

    fn draw(&mut self) {
        let mut world = self.sim.world();
        let Some(mean) = world.setup.outside_every.filter(|_| !world.calm) else { return };
        let size = world.actors.len() as u64;
        let kinds = world.setup.outside.clone();
        let rng = world.rng(103);
        let (fault, credential) = (*rng.pick(&kinds), rng.below(size) as usize);
        // Some come while a turn is likely: shortly after the one before.
        let wait = if rng.permille(300) { rng.between(1, mean / 20) } else { rng.between(1, 2 * mean) };
        if world.now > 1 {
            world.outside(fault, credential);
        }
        let at = world.now + wait;
        drop(world);
        self.at(at, Event::Draw);
    }

    fn idle(&mut self) {
        let mut world = self.sim.world();
        if world.calm {
            return;
        }
        if let Some(fault) = world.idle_target() {
            let size = world.actors.len() as u64;
            let credential = world.rng(103).below(size) as usize;
            world.outside(fault, credential);
        }
        let longest = world.setup.every / 8;
        let at = world.now + world.rng(103).between(1, longest.max(2));
        drop(world);
        self.at(at, Event::Idle);
    }

    fn grow_calm(&mut self) {
        let mut world = self.sim.world();
        world.grow_calm();
        let longest = world.actors.iter().map(|actor| {
            let policy = &actor.policy;
            let (ttl, window) = (policy.ttl.as_millis() as Ms, policy.window.map_or(0, |window| window.as_millis() as Ms));
            2 * actor.gap.min(ttl) + window
        });
        let longest = longest.max().unwrap() + 3 * HOUR;
        let patience = world.actors.iter().map(|actor| patience(&actor.policy)).max().unwrap();
        let (now, lives, strict) = (world.now, world.life.is_some(), world.setup.strict);
        drop(world);
        if !strict {
            self.at(now + longest, Event::Recovered);
            self.at(now + longest + patience, Event::Swept);
            self.queue.retain(|_, event| !matches!(event, Event::End));
            self.at(now + longest + patience + 2 * HOUR, Event::End);
        }
        if !lives {
            self.at(now, Event::Start);
        }
    }
}
