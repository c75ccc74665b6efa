//! A journal in memory, with the contract's semantics: what was not acknowledged may be lost with the
//! process, and what was is there for the next one, unless the record itself is lost or restored.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rotad::clock::Clock;
use rotad::journal::{CLOCK_MARK, Commit, From, HistoryLine, Identity, Journal, JournalError, Observer, Page, Row, Save};
use rotad::rotation::{CredentialName, DeliveryId, Happened, InstallationId, Moment, RotationId};
use tokio::time::sleep;

use super::matrix::{Fault, Step};
use super::world::{Life, Met, PLANTED, Sim, World};
use crate::simulator::oracle::Memo;
use crate::simulator::world::{Ms, stamp};

/// As much of the history as a short one keeps: more than a minute makes.
const HISTORY_MAX: usize = 256;

/// The durable record: what a snapshot of it holds is all that a restore brings back.
#[derive(Debug, Clone)]
pub struct Record {
    pub identity: Identity,
    rows: BTreeMap<CredentialName, (Row, Memo)>,
    facts: BTreeMap<String, String>,
    /// Saved by the next commit.
    mark: Option<Moment>,
    /// Each line with its number.
    history: VecDeque<(u64, HistoryLine)>,
    /// How many lines there ever were.
    lines: u64,
    /// Places that were configured when a turn was saved, each with the newest rotation of the time.
    places: BTreeMap<DeliveryId, RotationId>,
    pub history_max: usize,
    closed: bool,
}

impl Record {
    pub fn new(installation: u32, created_at: Ms) -> Self {
        Self {
            identity: Identity { installation: InstallationId(installation), created_at: stamp(created_at) },
            rows: BTreeMap::new(),
            facts: BTreeMap::new(),
            mark: None,
            history: VecDeque::new(),
            lines: 0,
            places: BTreeMap::new(),
            history_max: HISTORY_MAX,
            closed: false,
        }
    }

    pub fn memo(&self, credential: &CredentialName) -> Memo {
        self.rows.get(credential).map(|(_, memo)| memo.clone()).unwrap_or_default()
    }

    pub fn row(&self, credential: &CredentialName) -> Option<&Row> {
        self.rows.get(credential).map(|(row, _)| row)
    }

    /// Whether it can know that the place may serve this rotation, configured still or not.
    pub fn knows_of(&self, rotation: RotationId, place: &DeliveryId) -> bool {
        self.places.get(place).is_some_and(|newest| rotation <= *newest)
    }

    pub fn fact(&self, name: &str) -> Option<&String> {
        self.facts.get(name)
    }

    /// What it holds of a credential, for a trace.
    pub fn in_words(&self, credential: &CredentialName) -> String {
        format!("{:?} {:?}", self.row(credential).map(|row| &row.state), self.facts)
    }

    pub fn history(&self) -> impl Iterator<Item = &HistoryLine> {
        self.history.iter().map(|(_, line)| line)
    }

    /// A writer opened it: what a writer before had not committed is gone.
    pub fn open(&mut self) {
        self.mark = None;
        self.closed = false;
    }

    fn commit(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.facts.insert(CLOCK_MARK.to_owned(), serde_json::to_string(&mark).unwrap());
        }
    }

    /// The contract's save: all or nothing, and only over the version that was loaded.
    fn save(&mut self, save: Save, memo: Memo) -> Result<u64, JournalError> {
        if self.closed {
            return Err(JournalError::Unwritable("the journal is closed".to_owned()));
        }
        if self.rows.get(&save.credential).map(|(row, _)| row.version) != save.expected {
            return Err(JournalError::Conflict(save.credential));
        }
        if let Some((earlier, version)) = &save.takes_over {
            if self.rows.get(earlier).map(|(row, _)| row.version) != Some(*version) {
                return Err(JournalError::Conflict(earlier.clone()));
            }
            self.rows.remove(earlier);
            self.history.iter_mut().filter(|(_, line)| line.credential == *earlier).for_each(|(_, line)| {
                line.credential = save.credential.clone();
            });
        }
        let version = save.expected.unwrap_or(0) + 1;
        for entry in save.entries {
            self.lines += 1;
            self.history.push_back((self.lines, HistoryLine { credential: save.credential.clone(), entry }));
        }
        while self.history.len() > self.history_max {
            self.history.pop_front();
        }
        self.rows.insert(save.credential, (Row { version, state: save.state, wake_at: save.wake_at }, memo));
        self.commit();
        Ok(version)
    }

    fn rows_after(&self, after: Option<&CredentialName>, limit: usize) -> Vec<(CredentialName, Row)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows.range::<CredentialName, _>((start, Bound::Unbounded));
        rows.take(limit).map(|(name, (row, _))| (name.clone(), row.clone())).collect()
    }

    fn set_fact(&mut self, name: &str, value: String) {
        self.facts.insert(name.to_owned(), value);
        self.commit();
    }

    fn page(&self, page: &Page) -> Vec<(u64, HistoryLine)> {
        let fits = |(_, line): &&(u64, HistoryLine)| {
            page.credential.as_ref().is_none_or(|credential| line.credential == *credential)
                && (page.since..page.until).contains(&line.entry.at)
        };
        let lines = self.history.iter().filter(fits);
        match page.from {
            From::After(after) => lines.filter(|(number, _)| *number > after).take(page.limit).cloned().collect(),
            From::Before(before) => lines.rev().filter(|(number, _)| *number < before).take(page.limit).cloned().collect(),
        }
    }

    fn prune(&mut self, before: Timestamp) -> u64 {
        let held = self.history.len();
        self.history.retain(|(_, line)| line.entry.at >= before);
        (held - self.history.len()) as u64
    }

    fn close(&mut self) {
        self.commit();
        self.closed = true;
    }
}

/// The record as a journal by itself, without a world around it: as it is held to the contract.
pub struct Kept {
    record: Mutex<Record>,
    /// Told of each write: every one is a commit of its own.
    observer: Observer,
}

impl Kept {
    pub fn new(observer: Observer) -> Self {
        Self { record: Mutex::new(Record { history_max: usize::MAX, ..Record::new(7, 0) }), observer }
    }

    fn write<T>(&self, write: impl FnOnce(&mut Record) -> T) -> T {
        let outcome = write(&mut self.record.lock().unwrap());
        (self.observer)(Commit { took: Duration::ZERO, writes: 1 });
        outcome
    }

    fn read<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        read(&self.record.lock().unwrap())
    }
}

#[async_trait]
impl Journal for Kept {
    fn identity(&self) -> Identity {
        self.read(|record| record.identity)
    }

    async fn load(&self, credential: &CredentialName) -> Result<Option<Row>, JournalError> {
        Ok(self.read(|record| record.row(credential).cloned()))
    }

    async fn load_after(&self, after: Option<&CredentialName>, limit: usize) -> Result<Vec<(CredentialName, Row)>, JournalError> {
        Ok(self.read(|record| record.rows_after(after, limit)))
    }

    async fn save(&self, save: Save) -> Result<u64, JournalError> {
        self.write(|record| record.save(save, Memo::default()))
    }

    async fn fact(&self, name: &str) -> Result<Option<String>, JournalError> {
        Ok(self.read(|record| record.fact(name).cloned()))
    }

    async fn set_fact(&self, name: &str, value: String) -> Result<(), JournalError> {
        self.write(|record| record.set_fact(name, value));
        Ok(())
    }

    async fn history_page(&self, page: Page) -> Result<Vec<(u64, HistoryLine)>, JournalError> {
        Ok(self.read(|record| record.page(&page)))
    }

    async fn prune_history(&self, before: Timestamp) -> Result<u64, JournalError> {
        Ok(self.write(|record| record.prune(before)))
    }

    async fn probe(&self) -> Result<(), JournalError> {
        self.write(Record::commit);
        Ok(())
    }

    async fn mark_clock(&self, now: Moment) -> Result<(), JournalError> {
        self.record.lock().unwrap().mark = Some(now);
        Ok(())
    }

    async fn close(&self) {
        self.record.lock().unwrap().close();
    }
}

/// One process's way to the record.
pub struct SimJournal {
    pub sim: Arc<Sim>,
    pub life: Arc<Life>,
    pub clock: Arc<Clock>,
    identity: Identity,
}

impl SimJournal {
    pub fn open(sim: &Arc<Sim>, life: &Arc<Life>, clock: &Arc<Clock>) -> Self {
        let mut world = sim.world();
        world.record.open();
        Self { identity: world.record.identity, sim: sim.clone(), life: life.clone(), clock: clock.clone() }
    }
}

fn unwritable() -> JournalError {
    JournalError::Unwritable("database or disk is full".to_owned())
}

fn wait(ms: Ms) -> tokio::time::Sleep {
    sleep(Duration::from_millis(ms.max(0) as u64))
}

/// The credential of this name: `c` and its index.
pub fn index_of(name: &CredentialName) -> usize {
    name.as_str().trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// Which step a save belongs to, by the furthest of what it records.
fn step_of(save: &Save) -> Step {
    use Happened::*;
    let has = |kinds: &[Happened]| save.entries.iter().any(|entry| kinds.contains(&entry.what));
    if has(&[Intended, SetUpIntended]) {
        Step::Intend
    } else if has(&[RevocationIntended]) {
        Step::IntendRevocation
    } else if has(&[Attempted]) {
        Step::Attempt
    } else if has(&[Issued, IssueRefused, Lost, Unfit, Verified, VerifyFailed, Connected, ConnectFailed]) {
        Step::Record
    } else if has(&[Confirmed, Promoted]) {
        Step::Confirm
    } else if has(&[Revoked, RevokeFailed]) {
        Step::RecordRevocation
    } else {
        Step::Note
    }
}

/// The schedule that a state was last judged by: a changed one makes nothing due that lies before the change.
fn schedule_tag(state: &str) -> Option<&str> {
    let (_, rest) = state.split_once("\"schedule_tag\":")?;
    Some(rest.split([',', '}']).next()?).filter(|tag| *tag != "0")
}

impl World {
    /// The intents of a save, at the moment at which they are made.
    fn intends(&mut self, credential: usize, save: &Save, frozen: bool) {
        self.actors[credential].frozen = frozen;
        if save.state.contains(PLANTED)
            || save.entries.iter().any(|entry| entry.detail.as_ref().is_some_and(|detail| detail.contains(PLANTED)))
        {
            self.violate("S4", Some(credential), format!("c{credential}: a token's value is to be saved in the journal"));
        }
        self.actors[credential].intended_at = self.now;
    }

    /// The intents of a save that is durable now, counted by when they were made.
    fn count_intents(&mut self, credential: usize, save: &Save) {
        let at = self.actors[credential].intended_at;
        let forced = |rotation| {
            save.entries.iter().any(|entry| entry.what == Happened::DeadlineForced && entry.rotation == Some(rotation))
        };
        for entry in &save.entries {
            let Some(rotation) = entry.rotation else { continue };
            let verdict = match entry.what {
                Happened::Intended | Happened::SetUpIntended => self.blast.rotation(at, forced(rotation)),
                Happened::RevocationIntended => self.blast.revocation(at),
                _ => continue,
            };
            if let Err(detail) = verdict {
                self.violate("limits", Some(credential), detail);
            }
        }
    }

    /// The save is durable: what the row can know from now on.
    fn saved(&mut self, credential: usize, save: &Save) {
        let policy = self.actors[credential].turn_policy.clone();
        for entry in &save.entries {
            self.fold(entry.what as u64);
            if self.traced {
                let ids = [
                    entry.rotation.map(|id| id.to_string()),
                    entry.token.as_ref().map(|id| id.0.clone()),
                    entry.delivery.as_ref().map(|id| id.to_string()),
                ];
                let ids: Vec<String> = ids.into_iter().flatten().collect();
                let detail = entry.detail.clone().unwrap_or_default();
                let line = format!("journal: {} {} {detail}", entry.what.as_str(), ids.join(" "));
                self.tell(Some(credential), || line);
            }
            let memo = &mut self.actors[credential].memo;
            match (entry.what, entry.rotation) {
                (Happened::Intended | Happened::SetUpIntended, Some(rotation)) => drop(memo.recorded.insert(rotation)),
                (Happened::Attempted, Some(rotation)) => drop(memo.attempted.insert(rotation)),
                (Happened::Rebuilt, _) => {
                    // The period begins anew with a rebuild, under the grace period of now (S2).
                    let actor = &mut self.actors[credential];
                    let at = actor.intended_at;
                    actor.memo.shown.values_mut().for_each(|(_, since)| *since = at);
                    if let Some(token) = &entry.token {
                        self.adopted.insert(crate::simulator::world::token_index(token));
                    }
                }
                _ => {}
            }
        }
        let before = self.record.row(&save.credential).and_then(|row| schedule_tag(&row.state));
        if before.is_some() && before != schedule_tag(&save.state) {
            self.actors[credential].memo.scheduled_from = self.now;
        }
        self.actors[credential].memo.settle(&policy);
        // What every delivery has shown once is not kept in memory for any of them.
        let actor = &mut self.actors[credential];
        let reached = &actor.memo.reached;
        let shown =
            |rotation| policy.deliveries.keys().all(|place| reached.get(place).is_some_and(|reached| *reached >= rotation));
        actor.hands.retain(|rotation, _| !shown(*rotation));
    }
}

impl World {
    fn commit(&mut self, credential: usize, save: Save) -> Result<u64, JournalError> {
        self.saved(credential, &save);
        self.count_intents(credential, &save);
        let actor = &self.actors[credential];
        let memo = actor.memo.clone();
        if let Some(newest) = memo.recorded.last() {
            for place in actor.turn_policy.deliveries.keys() {
                match self.record.places.get_mut(place) {
                    Some(known) => *known = *newest,
                    None => drop(self.record.places.insert(place.clone(), *newest)),
                }
            }
        }
        let result = self.record.save(save, memo);
        if let Err(JournalError::Conflict(name)) = &result {
            self.violate("one turn", Some(credential), format!("two turns of `{name}` at once"));
        }
        result
    }
}

impl SimJournal {
    /// On the way to the disk, and there. A process that ends meanwhile asks for nothing more.
    async fn reach(&self, credential: usize, step: Step, first: impl FnOnce(&mut World)) -> Met {
        self.life.gate().await;
        let met = {
            let mut world = self.sim.world();
            first(&mut world);
            let met = world.meet(step, credential);
            if met.fault == Some(Fault::CrashBefore) {
                world.crash();
            }
            met
        };
        self.life.gate().await;
        wait(met.there).await;
        self.life.gate().await;
        met
    }
}

#[async_trait]
impl Journal for SimJournal {
    fn identity(&self) -> Identity {
        self.identity
    }

    async fn load(&self, credential: &CredentialName) -> Result<Option<Row>, JournalError> {
        let index = index_of(credential);
        let met = self
            .reach(index, Step::Load, |world| {
                let memo = world.record.memo(credential);
                world.begin_turn(index, memo);
            })
            .await;
        if met.fault == Some(Fault::JournalUnwritable) {
            self.sim.world().actors[index].hands.clear();
            return Err(JournalError::Unusable("disk I/O error".to_owned()));
        }
        Ok(self.sim.world().record.row(credential).cloned())
    }

    async fn load_after(&self, after: Option<&CredentialName>, limit: usize) -> Result<Vec<(CredentialName, Row)>, JournalError> {
        self.life.gate().await;
        Ok(self.sim.world().record.rows_after(after, limit))
    }

    async fn save(&self, save: Save) -> Result<u64, JournalError> {
        let credential = index_of(&save.credential);
        let frozen = self.clock.frozen().is_some();
        // A commit that the process did not live to see may be lost.
        let met = self.reach(credential, step_of(&save), |world| world.intends(credential, &save, frozen)).await;
        if met.fault == Some(Fault::JournalUnwritable) {
            // The turn begins anew from what is recorded: what it held in memory is dropped.
            self.sim.world().actors[credential].hands.clear();
            return Err(unwritable());
        }
        let result = self.sim.world().commit(credential, save);
        if met.fault == Some(Fault::CrashAfter) {
            self.sim.world().crash();
            self.life.gate().await;
        }
        result
    }

    async fn fact(&self, name: &str) -> Result<Option<String>, JournalError> {
        self.life.gate().await;
        Ok(self.sim.world().record.fact(name).cloned())
    }

    async fn set_fact(&self, name: &str, value: String) -> Result<(), JournalError> {
        self.life.gate().await;
        self.sim.world().record.set_fact(name, value);
        Ok(())
    }

    async fn history_page(&self, page: Page) -> Result<Vec<(u64, HistoryLine)>, JournalError> {
        self.life.gate().await;
        Ok(self.sim.world().record.page(&page))
    }

    async fn prune_history(&self, before: Timestamp) -> Result<u64, JournalError> {
        self.life.gate().await;
        Ok(self.sim.world().record.prune(before))
    }

    async fn probe(&self) -> Result<(), JournalError> {
        self.life.gate().await;
        let mut world = self.sim.world();
        if world.journal_broken_until > world.now {
            Err(unwritable())
        } else {
            world.record.commit();
            Ok(())
        }
    }

    async fn mark_clock(&self, now: Moment) -> Result<(), JournalError> {
        self.life.gate().await;
        self.sim.world().record.mark = Some(now);
        Ok(())
    }

    async fn close(&self) {
        self.sim.world().record.close();
    }
}
