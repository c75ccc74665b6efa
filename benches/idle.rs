//! The daemon with 100,000 idle credentials in configuration and journal: how long its start takes,
//! and its memory, one scrape included. `cargo bench --bench idle [-- CREDENTIALS]`
//!
//! It is the real binary: `rotad run`, against the stand-in. Each credential has one account and one
//! file; its only token was issued, delivered and swept just now, so nothing is due. The first
//! thousand in the order of names have their files, since a start looks at 20 of them in a second.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints what it found, and ends if it can't run")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rotad::clock::Clock;
use rotad::journal::{Journal, Save, SqliteJournal};
use rotad::rotation::{
    Account, Attempt, Credential, CredentialName, Delivery, DeliveryId, Moment, Owner, ProcessId, Rotation, RotationId, Schedule,
    Seen, Settled, Stage, Token, TokenId, TokenName, TokenType,
};
use rotad::secret::Secret;
use rotad::sinks::format::Format;
use rotad::sinks::{Payload, Place, Question, file};
use support::{Process, StandIn, processor_seconds, resident_kib};

const CREDENTIALS: usize = 100_000;
/// As many as are looked at while this runs.
const FILES: usize = 1_000;
const STARTS: usize = 5;
/// From the start to the scrape: some hundred turns.
const RUNS_FOR: Duration = Duration::from_secs(10);
const TTL: SignedDuration = SignedDuration::from_hours(90 * 24);
const EVERY: SignedDuration = SignedDuration::from_hours(30 * 24);
const GRACE: SignedDuration = SignedDuration::from_hours(24);

struct Ground {
    directory: tempfile::TempDir,
    stand_in: StandIn,
    credentials: usize,
    address: SocketAddr,
}

impl Ground {
    fn new(credentials: usize) -> Self {
        let directory = tempfile::Builder::new().prefix("rotad-bench-").tempdir().expect("a directory");
        let stand_in = StandIn::start(directory.path(), (0..1).map(account));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        Self { directory, stand_in, credentials, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, number: usize) -> PathBuf {
        self.path(&account(number)).join("motherduck_token")
    }

    fn configure(&self) {
        let (directory, api_url) = (self.directory.path().display(), &self.stand_in.url);
        let mut text = format!(
            "deployment = \"bench\"\n\n[organization.main]\nadmin_token = {{ file = \"{directory}/admin-token\" }}\napi_url = \"{api_url}\"\n\n\
             [journal]\nurl = \"sqlite:{directory}/journal.db\"\n\n[server]\nlisten = \"{}\"\n\n[sink.disk.file]\n\n\
             [defaults]\nttl = \"90d\"\nevery = \"30d\"\ngrace = \"1d\"\n",
            self.address
        );
        for number in 0..self.credentials {
            let (name, path) = (account(number), self.file(number));
            let path = path.display();
            text +=
                &format!("\n[credential.{name}]\naccount = \"{name}\"\ndeliver = [{{ sink = \"disk\", path = \"{path}\" }}]\n");
        }
        std::fs::write(self.path("rotad.toml"), text).expect("the configuration is written");
    }

    /// The journal as a daemon leaves it that has rotated each credential once.
    async fn fill(&self, now: Moment) {
        let journal = SqliteJournal::open(&self.path("journal.db"), now.wall, Arc::new(|_| {})).expect("a journal");
        let installation = journal.identity().installation;
        let mut saves = Vec::with_capacity(1000);
        for number in 0..self.credentials {
            let owner = owner(number);
            let rotation = RotationId::mint(now.wall, None, installation, number as u64);
            let value = Secret::new(format!("{}.{rotation}", "x".repeat(600)));
            let id = DeliveryId::new(&format!("file:{}", self.file(number).display()));
            let state = state(&owner, rotation, &value, &id, now);
            let wake_at = now.wall + SignedDuration::from_hours(11);
            let state = serde_json::to_string(&state).expect("a state");
            saves.push(Save {
                credential: owner.credential.clone(),
                expected: None,
                state,
                wake_at,
                entries: Vec::new(),
                takes_over: None,
            });
            if number < FILES {
                deliver(&self.file(number), &owner, rotation, &value, now.wall).await;
            }
            if saves.len() == 1000 || number + 1 == self.credentials {
                let saved = futures_util::future::join_all(saves.drain(..).map(|save| journal.save(save))).await;
                saved.into_iter().for_each(|saved| assert!(saved.is_ok(), "{saved:?}"));
            }
        }
        journal.close().await;
    }

    fn rotad(&self) -> Process {
        let log = std::fs::File::create(self.path("rotad.log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotad"));
        command.arg("run").env("ROTAD_CONFIG", self.path("rotad.toml")).env_remove("RUST_LOG");
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("rotad starts"))
    }

    /// Status and length of an answer; `None` while nobody listens.
    fn get(&self, path: &str) -> Option<(String, usize)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let status = String::from_utf8_lossy(answer.get(..12)?).into_owned();
        Some((status, answer.len()))
    }
}

fn account(number: usize) -> String {
    format!("team_pipeline_{number:06}")
}

fn owner(number: usize) -> Owner {
    let credential: CredentialName = account(number).parse().expect("a valid name");
    Owner { deployment: "bench".parse().expect("a valid name"), credential }
}

fn state(owner: &Owner, id: RotationId, value: &Secret, place: &DeliveryId, now: Moment) -> Credential {
    let token = Token {
        id: TokenId(id.to_string()),
        created_at: now.wall,
        expires_at: now.wall + TTL,
        fingerprint: Some(value.fingerprint()),
    };
    let rotation = Rotation {
        intended_at: now,
        by: ProcessId(1),
        organization: "main".into(),
        account: Account::new(owner.credential.as_str()),
        ttl: TTL,
        token_type: None,
        stage: Stage::Issued { verified: true },
        token: Some(token),
        adopted: false,
        set_up: false,
        missing_since: None,
        vanished: false,
        attempts: [(place.clone(), Attempt { landed: true, ..Attempt::default() })].into(),
        revocation_sent: false,
        backoff: Default::default(),
    };
    Credential {
        known: true,
        rotations: [(id, rotation)].into(),
        deliveries: [(place.clone(), Delivery { confirmed: Some(id), written_at: Some(now), ..Delivery::default() })].into(),
        settled: Some(Settled { rotation: id, since: now, grace: GRACE, uncompared: false, used: false }),
        current: Some(id),
        newest: Some(id),
        schedule_tag: Schedule::every(EVERY, owner).tag(),
        swept_at: Some(now.wall),
        swept_by: Some(ProcessId(1)),
        last_success_at: Some(now.wall),
        seen: Seen { live: 1, ..Seen::default() },
        ..Credential::default()
    }
}

/// What a rotation would have left at the place.
async fn deliver(path: &Path, owner: &Owner, rotation: RotationId, value: &Secret, now: Timestamp) {
    std::fs::create_dir(path.parent().expect("a directory")).expect("a directory for each");
    let sink = file::Sink::new(&file::Config::default());
    let target = file::Target { path: path.to_owned(), format: Format::Raw, mode: 0o600, owner: None, group: None };
    let place = sink.place(target).expect("a place");
    let reading = place.read(&Question { owner: owner.clone(), candidates: Vec::new() }).await.expect("an empty place");
    let payload = Payload {
        owner,
        rotation,
        value,
        token_id: &TokenId(rotation.to_string()),
        token_name: &TokenName { owner: owner.clone(), rotation },
        account: &Account::new(owner.credential.as_str()),
        token_type: TokenType::ReadWrite,
        issued_at: now,
        expires_at: now + TTL,
    };
    place.write(&reading.version, &payload).await;
}

/// From the start of the process until it answers, by which time the journal is loaded.
fn starts(ground: &Ground) -> (Process, Duration) {
    let began = Instant::now();
    let rotad = ground.rotad();
    while ground.get("/healthz").is_none_or(|(status, _)| status != "HTTP/1.1 200") {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{}",
            std::fs::read_to_string(ground.path("rotad.log")).expect("a log")
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    (rotad, began.elapsed())
}

fn main() {
    let credentials = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(CREDENTIALS);
    let ground = Ground::new(credentials);
    ground.configure();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(ground.fill(Clock::new().now()));
    let size = |name: &str| std::fs::metadata(ground.path(name)).map_or(0.0, |metadata| metadata.len() as f64 / 1e6);
    println!(
        "credentials        {credentials}: configuration {:.1} MB, journal {:.1} MB",
        size("rotad.toml"),
        size("journal.db")
    );
    let mut times: Vec<Duration> = (1..STARTS).map(|_| starts(&ground).1).collect();
    let (rotad, time) = starts(&ground);
    times.push(time);
    times.sort();
    println!("start to answering {:?} (median of {STARTS}; all {times:?})", times[STARTS / 2]);
    let process = rotad.0.id().to_string();
    println!("processor time     {:.2} s of the last start", processor_seconds(&process));
    let mib = |name: &str| resident_kib(&process, name) as f64 / 1024.0;
    println!("after the start    {:.1} MiB resident, {:.1} MiB at the peak", mib("VmRSS"), mib("VmHWM"));
    std::thread::sleep(RUNS_FOR);
    println!("after {RUNS_FOR:?}          {:.1} MiB resident, {:.1} MiB at the peak", mib("VmRSS"), mib("VmHWM"));
    let began = Instant::now();
    let (status, length) = ground.get("/metrics").expect("a scrape");
    let took = began.elapsed();
    println!("a scrape           {status}, {:.1} MB in {took:?}", length as f64 / 1e6);
    println!("after the scrape   {:.1} MiB resident, {:.1} MiB at the peak", mib("VmRSS"), mib("VmHWM"));
}
