//! What happened to a credential, one line of its history for each step.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::outcome::Reason;
use super::words::{DeliveryId, RotationId, TokenId};

/// A kind of event in a credential's history. Closed: logs, metrics and filters go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// A rotation id was minted; its token is about to be asked for.
    Intended,
    Issued,
    IssueRefused,
    /// No answer to the request for a token: it is lost until the list shows it or time gives it up.
    Lost,
    /// A lost token was found in the list.
    Found,
    /// A lost token was looked for until its request was older than its life would have been.
    GivenUp,
    /// The token is not what was asked for: its life or its type differs, or verification disproved it.
    Unfit,
    Verified,
    VerifyFailed,
    /// A write to a delivery is about to begin.
    Attempted,
    WriteRefused,
    /// The place changed between read and write.
    WriteConflict,
    /// No answer to a write: it may have landed, or may still land.
    WriteUnknown,
    /// A read-back showed the rotation at the delivery.
    Confirmed,
    /// Every delivery confirmed the rotation: it is current, and its grace period begins.
    Promoted,
    /// The value is gone before every delivery had it.
    Orphaned,
    ReadFailed,
    ListFailed,
    RevocationIntended,
    Revoked,
    RevokeFailed,
    Expired,
    /// Two complete lists lack the token that the deliveries serve.
    Vanished,
    /// A delivery holds a value that no marker and no fingerprint explains.
    ChangedByHand,
    /// A delivery that served the current token holds nothing any more.
    Emptied,
    RolledBack,
    /// What the deliveries serve was taken as the truth, since the journal did not know it.
    Rebuilt,
    DeliveryAdded,
    DeliveryRemoved,
    /// The history of an earlier name is carried on.
    Renamed,
    Blocked,
    Unblocked,
    /// A schedule, a window, a limit or a freeze was passed over, since the token would have expired.
    DeadlineForced,
    /// A person ordered something; the detail says what, `by` who.
    Ordered,
    /// An order came to its end without effect; the detail says why.
    OrderEnded,
    PauseEnded,
    /// A token made by hand was taken in, to be superseded and revoked.
    AdoptionTaken,
    /// An id that is listed for adoption can't be taken; the detail says why.
    AdoptionRefused,
    /// An id is no longer listed for adoption: its token is not revoked.
    AdoptionWithdrawn,
    /// rotad itself has used its new admin token for a whole sweep: its grace period begins.
    InUse,
    /// A rotation id was minted for a set-up token, with which the account is connected to for the first time.
    SetUpIntended,
    /// The account was connected to for the first time: its read-scaling tokens work.
    Connected,
    ConnectFailed,
}

impl Happened {
    pub const ALL: [Self; 43] = [
        Self::Intended,
        Self::Issued,
        Self::IssueRefused,
        Self::Lost,
        Self::Found,
        Self::GivenUp,
        Self::Unfit,
        Self::Verified,
        Self::VerifyFailed,
        Self::Attempted,
        Self::WriteRefused,
        Self::WriteConflict,
        Self::WriteUnknown,
        Self::Confirmed,
        Self::Promoted,
        Self::Orphaned,
        Self::ReadFailed,
        Self::ListFailed,
        Self::RevocationIntended,
        Self::Revoked,
        Self::RevokeFailed,
        Self::Expired,
        Self::Vanished,
        Self::ChangedByHand,
        Self::Emptied,
        Self::RolledBack,
        Self::Rebuilt,
        Self::DeliveryAdded,
        Self::DeliveryRemoved,
        Self::Renamed,
        Self::Blocked,
        Self::Unblocked,
        Self::DeadlineForced,
        Self::Ordered,
        Self::OrderEnded,
        Self::PauseEnded,
        Self::AdoptionTaken,
        Self::AdoptionRefused,
        Self::AdoptionWithdrawn,
        Self::InUse,
        Self::SetUpIntended,
        Self::Connected,
        Self::ConnectFailed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Issued => "issued",
            Self::IssueRefused => "issue_refused",
            Self::Lost => "lost",
            Self::Found => "found",
            Self::GivenUp => "given_up",
            Self::Unfit => "unfit",
            Self::Verified => "verified",
            Self::VerifyFailed => "verify_failed",
            Self::Attempted => "attempted",
            Self::WriteRefused => "write_refused",
            Self::WriteConflict => "write_conflict",
            Self::WriteUnknown => "write_unknown",
            Self::Confirmed => "confirmed",
            Self::Promoted => "promoted",
            Self::Orphaned => "orphaned",
            Self::ReadFailed => "read_failed",
            Self::ListFailed => "list_failed",
            Self::RevocationIntended => "revocation_intended",
            Self::Revoked => "revoked",
            Self::RevokeFailed => "revoke_failed",
            Self::Expired => "expired",
            Self::Vanished => "vanished",
            Self::ChangedByHand => "changed_by_hand",
            Self::Emptied => "emptied",
            Self::RolledBack => "rolled_back",
            Self::Rebuilt => "rebuilt",
            Self::DeliveryAdded => "delivery_added",
            Self::DeliveryRemoved => "delivery_removed",
            Self::Renamed => "renamed",
            Self::Blocked => "blocked",
            Self::Unblocked => "unblocked",
            Self::DeadlineForced => "deadline_forced",
            Self::Ordered => "ordered",
            Self::OrderEnded => "order_ended",
            Self::PauseEnded => "pause_ended",
            Self::AdoptionTaken => "adoption_taken",
            Self::AdoptionRefused => "adoption_refused",
            Self::AdoptionWithdrawn => "adoption_withdrawn",
            Self::InUse => "in_use",
            Self::SetUpIntended => "set_up_intended",
            Self::Connected => "connected",
            Self::ConnectFailed => "connect_failed",
        }
    }

    /// Whether a person should know of it (WARN), or it is the ordinary course (INFO).
    pub fn is_warning(self) -> bool {
        !matches!(
            self,
            Self::Intended
                | Self::Issued
                | Self::Verified
                | Self::Attempted
                | Self::Confirmed
                | Self::Promoted
                | Self::RevocationIntended
                | Self::Revoked
                | Self::Expired
                | Self::Found
                | Self::DeliveryAdded
                | Self::Unblocked
                | Self::Ordered
                | Self::PauseEnded
                | Self::AdoptionTaken
                | Self::AdoptionWithdrawn
                | Self::InUse
                | Self::SetUpIntended
                | Self::Connected
        )
    }
}

/// One line of a credential's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub at: Timestamp,
    pub what: Happened,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// A sentence for people, without a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Who ordered it: a user of this machine, by number and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}
