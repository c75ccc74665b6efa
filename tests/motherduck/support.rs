//! What the tests of the client and the stand-in share.

use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use rotad::clock::Clock;
use rotad::motherduck::stand_in::{Character, Options as ServerOptions, Server};
use rotad::motherduck::{AdminSource, Client, Code, Endpoint, Limits, Observer, Operation, Options, Provider, TimeLimits};
use rotad::rotation::{
    Account, Failed, InstallationId, IssueOutcome, IssueRequest, IssuedToken, ListOutcome, ListedToken, RevokeOutcome,
    RotationId, TokenId, TokenName, TokenType,
};
use rotad::secret::Secret;
use rotad::secret::SecretSource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const ADMIN_TOKEN: &str = "eyJhZG1pbg.PLANTED-ADMIN-TOKEN.c2ln";
pub const ACCOUNT: &str = "etl_prod";

/// What the observer was told.
#[derive(Default)]
pub struct Seen(Mutex<Vec<(Operation, Code)>>);

impl Observer for Seen {
    fn request(&self, operation: Operation, code: Code, seconds: f64) {
        assert!(seconds >= 0.0);
        self.0.lock().unwrap().push((operation, code));
    }
}

impl Seen {
    /// What was seen since the last time.
    pub fn take(&self) -> Vec<(Operation, Code)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A client with a file for its admin token, and what it was seen to do.
pub struct Caller {
    pub client: Client,
    pub seen: Arc<Seen>,
    pub token_file: std::path::PathBuf,
    pub clock: Arc<Clock>,
    _folder: tempfile::TempDir,
}

/// Short enough that a test does not wait, long enough for a busy machine.
pub fn brief() -> TimeLimits {
    let whole = Duration::from_millis(1_500);
    TimeLimits { connect: Duration::from_secs(5), read: whole, whole, list: Duration::from_secs(20) }
}

pub fn caller(url: &str) -> Caller {
    caller_with(url, brief(), Limits::NONE)
}

pub fn caller_with(url: &str, time_limits: TimeLimits, limits: Limits) -> Caller {
    caller_connecting(url, time_limits, limits, None)
}

/// One that proves new tokens at a Postgres endpoint.
pub fn caller_connecting(url: &str, time_limits: TimeLimits, limits: Limits, postgres: Option<Endpoint>) -> Caller {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("admin-token");
    std::fs::write(&token_file, format!("{ADMIN_TOKEN}\n")).unwrap();
    let seen = Arc::new(Seen::default());
    let clock = Arc::new(Clock::new());
    let client = Client::new(Options {
        organization: "main".into(),
        api_url: url.to_owned(),
        admin_token: AdminSource::Secret(SecretSource::File(token_file.clone())),
        postgres,
        limits,
        time_limits,
        clock: Arc::clone(&clock),
        observer: Arc::clone(&seen) as Arc<dyn Observer>,
    });
    Caller { client: client.unwrap(), seen, token_file, clock, _folder: folder }
}

pub fn limits(per_second: Option<u32>, in_flight: Option<usize>) -> Limits {
    Limits { requests_per_second: per_second.and_then(NonZeroU32::new), max_in_flight: in_flight.and_then(NonZeroUsize::new) }
}

pub fn server_options() -> ServerOptions {
    let mut options = ServerOptions::new(Secret::new(ADMIN_TOKEN.to_owned()));
    options.accounts = vec![ACCOUNT.to_owned()];
    options
}

/// A stand-in with one account, and a client to it.
pub async fn pair() -> (Server, Caller) {
    let server = Server::start(server_options()).await.unwrap();
    let caller = caller(&server.url());
    (server, caller)
}

/// The same, of another character.
pub async fn pair_of(character: Character) -> (Server, Caller) {
    let (server, caller) = pair().await;
    server.set_character(character);
    (server, caller)
}

pub fn account() -> Account {
    Account::new(ACCOUNT)
}

/// A request for a token of an hour under a name that no other has.
pub fn request() -> IssueRequest {
    static LAST: Mutex<Option<RotationId>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap();
    let rotation = RotationId::mint(Clock::new().now().wall, *last, InstallationId(7), 42);
    *last = Some(rotation);
    IssueRequest {
        organization: "main".into(),
        account: account(),
        name: TokenName { owner: "test/etl".parse().unwrap(), rotation },
        token_type: TokenType::ReadWrite,
        ttl: SignedDuration::from_hours(1),
    }
}

impl Caller {
    pub async fn issued(&self) -> (IssuedToken, Secret) {
        match self.client.issue(&request()).await {
            (IssueOutcome::Issued(token), Some(value)) => (token, value),
            (outcome, _) => panic!("{outcome:?}"),
        }
    }

    /// The failure of an issue that was definitely refused.
    pub async fn refused(&self) -> Failed {
        match self.client.issue(&request()).await {
            (IssueOutcome::Refused(failed), None) => checked(failed),
            (outcome, _) => panic!("{outcome:?}"),
        }
    }

    /// The failure of an issue of unknown outcome.
    pub async fn unknown(&self) -> Failed {
        match self.client.issue(&request()).await {
            (IssueOutcome::Unknown(failed), None) => checked(failed),
            (outcome, _) => panic!("{outcome:?}"),
        }
    }

    pub async fn listed(&self) -> Vec<ListedToken> {
        match self.client.list(&account()).await {
            ListOutcome::Complete(tokens) => tokens,
            ListOutcome::Failed(failed) => panic!("{failed:?}"),
        }
    }

    pub async fn not_listed(&self) -> Failed {
        match self.client.list(&account()).await {
            ListOutcome::Failed(failed) => checked(failed),
            ListOutcome::Complete(tokens) => panic!("{tokens:?}"),
        }
    }

    pub async fn gone(&self, token: &TokenId) {
        assert_eq!(self.client.revoke(&account(), token).await, RevokeOutcome::Gone);
    }

    pub async fn not_gone(&self, token: &TokenId) -> Failed {
        match self.client.revoke(&account(), token).await {
            RevokeOutcome::Failed(failed) => checked(failed),
            RevokeOutcome::Gone => panic!("it says that the token is gone"),
        }
    }
}

/// Every failure is one short sentence without a secret, a full stop or a line break.
pub fn checked(failed: Failed) -> Failed {
    let detail = &failed.detail;
    assert!(detail.chars().count() <= 300 && !detail.is_empty(), "{detail}");
    assert!(!detail.ends_with('.') && !detail.contains('\n'), "{detail}");
    assert!(!detail.contains("PLANTED") && !detail.contains("eyJ"), "{detail}");
    failed
}

/// How often the stand-in met an operation since the start.
pub fn met(server: &Server, operation: rotad::motherduck::stand_in::Operation) -> usize {
    server.log(0).iter().filter(|record| record.operation == operation).count()
}

/// What a scripted server does with one connection, after it read one request.
#[derive(Clone)]
pub enum Act {
    /// Writes these bytes and closes.
    Write(Vec<u8>),
    /// Writes these bytes, then one byte every 100 ms for ever.
    Drip(Vec<u8>),
    /// Closes with a reset.
    Reset,
}

/// An HTTP/1.1 answer with a JSON body of the right length.
pub fn answer(status: &str, body: &str) -> Act {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    Act::Write(format!("{head}{body}").into_bytes())
}

/// A server that does what it is told, one act for each connection, the last of them for ever.
pub struct Scripted {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Scripted {
    pub async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            for index in 0.. {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let act = acts[index.min(acts.len() - 1)].clone();
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let request = read_request(&mut stream).await.unwrap_or_default();
                    seen.lock().unwrap().push(request);
                    perform(stream, act).await
                });
            }
        });
        Self { url, requests, task }
    }

    /// The requests so far, as they came over the wire.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn perform(mut stream: TcpStream, act: Act) -> io::Result<()> {
    match act {
        Act::Write(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Act::Drip(bytes) => {
            stream.write_all(&bytes).await?;
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                stream.write_all(b" ").await?;
            }
        }
        Act::Reset => stream.set_zero_linger(),
    }
}

/// Reads one request, its body by `content-length`.
async fn read_request(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let count = stream.read(&mut chunk).await?;
        text.extend_from_slice(&chunk[..count]);
        let read = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = read.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Ok(read);
            }
        }
        if count == 0 {
            return Ok(read);
        }
    }
}
