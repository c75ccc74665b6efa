//! What the journal knows of the fleets' accounts: a fact for each fleet, so that a restart has the same members at once,
//! whether the API answers or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::error;

use crate::config::{Config, LeftOut, Members};
use crate::journal::{Journal, JournalError};
use crate::motherduck::User;
use crate::rotation::{Account, Roll};

/// The accounts of each fleet.
pub type Rolls = BTreeMap<Arc<str>, Roll>;

/// An organization's accounts are its own: a fleet that moves to another begins anew.
fn fact(config: &Config, fleet: &str) -> String {
    let organization = config.fleets.get(fleet).map_or("", |block| &block.terms.organization);
    format!("fleet:{organization}:{fleet}")
}

/// The rolls of the configured fleets. One that can't be read is empty: the next list fills it.
///
/// # Errors
/// The journal's.
pub async fn load(journal: &dyn Journal, config: &Config) -> Result<Rolls, JournalError> {
    let mut rolls = Rolls::new();
    for (fleet, block) in &config.fleets {
        let text = journal.fact(&fact(config, fleet)).await?;
        let mut roll: Roll = text.map_or_else(Roll::default, |text| {
            serde_json::from_str(&text).unwrap_or_else(|problem| {
                error!(%fleet, %problem, "the journal's record of the fleet's accounts can't be read: they come anew with the next list");
                Roll::default()
            })
        });
        roll.retain(|account| block.covers(account));
        rolls.insert(fleet.clone(), roll);
    }
    Ok(rolls)
}

/// Keeps a fleet's accounts.
///
/// # Errors
/// The journal's.
pub async fn save(journal: &dyn Journal, config: &Config, fleet: &str, roll: &Roll) -> Result<(), JournalError> {
    let text = serde_json::to_string(roll).map_err(|error| JournalError::Unwritable(error.to_string()))?;
    journal.set_fact(&fact(config, fleet), text).await
}

/// Who is covered.
pub fn members(rolls: &Rolls) -> Members {
    rolls.iter().map(|(fleet, roll)| (fleet.clone(), roll.accounts().cloned().collect())).collect()
}

/// The configuration with these accounts, and which of them can't be covered. Without fleets it is the same one: 100,000
/// credentials are in memory once.
pub fn complete(config: &Arc<Config>, members: &Members) -> (Arc<Config>, Vec<LeftOut>) {
    if config.fleets.is_empty() {
        return (config.clone(), Vec::new());
    }
    let (complete, left_out) = config.with_members(members);
    (Arc::new(complete), left_out)
}

/// The users that a fleet covers: service accounts that can be used, and that its pattern matches and its exceptions do not.
pub fn matching(config: &Config, fleet: &str, users: &[User]) -> Vec<Account> {
    let Some(block) = config.fleets.get(fleet) else { return Vec::new() };
    let usable = users.iter().filter(|user| user.is_usable_service());
    usable.map(|user| user.username.clone()).filter(|account| block.covers(account)).collect()
}
