//! The core: what is known of a credential, what to do next, and what an outcome means.
//!
//! Pure: it never reads a clock, draws a random number, does I/O or awaits. The daemon, the
//! simulator and the model checker run the same code.

mod entry;
mod outcome;
mod policy;
pub mod schedule;
mod words;

pub use entry::{Entry, Happened};
pub use outcome::{
    Failed, IssueOutcome, IssueRequest, IssuedToken, ListOutcome, ListedToken, ReadOutcome, Reason, RevokeOutcome, Shows, Verify,
    VerifyOutcome, WriteOutcome,
};
pub use policy::{DeliveryPolicy, Mode, Policy};
pub use schedule::Schedule;
pub use words::{
    Account, CredentialName, DeliveryId, Deployment, Fingerprint, InstallationId, Moment, Owner, RotationId, Steady, TokenId,
    TokenName, TokenType, WordError,
};
