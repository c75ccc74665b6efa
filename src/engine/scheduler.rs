//! Wakes what is due, runs a bounded number of turns, never two of one credential, and drains at
//! the end. It knows times and names only; what a turn does is the core's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::worker::{Ended, take_turn};
use super::{Engine, Ordered, Roster};
use crate::clock::Freeze;
use crate::fail_point::{self, Point};
use crate::journal::JournalError;
use crate::rotation::CredentialName;
use crate::snapshot::{FreezeReason, Summary, tokens_until};

/// Turns at once. Each waits for the network most of its time; the API's own limit is far lower.
const WORKERS: usize = 64;
/// The longest sleep, so that a suspend or a clock step is noticed within a minute.
const SLEEP_MAX: SignedDuration = SignedDuration::from_mins(1);
/// How many credentials are first looked at in a second after a start.
const START_PER_SECOND: i64 = 20;
/// How many rows are read from the journal at once.
const LOAD_PORTION: usize = 1000;
/// The most lines of the history that are looked at for what began within the last minute: more than a
/// thousand rotations make.
const RECALL_MAX: usize = 10_000;
/// How often the clocks are compared with the API while they disagree, and otherwise.
const COMPARE_FROZEN: SignedDuration = SignedDuration::from_secs(10);
const COMPARE: SignedDuration = SignedDuration::from_hours(1);
/// How long a renamed credential waits before it looks again whether the turn under its earlier name has ended.
const RENAME_WAIT: SignedDuration = SignedDuration::from_millis(250);
/// How long a stop waits for turns under way: within the 20 s that a SIGTERM may take.
const DRAIN_MAX: std::time::Duration = std::time::Duration::from_secs(15);

/// What the scheduler is told from outside.
pub enum Command {
    /// Another configuration is in force.
    Reload(Arc<dyn Roster>),
    /// A person orders something at a credential.
    Order(CredentialName, Ordered),
}

/// The way to tell it.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Command>);

impl Handle {
    pub async fn reload(&self, roster: Arc<dyn Roster>) {
        // A scheduler that has ended needs no configuration.
        let _ = self.0.send(Command::Reload(roster)).await;
    }

    /// Brings an order to its credential's next turn, which is at once. The answer comes when it is recorded; it is
    /// dropped when that can't be.
    pub async fn order(&self, credential: CredentialName, ordered: Ordered) {
        let _ = self.0.send(Command::Order(credential, ordered)).await;
    }
}

/// One credential's place in the schedule.
#[derive(Debug, Clone, Copy)]
struct Slot {
    wake_at: Timestamp,
    /// Due work goes by this.
    deadline_at: Timestamp,
    due_at: Option<Timestamp>,
    running: bool,
    /// Woken while running: runs again at once.
    again: bool,
    /// Has something that a freeze of the clocks holds up.
    held_up: bool,
    /// Had its first turn since the start.
    swept: bool,
    /// Let go while its turn is under way: it goes when that ends, so that it never has two if it comes back before.
    let_go: bool,
}

/// The schedule of every configured credential.
pub struct Scheduler {
    engine: Arc<Engine>,
    roster: Arc<dyn Roster>,
    commands: mpsc::Receiver<Command>,
    slots: BTreeMap<CredentialName, Slot>,
    /// Idle credentials by the time that they wake at.
    asleep: BTreeSet<(Timestamp, CredentialName)>,
    /// Due credentials by deadline, until a worker is free.
    ready: BTreeSet<(Timestamp, CredentialName)>,
    turns: JoinSet<(CredentialName, Ended)>,
    unswept: usize,
    was_frozen: bool,
    compared_at: Option<Timestamp>,
    clock_jumps: u64,
}

impl Scheduler {
    pub fn new(engine: Arc<Engine>, roster: Arc<dyn Roster>) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(16);
        let scheduler = Self {
            engine,
            roster,
            commands,
            slots: BTreeMap::new(),
            asleep: BTreeSet::new(),
            ready: BTreeSet::new(),
            turns: JoinSet::new(),
            unswept: 0,
            was_frozen: true,
            compared_at: None,
            clock_jumps: 0,
        };
        (scheduler, Handle(sender))
    }

    /// Reads the journal and shows what it knows of the configured credentials.
    ///
    /// # Errors
    /// The journal's, when a row can't be read.
    pub async fn load(&mut self) -> Result<(), JournalError> {
        let now = self.engine.clock.now().wall;
        let recent = self.engine.journal.history(None, RECALL_MAX).await?;
        self.engine.limits().recall(&recent);
        let names: BTreeSet<CredentialName> = self.roster.names().into_iter().collect();
        let (mut known, mut shown) = (BTreeMap::new(), Vec::new());
        let mut after = None;
        loop {
            let portion = self.engine.journal.load_after(after.as_ref(), LOAD_PORTION).await?;
            let Some((last, _)) = portion.last() else { break };
            after = Some(last.clone());
            for (name, row) in portion {
                // The configuration's own name, so that there is one copy of each.
                let Some(name) = names.get(&name).cloned() else {
                    if let Some(until) = row.read_state().ok().and_then(|state| tokens_until(&state, now)) {
                        self.engine.board.let_go(name, until);
                    }
                    continue;
                };
                let summary = row.read_state().ok().and_then(|state| {
                    let member = self.roster.member(&name)?;
                    Some(super::summarize(&state, &member.policy, member.organization, now))
                });
                shown.extend(summary.map(|summary| (name.clone(), summary)));
                known.insert(name, row.wake_at);
            }
        }
        self.engine.board.put_all(shown);
        self.configure(&known, now);
        // Trees that were filled in order have half-empty nodes; built at once they are full.
        self.slots = std::mem::take(&mut self.slots).into_iter().collect();
        self.asleep = std::mem::take(&mut self.asleep).into_iter().collect();
        Ok(())
    }

    /// Takes every configured credential into the schedule, and drops the others.
    fn configure(&mut self, known: &BTreeMap<CredentialName, Timestamp>, now: Timestamp) {
        let names: BTreeSet<CredentialName> = self.roster.names().into_iter().collect();
        let dropped: Vec<CredentialName> = self.slots.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in dropped {
            self.remove(&name);
        }
        for (organization, size) in self.roster.sizes() {
            self.engine.standings().set_size(&organization, size);
        }
        for (index, name) in names.into_iter().enumerate() {
            self.engine.board.not_let_go(&name);
            let spread = SignedDuration::from_millis(i64::try_from(index).unwrap_or(0) * 1000 / START_PER_SECOND);
            let soon = now + spread;
            if let Some(slot) = self.slots.get_mut(&name) {
                if std::mem::take(&mut slot.let_go)
                    && let Some(member) = self.roster.member(&name)
                {
                    self.engine.board.put(&name, Summary::new(member.organization));
                }
                // Looked at soon under the new configuration, or after the turn that is under way.
                self.wake(&name, soon);
                continue;
            }
            let wake_at = known.get(&name).copied().unwrap_or(soon);
            let summary = self.engine.board.get(&name);
            if summary.is_none()
                && let Some(member) = self.roster.member(&name)
            {
                self.engine.board.put(&name, Summary::new(member.organization));
            }
            let slot = Slot {
                wake_at: wake_at.min(soon),
                deadline_at: Timestamp::MAX,
                due_at: None,
                running: false,
                again: false,
                held_up: false,
                swept: false,
                let_go: false,
            };
            self.unswept += 1;
            self.asleep.insert((slot.wake_at, name.clone()));
            self.slots.insert(name.clone(), slot);
            if let Some(summary) = summary {
                self.note_summary(&name, &summary);
            }
        }
        self.mark_swept();
    }

    fn remove(&mut self, name: &CredentialName) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if std::mem::replace(&mut slot.let_go, true) {
            return;
        }
        self.unswept -= usize::from(!slot.swept);
        // It is not waited for any more, and if it comes back it is not waited for again.
        slot.swept = true;
        if !slot.running {
            self.asleep.remove(&(slot.wake_at, name.clone()));
            self.ready.remove(&(slot.deadline_at, name.clone()));
            self.forget(name);
        }
        if let Some(summary) = self.engine.board.get(name) {
            self.tell_let_go(name, &summary);
        }
        self.engine.board.remove(name);
        info!(credential = %name, "no longer configured: let go, its tokens are left to expire");
    }

    fn tell_let_go(&self, name: &CredentialName, summary: &Summary) {
        if let Some(until) = summary.expires_at.timestamp() {
            self.engine.board.let_go(name.clone(), until);
        }
    }

    /// Nothing of a credential that was let go is left. What its lists say of its organization holds until its
    /// turn has ended: the turn itself is kept back by that.
    fn forget(&mut self, name: &CredentialName) {
        self.slots.remove(name);
        self.engine.standings().let_go(name);
        self.engine.forget_values(name);
    }

    /// Runs until `stop` says so, then lets the turns under way come to a safe end.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let now = self.engine.clock.now();
            self.engine.board.beat(now);
            self.watch_clocks(now.wall);
            self.wake_due(now.wall);
            self.start_turns(now.wall);
            let sleep = self.sleep(now.wall);
            tokio::select! {
                biased;
                _ = stop.changed() => {}
                Some(joined) = self.turns.join_next() => self.joined(joined),
                Some(command) = self.commands.recv() => self.obey(command),
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.drain().await;
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Reload(roster) => {
                self.roster = roster;
                let now = self.engine.clock.now().wall;
                self.configure(&BTreeMap::new(), now);
            }
            Command::Order(name, ordered) => {
                if self.slots.get(&name).is_none_or(|slot| slot.let_go) {
                    let _ = ordered.answer.send(Err("it is not configured".to_owned()));
                    return;
                }
                let now = self.engine.clock.now().wall;
                self.engine.leave_order(name.clone(), ordered);
                self.wake(&name, now);
            }
        }
    }

    fn sleep(&self, now: Timestamp) -> std::time::Duration {
        let next = self.asleep.first().map_or(SLEEP_MAX, |(at, _)| at.duration_since(now));
        let next = if self.engine.clock.frozen().is_some() { next.min(COMPARE_FROZEN) } else { next };
        let next = next.clamp(SignedDuration::ZERO, SLEEP_MAX);
        // A millisecond more, so that it is due by then.
        self.engine.clock.to_sleep(next) + std::time::Duration::from_millis(1)
    }

    fn wake_due(&mut self, now: Timestamp) {
        while let Some((at, name)) = self.asleep.first().cloned() {
            if at > now {
                break;
            }
            self.asleep.pop_first();
            if let Some(slot) = self.slots.get(&name) {
                self.ready.insert((slot.deadline_at, name));
            }
        }
    }

    fn start_turns(&mut self, now: Timestamp) {
        while self.turns.len() < WORKERS {
            let Some((_, name)) = self.ready.pop_first() else { break };
            let Some(slot) = self.slots.get(&name) else { continue };
            let due_at = slot.due_at.filter(|due| *due <= now);
            let Some(mut member) = self.roster.member(&name) else { continue };
            member.due_at = due_at;
            if member.policy.renamed_from.as_ref().and_then(|from| self.slots.get(from)).is_some_and(|slot| slot.running) {
                // The turn under the earlier name works on the same history and the same places.
                self.sleep_until(name, now + RENAME_WAIT);
                continue;
            }
            if let Some(slot) = self.slots.get_mut(&name) {
                slot.running = true;
            }
            debug!(credential = %name, "turn");
            let engine = self.engine.clone();
            self.turns.spawn(async move {
                let ended = take_turn(&engine, &name, &member).await;
                (name, ended)
            });
        }
    }

    fn joined(&mut self, joined: Result<(CredentialName, Ended), tokio::task::JoinError>) {
        let (name, ended) = match joined {
            Ok(ended) => ended,
            Err(error) => {
                // Only when unwinding is compiled in; the daemon aborts on a panic.
                warn!(%error, "a turn ended without a word");
                return;
            }
        };
        let Some(slot) = self.slots.get_mut(&name) else { return };
        if slot.let_go {
            // What it issued and delivered in this turn was not on the board when it was let go.
            if let Some(summary) = ended.summary {
                self.tell_let_go(&name, &summary);
            }
            self.forget(&name);
            return;
        }
        slot.running = false;
        // What it waits for was found under a freeze that has ended meanwhile: it is asked again.
        let thawed = ended.frozen && self.engine.clock.frozen().is_none();
        let again = std::mem::take(&mut slot.again) || thawed;
        let wake_at = if again { self.engine.clock.now().wall } else { ended.wake_at };
        if let Some(summary) = ended.summary {
            if !slot.swept {
                slot.swept = true;
                self.unswept -= 1;
            }
            self.engine.board.put(&name, summary);
            self.note_summary(&name, &summary);
            self.mark_swept();
        }
        self.sleep_until(name, wake_at);
    }

    fn sleep_until(&mut self, name: CredentialName, at: Timestamp) {
        if let Some(slot) = self.slots.get_mut(&name) {
            slot.wake_at = at;
            self.asleep.insert((at, name));
        }
    }

    fn note_summary(&mut self, name: &CredentialName, summary: &Summary) {
        let frozen = self.engine.clock.frozen().is_some();
        let now = self.engine.clock.now().wall;
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.deadline_at = summary.deadline_at.timestamp().unwrap_or(Timestamp::MAX);
        slot.due_at = summary.due_at.timestamp();
        slot.held_up = frozen && (summary.revocations_pending > 0 || slot.due_at.is_some_and(|due| due <= now));
    }

    fn mark_swept(&self) {
        if self.unswept == 0 {
            self.engine.board.first_sweep_done();
        }
    }

    /// Wakes an idle credential at `at` if that is earlier; one that has a turn runs again after it.
    fn wake(&mut self, name: &CredentialName, at: Timestamp) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.running {
            slot.again = true;
        } else if slot.wake_at > at && self.asleep.remove(&(slot.wake_at, name.clone())) {
            slot.wake_at = at;
            self.asleep.insert((at, name.clone()));
        }
    }

    /// Shows what the clocks say, has them compared with the API, and wakes what a freeze held up.
    fn watch_clocks(&mut self, now: Timestamp) {
        let frozen = self.engine.clock.frozen();
        let board = &self.engine.board;
        for freeze in Freeze::ALL {
            board.freeze(freeze.into(), frozen == Some(freeze));
        }
        board.freeze(FreezeReason::AnotherOrganization, self.engine.standings().any_suspect());
        board.freeze(FreezeReason::JournalUnwritable, self.engine.is_journal_failing());
        if let Some(skew) = self.engine.clock.skew() {
            board.clock_skew(skew);
        }
        let jumps = self.engine.clock.jumps();
        (self.clock_jumps..jumps).for_each(|_| self.engine.metrics.clock_jump());
        self.clock_jumps = jumps;
        if frozen.is_none() && self.was_frozen {
            let held_up: Vec<CredentialName> =
                self.slots.iter().filter(|(_, slot)| slot.held_up).map(|(name, _)| name.clone()).collect();
            held_up.iter().for_each(|name| self.wake(name, now));
        }
        if frozen.is_some() != self.was_frozen {
            match frozen {
                Some(freeze) => {
                    warn!(reason = freeze.as_str(), "revocations and scheduled rotations are frozen until the clocks agree")
                }
                None => info!("the clocks agree with the API's"),
            }
        }
        self.was_frozen = frozen.is_some();
        let every = if frozen.is_some() { COMPARE_FROZEN } else { COMPARE };
        let due = self.compared_at.is_none_or(|at| now.duration_since(at).abs() >= every);
        if due {
            self.compared_at = Some(now);
            self.compare_clocks();
        }
    }

    /// Any answer of the API carries its `Date`; a list changes nothing.
    fn compare_clocks(&self) {
        let Some(member) = self.slots.keys().next().and_then(|name| self.roster.member(name)) else { return };
        let Some(provider) = member.providers.get(&member.policy.organization).cloned() else { return };
        tokio::spawn(async move { drop(provider.list(&member.policy.account).await) });
    }

    /// Nothing new begins; what was issued is delivered if that goes quickly.
    async fn drain(&mut self) {
        self.engine.limits().draining = true;
        fail_point::pass(Point::Draining);
        let turns = &mut self.turns;
        if !turns.is_empty() {
            info!(turns = turns.len(), "stopping: turns under way come to their end");
        }
        let all = async { while turns.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_MAX, all).await.is_err() {
            warn!("turns did not end in time: the next start finishes what they were doing");
            self.turns.abort_all();
        }
    }
}
