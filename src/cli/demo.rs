//! `rotad demo`: the daemon at work on this machine alone, with a stand-in for MotherDuck's API, two
//! files as places and a consumer that reads one of them, told in words and shown on the status page.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::{Ended, Log, block_on, say};
use crate::clock::Speed;
use crate::config::{self, System};
use crate::control::{OrderRequest, Selection};
use crate::daemon::Daemon;
use crate::engine::Witness;
use crate::hardening;
use crate::motherduck::stand_in::{self, Misbehaviour};
use crate::rotation::{CredentialName, Entry, Happened, Order};
use crate::secret::Secret;

const ACCOUNT: &str = "etl_demo";
/// Where the token goes, in the demo's directory: the consumer reads the first.
const PLACES: [&str; 2] = ["service", "mirror"];
const FILE: &str = "motherduck_token";
/// How often the consumer uses the token.
const CONSUMES_EVERY: Duration = Duration::from_millis(250);
/// How often the consumer's count is told.
const TELLS_EVERY: Duration = Duration::from_secs(15);

/// When something begins to go wrong, and for how long: after the first rotations, and long enough to be seen.
const FAULT_AFTER: Duration = Duration::from_secs(20);
const FAULT_LASTS: Duration = Duration::from_secs(15);

/// The lengths at the machine's own speed, in seconds; a faster demo has so many times longer ones, which pass as fast.
const EVERY: u32 = 20;
const GRACE: u32 = 8;
const TTL: u32 = 300;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many times as fast time runs, for daemon and stand-in alike
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    speed: u32,
    /// What goes wrong for 15 s, 20 s after the start
    #[arg(long, value_enum)]
    fault: Option<Fault>,
    /// How often the token is replaced [default: 20s, times the speed]
    #[arg(long, value_name = "DURATION")]
    every: Option<String>,
    /// How long the old token lives on after every consumer can have the new one [default: 8s, times the speed]
    #[arg(long, value_name = "DURATION")]
    grace: Option<String>,
    #[command(flatten)]
    log: Log,
}

impl Arguments {
    fn every(&self) -> String {
        self.every.clone().unwrap_or_else(|| in_seconds(EVERY * self.speed))
    }

    fn grace(&self) -> String {
        self.grace.clone().unwrap_or_else(|| in_seconds(GRACE * self.speed))
    }
}

/// A duration as the configuration has it, in minutes where these are whole.
fn in_seconds(seconds: u32) -> String {
    if seconds.is_multiple_of(60) { format!("{}m", seconds / 60) } else { format!("{seconds}s") }
}

/// What the demo can be told to have go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fault {
    /// One of the two places can't be reached
    SinkDown,
    /// The API answers every request with 503
    ApiDown,
    /// A token leaks: it is replaced, and revoked without its grace period
    Leak,
}

/// A directory of the demo's own, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn make() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("rotad-demo-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("can't make `{}`", path.display()))?;
        // Symbolic links on the way (a linked /tmp) are not followed by the file sink, so it gets the real path.
        Ok(Self(path.canonicalize()?))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where a sentence begins, for one that goes on in another line.
const PAD: &str = "           ";

/// Tells each step as a sentence.
struct Narrator {
    began: Instant,
}

impl Narrator {
    fn tell(&self, text: &str) {
        say(&format!("{:7.1} s  {text}\n", self.began.elapsed().as_secs_f64()));
    }
}

impl Witness for Narrator {
    fn happened(&self, _: &CredentialName, entry: &Entry) {
        let token = entry.token.as_ref().map(|id| id.0.chars().take(8).collect::<String>()).unwrap_or_default();
        let place = entry.delivery.as_ref().map(|place| place.as_str().trim_start_matches("file:")).unwrap_or_default();
        let told = match entry.what {
            Happened::Intended => "A new token is due. The intent is in the journal; now MotherDuck's API is asked.".to_owned(),
            Happened::Issued => format!("Token {token} was issued. Its value is in memory only; the journal has its SHA-256."),
            Happened::Verified => "It shows in the account's list, as it was asked for.".to_owned(),
            Happened::Attempted => format!("It is written to {place}, if that still holds what was read before ..."),
            Happened::Confirmed => format!("... and read back: {place} serves token {token}."),
            Happened::Promoted => {
                format!("Every delivery serves token {token}: its grace period begins, older tokens still work.")
            }
            Happened::RevocationIntended if entry.detail.is_some() => {
                format!("Every place was read once more: token {token} is revoked, as ordered, without its grace period ...")
            }
            Happened::RevocationIntended => {
                format!("The grace period is over, every place was read once more: token {token} is revoked ...")
            }
            Happened::Revoked => format!("... and token {token} is gone. No consumer has noticed.\n"),
            Happened::ReadFailed => format!(
                "{place} can't be read: {}.\n{PAD}Whoever reads the other place goes on, and nothing is revoked. rotad tries again and again, later each time.",
                entry.detail.as_deref().unwrap_or_default()
            ),
            Happened::Ordered => {
                format!(
                    "Ordered by {}: {}.",
                    entry.by.as_deref().unwrap_or_default(),
                    entry.detail.as_deref().unwrap_or_default()
                )
            }
            other => {
                let detail = entry.detail.as_deref().unwrap_or("see `rotad status`");
                format!("{}: {detail}", other.as_str().replace('_', " "))
            }
        };
        self.tell(&told);
    }
}

pub fn run(arguments: &Arguments) -> Result<(), Ended> {
    hardening::harden().context("the process can't be hardened")?;
    arguments.log.start(Some("error"))?;
    block_on(play(arguments))?
}

async fn play(arguments: &Arguments) -> Result<(), Ended> {
    let speed = Speed::new(arguments.speed);
    let directory = Directory::make()?;
    let admin_file = directory.0.join("admin-token");
    let admin_token = Secret::new(format!("demo-admin-{:016x}", getrandom::u64().context("no random bits")?));
    std::fs::write(&admin_file, admin_token.expose()).context("can't write the demo's admin token")?;
    for place in PLACES {
        std::fs::create_dir(directory.0.join(place)).context("can't make the demo's places")?;
    }
    let mut options = stand_in::Options::new(admin_token);
    options.accounts.push(ACCOUNT.to_owned());
    options.clock = Arc::new(speed.clock());
    let server = Arc::new(stand_in::Server::start(options).await.context("the stand-in can't listen on 127.0.0.1")?);
    let clock = Arc::new(speed.clock());
    let text = configuration(arguments, &directory.0, &server.url());
    let config = config::parse(&text, "the demo's configuration", &System { now: clock.now().wall })
        .map_err(|problems| Ended::Misused(problems.to_string()))?;
    let began = Instant::now();
    let daemon = Daemon::start_by(clock, Arc::new(config), Arc::new(Narrator { began })).await?;
    let file = directory.0.join(PLACES[0]).join(FILE);
    introduce(arguments, &file, &daemon);
    let consumer = tokio::spawn(consume(server.clone(), file, Narrator { began }));
    let (ended, narrator) = (ends()?, Narrator { began });
    tokio::select! {
        () = ended => {}
        () = go_wrong(arguments.fault, &daemon, &server, &directory.0, &narrator) => {}
    }
    consumer.abort();
    daemon.stop().await;
    say("\nStopped; everything that the demo made is removed.\n");
    Ok(())
}

/// Ctrl-C, the end of a service, or of the terminal.
fn ends() -> std::io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// What was asked to go wrong does, and comes right again. It never ends: whoever watches does.
async fn go_wrong(fault: Option<Fault>, daemon: &Daemon, server: &stand_in::Server, directory: &Path, narrator: &Narrator) {
    let Some(fault) = fault else { return std::future::pending().await };
    tokio::time::sleep(FAULT_AFTER).await;
    let (mirror, away) = (directory.join(PLACES[1]), directory.join("away"));
    match fault {
        Fault::SinkDown => {
            narrator.tell("*** The mirror's directory is gone. Look at the page: what rotad does, and what a person should do.");
            // Where it can't be moved the place stays as it is, and nothing goes wrong: the next steps show it.
            let _ = std::fs::rename(&mirror, &away);
            // By itself it would notice with its next sweep, or when a token is due.
            order(daemon, Order::Sweep).await;
            tokio::time::sleep(FAULT_LASTS).await;
            let _ = std::fs::rename(&away, &mirror);
            narrator.tell(
                "*** The mirror's directory is back. rotad would see that with its next try; `rotad resume etl` has it try now.",
            );
            order(daemon, Order::Resume).await;
        }
        Fault::ApiDown => {
            narrator.tell("*** The API answers 503 from now on. Consumers go on; nothing is issued or revoked.");
            let unavailable = Misbehaviour::Status { status: 503, retry_after: None, carry_out: false, html: false };
            server.misbehave(stand_in::Fault::always(unavailable));
            tokio::time::sleep(FAULT_LASTS).await;
            server.behave();
            narrator.tell("*** The API is back.");
        }
        Fault::Leak => {
            narrator.tell("*** The token was seen in a log that it should not be in: `rotad rotate etl --revoke-now`.");
            order(daemon, Order::Rotate { revoke_now: true }).await;
        }
    }
    std::future::pending().await
}

/// Gives the order that a person would.
async fn order(daemon: &Daemon, order: Order) {
    let selection = Selection { all: true, ..Selection::default() };
    let (answer, answered) = tokio::sync::oneshot::channel();
    daemon.order(OrderRequest { selection, order }, "the demo".to_owned(), answer);
    // Whether it was taken is told by the steps that follow.
    let _ = answered.await;
}

fn configuration(arguments: &Arguments, directory: &Path, api_url: &str) -> String {
    let directory = directory.display();
    let (every, grace, ttl) = (arguments.every(), arguments.grace(), in_seconds(TTL * arguments.speed));
    let deliver = PLACES.map(|place| format!("{{ sink = \"disk\", path = \"{directory}/{place}/{FILE}\" }}")).join(", ");
    format!(
        r#"deployment = "demo"

[organization.main]
admin_token = {{ file = "{directory}/admin-token" }}
api_url = "{api_url}"

[journal]
url = "sqlite:{directory}/journal.db"

[server]
listen = "127.0.0.1:0"

[limits]
rotations_per_minute = 60
revocations_per_minute = 60

[sink.disk.file]

[credential.etl]
account = "{ACCOUNT}"
ttl = "{ttl}"
every = "{every}"
grace = "{grace}"
deliver = [{deliver}]
"#
    )
}

fn introduce(arguments: &Arguments, file: &Path, daemon: &Daemon) {
    let address = daemon.addresses().first().map(|address| format!("http://{address}")).unwrap_or_default();
    let speed = match arguments.speed {
        1 => String::new(),
        times => format!("Time runs {times} times as fast, for all of it.\n"),
    };
    let fault = match arguments.fault {
        None => "",
        Some(Fault::SinkDown) => "In 20 s one of the two places goes away for a while.\n",
        Some(Fault::ApiDown) => "In 20 s the API goes away for a while.\n",
        Some(Fault::Leak) => "In 20 s a token leaks.\n",
    };
    say(&format!(
        "This is rotad at work. Nothing leaves this machine: a stand-in plays MotherDuck's API, and a\n\
         pretend consumer reads the token from its file and uses it, four times a second.\n{speed}{fault}\n  \
         look at           {address}/credential/etl  (a picture of every token's life)\n                    {address}/                (what needs a person; reload it as you like)\n  \
         metrics           {address}/metrics\n  the token's file  {}\n  a new token       every {}, the old one is revoked {} after every place has the new one\n\n\
         Stop it with Ctrl-C.\n\n",
        file.display(),
        arguments.every(),
        arguments.grace(),
    ));
}

/// Reads the file and tries the token at the API, as a service would.
async fn consume(server: Arc<stand_in::Server>, file: PathBuf, narrator: Narrator) {
    let (used, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut ticks = tokio::time::interval(CONSUMES_EVERY);
    let mut told = Instant::now();
    loop {
        ticks.tick().await;
        let Ok(text) = tokio::fs::read_to_string(&file).await else { continue };
        if server.is_live(&Secret::new(text)) {
            used.fetch_add(1, Ordering::Relaxed);
        } else {
            failed.fetch_add(1, Ordering::Relaxed);
            narrator.tell("THE CONSUMER MET A DEAD TOKEN. This must never happen: please report it.");
        }
        if told.elapsed() >= TELLS_EVERY {
            told = Instant::now();
            let (used, failed) = (used.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
            narrator.tell(&format!("(The consumer has used the token {used} times so far; it failed {failed} times.)"));
        }
    }
}
