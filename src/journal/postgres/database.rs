//! Which database a journal is in, and how it is reached.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{explain, unreached};
use crate::postgres::verified_tls;
use crate::secret::SecretSource;

/// To a session that can be used. A server that fails over is tried again by the next write.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long what was sent may be unacknowledged: after it the connection is as good as lost.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// A database of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub host: Host,
    pub port: u16,
    pub user: String,
    /// Whether TLS is used, and the server's certificate verified. Without it only this machine is reached.
    pub tls: bool,
    /// The only authority that is trusted, instead of the system's.
    pub ca_cert: Option<PathBuf>,
    /// Read again for each connection.
    pub password: Option<SecretSource>,
    pub name: String,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an address, without brackets.
    Name(String),
    /// The directory of its Unix socket.
    Socket(PathBuf),
}

pub(super) struct Connected {
    pub(super) client: tokio_postgres::Client,
    /// Ends when the connection has.
    pub(super) driver: tokio::task::JoinHandle<()>,
}

impl Database {
    /// A session, `called` so in the server's own lists.
    ///
    /// # Errors
    /// What is in the way, in a sentence.
    pub(super) async fn connect(&self, called: &str) -> Result<Connected, String> {
        let password = match &self.password {
            Some(source) => {
                let read = source.read_line().await;
                Some(read.map_err(|failed| format!("the password of journal `{self}` can't be read: {}", failed.detail))?)
            }
            None => None,
        };
        let mut config = tokio_postgres::Config::new();
        config.user(&self.user).dbname(&self.name).port(self.port).application_name(called);
        config.connect_timeout(CONNECT_MAX).tcp_user_timeout(UNACKNOWLEDGED_MAX);
        config.keepalives_idle(UNACKNOWLEDGED_MAX).keepalives_interval(Duration::from_secs(3)).keepalives_retries(3);
        match &self.host {
            Host::Name(name) => config.host(name),
            Host::Socket(directory) => config.host_path(directory),
        };
        if let Some(password) = &password {
            config.password(password.expose());
        }
        let known: Vec<_> = password.iter().collect();
        let failed = |error: &tokio_postgres::Error| explain(self, error, &known);
        let connecting = async {
            if self.tls {
                let tls = verified_tls(self.ca_cert.as_deref(), "the journal", "ca_cert")?;
                config.ssl_mode(SslMode::Require);
                let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await.map_err(|error| failed(&error))?;
                Ok(Connected { client, driver: tokio::spawn(async move { drop(connection.await) }) })
            } else {
                config.ssl_mode(SslMode::Disable);
                let (client, connection) = config.connect(NoTls).await.map_err(|error| failed(&error))?;
                Ok(Connected { client, driver: tokio::spawn(async move { drop(connection.await) }) })
            }
        };
        match tokio::time::timeout(CONNECT_MAX, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(unreached(self, &format!("no session within {} s", CONNECT_MAX.as_secs()))),
        }
    }
}

/// As its URL, without the password, which is not in it.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, name, .. } = self;
        match host {
            Host::Name(host) if host.contains(':') => write!(f, "postgres://{user}@[{host}]:{port}/{name}"),
            Host::Name(host) => write!(f, "postgres://{user}@{host}:{port}/{name}"),
            Host::Socket(directory) => {
                write!(f, "postgres://{user}@{}:{port}/{name}", directory.display().to_string().replace('/', "%2F"))
            }
        }
    }
}
