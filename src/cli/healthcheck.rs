//! `rotad healthcheck`: asks the daemon of this machine how it is, for containers that have nothing else to ask with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::{Ended, block_on, say};
use crate::config::LISTEN_DEFAULT;

/// A daemon on this machine answers at once or not at all.
const ANSWER_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Ask whether it is ready, not only whether it is alive
    #[arg(long)]
    ready: bool,
}

pub fn run(path: &Path, arguments: &Arguments) -> Result<(), Ended> {
    let listen = listen(path);
    let (status, text) = block_on(ask(listen, if arguments.ready { "readyz" } else { "healthz" }))??;
    if status != 200 {
        return Err(Ended::Failed(anyhow::anyhow!("status {status} from {listen}: {}", text.trim_end())));
    }
    say(&text);
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

/// What the daemon answers, as status and text.
///
/// # Errors
/// Nobody listens there, or does not answer in time.
pub(super) async fn ask(listen: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    anyhow::ensure!(listen.port() != 0, "`server.listen` has the port 0, so where it listens is in the log alone");
    let here = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build()?;
    let answer = client.get(format!("http://{}/{path}", SocketAddr::new(here, listen.port()))).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
