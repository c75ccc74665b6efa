//! What is known of one credential, in few bytes, and the closed enums that describe it.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::schema;
use crate::clock::Freeze;
use crate::rotation::{AccountState, Blocked, Happened, Reason};
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

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::snapshot::schema::closed::<Self>()
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

impl Label for Happened {
    const ALL: &'static [Self] = &Happened::ALL;

    fn as_str(self) -> &'static str {
        Happened::as_str(self)
    }
}

impl Label for AccountState {
    const ALL: &'static [Self] = &AccountState::ALL;

    fn as_str(self) -> &'static str {
        AccountState::as_str(self)
    }
}

impl Label for Reason {
    const ALL: &'static [Self] = &Reason::ALL;

    fn as_str(self) -> &'static str {
        Reason::as_str(self)
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
        /// No token was issued for it yet.
        New = "new",
        /// Its current token is confirmed at every delivery, and no older one of ours lives.
        Current = "current",
        /// Its newest token is not confirmed at every delivery.
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
        /// Made by hand, and listed for adoption: to be revoked once it is superseded.
        ByHand = "by_hand",
        /// Made to connect to the account once, and to be revoked at once.
        SetUp = "set_up",
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
    pub fn earlier(self, other: Self) -> Self {
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

impl JsonSchema for At {
    fn schema_name() -> Cow<'static, str> {
        "At".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        <Option<Timestamp>>::json_schema(generator)
    }
}

/// Where an organization stands on its board; from `Board::organization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrganizationIndex(pub(super) u16);

/// A count for each variant of a closed enum, small enough to stand in a `Summary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct TokenCounts {
    pub issued: u16,
    pub retiring: u16,
    pub orphaned: u16,
    pub lost: u16,
    /// One or none; the others below are few, and a summary has to be small.
    pub current: u8,
    pub unfit: u8,
    pub by_hand: u8,
    pub set_up: u8,
}

impl TokenCounts {
    pub fn of(&self, phase: TokenPhase) -> u16 {
        match phase {
            TokenPhase::Issued => self.issued,
            TokenPhase::Current => self.current.into(),
            TokenPhase::Retiring => self.retiring,
            TokenPhase::Orphaned => self.orphaned,
            TokenPhase::Lost => self.lost,
            TokenPhase::Unfit => self.unfit.into(),
            TokenPhase::ByHand => self.by_hand.into(),
            TokenPhase::SetUp => self.set_up.into(),
        }
    }
}

/// A count for each kind of sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
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
}

/// What is known of one credential, at most 96 bytes: kept in memory for each of up to 100,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Summary {
    #[serde(skip)]
    pub organization: OrganizationIndex,
    pub state: CredentialState,
    /// Present exactly if `state` is `Blocked`.
    #[schemars(schema_with = "schema::maybe::<Blocked>")]
    pub blocked: Option<Blocked>,
    /// When the current token expires; before the first one is current, the newest.
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
    /// Until when nothing is issued, since a person paused it.
    pub paused_until: At,
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
    /// Deliveries whose last read or write failed.
    pub deliveries_failing: u16,
    /// Whether the last list failed, or a request for a token.
    pub provider_failing: bool,
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
            paused_until: At::UNKNOWN,
            revocation_oldest_due_at: At::UNKNOWN,
            revocations_pending: 0,
            tokens: TokenCounts::default(),
            tokens_unknown: 0,
            tokens_foreign: 0,
            deliveries_unconfirmed: SinkCounts::default(),
            deliveries_failing: 0,
            provider_failing: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_stays_small_since_there_are_100_000_of_them() {
        assert!(size_of::<Summary>() <= 96, "{} bytes", size_of::<Summary>());
    }
}
