//! What the configuration wants of one credential, as the core needs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;

use super::connect::FirstConnection;
use super::outcome::{Failed, Reason, Verify};
use super::schedule::Schedule;
use super::words::{Account, CredentialName, DeliveryId, Owner, TokenId, TokenType};

/// Whether rotad acts on a credential or only looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    Rotate,
    /// Plan and report only: read, list, judge, and change nothing.
    Observe,
}

/// What the configuration says of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// A value without a marker of ours may be overwritten at the first delivery.
    pub take_over: bool,
    /// The sink's longest write: an unsettled one can land until twice this after its writer is gone.
    pub write_limit: SignedDuration,
}

/// What the configuration wants of one credential.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub owner: Owner,
    /// The name that the credential had before: markers and tokens of that name are its own.
    pub renamed_from: Option<CredentialName>,
    pub organization: Arc<str>,
    pub account: Account,
    /// The account is in the configuration too: rotad creates it, so its absence is waited out, and needs no person.
    pub account_is_kept: bool,
    pub token_type: TokenType,
    /// Who connects to the account once before its first token is asked for.
    pub first_connection: FirstConnection,
    /// How long a token lives, whole seconds.
    pub ttl: SignedDuration,
    pub schedule: Schedule,
    /// After a due time, how long a scheduled rotation may begin; `None` for any time after it.
    pub window: Option<SignedDuration>,
    pub grace: SignedDuration,
    pub verify: Verify,
    pub mode: Mode,
    pub deliveries: BTreeMap<DeliveryId, DeliveryPolicy>,
    /// Ids of tokens made by hand that are to be superseded and revoked.
    pub adopt: Arc<[TokenId]>,
    /// The token is what rotad itself calls the API with: the one delivery is where it reads it from.
    pub used_by_rotad: bool,
    /// How often deliveries and list are compared when nothing else is due.
    pub sweep_every: SignedDuration,
    /// The most tokens of this credential seen live before it is blocked (twice as many at the deadline).
    pub tokens_max: usize,
}

impl Policy {
    /// Whether the failure says that an account is gone that nobody will create.
    pub(super) fn lacks_account(&self, failed: &Failed) -> bool {
        failed.reason == Reason::NoSuchAccount && !self.account_is_kept
    }

    /// `min(ttl/10, 1 h)`: what is kept between the deadline and the end of grace and token.
    pub fn margin(&self) -> SignedDuration {
        (self.ttl / 10).min(SignedDuration::from_hours(1))
    }
}
