//! MotherDuck's Postgres endpoint, as far as proving a token needs it: who the token is there.
//!
//! What is known of it (all observed in official demo code, none documented): any user name is taken, the token is the
//! password, the database is `md:`, TLS is needed, `current_user` is the account. The result of `__md_duckling_id()`,
//! an internal function, ends in `.rw` or `.rs.N` and so shows the token's type. How a bad token is refused is not
//! known but for texts that DuckDB's clients get.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::client::TimeLimits;
use crate::postgres::{self, SAID_MAX};
use crate::rotation::{Account, Failed, Reason, TokenType, VerifyOutcome};
use crate::secret::{Secret, presentable};

/// A database that every account has (observed).
const DATABASE: &str = "md:";
/// How long a server may take to see that we say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Where an organization's Postgres endpoint is, and whom it is trusted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// The only authority that is trusted, instead of the system's; read when the client is made.
    pub ca_cert: Option<PathBuf>,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Connects to one endpoint, each time anew: a session that stays open would keep an instance awake.
pub(super) struct Wire {
    endpoint: Endpoint,
    tls: MakeRustlsConnect,
    limits: TimeLimits,
}

/// Whom a session belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    user: String,
    /// The id of the instance, where the endpoint tells it.
    duckling: Option<String>,
}

/// Why there was no session.
#[derive(Debug)]
pub(super) enum Unproven {
    /// Nothing is known of the token.
    Unanswered(Failed),
    /// The endpoint refused it.
    Refused(Refused),
}

/// A token that was refused.
#[derive(Debug)]
pub(super) struct Refused {
    /// What the endpoint's text says for certain.
    pub reason: Option<Reason>,
    /// The sentence, with the endpoint's text in it.
    pub what: String,
}

/// A session that is held open.
pub(super) struct Held {
    client: Client,
    limit: Duration,
}

impl Held {
    /// Whether the session still answers.
    pub async fn answers(&mut self) -> bool {
        matches!(timeout(self.limit, self.client.simple_query("SELECT 1")).await, Ok(Ok(_)))
    }
}

type Connection = tokio_postgres::Connection<TcpStream, <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::Stream>;

impl Wire {
    /// # Errors
    /// The CA file can't be used, or the system has no certificates.
    pub fn new(endpoint: Endpoint, limits: TimeLimits) -> Result<Self, Failed> {
        let config = postgres::verified_tls(endpoint.ca_cert.as_deref(), "`postgres`", "postgres_ca_cert");
        let config = config.map_err(|what| Failed::new(Reason::Unsuitable, what))?;
        Ok(Self { endpoint, tls: MakeRustlsConnect::new(config), limits })
    }

    /// Who the token is at the endpoint.
    pub async fn session(&self, account: &Account, value: &Secret) -> Result<Session, Unproven> {
        match timeout(self.limits.whole, self.converse(account, value)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Unproven::Unanswered(self.failed(Reason::TimedOut, "no answer within the time limit"))),
        }
    }

    /// A session that stays open until it is dropped.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn hold(&self, account: &Account, value: &Secret) -> Result<Held, Failed> {
        let (client, connection) = match timeout(self.limits.whole, self.connect(account, value)).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(Unproven::Unanswered(failed))) => return Err(failed),
            Ok(Err(Unproven::Refused(refused))) => return Err(self.failed(Reason::Unauthorized, &refused.what)),
            Err(_) => return Err(self.failed(Reason::TimedOut, "no answer within the time limit")),
        };
        // It ends by itself when the client is dropped.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Held { client, limit: self.limits.read })
    }

    /// Whether something that speaks PostgreSQL answers over TLS, with a certificate that is trusted. No token is sent: the
    /// endpoint asks for a password, and gets none.
    ///
    /// # Errors
    /// Why it can't be used.
    pub async fn greet(&self) -> Result<(), Failed> {
        let unusable = |reason, what: &str| Failed::new(reason, format!("the Postgres endpoint `{}`: {what}", self.endpoint));
        let greeting = async {
            let stream = TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port));
            let stream = stream.await.map_err(|error| unusable(Reason::Unreachable, &format!("no connection ({error})")))?;
            let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut self.tls.clone(), &self.endpoint.host);
            let tls = tls.map_err(|error| unusable(Reason::Unreachable, &error.to_string()))?;
            let mut config = tokio_postgres::Config::new();
            // Any user name is taken there (observed).
            config.user("rotad").dbname(DATABASE).ssl_mode(SslMode::Require);
            let Err(error) = config.connect_raw(stream, tls).await else { return Ok(()) };
            // It said no, or asked for the password: both come over TLS alone.
            let answered = error.as_db_error().is_some() || error.to_string().starts_with("invalid configuration");
            if answered { Ok(()) } else { Err(unusable(Reason::BadAnswer, &explained(&error, &[]))) }
        };
        let in_time = timeout(self.limits.connect, greeting).await;
        in_time.unwrap_or_else(|_| Err(unusable(Reason::TimedOut, "no answer within the time limit")))
    }

    async fn connect(&self, account: &Account, value: &Secret) -> Result<(Client, Connection), Unproven> {
        let stream = self.reach().await.map_err(Unproven::Unanswered)?;
        let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut self.tls.clone(), &self.endpoint.host);
        let tls = tls.map_err(|error| Unproven::Unanswered(self.failed(Reason::Unreachable, &error.to_string())))?;
        let mut config = tokio_postgres::Config::new();
        config.user(account.as_str()).password(value.expose()).dbname(DATABASE).ssl_mode(SslMode::Require);
        config.connect_raw(stream, tls).await.map_err(|error| self.unproven(&error, value))
    }

    async fn converse(&self, account: &Account, value: &Secret) -> Result<Session, Unproven> {
        let (client, mut connection) = self.connect(account, value).await?;
        let session = tokio::select! {
            biased;
            session = self.ask(&client, value) => session,
            ended = &mut connection => match ended {
                Err(error) => Err(self.unproven(&error, value)),
                Ok(()) => Err(Unproven::Unanswered(self.failed(Reason::BadAnswer, "it closed the connection"))),
            },
        };
        drop(client);
        // Whether it takes our goodbye is its own affair.
        drop(timeout(GOODBYE, connection).await);
        session
    }

    async fn reach(&self) -> Result<TcpStream, Failed> {
        let connecting = TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port));
        match timeout(self.limits.connect, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.failed(Reason::Unreachable, &format!("no connection ({error})"))),
            Err(_) => Err(self.failed(Reason::Unreachable, "no connection within the time limit")),
        }
    }

    /// By the simple protocol, which table functions need there (observed).
    async fn ask(&self, client: &Client, value: &Secret) -> Result<Session, Unproven> {
        let user = client.simple_query("SELECT current_user").await;
        // The token was let in: what goes wrong from here on does not speak against it.
        let failed = |error: &tokio_postgres::Error| {
            Unproven::Unanswered(
                self.failed(Reason::BadAnswer, &format!("`SELECT current_user` failed: {}", postgres::cause(error, &[value]))),
            )
        };
        let user = first_text(&user.map_err(|error| failed(&error))?);
        let Some(user) = user else {
            let failed = self.failed(Reason::BadAnswer, "`SELECT current_user` gave nothing");
            return Err(Unproven::Unanswered(failed));
        };
        let duckling = match client.simple_query("SELECT * FROM __md_duckling_id()").await {
            Ok(rows) => first_text(&rows),
            Err(error) if error.as_db_error().is_some() => None,
            Err(error) => return Err(failed(&error)),
        };
        Ok(Session { user, duckling })
    }

    /// What an error before or within a session says of the token.
    fn unproven(&self, error: &tokio_postgres::Error, value: &Secret) -> Unproven {
        let Some(said) = error.as_db_error() else {
            // The library tells what failed by its words alone. Without TLS nothing of ours was sent.
            let no_tls = error.to_string().starts_with("error performing TLS handshake");
            let reason = if no_tls { Reason::Unreachable } else { Reason::BadAnswer };
            return Unproven::Unanswered(self.failed(reason, &explained(error, &[value])));
        };
        let text = presentable(said.message(), SAID_MAX, &[value]);
        let what = format!("it answered `{text}` ({})", said.code().code());
        let class = said.code().code().get(..2).unwrap_or_default();
        match class {
            // The connection, its resources, an operator: not the token.
            "08" | "53" | "57" | "58" => Unproven::Unanswered(self.failed(Reason::Unavailable, &what)),
            "3D" => Unproven::Unanswered(self.failed(Reason::Rejected, &what)),
            _ => Unproven::Refused(Refused { reason: told(said.message()), what }),
        }
    }

    /// Whether the session is the account's, and of the type that was asked for.
    pub fn judge(&self, session: &Session, account: &Account, token_type: TokenType) -> VerifyOutcome {
        if Account::new(&session.user) != *account {
            let user = presentable(&session.user, 64, &[]);
            let what = format!("the token is `{user}`'s there, and was issued for `{account}`");
            return VerifyOutcome::Disproved(self.failed(Reason::WrongAccount, &what));
        }
        match session.duckling.as_deref().and_then(duckling_type) {
            Some(found) if found != token_type => {
                let what = format!("the token is of type `{found}` there, and `{token_type}` was asked for");
                VerifyOutcome::Disproved(self.failed(Reason::BadAnswer, &what))
            }
            Some(_) => VerifyOutcome::Verified,
            None => {
                // The function is internal and may go; the answer to the issue told the type already.
                tracing::warn!(endpoint = %self.endpoint, account = account.as_str(), "the endpoint did not tell the token's type");
                VerifyOutcome::Verified
            }
        }
    }

    pub fn failed(&self, reason: Reason, what: &str) -> Failed {
        Failed::new(reason, format!("can't prove the new token at `{}`: {what}", self.endpoint))
    }
}

/// What a refusal's text says for certain (texts observed in an official client, over DuckDB's own protocol).
fn told(text: &str) -> Option<Reason> {
    let text = text.to_lowercase();
    let says = |part: &str| text.contains(part);
    if says("expired") {
        Some(Reason::Expired)
    } else if says("invalid motherduck token") || says("revoked") {
        Some(Reason::Revoked)
    } else if says("region") {
        Some(Reason::WrongRegion)
    } else {
        None
    }
}

/// The type of the instance that an id ends in: `.rw` or `.rs.N` (observed).
fn duckling_type(id: &str) -> Option<TokenType> {
    let (before, last) = id.rsplit_once('.')?;
    if last == "rw" {
        return Some(TokenType::ReadWrite);
    }
    let numbered = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    (numbered && (before == "rs" || before.ends_with(".rs"))).then_some(TokenType::ReadScaling)
}

/// What failed, and where the configuration may be at fault.
fn explained(error: &tokio_postgres::Error, known: &[&Secret]) -> String {
    let cause = postgres::cause(error, known);
    let hint = if cause.contains("certificate") {
        "; is `postgres_ca_cert` the authority that signed it, and `postgres` the name that it is for?"
    } else {
        ""
    };
    format!("{cause}{hint}")
}

fn first_text(messages: &[SimpleQueryMessage]) -> Option<String> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) if !row.is_empty() => row.get(0).map(str::to_owned),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_what_an_instances_id_ends_in() {
        for id in ["rw", "abc.rw.x", "abc.rs", "abc.rs.", "abc.rs.1a", "abc.xrs.1", ""] {
            assert_eq!(duckling_type(id), None, "{id}");
        }
        assert_eq!(duckling_type("0f3a.rw"), Some(TokenType::ReadWrite));
        assert_eq!(duckling_type("0f3a.rs.0"), Some(TokenType::ReadScaling));
        assert_eq!(duckling_type("rs.12"), Some(TokenType::ReadScaling));
    }

    #[test]
    fn texts_tell_as_much_as_is_known_of_them() {
        assert_eq!(told("Jwt is expired"), Some(Reason::Expired));
        assert_eq!(told("Invalid MotherDuck token"), Some(Reason::Revoked));
        assert_eq!(told("this organization is in another region"), Some(Reason::WrongRegion));
        assert_eq!(told("Your request is not authenticated"), None);
    }

    #[test]
    fn an_endpoint_reads_as_it_is_written() {
        let endpoint = |host: &str| Endpoint { host: host.to_owned(), port: 5432, ca_cert: None }.to_string();
        assert_eq!(endpoint("pg.eu-central-1-aws.motherduck.com"), "pg.eu-central-1-aws.motherduck.com:5432");
        assert_eq!(endpoint("::1"), "[::1]:5432");
    }
}
