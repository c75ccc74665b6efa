//! How it stands with the accounts that the configuration describes.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Tally, schema};
use crate::rotation::{AccountState, Reason};

/// The configured accounts in numbers, and those that are not as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct AccountsSummary {
    pub states: Tally<AccountState>,
    /// Accounts whose last look or change failed.
    pub failing: u64,
    /// Those that are missing, differ, can't be had or fail, in the order of their names, at most `APART_MAX`.
    pub apart: Vec<ApartAccount>,
}

/// The most accounts that are told one by one: a page and the journal's record of them stay small.
pub const APART_MAX: usize = 1_000;

/// An account that is not as configured, or of which that is not known. The journal keeps it so, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApartAccount {
    pub organization: Arc<str>,
    pub username: Arc<str>,
    #[schemars(schema_with = "schema::word::<AccountState>")]
    pub state: AccountState,
    /// Only reported: `mode = "observe"`.
    pub observed: bool,
    /// Why the last look or change failed, if it did.
    #[schemars(schema_with = "schema::maybe::<Reason>")]
    pub failing: Option<Reason>,
    pub since: Option<Timestamp>,
    /// Its Ducklings, where they are not those that are configured.
    pub found: Option<String>,
    /// What they should be.
    pub wanted: Option<String>,
}
