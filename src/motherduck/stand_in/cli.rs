//! The stand-in as a process of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::{Character, Options, Server, state};
use crate::clock::Clock;
use crate::secret::Secret;

/// The arguments of the hidden command `rotad stand-in`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Where to listen, on loopback; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The file that holds the admin's token; one is made if the file does not exist
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: PathBuf,
    /// Append what was done to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Service accounts to start with
    #[arg(long = "account", value_name = "NAME")]
    pub accounts: Vec<String>,
    /// Run the stand-in's time this many times as fast
    #[arg(long, default_value_t = 1)]
    pub speed: u32,
    /// What differs from the usual behaviour, as JSON
    #[arg(long, value_name = "JSON")]
    pub character: Option<String>,
}

/// Runs until interrupted; says where it listens in one line on standard output once it does.
pub async fn run_cli(arguments: Arguments) -> anyhow::Result<()> {
    anyhow::ensure!(
        arguments.listen.ip().is_loopback(),
        "`{}` is not on loopback: the stand-in is for this machine alone",
        arguments.listen
    );
    let character = arguments.character.as_deref().map_or(Ok(Character::default()), serde_json::from_str);
    let options = Options {
        listen: arguments.listen,
        admin_token: admin_token(&arguments.admin_token_file)?,
        admin_token_ttl: None,
        accounts: arguments.accounts,
        character: character.context("`--character` is not understood")?,
        log: arguments.log,
        clock: Arc::new(Clock::new()),
        speed: arguments.speed,
    };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let server = Server::start(options).await.with_context(|| format!("can't listen on `{}`", arguments.listen))?;
    writeln!(std::io::stdout(), "the stand-in for MotherDuck's API listens on {}", server.url())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.stop().await;
    Ok(())
}

/// The token in the file, or a new one that is written there, readable by its owner only.
fn admin_token(path: &Path) -> anyhow::Result<Secret> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = path.display();
    if path.exists() {
        let text = std::fs::read_to_string(path).with_context(|| format!("can't read `{name}`"))?;
        anyhow::ensure!(!text.trim().is_empty(), "`{name}` is empty; remove it and a token is made");
        return Ok(Secret::new(text.trim().to_owned()));
    }
    let value = state::new_value(super::ADMIN);
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(value.expose().as_bytes())).with_context(|| format!("can't write `{name}`"))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_admin_token_s_file_is_made_once_for_its_owner_alone_and_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        let made = admin_token(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(admin_token(&path).unwrap().fingerprint(), made.fingerprint());
        std::fs::write(&path, " mine\n").unwrap();
        assert_eq!(admin_token(&path).unwrap().expose(), "mine");
        std::fs::write(&path, "\n").unwrap();
        assert!(admin_token(&path).unwrap_err().to_string().contains("is empty"));
    }

    #[tokio::test]
    async fn it_listens_on_loopback_only() {
        let arguments = Arguments {
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            admin_token_file: PathBuf::from("/nonexistent/token"),
            log: None,
            accounts: Vec::new(),
            speed: 1,
            character: None,
        };
        assert!(run_cli(arguments).await.unwrap_err().to_string().contains("not on loopback"));
    }
}
