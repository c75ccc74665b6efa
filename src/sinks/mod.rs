//! Sinks: the secret stores that tokens are delivered to, each behind one small trait in a file of its own.
//!
//! A sink reads a place and says what it shows, and writes to it on the condition that it still
//! holds what was read. It keeps no state of a rotation and judges nothing: the core does.

pub mod aws;
pub mod file;
pub mod format;
pub mod marker;
pub mod vault;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::rotation::{Account, DeliveryId, Failed, Owner, RotationId, Shows, TokenId, TokenName, TokenType, WriteOutcome};
use crate::secret::Secret;

/// What the last read of a place found, for the condition of the next write. Opaque: only the sink
/// that made it reads it. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// What a read found.
#[derive(Debug)]
pub struct Reading {
    pub shows: Shows,
    /// The token's value, where `shows` is a value: for copying it to another delivery.
    pub value: Option<Secret>,
    pub version: Version,
}

/// What a read is for.
#[derive(Debug, Clone)]
pub struct Question {
    /// The credential that reads, for markers that have no room for an owner.
    pub owner: Owner,
    /// Rotations that the place may show (from the journal and the account's list, newest first):
    /// for markers that can only be checked against a rotation, not read (AWS with `json`).
    pub candidates: Vec<RotationId>,
}

/// What a write puts into a place.
pub struct Payload<'a> {
    pub owner: &'a Owner,
    pub rotation: RotationId,
    pub value: &'a Secret,
    pub token_id: &'a TokenId,
    pub token_name: &'a TokenName,
    pub account: &'a Account,
    pub token_type: TokenType,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// One finding of `check --online`: what was probed, and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It works.
    Fine(String),
    /// It can't be known without writing.
    Unknowable(String),
    /// It does not work: what, and the remedy.
    Wrong(Failed),
}

/// One place in one sink, ready for use: built once from the configuration, used for every rotation.
///
/// Implementations answer within their own time limits. They never log a value, and never put one
/// into a `Failed`.
#[async_trait]
pub trait Place: Send + Sync {
    /// Where this is; equal for two deliveries exactly if they are the same target.
    fn id(&self) -> &DeliveryId;

    /// The longest that one `write` may take before it answers `Unknown`; nothing that it started
    /// lands later than twice this after it ended.
    fn write_limit(&self) -> SignedDuration;

    /// Reads the place as its consumers would.
    async fn read(&self, question: &Question) -> Result<Reading, Failed>;

    /// Writes the value and its marker (value to rotation id, last three pairs kept) if the place
    /// still holds `expected`.
    async fn write(&self, expected: &Version, payload: &Payload<'_>) -> WriteOutcome;

    /// Probes without writing: reachability, permissions as far as they show, suitability.
    async fn check(&self) -> Vec<Finding>;
}

/// A configured sink's kind, as the metric labels and the configuration have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Aws,
    File,
    Vault,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Aws, Self::File, Self::Vault];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::File => "file",
            Self::Vault => "vault",
        }
    }
}

/// The places of one credential, in the order of the configuration.
pub type Places = Vec<Arc<dyn Place>>;
