//! The engine: wakes what is due, bounds the workers, and carries out what the core says.

mod acting;
mod apart;
mod concern;
mod detail;
mod forecast;
mod limits;
mod orders;
mod scheduler;
mod standing;
mod summary;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tracing::{error, info};

pub use apart::of_accounts;
pub use concern::{
    ADMIN_TOKEN_EXPIRY_TOLD, Concern, General, NOTHING_BY_ITSELF, OfFleet, STANDBY_LOOKS_EVERY, by_summary, concerns,
    general_concerns, in_fleet, in_general, near_deadline, of_fleet, remedy_of_block, remedy_of_failure,
};
pub use detail::{Delivered, Detail, PlaceLine, STEPS, StepLine, TokenEnd, TokenLine};
pub use forecast::{Forecast, Step, Subject, forecast};
pub use limits::BlastRadius;
pub use orders::Ordered;
pub use scheduler::{Command, Handle, Scheduler};
pub use standing::Standings;
pub use summary::{phase, summarize};

use crate::clock::Clock;
use crate::journal::{Journal, JournalError};
use crate::metrics::{self, Metrics, SinkOperation, sink_of};
use crate::motherduck::Provider;
use crate::rotation::{Account, CredentialName, DeliveryId, Entry, Facts, Fingerprint, Moment, Policy, RotationId, TokenId};
use crate::secret::Secret;
use crate::sinks::Places;
use crate::snapshot::{Board, JournalState, OrganizationIndex};
use worker::{Ended, Values};

/// How soon a credential is tried again whose journal failed: disks fill and empty in minutes.
const JOURNAL_RETRY: SignedDuration = SignedDuration::from_secs(5);

/// The clients of every configured organization.
pub type Providers = Arc<BTreeMap<Arc<str>, Arc<dyn Provider>>>;

/// Where 64 fresh random bits come from: the kernel, or a simulation's seed.
pub type Random = Box<dyn Fn() -> u64 + Send + Sync>;

/// One configured credential, ready for a turn. Made anew for each turn, so that 100,000 idle ones
/// cost what their configuration costs.
pub struct Member {
    pub policy: Policy,
    pub places: Places,
    pub providers: Providers,
    pub organization: OrganizationIndex,
    /// Accounts that a new admin token must be let to list, its own first; empty for any other credential.
    pub proves_by: Vec<Account>,
    /// When the last known due time was, for the schedule's lag.
    pub due_at: Option<Timestamp>,
}

impl Member {
    fn observe_lag(&self, metrics: &Metrics, began: Timestamp) {
        if let Some(due_at) = self.due_at {
            metrics.schedule_lag(began.duration_since(due_at).max(SignedDuration::ZERO));
        }
    }
}

/// The configured credentials, as the engine needs them.
pub trait Roster: Send + Sync {
    fn names(&self) -> Vec<CredentialName>;

    /// `None` for a credential that is not configured.
    fn member(&self, name: &CredentialName) -> Option<Member>;

    /// Whether `part`, in lower case, is part of the account's name or of a label (`key=value`): what people search by
    /// beside the name. Asked for each of a large fleet, so it copies nothing.
    fn is_told_of(&self, name: &CredentialName, part: &str) -> bool;

    /// How many credentials each organization has.
    fn sizes(&self) -> BTreeMap<Arc<str>, usize>;
}

/// Is told of every step that was recorded: the log, or the demo's narrator.
pub trait Witness: Send + Sync {
    fn happened(&self, credential: &CredentialName, entry: &Entry);

    /// A step of a rotation was carried out; what came of it is not recorded yet. For traces, which need both ends.
    fn acted(&self, _: &CredentialName, _: &Acted<'_>) {}
}

/// A step of a rotation, carried out.
#[derive(Debug, Clone, Copy)]
pub struct Acted<'a> {
    pub step: metrics::Step,
    pub rotation: RotationId,
    /// The rotation's token, where that is known by the end.
    pub token: Option<&'a TokenId>,
    pub place: Option<&'a DeliveryId>,
    pub began: Timestamp,
    pub ended: Timestamp,
    /// What it brought about.
    pub entries: &'a [Entry],
}

/// What every worker shares.
pub struct Engine {
    pub witness: Arc<dyn Witness>,
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<Clock>,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
    random: Random,
    facts: Facts,
    /// The journal's.
    hold: Option<SignedDuration>,
    limits: Mutex<BlastRadius>,
    standings: Mutex<Standings>,
    /// Orders of persons that the next turn of their credential takes.
    orders: Mutex<BTreeMap<CredentialName, Vec<Ordered>>>,
    /// Values that a delivery still needs, between the turns of their credentials.
    values: Mutex<BTreeMap<CredentialName, Values>>,
    /// Held while an admin token is held against the journal's: of many turns that find another one, one dates it.
    watching: tokio::sync::Mutex<()>,
    journal_failing: AtomicBool,
}

/// What an engine is made of.
pub struct Parts {
    pub witness: Arc<dyn Witness>,
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<Clock>,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
    pub limits: BlastRadius,
    pub random: Random,
}

impl Engine {
    pub fn new(parts: Parts) -> Self {
        let Parts { witness, journal, clock, metrics, board, limits, random } = parts;
        let identity = journal.identity();
        let hold = journal.hold().map(|hold| SignedDuration::try_from(hold).unwrap_or(SignedDuration::MAX));
        let process = crate::rotation::ProcessId(random());
        let facts = Facts::new(identity.installation, identity.created_at, process, clock.now(), hold);
        Self {
            witness,
            journal,
            clock,
            metrics,
            board,
            random,
            facts,
            hold,
            limits: Mutex::new(limits),
            standings: Mutex::default(),
            orders: Mutex::default(),
            values: Mutex::default(),
            watching: tokio::sync::Mutex::default(),
            journal_failing: AtomicBool::new(false),
        }
    }

    pub fn limits(&self) -> MutexGuard<'_, BlastRadius> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn standings(&self) -> MutexGuard<'_, Standings> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_values(&self, name: &CredentialName) -> Values {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).remove(name).unwrap_or_default()
    }

    fn keep_value(&self, name: &CredentialName, rotation: RotationId, value: Secret) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.entry(name.clone()).or_default().insert(rotation, value);
    }

    /// Wipes the values of a credential that was let go.
    fn forget_values(&self, name: &CredentialName) {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn observe_sink(&self, delivery: &DeliveryId, operation: SinkOperation, began: Moment) {
        if let Some(kind) = sink_of(delivery) {
            let took = self.clock.now().wall.duration_since(began.wall).max(SignedDuration::ZERO);
            self.metrics.sink_request(kind, operation, took);
        }
    }

    /// A turn whose journal failed has done nothing more: it begins anew from what is recorded.
    fn journal_failed(&self, name: &CredentialName, error: &JournalError) -> Ended {
        let now = self.clock.now().wall;
        match error {
            JournalError::Conflict(_) => {
                error!(credential = %name, %error, "another writer is at work on this journal: stop one of the two")
            }
            JournalError::Unwritable(_) | JournalError::Unsettled(_) | JournalError::Unusable(_) | JournalError::InUse(_) => {
                self.board.journal(JournalState::Unwritable);
                if !self.journal_failing.swap(true, Ordering::Relaxed) {
                    error!(credential = %name, %error, "the journal can't be written: nothing is issued, delivered or revoked until it can");
                }
            }
        }
        Ended { wake_at: now + JOURNAL_RETRY, summary: None, frozen: false }
    }

    /// Notes the clocks for the next commit, so that the time until the next start can be counted.
    /// Not while they disagree: a wrong mark would count time that never passed.
    pub(crate) async fn mark_clock(&self) -> Result<(), JournalError> {
        let now = self.clock.now();
        if self.clock.frozen().is_none() { self.journal.mark_clock(now).await } else { Ok(()) }
    }

    /// Holds an organization's admin token, of which this is the fingerprint, against the one that was last
    /// proven to belong there. Another one must first see a known token, in this process or a later one:
    /// what it is and since when is in the journal. Gives whether there is nothing left to prove.
    ///
    /// # Errors
    /// The journal's: what was known of the organization before stands.
    pub async fn watch_admin_token(&self, organization: &Arc<str>, fingerprint: Fingerprint) -> Result<bool, JournalError> {
        let _watching = self.watching.lock().await;
        self.hold_against_the_proven(organization, fingerprint).await
    }

    /// The same before a call is made with that admin token, unless it is the one that was held against the journal last.
    pub(crate) async fn meet_admin_token(&self, organization: &Arc<str>, fingerprint: Fingerprint) -> Result<(), JournalError> {
        if self.standings().is_in_use(organization, fingerprint) {
            return Ok(());
        }
        let _watching = self.watching.lock().await;
        if self.standings().is_in_use(organization, fingerprint) {
            return Ok(());
        }
        self.hold_against_the_proven(organization, fingerprint).await.map(drop)
    }

    async fn hold_against_the_proven(&self, organization: &Arc<str>, fingerprint: Fingerprint) -> Result<bool, JournalError> {
        let (proven, new) = (format!("admin_token:{organization}"), format!("admin_token_new:{organization}"));
        let now = fingerprint.to_string();
        match self.journal.fact(&proven).await? {
            None => {
                self.journal.set_fact(&proven, now).await?;
                self.standings().uses(organization, fingerprint);
                return Ok(true);
            }
            Some(before) if before == now => {
                let noticed = self.journal.fact(&new).await?;
                // Should the other one come again, it is new from then on.
                if noticed.is_some_and(|noticed| !noticed.is_empty()) {
                    self.journal.set_fact(&new, String::new()).await?;
                }
                self.standings().uses(organization, fingerprint);
                self.standings().has_proven_admin_token(organization);
                return Ok(true);
            }
            Some(_) => {}
        }
        let noticed = self.journal.fact(&new).await?;
        let noticed = noticed.as_ref().and_then(|text| text.split_once(' ')).filter(|(token, _)| *token == now);
        let since = match noticed.and_then(|(_, since)| since.parse().ok()) {
            Some(since) => since,
            // By clocks that disagree it can't be dated yet: till then any known token is from before.
            None if self.clock.frozen().is_some() => Timestamp::MAX,
            None => {
                info!(%organization, "the admin token is another one: nothing is revoked or issued if it sees none of the known tokens");
                let since = self.clock.now().wall;
                self.journal.set_fact(&new, format!("{now} {since}")).await?;
                since
            }
        };
        self.standings().uses(organization, fingerprint);
        let is_proven = self.standings().has_new_admin_token(organization, since);
        if is_proven {
            self.journal.set_fact(&proven, now).await?;
        }
        Ok(is_proven)
    }

    /// The organization's admin token is one that its own API issued to us: there is nothing to prove.
    ///
    /// # Errors
    /// The journal's.
    pub(crate) async fn has_own_admin_token(
        &self,
        organization: &Arc<str>,
        fingerprint: Fingerprint,
    ) -> Result<(), JournalError> {
        let _watching = self.watching.lock().await;
        let (proven, now) = (format!("admin_token:{organization}"), fingerprint.to_string());
        if self.journal.fact(&proven).await?.as_ref() != Some(&now) {
            self.journal.set_fact(&proven, now).await?;
        }
        self.standings().uses(organization, fingerprint);
        self.standings().has_proven_admin_token(organization);
        Ok(())
    }

    /// A write to the journal succeeded.
    pub(crate) fn journal_works(&self) {
        if self.journal_failing.swap(false, Ordering::Relaxed) {
            info!("the journal can be written again");
        }
        self.board.journal(JournalState::Writable);
    }

    pub(crate) fn is_journal_failing(&self) -> bool {
        self.journal_failing.load(Ordering::Relaxed)
    }
}

/// 64 random bits from the kernel. Should it have none to give, ids stay unique by their time and
/// installation, so that is no reason to stop.
pub fn kernel_random() -> u64 {
    getrandom::u64().unwrap_or_default()
}
