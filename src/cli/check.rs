//! `rotad check`: whether the configuration is right; with `--online`, whether what it names answers.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::{Ended, block_on, complain, load, offline_fleet, say, with_members};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::journal_path;
use crate::engine::Roster;
use crate::fleet::{Fleet, rolls};
use crate::motherduck::User;
use crate::rotation::Failed;
use crate::sinks::Finding;

/// Places that are probed at once.
const AT_ONCE: usize = 16;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Ask the API, the sinks and the journal as well, as far as that goes without writing
    #[arg(long)]
    online: bool,
    /// Print findings as JSON
    #[arg(long)]
    json: bool,
}

/// How a probe went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Fine,
    Unknowable,
    Wrong,
}

#[derive(Debug, Serialize)]
struct Probe {
    what: String,
    outcome: Outcome,
    detail: String,
}

pub fn run(path: &Path, arguments: &Arguments) -> Result<(), Ended> {
    let config = load(path)?;
    config.warnings.iter().for_each(|warning| complain(&warning.to_string()));
    let (credentials, fleets, warnings) = (config.credentials.len(), config.fleets.len(), config.warnings.len());
    let probes = block_on(async {
        let config = if arguments.online { with_members(config).await? } else { config };
        let fleet = offline_fleet(config, Arc::new(Clock::new())).await?;
        anyhow::Ok(if arguments.online { probe(&fleet).await } else { Vec::new() })
    })??;
    let wrong = probes.iter().filter(|probe| probe.outcome == Outcome::Wrong).count();
    if arguments.json {
        let report = serde_json::json!({ "credentials": credentials, "fleets": fleets, "warnings": warnings, "probes": probes });
        say(&(serde_json::to_string_pretty(&report)? + "\n"));
    } else {
        say(&report(path, credentials, fleets, warnings, &probes));
    }
    if wrong > 0 {
        return Err(Ended::Failed(anyhow::anyhow!("{wrong} of {} probes failed", probes.len())));
    }
    Ok(())
}

fn report(path: &Path, credentials: usize, fleets: usize, warnings: usize, probes: &[Probe]) -> String {
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let fleets = if fleets == 0 { String::new() } else { format!("{}, ", plural(fleets, "fleet")) };
    let (credentials, warnings) = (plural(credentials, "credential"), plural(warnings, "warning"));
    let mut text = format!("`{}` is right: {credentials}, {fleets}{warnings}\n", path.display());
    for probe in probes {
        let mark = match probe.outcome {
            Outcome::Fine => "works",
            Outcome::Unknowable => "can't be known",
            Outcome::Wrong => "FAILS",
        };
        let _ = writeln!(text, "{}: {mark}: {}", probe.what, probe.detail);
    }
    text
}

async fn probe(fleet: &Fleet) -> Vec<Probe> {
    let mut probes = vec![probe_journal(fleet)];
    for (name, client) in fleet.clients() {
        if fleet.config().fleets.values().any(|block| block.terms.organization == *name) {
            probes.push(probe_users(fleet.config(), name, client.users().await));
        }
        let account = fleet.config().credentials.values().find(|credential| credential.terms.organization == *name);
        let Some(account) = account.map(|credential| credential.account.clone()) else { continue };
        let what = format!("organization `{name}`");
        probes.push(probe_expiry(&what, client.admin_token_expires_at().await));
        match client.probe(&account).await {
            Ok(found) => {
                probes.push(Probe { what: what.clone(), outcome: Outcome::Fine, detail: found.proven });
                probes.push(Probe { what, outcome: Outcome::Unknowable, detail: found.unknowable });
            }
            Err(failed) => probes.push(Probe { what, outcome: Outcome::Wrong, detail: failed.to_string() }),
        }
    }
    probes.extend(probe_places(fleet).await);
    probes
}

/// Whom the fleets of an organization would cover.
fn probe_users(config: &Config, organization: &str, users: Result<Vec<User>, Failed>) -> Probe {
    let what = format!("organization `{organization}`");
    match users {
        Err(failed) => Probe { what, outcome: Outcome::Wrong, detail: failed.to_string() },
        Ok(users) => {
            let fleets = config.fleets.iter().filter(|(_, block)| *block.terms.organization == *organization);
            let covers = fleets.map(|(name, _)| format!("fleet `{name}` covers {}", rolls::matching(config, name, &users).len()));
            let detail = format!("it lists {} users: {}", users.len(), covers.collect::<Vec<_>>().join(", "));
            Probe { what, outcome: Outcome::Fine, detail }
        }
    }
}

/// An admin token that has expired is refused by the API, which another probe tells.
fn probe_expiry(what: &str, expires_at: Option<Timestamp>) -> Probe {
    let (outcome, detail) = match expires_at {
        Some(at) => (Outcome::Fine, format!("the admin token says that it expires at {at}")),
        None => (Outcome::Unknowable, "when the admin token expires: it does not say so itself".to_owned()),
    };
    Probe { what: what.to_owned(), outcome, detail }
}

async fn probe_places(fleet: &Fleet) -> Vec<Probe> {
    use futures_util::StreamExt;
    let members = fleet.names().into_iter().filter_map(|name| fleet.member(&name));
    let places = members.flat_map(|member| member.places);
    let findings = futures_util::stream::iter(places).map(|place| async move { (place.id().clone(), place.check().await) });
    let all: Vec<_> = findings.buffered(AT_ONCE).collect().await;
    let one = |(id, findings): (crate::rotation::DeliveryId, Vec<Finding>)| {
        findings.into_iter().map(move |finding| {
            let (outcome, detail) = match finding {
                Finding::Fine(detail) => (Outcome::Fine, detail),
                Finding::Unknowable(detail) => (Outcome::Unknowable, detail),
                Finding::Wrong(failed) => (Outcome::Wrong, failed.to_string()),
            };
            Probe { what: format!("`{id}`"), outcome, detail }
        })
    };
    all.into_iter().flat_map(one).collect()
}

/// The journal's directory takes files of ours. The journal itself may be in use by the daemon, so it is not opened to write.
fn probe_journal(fleet: &Fleet) -> Probe {
    let what = "journal".to_owned();
    let path = match journal_path(fleet.config()) {
        Ok(path) => path,
        Err(error) => return Probe { what, outcome: Outcome::Wrong, detail: error.to_string() },
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    match rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => Probe { what, outcome: Outcome::Fine, detail: format!("`{}` can be written", directory.display()) },
        Err(error) => {
            let detail =
                format!("`{}` can't be written: {error}; create it, owned by the user that rotad runs as", directory.display());
            Probe { what, outcome: Outcome::Wrong, detail }
        }
    }
}
