//! What is known of one credential: the state that the journal keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::adopt::Adoption;
use super::backoff::Backoff;
use super::connect::{Connected, Unconnected};
use super::order::Orders;
use super::outcome::Failed;
use super::words::{Account, CredentialName, DeliveryId, Fingerprint, Moment, RotationId, TokenId, TokenType};

/// What a ttl or a grace period can be: the configuration takes no longer ones, and sums with them don't overflow.
const LENGTHS: std::ops::RangeInclusive<SignedDuration> = SignedDuration::ZERO..=SignedDuration::from_hours(100 * 365 * 24);

/// One run of the daemon, drawn at its start: tells a writer that is gone from one of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessId(pub u64);

/// Everything known of one credential. What it should do next is a function of this, the policy
/// and the time; nothing is remembered elsewhere.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Whether the deliveries were once read as a whole. A new credential and one whose journal was
    /// lost are the same: unread.
    pub known: bool,
    /// The name that this was last saved under; `None` before the first turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<CredentialName>,
    /// Names that it had before, each with the newest rotation of the time: up to that one, tokens of
    /// that name are its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub renamed: BTreeMap<CredentialName, RotationId>,
    /// Every rotation whose token may live, by age.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rotations: BTreeMap<RotationId, Rotation>,
    /// The configured deliveries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deliveries: BTreeMap<DeliveryId, Delivery>,
    /// Places that were configured once, each with the newest rotation of the time: tokens up to
    /// that one may still be read there, so they are left to expire.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub former: BTreeMap<DeliveryId, RotationId>,
    /// Since when every delivery shows one and the same rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
    /// The newest rotation that every delivery confirmed: the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<RotationId>,
    /// The newest rotation id ever minted or adopted here: the next one is later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<RotationId>,
    /// Attempts to issue since the last success.
    #[serde(default)]
    pub issuing: Backoff,
    /// Failures of listing since the last success.
    #[serde(default)]
    pub listing: Backoff,
    /// Unfit tokens in a row: the second one blocks.
    #[serde(default)]
    pub unfit: u32,
    /// The schedule that due times were last taken from, and since when it holds: a changed one
    /// makes nothing due that lies before the change.
    #[serde(default)]
    pub schedule_tag: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_from: Option<Timestamp>,
    /// When list and deliveries were last compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swept_at: Option<Timestamp>,
    /// The process that did: another one compares anew at its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swept_by: Option<ProcessId>,
    /// When a rotation last became current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Block>,
    /// What persons ordered and is not done yet.
    #[serde(default, skip_serializing_if = "Orders::is_empty")]
    pub orders: Orders,
    /// Ids of tokens made by hand that the operator lists for adoption, and what became of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub adoptions: BTreeMap<TokenId, Adoption>,
    /// Rotations that a delivery shows, that the journal does not know and that complete lists lack,
    /// each with the time of the first such list.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub strangers_missing: BTreeMap<RotationId, Timestamp>,
    /// The account whose first connection was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<Connected>,
    /// Why the account's first connection could not be made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconnected: Option<Unconnected>,
    /// What the last complete list held.
    #[serde(default)]
    pub seen: Seen,
    /// The rotation whose token was last seen live in a list, and the process that saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_live: Option<(RotationId, ProcessId)>,
    /// A write was left unsettled while the clocks were not compared: how long ago that was is not
    /// known, so it counts from the comparison.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsettled_while_frozen: bool,
}

/// Counts of the last complete list of the credential's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Live tokens named for this credential.
    pub live: u32,
    /// Of those, the ones that the journal did not record.
    pub unknown: u32,
    /// Live tokens of anybody else.
    pub foreign: u32,
}

/// One rotation: from the intent until its token is revoked or expired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    pub intended_at: Moment,
    /// The process that asked for the token.
    pub by: ProcessId,
    /// Where its token was asked for, and is revoked.
    pub organization: Arc<str>,
    pub account: Account,
    /// How long its token lives if it exists: a lost one is looked for that long and an hour.
    pub ttl: SignedDuration,
    /// What it was asked for as, whatever is configured since; `None` where a version of rotad asked that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_type: Option<TokenType>,
    pub stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// A rebuild found it: this journal did not record it, so it is left to expire (S3).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// Asked for to connect to the account once, and for nothing else: no delivery is ever handed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub set_up: bool,
    /// When the first of the complete lists that lack it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    /// Two complete lists, a minute apart, lack it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vanished: bool,
    /// Deliveries where its value may be or may have been.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attempts: BTreeMap<DeliveryId, Attempt>,
    /// A revocation was sent; the token may be dead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revocation_sent: bool,
    /// Attempts at what comes next for it: verifying, looking for it, revoking it.
    #[serde(default)]
    pub backoff: Backoff,
}

/// How far a rotation came. Current and retiring are not stages: they follow from what the
/// deliveries confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Journaled before the provider is asked.
    Requested,
    /// Asked for, outcome unknown: looked for by name.
    Lost,
    /// The token is recorded; `verified` before any delivery.
    Issued { verified: bool },
    /// Not what was asked for, or disproved; its value never left its process.
    Unfit,
    /// Its value is gone before every delivery had it.
    Orphaned,
    /// A person made it and lists it for adoption: its value was never known here.
    ByHand,
    /// A set-up token that is recorded: connected with by the process that asked for it, then revoked.
    SetUp,
}

/// What is recorded of a token. Its value is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub id: TokenId,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// `None` for a token found by its name alone: its value was never seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
}

/// A write of one rotation to one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attempt {
    /// A write is under way, by this process: journaled before it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writing: Option<ProcessId>,
    /// A write of unknown outcome, and since when its writer is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<Moment>,
    /// The sink answered that a write was carried out, or a read-back showed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub landed: bool,
}

impl Attempt {
    /// Whether every write was definitely refused, so that nothing was ever there.
    pub fn is_void(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known of one configured delivery.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// The newest rotation that a read-back ever showed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<RotationId>,
    /// When the last write that may have landed ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_at: Option<Moment>,
    /// Polls of a place that does not show our write yet.
    #[serde(default)]
    pub lag: Backoff,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// What the last readable look found amiss, so that it is told once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oddity: Option<Oddity>,
    /// When a change by hand was last mended: at most hourly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended_at: Option<Timestamp>,
}

/// The last failure at a delivery, until a read and a write succeeded again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    pub since: Timestamp,
    pub writing: bool,
    pub failed: Failed,
    pub backoff: Backoff,
}

/// A delivery shows an earlier rotation than the one last confirmed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    pub shows: RotationId,
    /// The newest rotation when it was seen: only a later one overwrites what a person put there.
    pub under: RotationId,
}

/// What a look at a delivery found amiss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oddity {
    ChangedByHand,
    Emptied,
}

/// Since when every delivery shows `rotation`, and the longest grace period asked for meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub rotation: RotationId,
    pub since: Moment,
    pub grace: SignedDuration,
    /// It began before the clocks were compared: the steady clock is yet to count the time that the
    /// daemon was not running, and would count it into the period. It begins with the comparison.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncompared: bool,
    /// Where rotad itself uses the token: it did so for a whole sweep, and `since` is when that was over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub used: bool,
}

/// Why a credential needs a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocked {
    SecondInstallation,
    AnotherOrganization,
    NoSuchAccount,
    OwnedByOther,
    ScheduledForDeletion,
    TakeOverNeeded,
    UnfitToken,
    TooManyTokens,
    RolledBack,
    FirstConnectionNeeded,
}

impl Blocked {
    pub const ALL: [Self; 10] = [
        Self::SecondInstallation,
        Self::AnotherOrganization,
        Self::NoSuchAccount,
        Self::OwnedByOther,
        Self::ScheduledForDeletion,
        Self::TakeOverNeeded,
        Self::UnfitToken,
        Self::TooManyTokens,
        Self::RolledBack,
        Self::FirstConnectionNeeded,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecondInstallation => "second_installation",
            Self::AnotherOrganization => "another_organization",
            Self::NoSuchAccount => "no_such_account",
            Self::OwnedByOther => "owned_by_other",
            Self::ScheduledForDeletion => "scheduled_for_deletion",
            Self::TakeOverNeeded => "take_over_needed",
            Self::UnfitToken => "unfit_token",
            Self::TooManyTokens => "too_many_tokens",
            Self::RolledBack => "rolled_back",
            Self::FirstConnectionNeeded => "first_connection_needed",
        }
    }
}

/// A credential's block, with what a person needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub reason: Blocked,
    pub since: Timestamp,
    /// What was found and what to do, in a sentence.
    pub detail: String,
}

impl Credential {
    /// The newest rotation whose token can be delivered.
    pub fn latest(&self) -> Option<(RotationId, &Rotation)> {
        let issued = |rotation: &&Rotation| matches!(rotation.stage, Stage::Issued { .. });
        self.rotations.iter().rev().find(|(_, rotation)| issued(rotation)).map(|(id, rotation)| (*id, rotation))
    }

    /// The rotation whose token has this id.
    pub fn rotation_of(&self, token: &TokenId) -> Option<RotationId> {
        let is_it = |rotation: &Rotation| rotation.token.as_ref().is_some_and(|recorded| recorded.id == *token);
        self.rotations.iter().find(|(_, rotation)| is_it(rotation)).map(|(id, _)| *id)
    }

    /// Whether a value of ours was ever, or may ever have been, at the delivery.
    pub fn was_ours(&self, delivery: &DeliveryId) -> bool {
        self.deliveries.get(delivery).is_some_and(|known| known.confirmed.is_some())
            || self.rotations.values().any(|rotation| rotation.attempts.contains_key(delivery))
    }

    /// Whether there never was a rotation: nothing would be lost if another history took its place.
    pub fn is_untouched(&self) -> bool {
        self.newest.is_none() && self.rotations.is_empty()
    }

    /// Whether this can be the state of a credential. It holds for whatever the core makes of one (it
    /// checks itself after each step); a damaged or edited record need not.
    ///
    /// # Errors
    /// What can't be.
    pub fn check(&self) -> Result<(), String> {
        for (id, rotation) in &self.rotations {
            let recorded = rotation.token.is_some();
            let wrong = match rotation.stage {
                Stage::Requested | Stage::Lost => {
                    (recorded || rotation.was_attempted()).then_some("has a token before it was issued")
                }
                Stage::Issued { .. } | Stage::Unfit | Stage::Orphaned | Stage::ByHand | Stage::SetUp => {
                    (!recorded).then_some("was issued without a record of its token")
                }
            };
            let is_set_up = match rotation.stage {
                Stage::Requested | Stage::Lost | Stage::Unfit => rotation.set_up,
                Stage::SetUp => true,
                Stage::Issued { .. } | Stage::Orphaned | Stage::ByHand => false,
            };
            let mixed_up = rotation.set_up != is_set_up || (rotation.set_up && rotation.was_attempted());
            let wrong = wrong.or(mixed_up.then_some("is a set-up token in part"));
            let wrong = wrong.or((Some(*id) > self.newest).then_some("is newer than the newest"));
            let wrong = wrong.or((!LENGTHS.contains(&rotation.ttl)).then_some("has a life that no token has"));
            if let Some(wrong) = wrong {
                return Err(format!("rotation {id} {wrong} (newest: {:?}): {rotation:?}", self.newest));
            }
        }
        match &self.settled {
            Some(settled) if !self.rotations.contains_key(&settled.rotation) => {
                Err(format!("settled on {}, which is not known", settled.rotation))
            }
            Some(settled) if !LENGTHS.contains(&settled.grace) => Err(format!("a grace period of {} is none", settled.grace)),
            _ => Ok(()),
        }
    }

    /// Remembers the newest id, so that the next one is later.
    pub fn note_newest(&mut self, id: RotationId) {
        self.newest = self.newest.max(Some(id));
    }
}

impl Rotation {
    /// Whether any delivery may hold or have held its value.
    pub fn was_attempted(&self) -> bool {
        !self.attempts.is_empty()
    }
}
