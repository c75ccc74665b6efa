//! `rotad account`: an organization's service accounts, asked of the API with the organization's admin token.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::import::organization;
use super::order::ask;
use super::{Ended, admin_client, block_on, complain, misused, say};
use crate::clock::Clock;
use crate::config::{self, Config, System, parse_duration};
use crate::motherduck::{AccountOutcome, Client, Ducklings, Provider, ReadScaling, ReadWrite, Running, Size, User, new_account};
use crate::rotation::{Account, Failed, Reason};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the organization's service accounts, what runs of each, and which credentials and fleets use it
    List(Common),
    /// Show one account: its Ducklings, its tokens, what runs
    Show(Named),
    /// Create a service account
    Create(Named),
    /// Set an account's Ducklings: the half that is not given stays as it is
    Ducklings(Set),
    /// Delete an account for good, with its data and tokens
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
pub struct Common {
    /// The organization, where several are configured
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Named {
    /// The account's username
    #[arg(value_name = "USERNAME")]
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
#[group(id = "half", required = true, multiple = true, args = ["read_write", "read_scaling"])]
pub struct Set {
    /// The account's username
    #[arg(value_name = "USERNAME")]
    name: String,
    /// Such as `standard` or `jumbo,cooldown=5m`; sizes are pulse, standard, jumbo, mega, giga
    #[arg(long, value_name = "SIZE[,cooldown=TIME]", value_parser = read_write)]
    read_write: Option<ReadWrite>,
    /// Such as `standard,flock=4` or `jumbo,flock=8,cooldown=5m`
    #[arg(long, value_name = "SIZE,flock=N[,cooldown=TIME]", value_parser = read_scaling)]
    read_scaling: Option<ReadScaling>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub struct Delete {
    /// The account's username
    #[arg(value_name = "USERNAME")]
    name: String,
    /// Don't ask: the account's username once more
    #[arg(long, value_name = "USERNAME")]
    yes: Option<String>,
    /// Even if a configured credential or fleet uses the account: its consumers stop working
    #[arg(long)]
    even_if_used: bool,
    #[command(flatten)]
    common: Common,
}

fn read_write(text: &str) -> Result<ReadWrite, String> {
    let (size, flock, cooldown) = half(text)?;
    if flock.is_some() {
        return Err("only read scaling has a flock".to_owned());
    }
    Ok(ReadWrite { size, cooldown })
}

fn read_scaling(text: &str) -> Result<ReadScaling, String> {
    let (size, flock, cooldown) = half(text)?;
    let flock_size = flock.ok_or("say how many Ducklings at the most, such as `standard,flock=4`")?;
    Ok(ReadScaling { size, flock_size, cooldown })
}

/// `SIZE[,flock=N][,cooldown=TIME]`
fn half(text: &str) -> Result<(Size, Option<u32>, Option<u32>), String> {
    let mut parts = text.split(',');
    let size = parts.next().unwrap_or_default().parse()?;
    let (mut flock, mut cooldown) = (None, None);
    for part in parts {
        match part.split_once('=') {
            Some(("flock", number)) if flock.is_none() => {
                flock = Some(number.parse().map_err(|_| format!("`{number}` is no number of Ducklings"))?);
            }
            Some(("cooldown", time)) if cooldown.is_none() => {
                let seconds = u32::try_from(parse_duration(time)?.as_secs());
                cooldown = Some(seconds.map_err(|_| "a cooldown is one minute to one day".to_owned())?);
            }
            _ => return Err(format!("`{part}` is neither `flock=N` nor `cooldown=TIME`, each once")),
        }
    }
    Ok((size, flock, cooldown))
}

/// One organization, and how to speak to it.
struct Scene {
    config: Config,
    organization: Arc<str>,
    client: Arc<Client>,
}

impl Scene {
    fn uses(&self, account: &Account) -> Vec<String> {
        self.config.uses(&self.organization, account)
    }
}

pub fn run(path: &Path, command: &Command) -> Result<(), Ended> {
    let common = match command {
        Command::List(common) => common,
        Command::Show(named) | Command::Create(named) => &named.common,
        Command::Ducklings(set) => &set.common,
        Command::Delete(delete) => &delete.common,
    };
    let world = System { now: Clock::new().now().wall };
    let (_, config) = config::load_unfinished(path, &world).map_err(|problems| Ended::Misused(problems.to_string()))?;
    let organization = organization(&config, common.organization.as_deref())?;
    block_on(async {
        let client = admin_client(&config, &organization).await?;
        let scene = Scene { config, organization, client };
        let (value, text) = match command {
            Command::List(_) => list(&scene).await?,
            Command::Show(named) => show(&scene, &account(&named.name)?).await?,
            Command::Create(named) => create(&scene, &account(&named.name)?).await?,
            Command::Ducklings(set) => set_ducklings(&scene, set).await?,
            Command::Delete(arguments) => delete(&scene, arguments).await?,
        };
        say(&if common.json { serde_json::to_string_pretty(&value)? + "\n" } else { text });
        Ok(())
    })?
}

fn account(name: &str) -> Result<Account, Ended> {
    new_account(name).map_err(misused)
}

fn failed(failed: Failed) -> Ended {
    Ended::Failed(anyhow::Error::msg(failed))
}

/// What runs of an account, as the API shows it.
fn running<'r>(all: &'r [Running], account: &Account) -> &'r [String] {
    all.iter().find(|running| running.username == *account).map_or(&[], |running| &running.ducklings)
}

/// Words for people, or a dash.
fn listed(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

async fn list(scene: &Scene) -> Result<(Value, String), Ended> {
    let mut users = scene.client.users().await.map_err(failed)?;
    users.retain(User::is_usable_service);
    users.sort_by_key(|user| user.username.as_str().to_lowercase());
    let active = scene.client.active_accounts().await.map_err(failed)?;
    let (mut values, mut text) = (Vec::new(), String::new());
    for user in &users {
        let (running, uses) = (running(&active, &user.username), scene.uses(&user.username));
        values.push(json!({ "username": user.username.as_str(), "running": running, "used_by": uses }));
        let _ = writeln!(text, "{}  running: {}  used by: {}", user.username, listed(running), listed(&uses));
    }
    let _ = writeln!(text, "{} service accounts in organization {}", users.len(), scene.organization);
    Ok((Value::Array(values), text))
}

async fn show(scene: &Scene, account: &Account) -> Result<(Value, String), Ended> {
    let client = &scene.client;
    let ducklings = client.ducklings(account).await.map_err(failed)?;
    let tokens = client.list(account).await.complete().map_err(failed)?;
    let active = client.active_accounts().await.map_err(failed)?;
    let (running, uses) = (running(&active, account), scene.uses(account));
    let mut text = format!("{account}\n  Ducklings    {ducklings}\n  running      {}\n", listed(running));
    let _ = writeln!(text, "  used by      {}\n  live tokens  {}", listed(&uses), tokens.len());
    for token in &tokens {
        let name = token.shown_name();
        let expires = token.expires_at.map_or_else(|| "never expires".to_owned(), |at| format!("expires {at:.0}"));
        let _ = writeln!(text, "    {}  {}  `{name}`  {expires}", token.id, token.token_type);
    }
    let tokens = tokens.iter().map(|token| {
        json!({
            "id": token.id.0, "name": token.name, "token_type": token.token_type, "created_at": token.created_at,
            "expires_at": token.expires_at,
        })
    });
    let tokens: Vec<Value> = tokens.collect();
    let value = json!({
        "username": account.as_str(), "ducklings": ducklings, "running": running, "used_by": uses, "tokens": tokens,
    });
    Ok((value, text))
}

/// Whether the account exists, by the look that the official provider uses for it (observed).
async fn exists(scene: &Scene, account: &Account) -> Result<Option<Ducklings>, Ended> {
    match scene.client.ducklings(account).await {
        Ok(ducklings) => Ok(Some(ducklings)),
        Err(refused) if refused.reason == Reason::NoSuchAccount => Ok(None),
        Err(other) => Err(failed(other)),
    }
}

/// Looks before and after: so a creation whose answer was lost is told from an account that was there already.
async fn create(scene: &Scene, account: &Account) -> Result<(Value, String), Ended> {
    if exists(scene, account).await?.is_some() {
        return Err(Ended::Failed(anyhow::anyhow!(
            "`{account}` exists already, names being equal whatever their case: `rotad account show {account}` shows it"
        )));
    }
    let lost = match scene.client.create_account(account).await {
        AccountOutcome::Done => None,
        AccountOutcome::Refused(refused) => return Err(failed(refused)),
        AccountOutcome::Unknown(lost) => Some(lost),
    };
    match (exists(scene, account).await?, lost) {
        (Some(ducklings), lost) => {
            if let Some(lost) = lost {
                complain(&format!("{lost}; but the account, which was not there before, is there now"));
            }
            let value = json!({ "username": account.as_str(), "ducklings": ducklings });
            Ok((value, format!("created {account}: {ducklings}\n")))
        }
        (None, Some(lost)) => {
            let advice = format!("it is not there now; look again with `rotad account show {account}` before you repeat this");
            Err(Ended::Failed(anyhow::anyhow!("{lost}; {advice}")))
        }
        (None, None) => Err(Ended::Failed(anyhow::anyhow!(
            "MotherDuck answered that `{account}` was created, and does not show it; look again with `rotad account show {account}`"
        ))),
    }
}

async fn set_ducklings(scene: &Scene, set: &Set) -> Result<(Value, String), Ended> {
    let account = account(&set.name)?;
    // The API takes both halves or none.
    let before = scene.client.ducklings(&account).await.map_err(failed)?;
    let asked = Ducklings {
        read_write: set.read_write.clone().unwrap_or(before.read_write),
        read_scaling: set.read_scaling.clone().unwrap_or(before.read_scaling),
    };
    asked.check().map_err(misused)?;
    let ducklings = scene.client.set_ducklings(&account, &asked).await.map_err(failed)?;
    let text = format!("{account}: {ducklings}\n");
    Ok((json!({ "username": account.as_str(), "ducklings": ducklings }), text))
}

async fn delete(scene: &Scene, arguments: &Delete) -> Result<(Value, String), Ended> {
    let Delete { name, yes, even_if_used, .. } = arguments;
    // Names of accounts that are there may be other ones than rotad would create.
    let account = Account::new(name);
    if let Some(yes) = yes.as_ref().filter(|yes| *yes != name) {
        return Err(misused(format!(
            "`--yes {}` is not `{account}`, so nothing was deleted: repeat the name of the account",
            yes.escape_debug()
        )));
    }
    let uses = scene.uses(&account);
    if !uses.is_empty() && !even_if_used {
        return Err(misused(format!(
            "`{account}` is used by what is configured: {}. Remove that first, or say `--even-if-used`: its consumers stop working",
            uses.join(", ")
        )));
    }
    // The same call would delete a person.
    let users = scene.client.users().await.map_err(failed)?;
    match users.iter().find(|user| user.username == account) {
        None => {
            return Err(Ended::Failed(anyhow::anyhow!(
                "there is no account `{account}`: `rotad account list` has those that there are"
            )));
        }
        Some(user) if !user.is_service_account => {
            return Err(misused(format!(
                "`{account}` is a person's user and no service account: rotad deletes no people, MotherDuck does"
            )));
        }
        Some(_) => {}
    }
    let tokens = scene.client.list(&account).await.complete().map_err(failed)?.len();
    let question = format!(
        "Account `{account}` of organization `{}` is deleted for good, with all its data; its {tokens} live tokens are revoked at once, \
         and whoever uses one of them stops working. It can't be undone. A script says `--yes {account}`.",
        scene.organization
    );
    ask(&question, name, yes.is_some())?;
    match scene.client.delete_account(&account).await {
        AccountOutcome::Done => {}
        AccountOutcome::Refused(refused) => return Err(failed(refused)),
        AccountOutcome::Unknown(lost) if exists(scene, &account).await?.is_none() => {
            complain(&format!("{lost}; but the account is gone"));
        }
        AccountOutcome::Unknown(lost) => {
            return Err(Ended::Failed(anyhow::anyhow!("{lost}; the account is still there: look again, it may go yet")));
        }
    }
    let value = json!({ "username": account.as_str(), "deleted": true, "tokens_revoked": tokens });
    Ok((value, format!("deleted {account}; {tokens} live tokens went with it\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_read_as_they_are_written() {
        assert_eq!(read_write("jumbo,cooldown=5m"), Ok(ReadWrite { size: Size::Jumbo, cooldown: Some(300) }));
        assert_eq!(read_write("pulse"), Ok(ReadWrite { size: Size::Pulse, cooldown: None }));
        let scaling = ReadScaling { size: Size::Standard, flock_size: 4, cooldown: Some(60) };
        assert_eq!(read_scaling("standard,cooldown=60s,flock=4"), Ok(scaling));
        for (wrong, told) in [
            ("large", "no size"),
            ("mega,flock", "neither"),
            ("mega,cooldown=1m,cooldown=2m", "each once"),
            ("mega,flock=x", "no number"),
            ("mega,cooldown=5", "duration"),
            ("mega", "flock=4"),
        ] {
            assert!(read_scaling(wrong).unwrap_err().contains(told), "{wrong}");
        }
        assert!(read_write("mega,flock=4").unwrap_err().contains("only read scaling"));
    }
}
