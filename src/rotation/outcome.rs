//! What the world answered: the outcomes of effects, in the terms that the core judges by.
//!
//! Every enum here is closed, since its variants become metric labels and reasons in the journal.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::words::{Account, Fingerprint, Owner, RotationId, TokenId, TokenType};

/// Why an effect did not succeed: one closed list for API, sinks and journal, used as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The credentials that rotad uses there are wrong or expired (401, a Vault token that is gone).
    Unauthorized,
    /// They are right, but a permission is missing (403, AccessDenied, EACCES).
    Forbidden,
    /// Asked to slow down (429, ThrottlingException).
    Throttled,
    /// It answered that it can't now (5xx, sealed, standby).
    Unavailable,
    /// No connection was made, or it broke before anything was sent.
    Unreachable,
    /// No answer within the time limit.
    TimedOut,
    /// The connection broke, or the answer was cut off or made no sense.
    BadAnswer,
    /// It understood and refused (400 and its like); waiting alone won't help.
    Rejected,
    /// The account does not exist (404 with `code: NOT_FOUND`).
    NoSuchAccount,
    /// Something that must exist does not (a secret with `create = false`, a directory, a mount).
    Missing,
    /// A token with that name exists (409).
    NameTaken,
    /// The path has no route (404 without `code: NOT_FOUND`): a wrong address.
    NoRoute,
    /// What is there can't be what it should be (a directory, a symbolic link, JSON that does not parse).
    Unsuitable,
    /// No room (ENOSPC, quota, a value too large).
    Full,
    /// An earlier operation at the same place has not ended yet.
    Busy,
    /// The token's time is over, as the Postgres endpoint says.
    Expired,
    /// The token does not work (any more), as the Postgres endpoint and the API say.
    Revoked,
    /// The token belongs to another account than it was issued for.
    WrongAccount,
    /// The API takes the token, and the Postgres endpoint does not: it is that of another region.
    WrongRegion,
}

impl Reason {
    pub const ALL: [Self; 19] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::Throttled,
        Self::Unavailable,
        Self::Unreachable,
        Self::TimedOut,
        Self::BadAnswer,
        Self::Rejected,
        Self::NoSuchAccount,
        Self::Missing,
        Self::NameTaken,
        Self::NoRoute,
        Self::Unsuitable,
        Self::Full,
        Self::Busy,
        Self::Expired,
        Self::Revoked,
        Self::WrongAccount,
        Self::WrongRegion,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::BadAnswer => "bad_answer",
            Self::Rejected => "rejected",
            Self::NoSuchAccount => "no_such_account",
            Self::Missing => "missing",
            Self::NameTaken => "name_taken",
            Self::NoRoute => "no_route",
            Self::Unsuitable => "unsuitable",
            Self::Full => "full",
            Self::Busy => "busy",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::WrongAccount => "wrong_account",
            Self::WrongRegion => "wrong_region",
        }
    }
}

/// A failure: the reason that code goes by, and a sentence that people read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub reason: Reason,
    /// What happened and what to do about it, without a secret, without a trailing full stop, at
    /// most 300 characters.
    pub detail: String,
    /// How long the other side asked to wait, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<SignedDuration>,
}

impl Failed {
    /// The most characters of a detail that are kept: it goes into the journal and the status.
    const DETAIL_MAX: usize = 300;

    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(Self::DETAIL_MAX) {
            detail.truncate(end);
        }
        Self { reason, detail, retry_after: None }
    }

    pub fn retry_after(mut self, wait: Option<SignedDuration>) -> Self {
        self.retry_after = wait;
        self
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

/// A live token as the API lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedToken {
    pub id: TokenId,
    /// The name as it stands; `None` where the API left it out.
    pub name: Option<String>,
    pub created_at: Timestamp,
    /// `None` for a token that never expires.
    pub expires_at: Option<Timestamp>,
    pub token_type: TokenType,
}

impl ListedToken {
    /// The name for a person to know it by: one line of at most 80 characters. It may be somebody else's text,
    /// with whatever they put there.
    pub fn shown_name(&self) -> String {
        self.name.as_deref().unwrap_or("without a name").chars().filter(|c| !c.is_control()).take(80).collect()
    }
}

/// What the answer to an issue said, all but the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    pub token: ListedToken,
    pub fingerprint: Fingerprint,
}

/// The outcome of asking for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssueOutcome {
    Issued(IssuedToken),
    /// Definitely nothing was issued.
    Refused(Failed),
    /// It may have been issued: it is lost, and looked for by name.
    Unknown(Failed),
}

/// The outcome of listing an account's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListOutcome {
    /// Every page was read.
    Complete(Vec<ListedToken>),
    Failed(Failed),
}

impl ListOutcome {
    /// The tokens of a complete list.
    ///
    /// # Errors
    /// Why there is none.
    pub fn complete(self) -> Result<Vec<ListedToken>, Failed> {
        match self {
            Self::Complete(tokens) => Ok(tokens),
            Self::Failed(failed) => Err(failed),
        }
    }
}

/// The outcome of a verification of a new token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyOutcome {
    Verified,
    /// It is proven not to work as asked.
    Disproved(Failed),
    /// Neither: asked again.
    Failed(Failed),
}

/// The outcome of a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// Revoked now, or gone already (404 with `code: NOT_FOUND`).
    Gone,
    /// Not done, or not known; asking again is harmless.
    Failed(Failed),
}

/// What a place shows, as its sink understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shows {
    Value {
        /// SHA-256 of the token found in the place, whatever the format around it.
        fingerprint: Fingerprint,
        /// Whose the marker says the place is; `None` without a marker.
        owner: Option<Owner>,
        /// The rotation that the marker gives for this very value; `None` where it gives none.
        rotation: Option<RotationId>,
    },
    /// There is no value: never written, wiped, soft-deleted, key gone. `owner` as a left-over marker says.
    Nothing { owner: Option<Owner> },
    /// An AWS secret that is scheduled for deletion: a person must restore it first.
    ScheduledForDeletion,
}

/// The outcome of reading a delivery back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    Shows(Shows),
    Failed(Failed),
}

/// The outcome of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The place answered that the value is there; only a read-back confirms it.
    Written,
    /// Definitely not written: the place no longer holds what was read before.
    Conflict,
    /// Definitely not written.
    Refused(Failed),
    /// It may have been written, or may still be.
    Unknown(Failed),
}

/// How a new token is verified before it is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    None,
    /// The id shows in the account's list, as asked.
    List,
    /// The new token lists its own account's tokens; an inferred fact (API notes, Verification).
    #[serde(rename = "self")]
    Itself,
    /// The Postgres endpoint lets the token in, as the account intended.
    Connect,
    /// The new token makes the calls that rotad needs: for an admin token.
    Calls,
}

/// Where and as what a token is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    pub organization: std::sync::Arc<str>,
    pub account: Account,
    pub name: super::words::TokenName,
    pub token_type: TokenType,
    /// Whole seconds, 300 to 31,536,000 (documented).
    pub ttl: SignedDuration,
}
