//! How it stands with the accounts of one fleet.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::{At, schema};
use crate::rotation::{Reason, Roll};

/// One fleet of the configuration, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FleetSummary {
    pub name: Arc<str>,
    /// Accounts that are covered, missing ones included.
    pub accounts: u64,
    /// Accounts that the last list lacked and that are not let go, yet.
    pub missing: u64,
    /// Accounts that the pattern matches and that can't be covered.
    pub left_out: u64,
    /// Since when none is let go because too many are missing.
    pub refused_since: At,
    /// How many may go at once, while that is so.
    pub may_go: Option<u64>,
    /// When the last complete list came in; unknown before the first one of this process.
    pub listed_at: At,
    /// Why the last list failed, if it did.
    #[schemars(schema_with = "schema::maybe::<Reason>")]
    pub failing: Option<Reason>,
}

impl FleetSummary {
    /// What the journal knows of a fleet.
    pub fn new(name: &Arc<str>, roll: &Roll) -> Self {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let refusal = roll.refusal();
        Self {
            name: Arc::clone(name),
            accounts: count(roll.accounts().count()),
            missing: count(roll.missing().count()),
            left_out: 0,
            refused_since: refusal.map(|refusal| refusal.since).into(),
            may_go: refusal.map(|refusal| count(refusal.allowed)),
            listed_at: At::UNKNOWN,
            failing: None,
        }
    }
}
