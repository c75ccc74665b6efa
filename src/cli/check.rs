//! `rotad check`: whether the configuration is right; with `--online`, whether what it names answers.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::{Ended, block_on, complain, offline_fleet, say, with_members};
use crate::clock::Clock;
use crate::config::{self, Config, Problem, System};
use crate::engine::Roster;
use crate::fleet::{Fleet, rolls};
use crate::journal::Location;
use crate::motherduck::{Client, User};
use crate::rotation::{Failed, Reason};
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
    /// Not as configured, and nothing is broken.
    Differs,
    Unknowable,
    Wrong,
}

#[derive(Debug, Serialize)]
struct Probe {
    what: String,
    outcome: Outcome,
    detail: String,
}

/// What `--json` prints, whether the configuration is right or not.
#[derive(Debug, Default, Serialize)]
struct Report<'r> {
    right: bool,
    /// Null where it is not right.
    credentials: Option<usize>,
    fleets: Option<usize>,
    errors: usize,
    warnings: usize,
    /// Errors and warnings, in the order of the file.
    problems: Vec<&'r Problem>,
    /// With `--online`.
    probes: &'r [Probe],
}

impl Report<'_> {
    fn say(&self) -> Result<(), Ended> {
        say(&(serde_json::to_string_pretty(self)? + "\n"));
        Ok(())
    }
}

pub fn run(path: &Path, arguments: &Arguments) -> Result<(), Ended> {
    let config = match config::load(path, &System { now: Clock::new().now().wall }) {
        Ok(config) => config,
        Err(problems) => {
            if arguments.json {
                let (errors, problems): (usize, Vec<_>) = (problems.errors(), problems.iter().collect());
                let warnings = problems.len() - errors;
                Report { errors, warnings, problems, ..Report::default() }.say()?;
            }
            return Err(Ended::Misused(problems.to_string()));
        }
    };
    config.warnings.iter().for_each(|warning| complain(&warning.to_string()));
    let (credentials, fleets, warnings) = (config.credentials.len(), config.fleets.len(), config.warnings.clone());
    let probes = block_on(async {
        let config = if arguments.online { with_members(config).await? } else { config };
        let fleet = offline_fleet(config, Arc::new(Clock::new())).await?;
        anyhow::Ok(if arguments.online { probe(&fleet).await } else { Vec::new() })
    })??;
    let wrong = probes.iter().filter(|probe| probe.outcome == Outcome::Wrong).count();
    if arguments.json {
        let problems: Vec<_> = warnings.iter().collect();
        let (credentials, fleets) = (Some(credentials), Some(fleets));
        Report { right: true, credentials, fleets, errors: 0, warnings: problems.len(), problems, probes: &probes }.say()?;
    } else {
        say(&report(path, credentials, fleets, warnings.len(), &probes));
    }
    if wrong > 0 {
        return Err(Ended::Failed(anyhow::anyhow!("{wrong} of {} probes failed: each of them says what to do", probes.len())));
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
            Outcome::Differs => "differs",
            Outcome::Unknowable => "can't be known",
            Outcome::Wrong => "FAILS",
        };
        let _ = writeln!(text, "{}: {mark}: {}", probe.what, probe.detail);
    }
    text
}

async fn probe(fleet: &Fleet) -> Vec<Probe> {
    let mut probes = vec![probe_journal(fleet).await];
    for (name, client) in fleet.clients() {
        if fleet.config().fleets.values().any(|block| block.terms.organization == *name) {
            probes.push(probe_users(fleet.config(), name, client.users().await));
        }
        probes.extend(probe_accounts(fleet.config(), name, client).await);
        if let Some(greeted) = client.greet_endpoint().await {
            probes.extend(probe_endpoint(name, greeted));
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
            Err(failed) if failed.reason == Reason::NoSuchAccount && fleet.config().keeps(name, &account) => {
                let detail = format!("whether tokens of `{account}` can be listed, before a running rotad has created it");
                probes.push(Probe { what, outcome: Outcome::Unknowable, detail });
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

/// Whether the accounts of the configuration are there, and as configured. What rotad would create or set is no fault.
async fn probe_accounts(config: &Config, organization: &Arc<str>, client: &Client) -> Vec<Probe> {
    let kept: Vec<_> = config.accounts.iter().filter(|(_, kept)| kept.organization == *organization).collect();
    if kept.is_empty() {
        return Vec::new();
    }
    let what = format!("accounts of organization `{organization}`");
    let users = match client.users().await {
        Ok(users) => users,
        Err(failed) => return vec![Probe { what, outcome: Outcome::Wrong, detail: failed.to_string() }],
    };
    let (mut probes, mut as_configured) = (Vec::new(), 0);
    for (account, kept) in kept {
        let will = if kept.is_observed { "it stays so (`mode = \"observe\"`)" } else { "a running rotad will change that" };
        let holder = users.iter().find(|user| user.username == *account);
        let (outcome, detail) = match (holder.is_none_or(User::is_usable_service), client.ducklings(account).await) {
            (false, _) => (Outcome::Wrong, "its name belongs to a person, or to a user that can't be used any more".to_owned()),
            (true, Err(failed)) if failed.reason == Reason::NoSuchAccount => (Outcome::Differs, format!("it is missing; {will}")),
            (true, Err(failed)) => (Outcome::Wrong, failed.to_string()),
            (true, Ok(found)) => match kept.wanted.instead_of(&found) {
                Some(_) => (Outcome::Differs, format!("{found}, and configured is {}; {will}", kept.wanted)),
                None => {
                    as_configured += 1;
                    continue;
                }
            },
        };
        probes.push(Probe { what: format!("account `{account}`"), outcome, detail });
    }
    if as_configured > 0 {
        probes.insert(0, Probe { what, outcome: Outcome::Fine, detail: format!("{as_configured} are as configured") });
    }
    probes
}

/// What can be known of a Postgres endpoint without a token.
fn probe_endpoint(organization: &str, greeted: Result<(), Failed>) -> Vec<Probe> {
    let probe = |outcome, detail: String| Probe { what: format!("organization `{organization}`"), outcome, detail };
    match greeted {
        Err(failed) => vec![probe(Outcome::Wrong, failed.to_string())],
        Ok(()) => vec![
            probe(Outcome::Fine, "the Postgres endpoint answers over TLS, and its certificate is trusted".to_owned()),
            probe(
                Outcome::Unknowable,
                "whether the Postgres endpoint is that of the organization's region, and lets its tokens in, shows only with a token"
                    .to_owned(),
            ),
        ],
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

/// The journal's directory takes files of ours, or its database answers. The journal itself may be in use by the daemon, so it
/// is not opened to write.
async fn probe_journal(fleet: &Fleet) -> Probe {
    let what = "journal".to_owned();
    let path = match &fleet.config().journal {
        Location::Sqlite(path) => path,
        location @ Location::Postgres(_) => {
            let (outcome, detail) = match location.look().await {
                Ok(Some(_)) => (Outcome::Fine, format!("{location} can be read")),
                Ok(None) => {
                    (Outcome::Unknowable, format!("{location} answers and holds no journal yet; whether one may be made there"))
                }
                Err(error) => (Outcome::Wrong, error.to_string()),
            };
            return Probe { what, outcome, detail };
        }
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
