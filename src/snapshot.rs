//! One read-only picture of everything: metrics, readiness and status are rendered from it.
//!
//! The engine puts a small `Summary` of each credential and a few totals on the `Board`; whoever
//! watches takes a `Snapshot` of it. All of it is numbers, moments, names and closed enums, so no
//! secret value has a way in.

mod accounts;
mod attention;
mod fleet;
mod let_go;
pub mod schema;
mod summary;
mod told;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

pub use accounts::{APART_MAX, AccountsSummary, ApartAccount};
pub use attention::Attention;
pub use fleet::FleetSummary;
pub use let_go::{LET_GO_MAX, LetGo, tokens_until};
pub(crate) use summary::label;
pub use summary::{At, CredentialState, FreezeReason, Label, OrganizationIndex, SinkCounts, Summary, TokenCounts, TokenPhase};
pub use told::{span, until};

use crate::rotation::{Blocked, CredentialName, Moment};
use crate::sinks;

/// How many there are of each variant; every variant is there, if only as 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally<L: Label>(BTreeMap<L, u64>);

impl<L: Label> Tally<L> {
    pub fn of(&self, label: L) -> u64 {
        self.0.get(&label).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, label: L, count: u64) {
        // Most counts are 0, and a snapshot of 100,000 credentials makes a million of these calls.
        if count > 0 {
            *self.0.entry(label).or_insert(0) += count;
        }
    }
}

impl<L: Label> Default for Tally<L> {
    fn default() -> Self {
        Self(L::ALL.iter().map(|label| (*label, 0)).collect())
    }
}

impl<L: Label> Serialize for Tally<L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(label, count)| map.serialize_entry(label.as_str(), count))?;
        map.end()
    }
}

impl<L: Label> JsonSchema for Tally<L> {
    fn schema_name() -> Cow<'static, str> {
        "Tally".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = L::ALL.iter().map(|label| label.as_str()).collect();
        let count = serde_json::json!({ "type": "integer", "minimum": 0 });
        let counts: serde_json::Map<_, _> = words.iter().map(|word| ((*word).to_owned(), count.clone())).collect();
        json_schema!({ "type": "object", "properties": counts, "required": words, "additionalProperties": false })
    }
}

/// One organization, as far as it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Organization {
    pub name: Arc<str>,
    /// Of all current tokens of its credentials.
    pub earliest_expiry_at: At,
    /// The oldest of its credentials' last sweeps; unknown while one of them was never swept.
    pub last_sweep_at: At,
    /// Unknown unless the API or the operator says it.
    pub admin_token_expires_at: At,
}

/// Whether the journal can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JournalState {
    /// Not opened yet.
    Closed,
    Writable,
    /// The last write failed.
    Unwritable,
    /// Another rotad has it, and this one stands by to take over from it.
    InUse,
}

/// The version of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Build {
    pub version: &'static str,
    /// The commit, where the build was told it by `ROTAD_REVISION`; otherwise `unknown`.
    pub revision: &'static str,
}

impl Build {
    pub const THIS: Self = Self {
        version: env!("CARGO_PKG_VERSION"),
        revision: match option_env!("ROTAD_REVISION") {
            Some(revision) => revision,
            None => Self::UNKNOWN,
        },
    };
    const UNKNOWN: &'static str = "unknown";
}

/// For people: an unknown revision is not worth a word.
impl std::fmt::Display for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision {
            Self::UNKNOWN => f.write_str(self.version),
            revision => write!(f, "{} ({revision})", self.version),
        }
    }
}

/// Why rotad is not ready, as a sentence.
pub type NotReady = &'static str;

/// What is known besides the credentials.
#[derive(Debug, Clone, Serialize)]
struct Shared {
    configuration_valid: bool,
    journal: JournalState,
    journal_holder: Option<Arc<str>>,
    first_sweep_done: bool,
    frozen: Tally<FreezeReason>,
    /// Local time minus the API's, in milliseconds.
    clock_skew_millis: Option<i64>,
    last_reload_successful: bool,
    last_reload_success_at: At,
}

/// The picture at one moment, all but the credentials one by one.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Snapshot {
    pub taken_at: Timestamp,
    pub build: Build,
    /// Empty when rotad is ready.
    pub not_ready: Vec<NotReady>,
    pub journal: JournalState,
    /// Who has the journal while this rotad stands by, as it calls itself there.
    pub journal_holder: Option<Arc<str>>,
    pub first_sweep_done: bool,
    pub heartbeat_at: At,
    pub last_reload_successful: bool,
    pub last_reload_success_at: At,
    /// Local time minus the API's, in milliseconds.
    pub clock_skew_millis: Option<i64>,
    /// 1 for each reason for which revocations are frozen.
    pub revocations_frozen: Tally<FreezeReason>,
    pub organizations: Vec<Organization>,
    pub fleets: Vec<FleetSummary>,
    pub accounts: AccountsSummary,
    /// Not configured any more, with tokens that live; those that live longest first, at most `LET_GO_MAX`.
    pub let_go: Vec<LetGo>,
    pub credentials: Tally<CredentialState>,
    pub blocked: Tally<Blocked>,
    pub tokens: Tally<TokenPhase>,
    pub tokens_unknown: u64,
    pub tokens_foreign: u64,
    pub deliveries_unconfirmed: Tally<sinks::Kind>,
    /// Credentials that a person should look at.
    pub credentials_needing_attention: u64,
    /// Credentials whose next rotation is due, observed ones left out.
    pub credentials_past_due: u64,
    /// Those at which a person paused rotations.
    pub credentials_paused: u64,
    /// Credentials that should have been rotated, observed ones left out.
    pub credentials_past_deadline: u64,
    pub revocations_pending: u64,
    pub revocation_oldest_due_at: At,
    /// Until when every consumer keeps working if rotad dies now, observed credentials left out.
    pub survival_deadline_at: At,
}

/// The one place that the engine writes what is known to, and that watchers read.
///
/// Its locks are held for the time of a copy, never across an await.
#[derive(Debug)]
pub struct Board {
    started: Moment,
    credentials: RwLock<BTreeMap<CredentialName, Summary>>,
    organizations: RwLock<Vec<(Arc<str>, At)>>,
    fleets: RwLock<Vec<FleetSummary>>,
    accounts: RwLock<AccountsSummary>,
    /// When the last token expires of each credential that was let go.
    let_go: RwLock<BTreeMap<CredentialName, Timestamp>>,
    heartbeat: RwLock<Moment>,
    shared: RwLock<Shared>,
}

/// The scheduler sleeps at most a minute; with three beats missed, it hangs.
const HEARTBEAT_AGE_MAX: SignedDuration = SignedDuration::from_mins(3);

/// An API that is down must not keep a roll-out from going on, so readiness waits so long for the first sweep.
const FIRST_SWEEP_WAIT_MAX: SignedDuration = SignedDuration::from_secs(60);

impl Board {
    /// A board before anything is open. The heartbeat begins with the start.
    pub fn new(started: Moment) -> Self {
        let shared = Shared {
            configuration_valid: false,
            journal: JournalState::Closed,
            journal_holder: None,
            first_sweep_done: false,
            frozen: Tally::default(),
            clock_skew_millis: None,
            last_reload_successful: false,
            last_reload_success_at: At::UNKNOWN,
        };
        Self {
            started,
            credentials: RwLock::default(),
            organizations: RwLock::default(),
            fleets: RwLock::default(),
            accounts: RwLock::default(),
            let_go: RwLock::default(),
            heartbeat: RwLock::new(started),
            shared: RwLock::new(shared),
        }
    }

    /// The index of the organization `name`, the same for the board's whole life.
    pub fn organization(&self, name: &str) -> OrganizationIndex {
        let mut organizations = write(&self.organizations);
        let index = organizations.iter().position(|(known, _)| **known == *name).unwrap_or_else(|| {
            organizations.push((name.into(), At::UNKNOWN));
            organizations.len() - 1
        });
        // Organizations are written by hand into one file; beyond 65,535 they would share the last index.
        OrganizationIndex(u16::try_from(index).unwrap_or(u16::MAX))
    }

    /// Shows what is known of `credential` now.
    pub fn put(&self, credential: &CredentialName, summary: Summary) {
        let mut credentials = write(&self.credentials);
        match credentials.get_mut(credential) {
            Some(shown) => *shown = summary,
            None => {
                credentials.insert(credential.clone(), summary);
            }
        }
    }

    /// Shows many at once, which takes half of the memory that one after the other in order takes.
    pub fn put_all(&self, shown: Vec<(CredentialName, Summary)>) {
        let mut shown = shown.into_iter().collect();
        write(&self.credentials).append(&mut shown);
    }

    /// Shows `credential` no longer.
    pub fn remove(&self, credential: &CredentialName) {
        write(&self.credentials).remove(credential);
    }

    pub fn get(&self, credential: &CredentialName) -> Option<Summary> {
        read(&self.credentials).get(credential).copied()
    }

    /// The credentials that follow `after` in the order of names, at most `limit`: a walk over all of
    /// them in portions copies little at a time and never holds the engine up for long.
    pub fn portion(&self, after: Option<&CredentialName>, limit: usize) -> Vec<(CredentialName, Summary)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let credentials = read(&self.credentials);
        let following = credentials.range::<CredentialName, _>((start, Bound::Unbounded));
        following.take(limit).map(|(name, summary)| (name.clone(), *summary)).collect()
    }

    /// What `look` finds among all credentials: one pass in the order of names, as a snapshot makes it.
    pub fn gather<T>(&self, mut look: impl FnMut(&CredentialName, &Summary, &mut Vec<T>)) -> Vec<T> {
        let mut found = Vec::new();
        read(&self.credentials).iter().for_each(|(name, summary)| look(name, summary, &mut found));
        found
    }

    /// The name of an organization on this board.
    pub fn organization_name(&self, index: OrganizationIndex) -> Option<Arc<str>> {
        read(&self.organizations).get(usize::from(index.0)).map(|(name, _)| Arc::clone(name))
    }

    pub fn admin_token_expires(&self, organization: OrganizationIndex, at: Option<Timestamp>) {
        if let Some((_, expires_at)) = write(&self.organizations).get_mut(usize::from(organization.0)) {
            *expires_at = at.into();
        }
    }

    /// How it stands with every configured fleet.
    pub fn fleets(&self, fleets: Vec<FleetSummary>) {
        *write(&self.fleets) = fleets;
    }

    /// How it stands with the configured accounts.
    pub fn accounts(&self, accounts: AccountsSummary) {
        *write(&self.accounts) = accounts;
    }

    /// A credential is not configured any more, and a token of it lives until then.
    pub fn let_go(&self, credential: CredentialName, tokens_until: Timestamp) {
        write(&self.let_go).insert(credential, tokens_until);
    }

    /// It is configured again, or goes on under another name.
    pub fn not_let_go(&self, credential: &CredentialName) {
        write(&self.let_go).remove(credential);
    }

    fn let_go_at(&self, now: Timestamp) -> Vec<LetGo> {
        let mut let_go = write(&self.let_go);
        let_go.retain(|_, until| *until > now);
        let mut told: Vec<LetGo> =
            let_go.iter().map(|(name, until)| LetGo { credential: name.clone(), tokens_until: *until }).collect();
        told.sort_by_key(|told| std::cmp::Reverse(told.tokens_until));
        told.truncate(LET_GO_MAX);
        told
    }

    /// The scheduler is alive.
    pub fn beat(&self, now: Moment) {
        *write(&self.heartbeat) = now;
    }

    /// A valid configuration came into force: at the start, or by a reload.
    pub fn configuration_loaded(&self, at: Timestamp) {
        let mut shared = write(&self.shared);
        shared.configuration_valid = true;
        shared.last_reload_successful = true;
        shared.last_reload_success_at = at.into();
    }

    /// A reload was refused; the configuration from before stays in force.
    pub fn reload_failed(&self) {
        write(&self.shared).last_reload_successful = false;
    }

    pub fn journal(&self, state: JournalState) {
        write(&self.shared).journal = state;
    }

    /// This rotad stands by while `holder` has the journal.
    pub fn stands_by(&self, holder: &str) {
        let mut shared = write(&self.shared);
        shared.journal = JournalState::InUse;
        shared.journal_holder = Some(holder.into());
    }

    /// Whether another rotad has the journal.
    pub fn is_standby(&self) -> bool {
        read(&self.shared).journal_holder.is_some()
    }

    pub fn first_sweep_done(&self) {
        write(&self.shared).first_sweep_done = true;
    }

    /// Whether revocations are frozen for `reason`.
    pub fn freeze(&self, reason: FreezeReason, frozen: bool) {
        write(&self.shared).frozen.0.insert(reason, u64::from(frozen));
    }

    /// Local time minus the API's.
    pub fn clock_skew(&self, skew: SignedDuration) {
        write(&self.shared).clock_skew_millis = Some(i64::try_from(skew.as_millis()).unwrap_or(i64::MAX));
    }

    /// Whether the scheduler lives: it gave a sign of life within three minutes.
    pub fn is_alive(&self, now: Moment) -> bool {
        now.steady.since(read(&self.heartbeat).steady) <= HEARTBEAT_AGE_MAX
    }

    /// Why rotad is not ready; empty if it is.
    pub fn not_ready(&self, now: Moment) -> Vec<NotReady> {
        let shared = read(&self.shared);
        let mut reasons = Vec::new();
        if !shared.configuration_valid {
            reasons.push("no valid configuration is in force yet");
        }
        match shared.journal {
            JournalState::Closed if shared.journal_holder.is_some() => {
                reasons.push("the journal can't be reached, so this rotad, which stands by, could not take over");
            }
            JournalState::Closed => reasons.push("the journal is not open yet"),
            JournalState::Unwritable => reasons.push("the journal can't be written, so nothing is issued or revoked"),
            JournalState::Writable => {}
            // Ready to take over, which is all that is asked of it: nothing is swept before.
            JournalState::InUse => return reasons,
        }
        if !shared.first_sweep_done && now.steady.since(self.started.steady) < FIRST_SWEEP_WAIT_MAX {
            reasons.push("the first sweep is under way; it is waited for at most 60 s");
        }
        reasons
    }

    /// The picture as it is now: one pass over all credentials, copying none.
    pub fn snapshot(&self, now: Moment) -> Snapshot {
        let mut snapshot = self.blank(now);
        let mut never_swept = vec![false; snapshot.organizations.len()];
        for summary in read(&self.credentials).values() {
            snapshot.count(summary, now.wall);
            let index = usize::from(summary.organization.0);
            let Some(organization) = snapshot.organizations.get_mut(index) else { continue };
            organization.earliest_expiry_at = organization.earliest_expiry_at.earlier(summary.expires_at);
            organization.last_sweep_at = organization.last_sweep_at.earlier(summary.last_sweep_at);
            never_swept[index] |= summary.last_sweep_at == At::UNKNOWN;
        }
        for (organization, never_swept) in snapshot.organizations.iter_mut().zip(never_swept) {
            if never_swept {
                organization.last_sweep_at = At::UNKNOWN;
            }
        }
        snapshot
    }

    /// The picture without any credential.
    fn blank(&self, now: Moment) -> Snapshot {
        let not_ready = self.not_ready(now);
        let unknown = At::UNKNOWN;
        let organizations = read(&self.organizations);
        let organizations = organizations.iter().map(|(name, admin_token_expires_at)| Organization {
            name: Arc::clone(name),
            earliest_expiry_at: unknown,
            last_sweep_at: unknown,
            admin_token_expires_at: *admin_token_expires_at,
        });
        let organizations = organizations.collect();
        let shared = read(&self.shared).clone();
        Snapshot {
            taken_at: now.wall,
            build: Build::THIS,
            not_ready,
            journal: shared.journal,
            journal_holder: shared.journal_holder,
            first_sweep_done: shared.first_sweep_done,
            heartbeat_at: read(&self.heartbeat).wall.into(),
            last_reload_successful: shared.last_reload_successful,
            last_reload_success_at: shared.last_reload_success_at,
            clock_skew_millis: shared.clock_skew_millis,
            revocations_frozen: shared.frozen,
            organizations,
            fleets: read(&self.fleets).clone(),
            accounts: read(&self.accounts).clone(),
            let_go: self.let_go_at(now.wall),
            credentials: Tally::default(),
            blocked: Tally::default(),
            tokens: Tally::default(),
            tokens_unknown: 0,
            tokens_foreign: 0,
            deliveries_unconfirmed: Tally::default(),
            credentials_needing_attention: 0,
            credentials_past_due: 0,
            credentials_paused: 0,
            credentials_past_deadline: 0,
            revocations_pending: 0,
            revocation_oldest_due_at: unknown,
            survival_deadline_at: unknown,
        }
    }
}

impl Snapshot {
    /// Adds one credential to the totals.
    fn count(&mut self, summary: &Summary, now: Timestamp) {
        self.credentials.add(summary.state, 1);
        if let Some(reason) = summary.blocked {
            self.blocked.add(reason, 1);
        }
        for phase in TokenPhase::ALL {
            self.tokens.add(*phase, summary.tokens.of(*phase).into());
        }
        for kind in sinks::Kind::ALL {
            self.deliveries_unconfirmed.add(kind, summary.deliveries_unconfirmed.of(kind).into());
        }
        self.tokens_unknown += u64::from(summary.tokens_unknown);
        self.tokens_foreign += u64::from(summary.tokens_foreign);
        self.revocations_pending += u64::from(summary.revocations_pending);
        self.credentials_paused += u64::from(summary.paused_until.millis().is_some() && !summary.paused_until.has_come(now));
        self.revocation_oldest_due_at = self.revocation_oldest_due_at.earlier(summary.revocation_oldest_due_at);
        self.credentials_needing_attention += u64::from(summary.attention(now).next().is_some());
        if summary.state != CredentialState::Observed {
            self.credentials_past_due += u64::from(summary.due_at.has_come(now));
            self.credentials_past_deadline += u64::from(summary.deadline_at.has_come(now));
            self.survival_deadline_at = self.survival_deadline_at.earlier(summary.served_until);
        }
    }
}

/// A lock is poisoned only by a panic, which ends the process; what it guards is whole at any moment.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::Steady;

    fn moment(seconds: i64) -> Moment {
        Moment { wall: Timestamp::from_second(1_790_000_000 + seconds).unwrap(), steady: Steady(seconds * 1000) }
    }

    fn at(seconds: i64) -> At {
        moment(seconds).wall.into()
    }

    fn name(text: &str) -> CredentialName {
        text.parse().unwrap()
    }

    #[test]
    fn totals_are_sums_and_earliest_moments_of_the_credentials() {
        let board = Board::new(moment(0));
        let (main, other) = (board.organization("main"), board.organization("other"));
        assert_eq!((board.organization("main"), board.organization_name(other).as_deref()), (main, Some("other")));
        let one = Summary {
            state: CredentialState::Retiring,
            expires_at: at(500),
            due_at: at(100),
            deadline_at: at(300),
            served_until: at(400),
            last_sweep_at: at(50),
            revocations_pending: 2,
            revocation_oldest_due_at: at(70),
            tokens: TokenCounts { current: 1, retiring: 2, ..TokenCounts::default() },
            tokens_unknown: 1,
            ..Summary::new(main)
        };
        board.put(&name("one"), one);
        board.put(
            &name("two"),
            Summary { expires_at: at(450), served_until: at(600), last_sweep_at: at(60), due_at: at(101), ..one },
        );
        board.put(&name("gone"), one);
        board.remove(&name("gone"));
        board.put(
            &name("three"),
            Summary {
                state: CredentialState::Blocked,
                blocked: Some(Blocked::RolledBack),
                deliveries_unconfirmed: SinkCounts { vault: 3, ..SinkCounts::default() },
                tokens_foreign: 4,
                ..Summary::new(other)
            },
        );
        let snapshot = board.snapshot(moment(100));
        assert_eq!(snapshot.credentials.of(CredentialState::Retiring), 2);
        assert_eq!(snapshot.blocked.of(Blocked::RolledBack), 1);
        assert_eq!((snapshot.tokens.of(TokenPhase::Current), snapshot.tokens.of(TokenPhase::Retiring)), (2, 4));
        assert_eq!((snapshot.tokens_unknown, snapshot.tokens_foreign, snapshot.revocations_pending), (2, 4, 4));
        assert_eq!(snapshot.deliveries_unconfirmed.of(sinks::Kind::Vault), 3);
        assert_eq!((snapshot.credentials_past_due, snapshot.credentials_past_deadline), (1, 0));
        assert_eq!((snapshot.survival_deadline_at, snapshot.revocation_oldest_due_at), (at(400), at(70)));
        let [main, other] = snapshot.organizations.as_slice() else { panic!("two organizations") };
        assert_eq!((main.earliest_expiry_at, main.last_sweep_at), (at(450), at(50)));
        assert_eq!((other.earliest_expiry_at, other.last_sweep_at), (At::UNKNOWN, At::UNKNOWN));
    }

    #[test]
    fn one_credential_that_was_never_swept_shows_in_its_organization() {
        let board = Board::new(moment(0));
        let main = board.organization("main");
        board.put(&name("swept"), Summary { last_sweep_at: at(50), ..Summary::new(main) });
        assert_eq!(board.snapshot(moment(60)).organizations[0].last_sweep_at, at(50));
        board.put(&name("never"), Summary::new(main));
        assert_eq!(board.snapshot(moment(60)).organizations[0].last_sweep_at, At::UNKNOWN);
    }

    #[test]
    fn an_observed_credential_is_neither_late_nor_in_the_survival_deadline() {
        let board = Board::new(moment(0));
        let observed = Summary {
            state: CredentialState::Observed,
            due_at: at(1),
            deadline_at: at(2),
            served_until: at(3),
            ..Summary::new(board.organization("main"))
        };
        board.put(&name("observed"), observed);
        let snapshot = board.snapshot(moment(100));
        assert_eq!((snapshot.credentials_past_due, snapshot.credentials_past_deadline), (0, 0));
        assert_eq!(snapshot.survival_deadline_at, At::UNKNOWN);
    }

    #[test]
    fn portions_walk_over_every_credential_once_in_order() {
        let board = Board::new(moment(0));
        let main = board.organization("main");
        let names: Vec<_> = (0..10).map(|number| name(&format!("c{number}"))).collect();
        names.iter().rev().for_each(|name| board.put(name, Summary::new(main)));
        let (mut walked, mut after) = (Vec::new(), None);
        loop {
            let portion = board.portion(after.as_ref(), 3);
            assert!(portion.len() <= 3);
            let Some((last, _)) = portion.last() else { break };
            after = Some(last.clone());
            walked.extend(portion.into_iter().map(|(name, _)| name));
        }
        assert_eq!(walked, names);
    }

    #[test]
    fn it_is_ready_with_configuration_and_journal_once_the_first_sweep_is_done_or_60_s_are_over() {
        let board = Board::new(moment(0));
        assert_eq!(board.not_ready(moment(1)).len(), 3);
        board.configuration_loaded(moment(1).wall);
        board.journal(JournalState::Writable);
        assert_eq!(board.not_ready(moment(59)).len(), 1);
        assert!(board.not_ready(moment(60)).is_empty());
        board.first_sweep_done();
        assert!(board.not_ready(moment(2)).is_empty());
        board.reload_failed();
        assert!(board.not_ready(moment(3)).is_empty(), "the configuration from before is in force");
        board.journal(JournalState::Unwritable);
        assert_eq!(board.not_ready(moment(100)).len(), 1);
    }

    #[test]
    fn three_minutes_without_a_heartbeat_mean_that_the_scheduler_hangs() {
        let board = Board::new(moment(0));
        assert!(board.is_alive(moment(180)));
        assert!(!board.is_alive(moment(181)));
        board.beat(moment(200));
        assert!(board.is_alive(moment(380)));
    }
}
