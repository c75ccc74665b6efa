//! The commands that a person gives to the running daemon: rotate, pause, resume, sweep, forget, revoke, reload.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::run::STAYS;
use super::watch::{self, Goal};
use super::{Ended, block_on, complain, load_without_secrets, misused, offline_fleet, say, with_members};
use crate::clock::Clock;
use crate::config::{Config, parse_duration};
use crate::control::{Client, FleetChange, FleetRequest, OrderRequest, Refused, Selection, Taken, Unanswered};
use crate::engine::Roster;
use crate::rotation::{CredentialName, DeliveryId, Order, Refusal, TokenId};

/// For which credentials.
#[derive(Debug, Default, clap::Args)]
pub struct For {
    /// Names of credentials, or patterns such as `etl-*`
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Those with this label, `key=value`; several must all fit
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Those of this account
    #[arg(long, value_name = "USERNAME")]
    account: Option<String>,
    /// Every credential
    #[arg(long)]
    all: bool,
    /// Print what became of it as JSON
    #[arg(long)]
    json: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is `key=value`")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl For {
    fn selection(&self) -> Selection {
        Selection {
            names: self.names.clone(),
            labels: self.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            account: self.account.clone(),
            all: self.all,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct Rotate {
    #[command(flatten)]
    which: For,
    /// For a leaked token: revoke the tokens before as soon as every delivery shows the new one, without a grace period
    #[arg(long)]
    revoke_now: bool,
    /// Show the steps, and wait until every delivery shows the new token (with `--revoke-now`: until the old ones are revoked)
    #[arg(long)]
    wait: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
pub struct Panic {
    /// The account whose tokens leaked: its username
    #[arg(long, value_name = "USERNAME")]
    account: String,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// Print what became of it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Sweep {
    #[command(flatten)]
    which: For,
    /// List the accounts of this fleet of the configuration
    #[arg(long, value_name = "NAME", conflicts_with_all = ["names", "labels", "account", "all"])]
    fleet: Option<String>,
    /// Those that are gone from MotherDuck's list were deleted, however many: let go of them
    #[arg(long, requires = "fleet")]
    allow_gone: bool,
}

#[derive(Debug, clap::Args)]
pub struct Pause {
    #[command(flatten)]
    which: For,
    /// For how long, such as `2h`
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, required_unless_present = "until", conflicts_with = "until")]
    length: Option<SignedDuration>,
    /// Until when, such as `2027-01-31T18:00:00Z`
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Why, for whoever meets the pause
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Also beyond the tokens' deadlines: their consumers stop working then
    #[arg(long)]
    let_expire: bool,
}

#[derive(Debug, clap::Args)]
pub struct Forget {
    /// The credential's name
    name: String,
    /// The place as `rotad status` shows it, such as `file:/run/etl/token`
    place: String,
    /// Print what became of it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// The token's id
    token: String,
    /// Its credential, where the journal does not know the token
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,
    /// Even if a delivery serves it: whoever reads it there stops working until the next token is delivered
    #[arg(long)]
    even_if_served: bool,
    /// Show the steps, and wait until it is revoked
    #[arg(long)]
    wait: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// Print what became of it as JSON
    #[arg(long)]
    json: bool,
}

pub fn rotate(path: &Path, arguments: &Rotate) -> Result<(), Ended> {
    let config = block_on(with_members(load_without_secrets(path)?))??;
    let selection = arguments.which.selection();
    if arguments.revoke_now {
        let names = selection.resolve(&config).map_err(misused)?;
        let places = places(&config, &names)?;
        let question = format!(
            "A new token goes to these places; the tokens before are revoked as soon as all of them show it. Whoever keeps the old \
             one longer than that stops working.\n{places}"
        );
        ask(&question, "yes", arguments.yes)?;
    }
    let order = Order::Rotate { revoke_now: arguments.revoke_now };
    let goal = arguments.wait.then_some(if arguments.revoke_now { Goal::Revoked } else { Goal::Current });
    give(&config, OrderRequest { selection, order }, arguments.which.json, goal)
}

/// Every token of an account that rotad made is replaced, and revoked as soon as its successor is everywhere.
pub fn panic(path: &Path, arguments: &Panic) -> Result<(), Ended> {
    let Panic { account, yes, json } = arguments;
    let which = For { account: Some(account.clone()), json: *json, ..For::default() };
    rotate(path, &Rotate { which, revoke_now: true, wait: true, yes: *yes })?;
    complain(&format!(
        "tokens of `{account}` that rotad did not make are left alone: `rotad import --account {account}` lists them; revoke what \
         leaked of them at MotherDuck"
    ));
    Ok(())
}

pub fn pause(path: &Path, arguments: &Pause) -> Result<(), Ended> {
    let config = load_without_secrets(path)?;
    let now = Clock::new().now().wall;
    let ends = arguments.length.map(|length| now.saturating_add(length)).transpose()?.or(arguments.until);
    let until = ends.ok_or_else(|| misused("give `--for` or `--until`".to_owned()))?;
    let order = Order::Pause { until, reason: arguments.reason.clone(), let_expire: arguments.let_expire };
    give(&config, OrderRequest { selection: arguments.which.selection(), order }, arguments.which.json, None)
}

pub fn simple(path: &Path, which: &For, order: Order) -> Result<(), Ended> {
    let config = load_without_secrets(path)?;
    give(&config, OrderRequest { selection: which.selection(), order }, which.json, None)
}

pub fn sweep(path: &Path, arguments: &Sweep) -> Result<(), Ended> {
    let Some(fleet) = &arguments.fleet else { return simple(path, &arguments.which, Order::Sweep) };
    let client = client(&load_without_secrets(path)?)?;
    let request = FleetRequest { fleet: fleet.clone(), allow_gone: arguments.allow_gone };
    let change = block_on(client.sweep_fleet(&request))?.map_err(ended)?;
    say(&if arguments.which.json { serde_json::to_string_pretty(&change)? + "\n" } else { told_fleet(fleet, &change) });
    match change.refusal {
        None => Ok(()),
        Some(Refusal { missing, accounts, allowed, .. }) => Err(Ended::Failed(anyhow::anyhow!(
            "{missing} of {accounts} accounts are gone from the list, and {allowed} may go at once, not all of them: none is let go; \
             `--allow-gone` if they were deleted"
        ))),
    }
}

/// What a list changed at a fleet.
fn told_fleet(fleet: &str, change: &FleetChange) -> String {
    let FleetChange { accounts, come, gone, missing, refusal: _ } = change;
    let mut text = format!("`{fleet}` covers {accounts} accounts\n");
    come.iter().for_each(|account| text.push_str(&format!("+ {account}: gets its first token, under the limits\n")));
    gone.iter().for_each(|account| text.push_str(&format!("- {account}: let go, its tokens are left to expire\n")));
    missing.iter().for_each(|account| text.push_str(&format!("? {account}: not on the list\n")));
    text
}

pub fn forget(path: &Path, arguments: &Forget) -> Result<(), Ended> {
    let config = load_without_secrets(path)?;
    let order = Order::Forget { place: DeliveryId::new(&arguments.place) };
    give(&config, OrderRequest { selection: of(&arguments.name), order }, arguments.json, None)
}

pub fn revoke(path: &Path, arguments: &Revoke) -> Result<(), Ended> {
    let config = block_on(with_members(load_without_secrets(path)?))??;
    let token = TokenId(arguments.token.clone());
    let name = match &arguments.credential {
        Some(name) => name.clone(),
        None => block_on(watch::credential_of(&config, &token))??.to_string(),
    };
    let served = if arguments.even_if_served {
        let places = places(&config, &[name.parse().map_err(|error| misused(format!("{error}")))?])?;
        format!(" Where one of these places serves it, its consumers stop working at once:\n{places}")
    } else {
        String::new()
    };
    ask(&format!("Token `{token}` of `{name}` is revoked for good.{served}"), "yes", arguments.yes)?;
    let order = Order::Revoke { token, even_if_served: arguments.even_if_served };
    give(&config, OrderRequest { selection: of(&name), order }, arguments.json, arguments.wait.then_some(Goal::Revoked))
}

#[derive(Debug, clap::Args)]
pub struct Reload {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn reload(path: &Path, arguments: &Reload) -> Result<(), Ended> {
    let config = load_without_secrets(path).map_err(|ended| match ended {
        Ended::Misused(problems) => Ended::Misused(format!("{problems}\n{STAYS}")),
        failed => failed,
    })?;
    let client = client(&config)?;
    block_on(client.reload())?.map_err(ended)?;
    say(if arguments.json { "{\n  \"in_force\": true\n}\n" } else { "the new configuration is in force\n" });
    Ok(())
}

fn of(name: &str) -> Selection {
    Selection { names: vec![name.to_owned()], ..Selection::default() }
}

fn ended(unanswered: Unanswered) -> Ended {
    match unanswered {
        Unanswered::Refused(Refused { error, misused: true }) => misused(error),
        other => Ended::Failed(other.into()),
    }
}

/// The places of some credentials, one on each line.
fn places(config: &Config, names: &[CredentialName]) -> Result<String, Ended> {
    let fleet = block_on(offline_fleet(config.clone(), Arc::new(Clock::new())))??;
    let mut text = String::new();
    for name in names {
        let Some(member) = fleet.member(name) else { continue };
        member.policy.deliveries.keys().for_each(|place| text.push_str(&format!("  {name}: {place}\n")));
    }
    Ok(text)
}

/// Asks a person to type `word`; a script says `--yes`.
pub(super) fn ask(question: &str, word: &str, yes: bool) -> Result<(), Ended> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(misused(format!("{question}\nThere is nobody to ask: repeat the command with `--yes`")));
    }
    let _ = write!(std::io::stderr().lock(), "{question}\nType `{word}` to go on: ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == word { Ok(()) } else { Err(Ended::Failed(anyhow::anyhow!("nothing was done: `{word}` was not typed"))) }
}

fn client(config: &Config) -> Result<Client, Ended> {
    let Some(path) = &config.server.control else {
        return Err(misused(
            "`[server] control` is not set, so the daemon takes no commands: set it, for example to `/run/rotad/control.sock`, and \
             restart the daemon"
                .to_owned(),
        ));
    };
    Ok(Client::new(path)?)
}

/// Gives the order, tells what became of it, and waits for the goal where there is one.
fn give(config: &Config, request: OrderRequest, json: bool, goal: Option<Goal>) -> Result<(), Ended> {
    request.selection.check().map_err(misused)?;
    let client = client(config)?;
    block_on(async {
        let watch = match goal {
            Some(goal) => Some(watch::Watch::begin(config, goal).await?),
            None => None,
        };
        let taken = client.order(&request).await.map_err(ended)?;
        if json {
            say(&(serde_json::to_string_pretty(&taken)? + "\n"));
        } else {
            say(&told(&request.order, &taken));
        }
        let (refused, accepted): (Vec<_>, Vec<_>) = taken.into_iter().partition(|taken| taken.refusal.is_some());
        if let Some(watch) = watch {
            watch.until_done(accepted.into_iter().map(|taken| taken.credential).collect(), json).await?;
        }
        match refused.len() {
            0 => Ok(()),
            1 => Err(Ended::Failed(anyhow::anyhow!("the order was refused at 1 credential: what is in the way is told above"))),
            several => Err(Ended::Failed(anyhow::anyhow!(
                "the order was refused at {several} credentials: what is in the way is told above"
            ))),
        }
    })?
}

/// What became of an order: each refusal, and the credentials that took it.
fn told(order: &Order, taken: &[Taken]) -> String {
    /// More names are counted, not told.
    const NAMES_MAX: usize = 8;
    let names: Vec<&str> = taken.iter().filter(|taken| taken.refusal.is_none()).map(|taken| taken.credential.as_str()).collect();
    for Taken { credential, refusal } in taken {
        if let Some(refusal) = refusal {
            complain(&format!("{credential}: refused: {refusal}"));
        }
    }
    let what = match order {
        Order::Rotate { .. } => "a rotation is".to_owned(),
        Order::Pause { until, .. } => format!("a pause until {until:.0} is"),
        Order::Resume => "the end of any pause or wait is".to_owned(),
        Order::Sweep => "a sweep is".to_owned(),
        Order::Forget { place } => format!("that `{place}` is waited for no longer is"),
        Order::Revoke { token, .. } => format!("the revocation of {token} is"),
    };
    match names.len() {
        0 => String::new(),
        few if few <= NAMES_MAX => format!("{what} recorded for {}\n", names.join(", ")),
        many => format!("{what} recorded for {many} credentials\n"),
    }
}
