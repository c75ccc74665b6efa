//! The commands, one file each. Data goes to stdout, the rest to stderr.

mod account;
mod check;
mod config;
#[cfg(feature = "stand-in")]
mod demo;
mod detail;
mod fleets;
mod healthcheck;
mod history;
mod import;
mod manual;
mod order;
mod plan;
mod probe;
mod run;
mod status;
mod support;
mod text;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Once};

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::clock::Clock;
use crate::config::{self as configuration, Config, System, Unlooked};
use crate::control::{RemoteJournal, Unanswered};
use crate::fleet::{Fleet, Surroundings, rolls};
use crate::journal::{Journal, NOT_RUN_YET};
use crate::logging::{self, Format};
use crate::metrics::Metrics;
use crate::motherduck::Client;
use crate::rotation::Order;
use crate::snapshot::Board;

/// Where the configuration is when neither `--config` nor `ROTAD_CONFIG` says.
const CONFIG_DEFAULT: &str = "/etc/rotad/rotad.toml";

/// Rotates the access tokens of MotherDuck service accounts without breaking a consumer.
#[derive(Debug, Parser)]
#[command(name = "rotad", version, about, disable_help_subcommand = true)]
struct Arguments {
    /// The configuration file
    #[arg(long, global = true, env = "ROTAD_CONFIG", default_value = CONFIG_DEFAULT, value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

/// How `run` and `demo` log.
#[derive(Debug, clap::Args)]
struct Log {
    /// What is logged: a level, or pairs such as `info,rotad::engine=debug`; `RUST_LOG` otherwise
    #[arg(long = "log", value_name = "FILTER")]
    filter: Option<String>,
    /// How a line of the log is written
    #[arg(long = "log-format", value_enum, default_value_t)]
    format: Format,
}

impl Log {
    fn start(&self, filter: Option<&str>) -> Result<(), Ended> {
        logging::start(self.format, self.filter.as_deref().or(filter)).map_err(|error| Ended::Misused(format!("rotad: {error}")))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until it is told to stop
    Run(Log),
    /// Say whether the configuration is right
    Check(check::Arguments),
    /// Show every credential: what it serves, what comes next, what needs a person
    Status(status::Arguments),
    /// Show what comes next for every credential, when and why; changes nothing
    Plan(plan::Arguments),
    /// Print the configuration with what takes over tokens that were made by hand
    Import(import::Arguments),
    /// Look at service accounts, create them, set their Ducklings, delete them
    #[command(subcommand)]
    Account(account::Command),
    /// Show what happened: every step of every rotation
    History(history::Arguments),
    /// Replace tokens now, under the limits
    Rotate(order::Rotate),
    /// Replace and revoke every token of an account at once, since they leaked
    Panic(order::Panic),
    /// Issue nothing for a while; deliveries, revocations and alerts go on
    Pause(order::Pause),
    /// End a pause, overwrite what was rolled back, and try again now what waits
    Resume(order::For),
    /// Compare MotherDuck's list, the places and the journal now; with `--fleet`, list a fleet's accounts now
    Sweep(order::Sweep),
    /// Wait no longer for tokens that a place may serve which is not configured any more
    Forget(order::Forget),
    /// Revoke a token by its id
    Revoke(order::Revoke),
    /// Have the daemon read its configuration again, as SIGHUP does
    Reload(order::Reload),
    /// Ask the daemon on this machine whether it is alive: for a container's health check
    Healthcheck(healthcheck::Arguments),
    /// Watch rotad at work, everything embedded: a local stand-in for the API, and a file
    #[cfg(feature = "stand-in")]
    Demo(demo::Arguments),
    /// Find out by use what MotherDuck's documentation leaves open, with an account that nobody uses
    Probe(probe::Arguments),
    /// Print what a report needs, as JSON, without secrets: read it before you send it
    Support,
    /// Print a configuration to begin with
    #[command(subcommand)]
    Config(config::Command),
    /// Print a script that completes commands in a shell
    Completions(manual::Completions),
    /// Print the manual page
    Man(manual::Man),
    /// Run the local stand-in for MotherDuck's API alone
    #[cfg(feature = "stand-in")]
    #[command(hide = true)]
    StandIn(crate::motherduck::stand_in::Arguments),
}

/// How a command ended, beside its success.
#[derive(Debug)]
pub enum Ended {
    /// It could not do what it was asked for: exit status 1.
    Failed(anyhow::Error),
    /// The call or the configuration is wrong, and has been told or is told by this: exit status 2.
    Misused(String),
}

impl<E: Into<anyhow::Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to stdout with 0, mistakes to stderr with 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Failed(error)) => {
            complain(&format!("rotad: {error:#}"));
            ExitCode::from(1)
        }
        Err(Ended::Misused(told)) => {
            complain(&told);
            ExitCode::from(2)
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<(), Ended> {
    let Arguments { config, command } = arguments;
    match command {
        Command::Config(command) => config::run(&command),
        Command::Check(arguments) => check::run(&config, &arguments),
        Command::Status(arguments) => status::run(&config, &arguments),
        Command::Run(log) => run::run(&config, &log),
        Command::Support => support::run(&config),
        Command::Plan(arguments) => plan::run(&config, &arguments),
        Command::Probe(arguments) => probe::run(&config, &arguments),
        Command::Import(arguments) => import::run(&config, &arguments),
        Command::Account(command) => account::run(&config, &command),
        Command::History(arguments) => history::run(&config, &arguments),
        Command::Rotate(arguments) => order::rotate(&config, &arguments),
        Command::Panic(arguments) => order::panic(&config, &arguments),
        Command::Pause(arguments) => order::pause(&config, &arguments),
        Command::Resume(which) => order::simple(&config, &which, Order::Resume),
        Command::Sweep(arguments) => order::sweep(&config, &arguments),
        Command::Forget(arguments) => order::forget(&config, &arguments),
        Command::Revoke(arguments) => order::revoke(&config, &arguments),
        Command::Reload(arguments) => order::reload(&config, &arguments),
        Command::Healthcheck(arguments) => healthcheck::run(&config, &arguments),
        Command::Completions(arguments) => {
            manual::completions(&arguments);
            Ok(())
        }
        Command::Man(arguments) => manual::man(&arguments),
        #[cfg(feature = "stand-in")]
        Command::Demo(arguments) => demo::run(&arguments),
        #[cfg(feature = "stand-in")]
        Command::StandIn(arguments) => stand_in(arguments),
    }
}

/// The configuration, or every problem that it has.
fn load(path: &Path) -> Result<Config, Ended> {
    let world = System { now: Clock::new().now().wall };
    configuration::load(path, &world).map_err(|problems| Ended::Misused(problems.to_string()))
}

/// The configuration for a command that reads no secret: whoever may open the socket may give orders.
fn load_without_secrets(path: &Path) -> Result<Config, Ended> {
    let world = Unlooked { now: Clock::new().now().wall };
    configuration::load(path, &world).map_err(|problems| Ended::Misused(problems.to_string()))
}

/// What a command that only looks can see.
struct Sight {
    /// `None` where rotad has not run yet.
    journal: Option<Arc<dyn Journal>>,
    /// The daemon whose journal it is, if it answers at the control socket.
    daemon: Option<Arc<RemoteJournal>>,
}

impl Sight {
    /// The journal, where there must be one.
    fn journal(&self, config: &Config) -> anyhow::Result<Arc<dyn Journal>> {
        self.journal.clone().with_context(|| format!("journal {} does not exist or is empty: {NOT_RUN_YET}", config.journal))
    }
}

/// Looks through the daemon at the control socket, so that whoever may open that needs no right to the journal; where none
/// answers, at the journal as it is stored, which is said.
async fn look(config: &Config) -> anyhow::Result<Sight> {
    static SAID: Once = Once::new();
    if let Some(path) = &config.server.control {
        match RemoteJournal::connect(path).await {
            Ok(daemon) => {
                let daemon = Arc::new(daemon);
                return Ok(Sight { journal: Some(daemon.clone()), daemon: Some(daemon) });
            }
            Err(unanswered) => SAID.call_once(|| {
                let why = match unanswered {
                    Unanswered::NoDaemon { problem, .. } | Unanswered::Unknown(problem) => problem,
                    Unanswered::Refused(refused) => refused.error,
                };
                let path = path.display();
                complain(&format!("rotad: no daemon answers at `{path}` ({why}): this is from the journal as it is stored"));
            }),
        }
    }
    Ok(Sight { journal: config.journal.look().await?, daemon: None })
}

/// The configuration with the accounts of its fleets, as the journal knows them.
async fn with_members(config: Config) -> anyhow::Result<Config> {
    if config.fleets.is_empty() {
        return Ok(config);
    }
    let Some(journal) = look(&config).await?.journal else { return Ok(config) };
    let rolls = rolls::load(journal.as_ref(), &config).await?;
    Ok(config.with_members(&rolls::members(&rolls)).0)
}

/// The configured fleet for commands that only look.
async fn offline_fleet(config: Config, clock: Arc<Clock>) -> anyhow::Result<Fleet> {
    let board = Arc::new(Board::new(clock.now()));
    let surroundings = Surroundings { clock, metrics: Arc::new(Metrics::new()?), board };
    Fleet::open(Arc::new(config), &surroundings, None).await.map_err(anyhow::Error::msg)
}

/// An organization's client, for commands that ask the API themselves.
async fn admin_client(config: &Config, organization: &str) -> anyhow::Result<Arc<Client>> {
    let fleet = offline_fleet(config.clone(), Arc::new(Clock::new())).await?;
    fleet.clients().get(organization).cloned().context("the organization has no client")
}

fn misused(text: String) -> Ended {
    Ended::Misused(format!("rotad: {text}"))
}

/// Runs what speaks to the network to its end. Threads that wait for a file system that hangs can't be
/// ended, and must not hold up the end of the process.
fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(outcome)
}

#[cfg(feature = "stand-in")]
fn stand_in(arguments: crate::motherduck::stand_in::Arguments) -> Result<(), Ended> {
    Ok(block_on(crate::motherduck::stand_in::run_cli(arguments))??)
}

/// Writes data for the caller. A reader that went away is not an error of ours.
fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes what is not data.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}
