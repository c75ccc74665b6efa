//! `rotad healthcheck`: asks the daemon of this machine how it is, for containers that have nothing else to ask with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::{Ended, block_on, say};
use crate::config::LISTEN_DEFAULT;

/// A daemon on this machine answers at once or not at all.
const ANSWER_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Ask whether it is ready, not only whether it is alive
    #[arg(long)]
    ready: bool,
    /// Print what was found as JSON, also when it is not as it should be
    #[arg(long)]
    json: bool,
}

/// What was found; `status` is null where nobody answered.
#[derive(Debug, Serialize)]
struct Health {
    asked: &'static str,
    address: SocketAddr,
    healthy: bool,
    status: Option<u16>,
    /// The daemon's words, or why there are none.
    answer: String,
}

pub fn run(path: &Path, arguments: &Arguments) -> Result<(), Ended> {
    let listen = listen(path);
    let asked = if arguments.ready { "readyz" } else { "healthz" };
    let answer = block_on(ask(listen, asked))?;
    let healthy = matches!(answer, Ok((200, _)));
    if arguments.json {
        let (status, answer) = match &answer {
            Ok((status, text)) => (Some(*status), text.trim_end().to_owned()),
            Err(problem) => (None, format!("{problem:#}")),
        };
        let found = Health { asked, address: listen, healthy, status, answer };
        say(&(serde_json::to_string_pretty(&found)? + "\n"));
    }
    let (status, text) = answer?;
    if !healthy {
        return Err(Ended::Failed(anyhow::anyhow!(
            "status {status} from {listen}: {}; see `rotad status` and the daemon's log",
            text.trim_end()
        )));
    }
    if !arguments.json {
        say(&text);
    }
    Ok(())
}

/// Where the configuration says that the daemon listens. The rest of it may be wrong: the daemon goes on with the one
/// that it has, and must not be called ill and restarted for a mistake in a file that it has not taken.
fn listen(path: &Path) -> SocketAddr {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let (document, _) = toml::de::DeTable::parse_recoverable(&text);
    let server = document.get_ref().get("server").and_then(|server| server.get_ref().as_table());
    let listen = server.and_then(|server| server.get("listen")).and_then(|listen| listen.get_ref().as_str());
    listen.and_then(|listen| listen.parse().ok()).unwrap_or(LISTEN_DEFAULT)
}

/// Whether a daemon answers on this machine; `None` where it can't be told where it would listen.
pub(super) async fn answers(listen: SocketAddr) -> Option<bool> {
    if listen.port() == 0 {
        return None;
    }
    Some(ask(listen, "healthz").await.is_ok())
}

/// What the daemon answers, as status and text.
///
/// # Errors
/// Nobody listens there, or does not answer in time.
pub(super) async fn ask(listen: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    anyhow::ensure!(
        listen.port() != 0,
        "`server.listen` has the port 0, so where it listens is in the log alone: give it a port of its own"
    );
    let here = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build()?;
    let here = SocketAddr::new(here, listen.port());
    let answer = client.get(format!("http://{here}/{path}")).send().await;
    let answer = answer.with_context(|| format!("no daemon answers at {here}, start `rotad run` or see its log"))?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
