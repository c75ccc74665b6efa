//! One turn of the real core in one state, with the environment's choices made by a `Chooser`.

use std::collections::BTreeMap;

use rotad::rotation::{Action, Conditions, DeliveryId, InstallationId, Limits, Policy, Turn};

use super::chooser::{Alternative, Chooser};
use super::faults::Kind;
use super::state::{Flight, Journal, Model, Row, SWEEP, Site, State};
use crate::simulator::in_words;
use crate::simulator::oracle::{Look, Memo, Scene, Violation};
use crate::simulator::world::{MINUTE, Ms, SECOND, ms_of};

/// How soon the next process begins after a crash.
pub const RESTART: Ms = SECOND;
/// Turns take some ten actions; one that never ends is a fault of the core or of the model.
const ACTIONS_MAX: u32 = 450;

/// One turn, or what stands in its place: a wait that a call ends, a start.
pub struct Run<'m, 'c> {
    pub model: &'m Model,
    pub state: State,
    pub chooser: Chooser<'c>,
    /// The faults of this turn, in their order.
    pub met: Vec<Kind>,
    pub landed: bool,
    pub violation: Option<Violation>,
    pub actions: u64,
    pub trace: Option<Vec<String>>,
}

/// What one turn knows beside the core.
pub struct Turning<'m> {
    pub site: usize,
    pub policy: &'m Policy,
    pub memo: Memo,
    /// The journal as the turn found it.
    pub before: Option<Row>,
    pub looks: BTreeMap<DeliveryId, Look>,
    pub versions: BTreeMap<DeliveryId, u64>,
    pub listed: bool,
    /// The last action changed the world, or this is the first.
    pub fresh: bool,
    pub first: bool,
}

struct NoLimits;

impl Limits for NoLimits {
    fn rotation(&mut self, _: jiff::Timestamp, _: bool) -> Result<(), jiff::Timestamp> {
        Ok(())
    }

    fn revocation(&mut self, _: jiff::Timestamp) -> Result<(), jiff::Timestamp> {
        Ok(())
    }
}

impl<'m, 'c> Run<'m, 'c> {
    pub fn new(model: &'m Model, state: State, chooser: Chooser<'c>) -> Self {
        Self { model, state, chooser, met: Vec::new(), landed: false, violation: None, actions: 0, trace: None }
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("  {} {}", crate::simulator::clock(self.state.now), line()));
        }
    }

    pub fn violate(&mut self, promise: &'static str, detail: String) {
        if self.violation.is_none() && !self.model.ignored.contains(&promise) {
            self.violation = Some(Violation { promise, detail, at: self.state.now });
        }
    }

    pub fn judge(&mut self, verdict: Result<(), (&'static str, String)>) {
        if let Err((promise, detail)) = verdict {
            self.violate(promise, detail);
        }
    }

    /// Runs the turn that comes first.
    pub fn go(&mut self) {
        let site = (0..self.state.sites.len()).min_by_key(|site| self.state.sites[*site].wake).unwrap();
        self.advance(self.state.sites[site].wake);
        if self.state.sites[site].process.is_none() {
            self.tell(|| format!("a process of installation {} starts", site + 1));
            let now = self.state.now;
            self.state.sites[site].start(now);
        }
        while self.violation.is_none() && self.turn(site) {}
        self.judge_count();
        self.judge_forgotten();
    }

    /// S5, S6: no fault costs more than one token beside the current one, the retiring one and one more
    /// where a late rotation came shortly before the next due time. What the journal did not record
    /// is left to expire, and is not counted.
    fn judge_count(&mut self) {
        let (model, state) = (self.model, &self.state);
        let faults = (model.faults - state.faults_left) + (model.takeovers - state.takeovers_left);
        let live = |row: &Row| {
            let tokens = state.tokens.iter().filter(|token| token.is_live(state.now));
            tokens.filter(|token| row.memo.recorded.contains(&token.name.rotation)).count()
        };
        let most = state.sites.iter().filter_map(|site| site.journal.row.as_ref()).map(live).max().unwrap_or(0);
        if model.faults < u8::MAX && most > 3 + usize::from(faults) {
            self.violate("S5", format!("{most} recorded tokens live after {faults} faults"));
        }
    }

    /// L2: what the journal recorded and lives is in the journal still.
    fn judge_forgotten(&mut self) {
        let now = self.state.now;
        let forgotten = self.state.sites.iter().filter_map(|site| site.journal.row.as_ref()).find_map(|row| {
            let ids = self.state.tokens.iter().filter(|token| token.is_live(now)).map(|token| token.name.rotation);
            ids.into_iter().find(|id| row.memo.recorded.contains(id) && !row.credential.rotations.contains_key(id))
        });
        if let Some(id) = forgotten {
            self.violate("L2", format!("the token of {id} lives, and nothing looks for it any more"));
        }
    }

    /// Lets time pass. A call that lands during that time may, and no call lands after its time.
    pub fn advance(&mut self, to: Ms) {
        while let Some(index) = self.state.flights.iter().position(|flight| flight.until < to) {
            let until = self.state.flights[index].until;
            let lands = self.chooser.choose(&[Alternative::Nothing, Alternative::Lands(index)]);
            self.state.now = self.state.now.max(until);
            match lands {
                Alternative::Lands(_) => self.land(index),
                _ => drop(self.state.flights.remove(index)),
            }
        }
        self.state.now = self.state.now.max(to);
    }

    /// One turn; `true` when another begins at once.
    fn turn(&mut self, site: usize) -> bool {
        let model = self.model;
        let now = self.state.now;
        let held = &self.state.sites[site];
        let policy = &model.policies[held.config];
        let process = held.process.as_ref().unwrap();
        let stored = held.journal.row.as_ref().map(|row| row.credential.clone());
        let in_hand = process.hands.keys().copied().collect();
        let mut memo = held.memo();
        // A place that was taken out and comes back is a new one: what it once showed is not held against it.
        memo.reached.retain(|place, _| policy.deliveries.contains_key(place));
        let mut turning = Turning {
            site,
            policy,
            memo,
            before: held.journal.row.clone(),
            looks: BTreeMap::new(),
            versions: BTreeMap::new(),
            listed: false,
            fresh: true,
            first: true,
        };
        let mut turn = Turn::begin(stored, policy, held.facts(), in_hand, process.clock.moment(now));
        for _ in 0..ACTIONS_MAX {
            self.actions += 1;
            let process = self.state.sites[site].process.as_ref().unwrap();
            let conditions = Conditions { frozen: process.clock.frozen, ..Conditions::default() };
            let action = turn.next(process.clock.moment(self.state.now), 0, &conditions, &mut NoLimits);
            match self.before(&mut turning, &mut turn, &action, &conditions) {
                Ended::Not => {}
                Ended::Over => return false,
                Ended::BeginAnew => return true,
            }
            if self.violation.is_some() {
                return false;
            }
            turning.first = false;
            turning.fresh = is_effect(&action);
        }
        self.violate("L3", format!("a turn took {ACTIONS_MAX} actions"));
        false
    }

    /// What happens outside before the action, then the action.
    fn before(&mut self, turning: &mut Turning<'m>, turn: &mut Turn<'_>, action: &Action, conditions: &Conditions) -> Ended {
        let site = turning.site;
        let strike = loop {
            let alternatives = self.alternatives(turning, action);
            let picked = if alternatives.len() > 1 { self.chooser.choose(&alternatives) } else { Alternative::Nothing };
            match picked {
                Alternative::Nothing => break None,
                Alternative::Lands(index) => self.land(index),
                Alternative::TakeOver => {
                    self.state.takeovers_left -= 1;
                    self.tell(|| "another process takes over from here".to_owned());
                    if !is_effect(action) {
                        self.die(site, RESTART);
                        return Ended::Over;
                    }
                    break Some(Kind::CrashInFlight);
                }
                Alternative::Newcomer => self.begin_another_installation(),
                Alternative::Fault(fault) => {
                    self.state.faults_left -= u8::from(self.model.faults < u8::MAX);
                    self.met.push(fault.kind);
                    self.tell(|| format!("FAULT {fault:?}"));
                    match self.outside(turning, fault) {
                        Outside::GoesOn => {}
                        Outside::Strikes => break Some(fault.kind),
                        Outside::Dies(away) => {
                            self.die(site, away);
                            return Ended::Over;
                        }
                        Outside::BeginsAnew => return Ended::BeginAnew,
                    }
                }
            }
            if self.violation.is_some() {
                return Ended::Over;
            }
        };
        self.save(turning, turn, action);
        if let Action::Wait { until } = action {
            if strike == Some(Kind::CrashAfterSave) {
                self.die(site, RESTART);
                return Ended::Over;
            }
            self.rest(site, turn, ms_of(*until));
            return Ended::Over;
        }
        self.carry_out(turning, turn, action, conditions, strike)
    }

    fn save(&mut self, turning: &mut Turning<'m>, turn: &mut Turn<'_>, action: &Action) {
        let site = turning.site;
        turning.memo.settle(turning.policy);
        if let Action::Issue { rotation, .. } = action {
            let scene = self.scene(turning);
            let verdict = scene.mint(*rotation);
            self.judge(verdict);
            turning.memo.recorded.insert(*rotation);
        }
        if let Action::Write { rotation, .. } = action {
            turning.memo.attempted.insert(*rotation);
        }
        let held = &mut self.state.sites[site];
        if matches!(action, Action::Issue { .. }) {
            let before = turning.before.clone();
            held.backup = before.map(|row| Box::new(Journal { row: Some(row), ..held.journal.clone() }));
        }
        let clock = &held.process.as_ref().unwrap().clock;
        let (moment, frozen) = (clock.moment(self.state.now), clock.frozen);
        let Some((credential, entries)) = turn.unsaved() else { return };
        held.journal.row = Some(Row { credential: credential.clone(), memo: turning.memo.clone() });
        if !frozen {
            held.journal.mark = moment;
        }
        for entry in entries {
            self.tell(|| format!("  journal: {}", in_words(entry)));
        }
    }

    fn rest(&mut self, site: usize, turn: &Turn<'_>, until: Ms) {
        let now = self.state.now;
        if until <= now || until > now + SWEEP.max(10 * MINUTE) + SECOND {
            return self
                .violate("L3", format!("it waits for {} s, the sweep is every {} s", (until - now) / SECOND, SWEEP / SECOND));
        }
        let keeps = turn.keeps();
        let held = &mut self.state.sites[site];
        held.process.as_mut().unwrap().hands.retain(|id, _| Some(*id) == keeps);
        held.wake = until;
        self.tell(|| {
            let blocked = turn.credential().blocked.as_ref().map(|block| format!(", blocked: {}", block.reason.as_str()));
            format!("waits {:.1} s{}", (until - now) as f64 / 1000.0, blocked.unwrap_or_default())
        });
    }

    /// The process ends now; the next one begins after `away`. What it sent may land for as long as
    /// the design says.
    pub fn die(&mut self, site: usize, away: Ms) {
        let now = self.state.now;
        self.tell(|| format!("the process dies; the next one comes {} s later", away / SECOND));
        self.state.sites[site].process = None;
        self.state.sites[site].wake = now + away;
        for flight in self.state.flights.iter_mut().filter(|flight| flight.site == site) {
            flight.until = flight.until.min(now + Self::late_by(&flight.call, &self.state.places));
        }
    }

    /// A second daemon under our name, with a journal of its own, at the same account and places.
    fn begin_another_installation(&mut self) {
        self.state.newcomers_left -= 1;
        self.tell(|| "another installation under the same name begins".to_owned());
        let newest = self.state.sites.iter().map(|site| site.journal.installation.0).max().unwrap();
        let begins = self.state.now + RESTART;
        let config = self.state.sites[0].config;
        self.state.sites.push(Site { config, ..Site::new(InstallationId(newest + 1), begins) });
    }

    pub fn scene<'s>(&'s self, turning: &'s Turning<'m>) -> Scene<'s> {
        let process = self.state.sites[turning.site].process.as_ref().unwrap();
        Scene {
            credential: 0,
            now: self.state.now,
            policy: turning.policy,
            memo: &turning.memo,
            tokens: &self.state.tokens,
            places: &self.state.places,
            looks: &turning.looks,
            listed: turning.listed,
            frozen: process.clock.frozen,
            in_hand: &process.hands,
            another_organization: false,
            unseen: false,
            own: None,
            permitted: true,
        }
    }

    pub fn send(&mut self, flight: Flight) {
        self.tell(|| format!("  {:?} is under way until {}", flight.call, crate::simulator::clock(flight.until)));
        self.state.flights.push(flight);
    }
}

/// Whether the turn is over.
pub enum Ended {
    Not,
    Over,
    /// The configuration changed: another turn begins at once.
    BeginAnew,
}

/// What a fault from outside leads to.
pub enum Outside {
    GoesOn,
    /// It strikes the action that is about to begin.
    Strikes,
    Dies(Ms),
    BeginsAnew,
}

/// Whether the action changes the world.
pub fn is_effect(action: &Action) -> bool {
    matches!(action, Action::Issue { .. } | Action::Write { .. } | Action::Revoke { .. })
}

pub fn brief(action: &Action) -> String {
    crate::simulator::sim::brief(action)
}
