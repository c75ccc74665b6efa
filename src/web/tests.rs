use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{ALLOW, CONTENT_TYPE as TYPE, HOST};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::engine::Member;
use crate::journal::SqliteJournal;
use crate::rotation::{
    Account, CredentialName, DeliveryId, DeliveryPolicy, FirstConnection, Mode, Owner, Policy, Schedule, Steady, TokenType,
    Verify,
};
use crate::snapshot::{CredentialState, JournalState, Summary};

mod api;
mod page;

/// A test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

fn moment(seconds: i64) -> Moment {
    Moment { wall: Timestamp::from_second(1_790_000_000 + seconds).unwrap(), steady: Steady(seconds * 1000) }
}

/// A server on loopback with a board of its own, whose clock stands at 10 s after its start.
struct Running {
    board: Arc<Board>,
    journal: Arc<SqliteJournal>,
    addresses: Vec<SocketAddr>,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

/// The place of every credential here, as hostile as a path can be.
const PLACE: &str = "file:/run/<img src=x onerror=alert(1)>&\"'/token";

/// Any name is configured whose first letter is not `x`.
struct Everybody;

impl Roster for Everybody {
    fn names(&self) -> Vec<CredentialName> {
        Vec::new()
    }

    fn member(&self, name: &CredentialName) -> Option<Member> {
        let owner = Owner { deployment: "test".parse().unwrap(), credential: name.clone() };
        let place = DeliveryPolicy { take_over: false, write_limit: SignedDuration::from_secs(10) };
        let policy = Policy {
            schedule: Schedule::every(SignedDuration::from_hours(24), &owner),
            owner,
            renamed_from: None,
            adopt: [].into(),
            used_by_rotad: false,
            account_is_kept: false,
            first_connection: FirstConnection::NotNeeded,
            organization: "main".into(),
            account: Account::new("etl_<b>"),
            token_type: TokenType::ReadWrite,
            ttl: SignedDuration::from_hours(168),
            window: None,
            grace: SignedDuration::from_hours(12),
            verify: Verify::None,
            mode: Mode::Rotate,
            deliveries: [(DeliveryId::new(PLACE), place)].into(),
            sweep_every: SignedDuration::from_hours(1),
            tokens_max: 16,
        };
        let organization = Board::new(moment(0)).organization("main");
        let known = !name.as_str().starts_with('x');
        known.then(|| Member {
            policy,
            places: Vec::new(),
            providers: Arc::default(),
            organization,
            proves_by: Vec::new(),
            due_at: None,
        })
    }

    /// The account and the one label that `member` and its configuration would have.
    fn is_told_of(&self, name: &CredentialName, part: &str) -> bool {
        let team = if name.as_str().ends_with('7') { "team=data" } else { "team=web" };
        ["etl_<b>", team].iter().any(|told| told.contains(part))
    }

    fn sizes(&self) -> std::collections::BTreeMap<Arc<str>, usize> {
        std::collections::BTreeMap::new()
    }
}

fn watched(board: &Arc<Board>, journal: Arc<dyn Journal>) -> Watched {
    Watched {
        deployment: "test".parse().unwrap(),
        board: Arc::clone(board),
        metrics: Arc::new(Metrics::new().unwrap()),
        journal,
        roster: Arc::new(|| Arc::new(Everybody)),
        now: Arc::new(|| moment(10)),
    }
}

fn options() -> Options {
    let listen = "127.0.0.1:0".parse().unwrap();
    Options { listen, metrics_listen: Some(listen), page: false, per_credential: true }
}

async fn running(options: Options) -> Running {
    let board = Arc::new(Board::new(moment(0)));
    let directory = tempfile::tempdir().unwrap();
    let opened = SqliteJournal::open(&directory.path().join("journal.db"), moment(0).wall, Arc::new(|_| {}));
    let journal = Arc::new(opened.unwrap());
    let server = Server::bind(options, watched(&board, journal.clone())).await.unwrap();
    let addresses = server.addresses().to_vec();
    let (shutdown, told) = watch::channel(false);
    Running { board, journal, addresses, shutdown, task: tokio::spawn(server.run(told)), _directory: directory }
}

impl Running {
    fn url(&self, listener: usize, path: &str) -> String {
        format!("http://{}{path}", self.addresses[listener])
    }

    async fn get(&self, listener: usize, path: &str) -> (u16, String) {
        let response = client().get(self.url(listener, path)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(LIMIT).no_proxy().build().unwrap()
}

#[tokio::test]
async fn both_listeners_serve_metrics_and_health_and_one_of_them_page_and_json() {
    let server = running(options()).await;
    for listener in [0, 1] {
        let response = client().get(server.url(listener, "/metrics")).send().await.unwrap();
        assert_eq!(response.headers()[TYPE], CONTENT_TYPE);
        assert!(response.text().await.unwrap().contains("\nrotad_credentials{state=\"current\"} 0\n"));
        assert_eq!(server.get(listener, "/healthz").await, (200, "alive\n".to_owned()));
        assert_eq!(server.get(listener, "/metrics/").await.0, 404);
    }
    for path in ["/", "/credential/etl", "/style.css", "/api/v1/status", "/api/v1/credentials/etl", "/api/v1/openapi.json"] {
        assert_eq!((server.get(0, path).await.0, server.get(1, path).await.0), (200, 404), "{path}");
    }
}

#[tokio::test]
async fn health_is_the_schedulers_heartbeat() {
    let server = running(options()).await;
    server.board.beat(moment(-171));
    let (status, text) = server.get(0, "/healthz").await;
    assert_eq!(status, 503);
    assert!(text.contains("no sign of life"), "{text}");
}

#[tokio::test]
async fn readiness_gives_every_reason_that_is_missing() {
    let server = running(options()).await;
    let (status, text) = server.get(1, "/readyz").await;
    assert_eq!((status, text.lines().count()), (503, 3), "{text}");
    server.board.configuration_loaded(moment(1).wall);
    server.board.journal(JournalState::Unwritable);
    server.board.first_sweep_done();
    let (status, text) = server.get(1, "/readyz").await;
    assert_eq!((status, text.as_str()), (503, "the journal can't be written, so nothing is issued or revoked\n"));
    server.board.journal(JournalState::Writable);
    assert_eq!(server.get(1, "/readyz").await, (200, "ready\n".to_owned()));
}

#[tokio::test]
async fn the_status_lists_each_credential_beside_the_totals() {
    let server = running(options()).await;
    let main = server.board.organization("main");
    for number in 0..200 {
        let summary = Summary { state: CredentialState::Current, due_at: moment(5).wall.into(), ..Summary::new(main) };
        server.board.put(&format!("c{number:03}").parse().unwrap(), summary);
    }
    let (_, text) = server.get(0, "/api/v1/status").await;
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["snapshot"]["credentials"]["current"], 200);
    assert_eq!(status["snapshot"]["organizations"][0]["name"], "main");
    let credentials = status["credentials"].as_array().unwrap();
    assert_eq!(
        (credentials.len(), &credentials[199]["name"], &credentials[0]["organization"]),
        (200, &"c199".into(), &"main".into())
    );
    assert_eq!(credentials[0]["due_at"], moment(5).wall.to_string());
    assert_eq!((&credentials[0]["expires_at"], &credentials[0]["state"]), (&serde_json::Value::Null, &"current".into()));
}

#[tokio::test]
async fn the_status_of_a_board_without_credentials_is_whole_too() {
    let server = running(options()).await;
    let status: serde_json::Value = serde_json::from_str(&server.get(0, "/api/v1/status").await.1).unwrap();
    assert_eq!(status["credentials"], serde_json::json!([]));
}

#[tokio::test]
async fn a_page_under_another_name_gets_nothing() {
    let server = running(options()).await;
    let asked_for = |path: &str, host: &'static str| client().get(server.url(0, path)).header(HOST, host).send();
    for path in ["/", "/credential/etl", "/credential/etl/history", "/style.css", "/api/v1/credentials", "/api/v1/openapi.json"] {
        assert_eq!(asked_for(path, "evil.example").await.unwrap().status(), 403, "{path}");
        assert_eq!(asked_for(path, "localhost").await.unwrap().status(), 200, "{path}");
    }
    let asked = |host: &'static str| asked_for("/api/v1/status", host);
    for host in [
        "evil.example",
        "evil.example:9643",
        "localhost.evil.example",
        "10.0.0.1",
        "127.0.0.1.evil.example:80",
        "[2001:db8::1]:80",
    ] {
        assert_eq!(asked(host).await.unwrap().status(), 403, "{host}");
    }
    for host in ["localhost", "LOCALHOST:9643", "127.0.0.1:9643", "127.0.0.2", "[::1]:9643", "[::1]", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(asked(host).await.unwrap().status(), 200, "{host}");
    }
}

#[tokio::test]
async fn page_and_json_leave_the_machine_only_with_page() {
    let listen = "0.0.0.0:0".parse().unwrap();
    let closed = running(Options { listen, ..options() }).await;
    let open = running(Options { listen, page: true, ..options() }).await;
    for path in ["/", "/credential/etl", "/api/v1/status"] {
        let url = |server: &Running| format!("http://127.0.0.1:{}{path}", server.addresses[0].port());
        assert_eq!(client().get(url(&closed)).send().await.unwrap().status(), 404);
        assert_eq!(client().get(url(&open)).header(HOST, "rotad.internal").send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn nothing_but_get_and_head_is_answered() {
    let server = running(options()).await;
    for method in [reqwest::Method::POST, reqwest::Method::PUT, reqwest::Method::DELETE, reqwest::Method::OPTIONS] {
        let request = client().request(method.clone(), server.url(0, "/metrics")).body("x".repeat(1000));
        let response = request.send().await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()[ALLOW]), (405, &"GET,HEAD".parse().unwrap()), "{method}");
    }
    let response = client().head(server.url(0, "/metrics")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (200, ""));
}

#[tokio::test]
async fn a_request_with_a_head_beyond_the_limit_is_refused() {
    let server = running(options()).await;
    let response = client().get(server.url(0, "/healthz")).header("x-long", "a".repeat(20_000)).send().await.unwrap();
    assert_eq!(response.status(), 431);
}

/// What the server sends until it closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_cut_off() {
    let server = running(options()).await;
    let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    assert!(!rest(stream).await.contains("200 OK"));
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_frees_the_address() {
    let server = running(options()).await;
    let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    server.shutdown.send(true).unwrap();
    tokio::time::timeout(LIMIT, server.task).await.unwrap().unwrap();
    rest(stream).await;
    assert!(TcpStream::connect(server.addresses[0]).await.is_err());
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_and_are_served_when_one_ends() {
    let server = running(options()).await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        idle.push(stream);
    }
    let mut waiting = TcpStream::connect(server.addresses[0]).await.unwrap();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut first = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(300), waiting.read_exact(&mut first)).await;
    assert!(early.is_err(), "it was served beside 64 others");
    idle.pop();
    assert!(rest(waiting).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn an_address_in_use_is_said_in_a_sentence() {
    let server = running(options()).await;
    let watched = watched(&server.board, server.journal.clone());
    let taken = Options { listen: server.addresses[0], ..options() };
    let Err(error) = Server::bind(taken, watched).await else { panic!("it was bound twice") };
    let expected = format!(
        "`server.listen = \"{}\"` can't be listened on: another process listens there; stop it, or choose another port",
        server.addresses[0]
    );
    assert_eq!(error.to_string(), expected);
}
