//! `rotad demo`: the daemon at work on this machine alone, with a stand-in for MotherDuck's API, a
//! file as the only sink and a consumer that reads it, told in words.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::{Ended, Log, block_on, say};
use crate::clock::Clock;
use crate::config::{self, System};
use crate::daemon::Daemon;
use crate::engine::Witness;
use crate::hardening;
use crate::motherduck::stand_in;
use crate::rotation::{CredentialName, Entry, Happened};
use crate::secret::Secret;

const ACCOUNT: &str = "etl_demo";
/// How often the consumer uses the token.
const CONSUMES_EVERY: Duration = Duration::from_millis(250);
/// How often the consumer's count is told.
const TELLS_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How often the token is replaced
    #[arg(long, default_value = "20s", value_name = "DURATION")]
    every: String,
    /// How long the old token lives on after every consumer can have the new one
    #[arg(long, default_value = "8s", value_name = "DURATION")]
    grace: String,
    #[command(flatten)]
    log: Log,
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
            Happened::RevocationIntended => {
                format!("The grace period is over, the file was read once more: token {token} is revoked ...")
            }
            Happened::Revoked => format!("... and token {token} is gone. No consumer has noticed.\n"),
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
    let directory = Directory::make()?;
    let admin_file = directory.0.join("admin-token");
    let admin_token = Secret::new(format!("demo-admin-{:016x}", getrandom::u64().context("no random bits")?));
    std::fs::write(&admin_file, admin_token.expose()).context("can't write the demo's admin token")?;
    let mut options = stand_in::Options::new(admin_token);
    options.accounts.push(ACCOUNT.to_owned());
    let server = Arc::new(stand_in::Server::start(options).await.context("the stand-in can't listen on 127.0.0.1")?);
    let file = directory.0.join("motherduck_token");
    let text = configuration(arguments, &directory.0, &server.url(), &file);
    let config = config::parse(&text, "the demo's configuration", &System { now: Clock::new().now().wall })
        .map_err(|problems| Ended::Misused(problems.to_string()))?;
    let began = Instant::now();
    let daemon = Daemon::start(Arc::new(config), Arc::new(Narrator { began })).await?;
    introduce(arguments, &file, &daemon);
    let consumer = tokio::spawn(consume(server.clone(), file, Narrator { began }));
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    consumer.abort();
    daemon.stop().await;
    say("\nStopped; everything that the demo made is removed.\n");
    Ok(())
}

fn configuration(arguments: &Arguments, directory: &Path, api_url: &str, file: &Path) -> String {
    let (directory, file) = (directory.display(), file.display());
    let Arguments { every, grace, .. } = arguments;
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
ttl = "5m"
every = "{every}"
grace = "{grace}"
deliver = [{{ sink = "disk", path = "{file}" }}]
"#
    )
}

fn introduce(arguments: &Arguments, file: &Path, daemon: &Daemon) {
    let metrics = daemon.addresses().first().map(|address| format!("http://{address}/metrics")).unwrap_or_default();
    say(&format!(
        "This is rotad at work. Nothing leaves this machine: a stand-in plays MotherDuck's API, and a\n\
         pretend consumer reads the token from its file and uses it, four times a second.\n\n  \
         the token's file  {}\n  metrics           {metrics}\n  a new token       every {}, the old one is revoked {} after every delivery has the new one\n\n\
         Stop it with Ctrl-C.\n\n",
        file.display(),
        arguments.every,
        arguments.grace,
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
