//! What the patterns of fleets match now, for `rotad plan`: MotherDuck is asked, and nothing is changed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;

use super::offline_fleet;
use crate::clock::Clock;
use crate::config::{Config, Members};
use crate::fleet::rolls::{self, Rolls};
use crate::rotation::Account;

/// What one fleet's pattern matches.
#[derive(Debug, Serialize)]
pub struct FleetLine {
    name: Arc<str>,
    accounts: String,
    organization: Arc<str>,
    /// How many the journal knows.
    known: usize,
    /// On MotherDuck's list, and new.
    come: Vec<Account>,
    /// Known, and not on the list.
    missing: Vec<Account>,
    /// Matched, and not to be covered: why.
    left_out: BTreeMap<String, String>,
    /// Why there is no list.
    unlisted: Option<String>,
}

/// The configuration with the accounts that the journal knows and those that MotherDuck lists, and what there is to tell
/// of each fleet.
pub async fn look(config: Config) -> anyhow::Result<(Config, Vec<FleetLine>)> {
    if config.fleets.is_empty() {
        return Ok((config, Vec::new()));
    }
    let rolls = match super::look(&config).await?.journal {
        Some(journal) => rolls::load(journal.as_ref(), &config).await?,
        None => Rolls::new(),
    };
    let fleet = offline_fleet(config.clone(), Arc::new(Clock::new())).await?;
    let (mut lines, mut members, mut lists) = (Vec::new(), Members::new(), BTreeMap::new());
    for (name, block) in &config.fleets {
        let organization = &block.terms.organization;
        if let Some(client) = fleet.clients().get(organization)
            && !lists.contains_key(organization)
        {
            lists.insert(organization.clone(), client.users().await);
        }
        let known: Vec<Account> = rolls.get(name).map(|roll| roll.accounts().cloned().collect()).unwrap_or_default();
        let mut line = FleetLine {
            name: name.clone(),
            accounts: block.accounts.to_string(),
            organization: organization.clone(),
            known: known.len(),
            come: Vec::new(),
            missing: Vec::new(),
            left_out: BTreeMap::new(),
            unlisted: None,
        };
        match lists.get(organization) {
            Some(Ok(users)) => {
                let listed = rolls::matching(&config, name, users);
                line.missing = known.iter().filter(|account| !listed.contains(account)).cloned().collect();
                line.come = listed.into_iter().filter(|account| !known.contains(account)).collect();
                line.come.sort();
            }
            Some(Err(failed)) => line.unlisted = Some(failed.to_string()),
            None => {}
        }
        members.insert(name.clone(), known.into_iter().chain(line.come.iter().cloned()).collect());
        lines.push(line);
    }
    let (config, left_out) = config.with_members(&members);
    for left_out in left_out {
        let line = lines.iter_mut().find(|line| line.name == left_out.fleet);
        line.map(|line| line.left_out.insert(left_out.account.to_string(), left_out.why));
    }
    Ok((config, lines))
}

pub fn told(lines: &[FleetLine]) -> String {
    let mut text = String::new();
    for line in lines {
        let FleetLine { name, accounts, organization, known, come, missing, left_out, unlisted } = line;
        let _ = writeln!(text, "fleet {name}: `{accounts}` in `{organization}`: {known} accounts, {} new", come.len());
        if let Some(why) = unlisted {
            let _ = writeln!(text, "  only those that the journal knows are shown: {why}");
        }
        for account in come.iter().filter(|account| !left_out.contains_key(account.as_str())) {
            let _ = writeln!(text, "  + {account}: gets its first token");
        }
        for account in missing {
            let _ = writeln!(
                text,
                "  - {account}: not on MotherDuck's list; let go when it is missing for a minute, unless too many are"
            );
        }
        for (account, why) in left_out {
            let _ = writeln!(text, "  ! {account}: can't be covered: {why}");
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}
