//! The core: what is known of a credential, what to do next, and what an outcome means.
//!
//! Pure: it never reads a clock, draws a random number, does I/O or awaits. The daemon, the
//! simulator and the model checker run the same code.

mod adopt;
mod answers;
mod backoff;
pub mod breakage;
mod connect;
mod credential;
mod deliver;
mod entry;
mod fleet;
mod issue;
mod judge;
mod look;
mod order;
mod outcome;
mod policy;
mod reason;
mod rebuild;
mod revoke;
pub mod schedule;
mod turn;
mod upkeep;
mod words;

pub use adopt::Adoption;
pub use backoff::Backoff;
pub use connect::{Connected, FirstConnection, Unconnected};
pub use credential::{Attempt, Block, Blocked, Credential, Delivery, ProcessId, Rotation, Seen, Settled, Stage, Token, Trouble};
pub use entry::{Entry, Happened};
pub use fleet::{Change, GONE_AFTER, Listed, Refusal, Roll};
pub use issue::{deadline, due_by_time};
pub use order::{EvenIfServed, Order, Orders, Pause, REASON_MAX};
pub use outcome::{
    Failed, IssueOutcome, IssueRequest, IssuedToken, ListOutcome, ListedToken, ReadOutcome, Reason, RevokeOutcome, Shows, Verify,
    VerifyOutcome, WriteOutcome,
};
pub use policy::{DeliveryPolicy, Mode, Policy};
pub use reason::{Due, PutOff, Tried, Why};
pub use revoke::{Fate, LeftToExpire};
pub use schedule::Schedule;
pub use turn::{Action, Conditions, Facts, Limits, Turn};
pub use upkeep::{AccountState, Chore, Created, Found, Listed as NameListed, Standing, Upkeep};
pub use words::{
    Account, CredentialName, DeliveryId, Deployment, Fingerprint, InstallationId, Moment, Owner, RotationId, Steady, TokenId,
    TokenName, TokenType, WordError,
};
