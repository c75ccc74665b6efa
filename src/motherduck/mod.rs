//! The provider: MotherDuck's admin API, as far as rotation needs it.

mod accounts;
mod admin_token;
mod answer;
mod claims;
mod client;
mod inquiry;
mod limiter;
mod observer;
#[cfg(feature = "stand-in")]
pub mod stand_in;
mod wire;

use async_trait::async_trait;

use crate::rotation::{
    Account, Fingerprint, IssueOutcome, IssueRequest, ListOutcome, RevokeOutcome, TokenId, TokenType, VerifyOutcome,
};
use crate::secret::Secret;

pub use accounts::{AccountOutcome, Ducklings, FLOCK_MAX, ReadScaling, ReadWrite, Running, Size, Wanted, new_account};
pub use admin_token::{AdminSource, TokenPlace};
pub use answer::User;
pub use client::{Client, Options, Probe, TimeLimits};
pub use inquiry::{Finding, Inquiry, Report};
pub use limiter::Limits;
pub use observer::{Code, Observer, Operation, Unobserved};
pub use wire::Endpoint;

/// Issues, lists and revokes the tokens of one organization's accounts.
///
/// Implementations never repeat a request whose outcome is unknown unless repeating it is harmless,
/// answer within their time limits, and follow no redirect.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Asks for a token, once. The value comes with `Issued` and only with it.
    async fn issue(&self, request: &IssueRequest) -> (IssueOutcome, Option<Secret>);

    /// Lists the live tokens of `account`, every page of them.
    async fn list(&self, account: &Account) -> ListOutcome;

    /// Revokes by id.
    async fn revoke(&self, account: &Account, token: &TokenId) -> RevokeOutcome;

    /// Proves a new token by letting it list its own account's tokens (inferred to be allowed).
    async fn verify_itself(&self, account: &Account, value: &Secret) -> VerifyOutcome;

    /// Proves a new admin token by the calls that rotad needs: it lists each of these accounts, the first of which is
    /// its own, and is let through to a revocation of `none`, an id that no token has.
    async fn verify_calls(&self, accounts: &[Account], none: &TokenId, value: &Secret) -> VerifyOutcome;

    /// The fingerprint of the admin token that the next call is made with; with `anew` its source is read again first.
    async fn admin_token(&self, anew: bool) -> Option<Fingerprint>;

    /// Proves a new token at the Postgres endpoint: it is let in, as `account`, with `token_type`'s rights.
    async fn verify_by_connecting(&self, account: &Account, token_type: TokenType, value: &Secret) -> VerifyOutcome;
}
