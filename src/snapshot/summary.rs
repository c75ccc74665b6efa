//! What is known of one credential, in few bytes, and the closed enums that describe it.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::clock::Freeze;
use crate::rotation::{Blocked, Credential, DeliveryId, Mode, Policy, Rotation, RotationId, Stage, deadline, due_by_time};
use crate::sinks;

/// An enum whose variants are all known beforehand, so that it may be a metric's label.
pub trait Label: Copy + Ord + 'static {
    /// Every variant, in the order of their declaration.
    const ALL: &'static [Self];

    /// The variant as labels and JSON have it: lower-case words joined by underscores.
    fn as_str(self) -> &'static str;
}

/// Declares a closed enum with the text of each variant.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $crate::snapshot::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($crate::snapshot::Label::as_str(*self))
            }
        }
    };
}
pub(crate) use label;

impl Label for Blocked {
    const ALL: &'static [Self] = &Blocked::ALL;

    fn as_str(self) -> &'static str {
        Blocked::as_str(self)
    }
}

impl Label for sinks::Kind {
    const ALL: &'static [Self] = &sinks::Kind::ALL;

    fn as_str(self) -> &'static str {
        sinks::Kind::as_str(self)
    }
}

label!(
    /// What a credential is doing, in one word.
    CredentialState {
        /// It never had a current token.
        New = "new",
        /// Its current token is confirmed at every delivery, and no older one of ours lives.
        Current = "current",
        /// A successor is being issued, verified or delivered.
        Delivering = "delivering",
        /// Its current token is confirmed, and an older one waits for the end of its grace period.
        Retiring = "retiring",
        /// It needs a person.
        Blocked = "blocked",
        /// It is only looked at (`mode = "observe"`).
        Observed = "observed",
    }
);

label!(
    /// Where a token that the journal recorded is in its life.
    TokenPhase {
        /// Issued, and not yet confirmed at every delivery.
        Issued = "issued",
        Current = "current",
        /// Replaced, and alive until its grace period is over.
        Retiring = "retiring",
        /// Its value was gone before every delivery had it.
        Orphaned = "orphaned",
        /// Asked for, outcome unknown.
        Lost = "lost",
        /// Not what was asked for.
        Unfit = "unfit",
    }
);

label!(
    /// Why nothing is revoked for now, whatever the credential.
    FreezeReason {
        /// Local time was not compared with the API's since the start.
        NotCompared = "not_compared",
        /// The wall clock jumped by more than 60 s against the time since boot.
        ClockJump = "clock_jump",
        /// Local time and the API's differ by more than 60 s.
        ClockSkew = "clock_skew",
        /// Too many known tokens vanished at once: perhaps another organization answers.
        AnotherOrganization = "another_organization",
        /// The journal can't be written.
        JournalUnwritable = "journal_unwritable",
        /// A person paused rotad.
        Paused = "paused",
    }
);

impl From<Freeze> for FreezeReason {
    fn from(freeze: Freeze) -> Self {
        match freeze {
            Freeze::NotCompared => Self::NotCompared,
            Freeze::ClockJump => Self::ClockJump,
            Freeze::ClockSkew => Self::ClockSkew,
        }
    }
}

/// A moment as milliseconds since 1970 by the wall clock, or unknown: 8 bytes, where
/// `Option<Timestamp>` takes 16, since there is one summary for each of 100,000 credentials.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct At(i64);

impl At {
    pub const UNKNOWN: Self = Self(i64::MIN);

    /// The milliseconds, if the moment is known.
    pub fn millis(self) -> Option<i64> {
        (self != Self::UNKNOWN).then_some(self.0)
    }

    pub fn timestamp(self) -> Option<Timestamp> {
        self.millis().and_then(|millis| Timestamp::from_millisecond(millis).ok())
    }

    /// Whether the moment is known and `now` is not before it.
    pub(super) fn has_come(self, now: Timestamp) -> bool {
        self.millis().is_some_and(|millis| millis <= now.as_millisecond())
    }

    /// The earlier of two; an unknown moment yields to a known one.
    pub(super) fn earlier(self, other: Self) -> Self {
        match (self.millis(), other.millis()) {
            (None, _) => other,
            (_, None) => self,
            (Some(one), Some(two)) => Self(one.min(two)),
        }
    }
}

impl Default for At {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl From<Timestamp> for At {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp.as_millisecond())
    }
}

impl From<Option<Timestamp>> for At {
    fn from(timestamp: Option<Timestamp>) -> Self {
        timestamp.map_or(Self::UNKNOWN, Self::from)
    }
}

impl std::fmt::Debug for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.timestamp(), f)
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.timestamp().serialize(serializer)
    }
}

/// Where an organization stands on its board; from `Board::organization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrganizationIndex(pub(super) u16);

/// A count for each variant of a closed enum, small enough to stand in a `Summary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TokenCounts {
    pub issued: u16,
    pub current: u16,
    pub retiring: u16,
    pub orphaned: u16,
    pub lost: u16,
    pub unfit: u16,
}

impl TokenCounts {
    pub fn of(&self, phase: TokenPhase) -> u16 {
        match phase {
            TokenPhase::Issued => self.issued,
            TokenPhase::Current => self.current,
            TokenPhase::Retiring => self.retiring,
            TokenPhase::Orphaned => self.orphaned,
            TokenPhase::Lost => self.lost,
            TokenPhase::Unfit => self.unfit,
        }
    }
}

/// A count for each kind of sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SinkCounts {
    pub aws: u16,
    pub file: u16,
    pub vault: u16,
}

impl SinkCounts {
    pub fn of(&self, kind: sinks::Kind) -> u16 {
        match kind {
            sinks::Kind::Aws => self.aws,
            sinks::Kind::File => self.file,
            sinks::Kind::Vault => self.vault,
        }
    }

    fn count(&mut self, place: &DeliveryId) {
        let count = match sink_of(place) {
            Some(sinks::Kind::Aws) => &mut self.aws,
            Some(sinks::Kind::File) => &mut self.file,
            Some(sinks::Kind::Vault) => &mut self.vault,
            None => return,
        };
        *count = count.saturating_add(1);
    }
}

/// What is known of one credential, at most 96 bytes: kept in memory for each of up to 100,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Summary {
    #[serde(skip)]
    pub organization: OrganizationIndex,
    pub state: CredentialState,
    /// Present exactly if `state` is `Blocked`.
    pub blocked: Option<Blocked>,
    /// When the current token expires.
    pub expires_at: At,
    /// When the next rotation is due by schedule.
    pub due_at: At,
    /// The last safe moment to have rotated.
    pub deadline_at: At,
    /// When a rotation last was confirmed at every delivery.
    pub last_success_at: At,
    /// Until when its consumers keep working if rotad dies now: the earliest expiry of a token that a
    /// delivery serves.
    pub served_until: At,
    /// When list and deliveries were last compared with success.
    pub last_sweep_at: At,
    /// When the most overdue of its pending revocations was or will be due.
    pub revocation_oldest_due_at: At,
    /// Revocations that wait for their time, their conditions or a repetition.
    pub revocations_pending: u16,
    /// Tokens that the journal recorded and that live, or may live.
    pub tokens: TokenCounts,
    /// Live tokens named for this credential that the journal did not record.
    pub tokens_unknown: u16,
    /// Live tokens in the account that are not named for this credential.
    pub tokens_foreign: u16,
    /// Deliveries that do not confirm the newest token.
    pub deliveries_unconfirmed: SinkCounts,
}

impl Summary {
    /// A credential of which nothing is known yet.
    pub fn new(organization: OrganizationIndex) -> Self {
        Self {
            organization,
            state: CredentialState::New,
            blocked: None,
            expires_at: At::UNKNOWN,
            due_at: At::UNKNOWN,
            deadline_at: At::UNKNOWN,
            last_success_at: At::UNKNOWN,
            served_until: At::UNKNOWN,
            last_sweep_at: At::UNKNOWN,
            revocation_oldest_due_at: At::UNKNOWN,
            revocations_pending: 0,
            tokens: TokenCounts::default(),
            tokens_unknown: 0,
            tokens_foreign: 0,
            deliveries_unconfirmed: SinkCounts::default(),
        }
    }

    /// What the state of a credential comes to. Pure, and cheap enough to be called after every save.
    pub fn of(credential: &Credential, policy: &Policy, organization: OrganizationIndex, now: Timestamp) -> Self {
        let observed = policy.mode == Mode::Observe;
        let current = credential.current.and_then(|id| credential.rotations.get(&id));
        let expires_at = current.and_then(|rotation| Some(rotation.token.as_ref()?.expires_at));
        let newest_expiry = credential.latest().and_then(|(_, rotation)| Some(rotation.token.as_ref()?.expires_at));
        let mut summary = Self {
            state: state_of(credential, observed),
            blocked: credential.blocked.as_ref().map(|block| block.reason).filter(|_| !observed),
            expires_at: expires_at.into(),
            due_at: due_by_time(credential, policy, now).map(|due| due.at).into(),
            deadline_at: newest_expiry.map(|expiry| deadline(expiry, policy)).into(),
            last_success_at: credential.last_success_at.into(),
            last_sweep_at: credential.swept_at.into(),
            tokens_unknown: small(credential.seen.unknown),
            tokens_foreign: small(credential.seen.foreign),
            ..Self::new(organization)
        };
        for (id, rotation) in &credential.rotations {
            summary.count_rotation(credential, *id, rotation);
        }
        let newest = credential.latest().map(|(id, _)| id);
        for place in policy.deliveries.keys() {
            let confirmed = credential.deliveries.get(place).and_then(|known| known.confirmed);
            if let Some(id) = confirmed {
                summary.served_until = summary.served_until.earlier(expiry_of(credential, policy, id));
            }
            if !observed && (newest.is_none() || confirmed != newest) {
                summary.deliveries_unconfirmed.count(place);
            }
        }
        summary
    }

    fn count_rotation(&mut self, credential: &Credential, id: RotationId, rotation: &Rotation) {
        let replaced = credential.current.is_some_and(|current| id < current);
        let count = match rotation.stage {
            Stage::Requested => return,
            Stage::Lost => &mut self.tokens.lost,
            Stage::Unfit => &mut self.tokens.unfit,
            Stage::Orphaned => &mut self.tokens.orphaned,
            Stage::Issued { .. } if credential.current == Some(id) => &mut self.tokens.current,
            Stage::Issued { .. } if replaced => &mut self.tokens.retiring,
            Stage::Issued { .. } => &mut self.tokens.issued,
        };
        *count = count.saturating_add(1);
        // What was adopted, or may be served by a place that is not configured any more, is left to expire.
        let left_to_expire = rotation.adopted || credential.former.values().any(|newest| id <= *newest);
        let to_revoke = match rotation.stage {
            Stage::Requested | Stage::Lost => false,
            Stage::Issued { .. } => replaced,
            Stage::Unfit | Stage::Orphaned => true,
        };
        if to_revoke && rotation.token.is_some() && !left_to_expire {
            self.revocations_pending = self.revocations_pending.saturating_add(1);
            let settled = credential.settled.filter(|settled| settled.rotation > id);
            let due_at = settled.and_then(|settled| settled.since.wall.checked_add(settled.grace).ok());
            self.revocation_oldest_due_at = self.revocation_oldest_due_at.earlier(due_at.into());
        }
    }
}

fn state_of(credential: &Credential, observed: bool) -> CredentialState {
    let Some(current) = credential.current.filter(|_| !observed && credential.blocked.is_none()) else {
        return match (observed, &credential.blocked) {
            (true, _) => CredentialState::Observed,
            (false, Some(_)) => CredentialState::Blocked,
            (false, None) => CredentialState::New,
        };
    };
    let under_way = |(id, rotation): (&RotationId, &Rotation)| {
        *id > current && matches!(rotation.stage, Stage::Requested | Stage::Issued { .. })
    };
    if credential.rotations.iter().any(under_way) {
        CredentialState::Delivering
    } else if credential.rotations.keys().any(|id| *id < current) {
        CredentialState::Retiring
    } else {
        CredentialState::Current
    }
}

/// When the token of a rotation expires; one that the state no longer holds lived no longer than asked for.
fn expiry_of(credential: &Credential, policy: &Policy, id: RotationId) -> At {
    let recorded = credential.rotations.get(&id).and_then(|rotation| Some(rotation.token.as_ref()?.expires_at));
    recorded.or_else(|| id.minted_at().checked_add(policy.ttl).ok()).into()
}

fn small(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// The kind of sink that a delivery goes to: its id begins with the kind.
pub fn sink_of(delivery: &DeliveryId) -> Option<sinks::Kind> {
    let (kind, _) = delivery.as_str().split_once(':')?;
    sinks::Kind::ALL.into_iter().find(|known| known.as_str() == kind)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::SignedDuration;

    use super::*;
    use crate::rotation::{
        Account, Block, Delivery, DeliveryPolicy, InstallationId, Moment, Owner, ProcessId, Schedule, Settled, Steady, Token,
        TokenId, TokenType, Verify,
    };

    const FILE: &str = "file:/run/etl/token";
    const VAULT: &str = "vault:https://v/secret/etl#token";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    fn id(seconds: i64) -> RotationId {
        RotationId::mint(at(seconds), None, InstallationId(1), 0)
    }

    fn policy(mode: Mode) -> Policy {
        let owner = Owner { deployment: "prod".parse().unwrap(), credential: "etl".parse().unwrap() };
        let place = DeliveryPolicy { take_over: false, write_limit: SignedDuration::from_secs(10) };
        let deliveries = [FILE, VAULT].map(|id| (DeliveryId::new(id), place.clone()));
        Policy {
            schedule: Schedule::every(SignedDuration::from_hours(1), &owner),
            owner,
            organization: "main".into(),
            account: Account::new("etl"),
            token_type: TokenType::ReadWrite,
            ttl: SignedDuration::from_secs(10_000),
            window: None,
            grace: SignedDuration::from_secs(600),
            verify: Verify::None,
            mode,
            deliveries: BTreeMap::from(deliveries),
            sweep_every: SignedDuration::from_hours(1),
            tokens_max: 16,
        }
    }

    fn rotation(seconds: i64, stage: Stage) -> (RotationId, Rotation) {
        let rotation = Rotation {
            intended_at: Moment { wall: at(seconds), steady: Steady(0) },
            by: ProcessId(1),
            organization: "main".into(),
            account: Account::new("etl"),
            ttl: SignedDuration::from_secs(10_000),
            stage,
            token: (stage != Stage::Lost).then(|| Token {
                id: TokenId(format!("token-{seconds}")),
                created_at: at(seconds),
                expires_at: at(seconds + 10_000),
                fingerprint: None,
            }),
            adopted: false,
            missing_since: None,
            vanished: false,
            attempts: BTreeMap::new(),
            revocation_sent: false,
            backoff: Default::default(),
        };
        (id(seconds), rotation)
    }

    fn confirmed(place: &str, seconds: i64) -> (DeliveryId, Delivery) {
        (DeliveryId::new(place), Delivery { confirmed: Some(id(seconds)), ..Delivery::default() })
    }

    const ISSUED: Stage = Stage::Issued { verified: true };

    /// Rotated at 100 after a first token at 0; both places confirm the second.
    fn rotated() -> Credential {
        Credential {
            known: true,
            rotations: [rotation(0, ISSUED), rotation(100, ISSUED)].into(),
            deliveries: [confirmed(FILE, 100), confirmed(VAULT, 100)].into(),
            settled: Some(Settled {
                rotation: id(100),
                since: Moment { wall: at(110), steady: Steady(0) },
                grace: SignedDuration::from_secs(600),
            }),
            current: Some(id(100)),
            last_success_at: Some(at(110)),
            ..Credential::default()
        }
    }

    fn summary(credential: &Credential, mode: Mode) -> Summary {
        Summary::of(credential, &policy(mode), OrganizationIndex(0), at(200))
    }

    #[test]
    fn a_token_that_was_replaced_is_retiring_and_its_revocation_due_when_grace_is_over() {
        let summary = summary(&rotated(), Mode::Rotate);
        assert_eq!(summary.state, CredentialState::Retiring);
        assert_eq!(summary.tokens, TokenCounts { current: 1, retiring: 1, ..TokenCounts::default() });
        assert_eq!((summary.revocations_pending, summary.revocation_oldest_due_at), (1, at(710).into()));
        assert_eq!((summary.expires_at, summary.served_until), (at(10_100).into(), at(10_100).into()));
        assert_eq!((summary.deadline_at, summary.last_success_at), (at(10_100 - 600 - 1_000).into(), at(110).into()));
        assert_eq!(summary.deliveries_unconfirmed, SinkCounts::default());
    }

    #[test]
    fn while_a_successor_is_on_its_way_consumers_are_served_until_the_oldest_confirmed_token_expires() {
        let mut credential = rotated();
        credential.rotations.extend([rotation(180, ISSUED)]);
        credential.deliveries.extend([confirmed(FILE, 180)]);
        let summary = summary(&credential, Mode::Rotate);
        assert_eq!((summary.state, summary.tokens.issued), (CredentialState::Delivering, 1));
        assert_eq!(summary.deliveries_unconfirmed, SinkCounts { vault: 1, ..SinkCounts::default() });
        assert_eq!(summary.served_until, at(10_100).into());
    }

    #[test]
    fn a_place_whose_token_the_state_forgot_is_served_no_longer_than_that_token_could_live() {
        let mut credential = rotated();
        credential.deliveries.extend([confirmed(VAULT, -9_000)]);
        assert_eq!(summary(&credential, Mode::Rotate).served_until, at(1_000).into());
    }

    #[test]
    fn what_was_adopted_or_may_be_served_by_a_former_place_is_not_pending() {
        let mut credential = rotated();
        credential.former.insert(DeliveryId::new("file:/old"), id(0));
        assert_eq!(summary(&credential, Mode::Rotate).revocations_pending, 0);
        credential.former.clear();
        credential.rotations.values_mut().for_each(|rotation| rotation.adopted = true);
        assert_eq!(summary(&credential, Mode::Rotate).revocations_pending, 0);
    }

    #[test]
    fn lost_orphaned_and_unfit_tokens_are_counted_and_only_what_has_an_id_can_be_revoked() {
        let mut credential = rotated();
        credential.rotations = [rotation(100, ISSUED), rotation(120, Stage::Lost), rotation(90, Stage::Orphaned)].into();
        credential.rotations.extend([rotation(130, Stage::Unfit), rotation(140, Stage::Requested)]);
        let summary = summary(&credential, Mode::Rotate);
        assert_eq!(summary.tokens, TokenCounts { current: 1, lost: 1, orphaned: 1, unfit: 1, ..TokenCounts::default() });
        assert_eq!((summary.state, summary.revocations_pending), (CredentialState::Delivering, 2));
    }

    #[test]
    fn the_state_is_one_word() {
        assert_eq!(summary(&Credential::default(), Mode::Rotate).state, CredentialState::New);
        assert_eq!(
            summary(&Credential::default(), Mode::Rotate).deliveries_unconfirmed,
            SinkCounts { aws: 0, file: 1, vault: 1 }
        );
        let mut credential = rotated();
        credential.rotations.remove(&id(0));
        assert_eq!(summary(&credential, Mode::Rotate).state, CredentialState::Current);
        let block = Block { reason: Blocked::RolledBack, since: at(150), detail: String::new() };
        credential.blocked = Some(block);
        let blocked = summary(&credential, Mode::Rotate);
        assert_eq!((blocked.state, blocked.blocked), (CredentialState::Blocked, Some(Blocked::RolledBack)));
        let observed = summary(&credential, Mode::Observe);
        assert_eq!((observed.state, observed.blocked), (CredentialState::Observed, None));
    }

    #[test]
    fn a_summary_stays_small_since_there_are_100_000_of_them() {
        assert!(size_of::<Summary>() <= 96, "{} bytes", size_of::<Summary>());
    }
}
