//! Credentials that are not configured any more while tokens of theirs live: nobody replaces those, and nobody revokes them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::rotation::{Credential, CredentialName};

/// The most that are told one by one.
pub const LET_GO_MAX: usize = 1_000;

/// A credential that was let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LetGo {
    #[schemars(with = "String")]
    pub credential: CredentialName,
    /// When the last of its tokens expires.
    pub tokens_until: Timestamp,
}

/// When the last token of a credential that is not configured expires; `None` if none lives.
pub fn tokens_until(state: &Credential, now: Timestamp) -> Option<Timestamp> {
    let tokens = state.rotations.values().filter_map(|rotation| rotation.token.as_ref());
    tokens.map(|token| token.expires_at).max().filter(|until| *until > now)
}
