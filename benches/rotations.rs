//! Rotations per second at 64 in flight, limits off: the engine with the real HTTP client, the file
//! sink and the journal, beside a bare client that makes the same API calls and file writes and
//! keeps no journal. `cargo bench --bench rotations [-- RUNS [MILLISECONDS]]`
//!
//! The API answers after so many milliseconds, 20 unless told, as one at the end of a network does; with 0 it answers
//! at once, and what is measured is processor time alone.
//!
//! A rotation is two turns: list, read, issue, verify by list, write, read back; and, after the
//! grace period, read, list, revoke. What is counted is revocations within ten seconds of a backlog
//! that never ends. The stand-in is a process of its own on the same machine.
//!
//! The bare client's file writes are rotad's: the marker's file and the value's, each as a temporary file
//! with `fsync` and rename, and an `fsync` of the directory. It reads nothing back.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints what it found, and ends if it can't run")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use rotad::clock::Clock;
use rotad::engine::{BlastRadius, Engine, Member, Parts, Providers, Roster, Scheduler, Witness, kernel_random};
use rotad::journal::{Commit, Journal, Save, SqliteJournal};
use rotad::metrics::Metrics;
use rotad::motherduck::{Client, Limits, Options, Provider, TimeLimits};
use rotad::rotation::{
    Account, Credential, CredentialName, DeliveryPolicy, Entry, FirstConnection, Happened, Mode, Owner, Policy, Schedule,
    TokenType, Verify,
};
use rotad::secret::SecretSource;
use rotad::sinks::format::Format;
use rotad::sinks::{Place, file};
use rotad::snapshot::{Board, OrganizationIndex};
use serde_json::{Value, json};
use support::StandIn;
use tokio::sync::watch;

const RUNS: usize = 5;
/// A round trip to a public API with TLS and a data base behind it is seldom quicker.
const ANSWER_AFTER: Duration = Duration::from_millis(20);
const WINDOW: Duration = Duration::from_secs(10);
/// As many turns as the engine runs at once.
const IN_FLIGHT: usize = 64;
/// Enough that the window does not see their end.
const CREDENTIALS: usize = 20_000;
/// How long the first tokens may take, before the schedule makes every credential due at once.
const SET_UP: SignedDuration = SignedDuration::from_secs(50);
/// From when all are due until the window: the first grace periods are over by then.
const LEAD_IN: Duration = Duration::from_secs(2);
const GRACE: SignedDuration = SignedDuration::from_millis(500);

fn account(number: usize) -> String {
    format!("bench_{number:05}")
}

/// A run's own directory: journal, stand-in, and a directory for each credential's file, since creating
/// many files in one directory at once measures that directory's lock.
struct Ground {
    directory: tempfile::TempDir,
    stand_in: StandIn,
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("rotad-bench-").tempdir().expect("a directory");
        (0..CREDENTIALS)
            .for_each(|number| std::fs::create_dir(directory.path().join(account(number))).expect("a directory for each"));
        let stand_in = StandIn::start(directory.path(), (0..CREDENTIALS).map(account));
        Self { directory, stand_in }
    }

    fn file(&self, number: usize) -> PathBuf {
        self.directory.path().join(account(number)).join("token")
    }
}

/// What one run found.
struct Found {
    per_second: f64,
    /// Operations at the API for each rotation.
    operations: BTreeMap<String, f64>,
    processor: Processor,
    /// Commits of the journal, and saves, for each rotation.
    commits: f64,
    saves: f64,
}

/// Seconds of processor time during the window.
#[derive(Clone, Copy)]
struct Processor {
    own: f64,
    stand_in: f64,
}

impl Processor {
    fn now(stand_in: &StandIn) -> Self {
        Self { own: support::processor_seconds("self"), stand_in: support::processor_seconds(&stand_in.process_id()) }
    }
}

/// Counts what happens in the window.
#[derive(Default)]
struct Counters {
    issued: AtomicUsize,
    revoked: AtomicUsize,
    unexpected: AtomicUsize,
    /// The window has ended: no worker begins another rotation.
    over: AtomicBool,
    commits: AtomicU64,
    saves: AtomicU64,
}

impl Counters {
    fn commits(&self) -> (u64, u64) {
        (self.commits.load(Ordering::Relaxed), self.saves.load(Ordering::Relaxed))
    }
}

impl Witness for Counters {
    fn happened(&self, credential: &CredentialName, entry: &Entry) {
        rotad::logging::step(credential, entry);
        match entry.what {
            Happened::Promoted => self.issued.fetch_add(1, Ordering::Relaxed),
            Happened::Revoked => self.revoked.fetch_add(1, Ordering::Relaxed),
            Happened::Intended
            | Happened::Issued
            | Happened::Verified
            | Happened::Attempted
            | Happened::Confirmed
            | Happened::RevocationIntended => 0,
            other => {
                println!("{credential}: {}: {}", other.as_str(), entry.detail.as_deref().unwrap_or("no detail"));
                self.unexpected.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// From now on, when every first token is there, the API answers as late as asked for.
async fn set_pace(stand_in: &StandIn, answer_after: Duration) {
    let fault = json!({ "misbehaviour": { "delay": { "seconds": answer_after.as_secs_f64() } } });
    let asked = reqwest::Client::new().post(format!("{}/_stand-in/faults", stand_in.url)).body(fault.to_string());
    asked.send().await.and_then(reqwest::Response::error_for_status).expect("the stand-in can be told");
}

/// Sleeps through the window and takes the differences.
async fn watch_window(stand_in: &StandIn, counters: &Counters) -> Found {
    let (processor, revoked, began) = (Processor::now(stand_in), counters.revoked.load(Ordering::Relaxed), Instant::now());
    let (log, commits) = (stand_in.log_length(), counters.commits());
    tokio::time::sleep(WINDOW).await;
    let revoked = (counters.revoked.load(Ordering::Relaxed) - revoked) as f64;
    let (elapsed, after, commits_after) = (began.elapsed(), Processor::now(stand_in), counters.commits());
    let operations = stand_in.operations(log..stand_in.log_length());
    Found {
        per_second: revoked / elapsed.as_secs_f64(),
        operations: operations.into_iter().map(|(name, count)| (name, count as f64 / revoked)).collect(),
        processor: Processor { own: after.own - processor.own, stand_in: after.stand_in - processor.stand_in },
        commits: (commits_after.0 - commits.0) as f64 / revoked,
        saves: (commits_after.1 - commits.1) as f64 / revoked,
    }
}

/// Every credential, due at one moment.
struct Bench {
    members: BTreeMap<CredentialName, (Policy, Arc<dyn Place>)>,
    providers: Providers,
    organization: OrganizationIndex,
}

impl Bench {
    fn new(ground: &Ground, provider: Arc<dyn Provider>, organization: OrganizationIndex, due_at: Timestamp) -> Self {
        let sink = file::Sink::new(&file::Config::default());
        let member = |number: usize| {
            let name: CredentialName = account(number).parse().expect("a valid name");
            let target = file::Target { path: ground.file(number), format: Format::Raw, mode: 0o600, owner: None, group: None };
            let place = sink.place(target).expect("a place");
            (name.clone(), (policy(number, name, &place, due_at), Arc::new(place) as Arc<dyn Place>))
        };
        let members = (0..CREDENTIALS).map(member).collect();
        Self { members, providers: Arc::new([("main".into(), provider)].into()), organization }
    }
}

fn policy(number: usize, name: CredentialName, place: &file::FilePlace, due_at: Timestamp) -> Policy {
    let every = SignedDuration::from_hours(1);
    let phase = SignedDuration::from_millis(due_at.as_millisecond() % 3_600_000);
    let delivery = DeliveryPolicy { take_over: false, write_limit: place.write_limit() };
    Policy {
        owner: Owner { deployment: "bench".parse().expect("a valid name"), credential: name },
        renamed_from: None,
        adopt: [].into(),
        used_by_rotad: false,
        account_is_kept: false,
        first_connection: FirstConnection::NotNeeded,
        organization: "main".into(),
        account: Account::new(&account(number)),
        token_type: TokenType::ReadWrite,
        // Work goes by deadline. Lives that differ keep a credential's second turn from waiting until
        // every first turn is done.
        ttl: SignedDuration::from_hours(4) + SignedDuration::from_mins(i64::try_from(number).unwrap_or(0)),
        schedule: Schedule::Every { every, phase },
        window: None,
        grace: GRACE,
        verify: Verify::List,
        mode: Mode::Rotate,
        deliveries: [(place.id().clone(), delivery)].into(),
        sweep_every: SignedDuration::from_hours(1),
        tokens_max: 16,
    }
}

impl Roster for Bench {
    fn is_told_of(&self, _: &CredentialName, _: &str) -> bool {
        false // nobody searches here
    }

    fn names(&self) -> Vec<CredentialName> {
        self.members.keys().cloned().collect()
    }

    fn member(&self, name: &CredentialName) -> Option<Member> {
        let (policy, place) = self.members.get(name)?;
        Some(Member {
            policy: policy.clone(),
            places: vec![Arc::clone(place)],
            providers: self.providers.clone(),
            organization: self.organization,
            proves_by: Vec::new(),
            due_at: None,
        })
    }

    fn sizes(&self) -> BTreeMap<Arc<str>, usize> {
        [("main".into(), self.members.len())].into()
    }
}

/// Rows that are due, so that the first tokens are not spread over minutes as after a start.
async fn make_due(journal: &dyn Journal, names: Vec<CredentialName>, now: Timestamp) {
    let state = serde_json::to_string(&Credential::default()).expect("a state");
    let save = |credential| Save {
        credential,
        expected: None,
        state: state.clone(),
        wake_at: now,
        entries: Vec::new(),
        takes_over: None,
    };
    let saves = names.into_iter().map(|name| journal.save(save(name)));
    for saved in futures_util::future::join_all(saves).await {
        saved.expect("the journal takes it");
    }
}

async fn rotad(ground: &Ground, answer_after: Duration) -> Found {
    let clock = Arc::new(Clock::new());
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let board = Arc::new(Board::new(clock.now()));
    let counters = Arc::new(Counters::default());
    let (observed, counted) = (metrics.clone(), counters.clone());
    let observer = move |commit: Commit| {
        counted.commits.fetch_add(1, Ordering::Relaxed);
        counted.saves.fetch_add(commit.writes as u64, Ordering::Relaxed);
        observed.journal_commit(SignedDuration::try_from(commit.took).unwrap_or(SignedDuration::MAX));
    };
    let path = ground.directory.path().join("journal.db");
    let journal = Arc::new(SqliteJournal::open(&path, clock.now().wall, Arc::new(observer)).expect("a journal"));
    let client = Client::new(Options {
        organization: "main".into(),
        api_url: ground.stand_in.url.clone(),
        admin_token: rotad::motherduck::AdminSource::Secret(SecretSource::File(ground.stand_in.admin_token.clone())),
        postgres: None,
        limits: Limits::NONE,
        time_limits: TimeLimits::default(),
        clock: clock.clone(),
        observer: metrics.clone(),
    });
    let due_at = clock.now().wall + SET_UP;
    let bench = Arc::new(Bench::new(ground, Arc::new(client.expect("a client")), board.organization("main"), due_at));
    make_due(journal.as_ref(), bench.names(), clock.now().wall).await;
    let limits = BlastRadius::new(u32::MAX / 2, u32::MAX / 2);
    let random = Box::new(kernel_random);
    let parts =
        Parts { witness: counters.clone(), journal: journal.clone(), clock: clock.clone(), metrics, board, limits, random };
    let (mut scheduler, _handle) = Scheduler::new(Arc::new(Engine::new(parts)), bench);
    scheduler.load().await.expect("the journal is read");
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(scheduler.run(stopped));
    while counters.issued.load(Ordering::Relaxed) < CREDENTIALS && clock.now().wall < due_at {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    set_pace(&ground.stand_in, answer_after).await;
    while clock.now().wall < due_at {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let issued = counters.issued.load(Ordering::Relaxed);
    assert_eq!(issued, CREDENTIALS, "not every credential had its first token in time: raise `SET_UP`");
    tokio::time::sleep(LEAD_IN).await;
    let found = watch_window(&ground.stand_in, &counters).await;
    let issued = counters.issued.load(Ordering::Relaxed) - CREDENTIALS;
    assert!(issued < CREDENTIALS - IN_FLIGHT, "the backlog ended within the window: raise `CREDENTIALS`");
    assert_eq!(counters.unexpected.load(Ordering::Relaxed), 0, "something else than rotations happened");
    stop.send_replace(true);
    running.await.expect("the scheduler ends");
    journal.close().await;
    found
}

/// The bare client: the same calls and file writes, and nothing else.
struct Bare {
    http: reqwest::Client,
    url: String,
    bearer: String,
    /// Each account's current token.
    current: Vec<Mutex<String>>,
}

impl Bare {
    fn tokens(&self, account: &str) -> String {
        format!("{}/v1/users/{account}/tokens", self.url)
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Value {
        let response = request.header("authorization", &self.bearer).send().await.expect("an answer");
        let (status, body) = (response.status(), response.bytes().await.expect("a body"));
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    async fn list(&self, account: &str, id: Option<&str>) {
        let listed = self.answer(self.http.get(self.tokens(account))).await;
        let tokens = listed["tokens"].as_array().expect("tokens");
        assert!(id.is_none_or(|id| tokens.iter().any(|token| token["id"] == id)), "{listed}");
    }

    async fn create(&self, account: &str) -> (String, String) {
        let name = getrandom::u64().expect("random bits");
        let body = json!({ "name": format!("bench/{name:016x}"), "ttl": 86_400, "token_type": "read_write" });
        let request = self.http.post(self.tokens(account)).header("content-type", "application/json").body(body.to_string());
        let created = self.answer(request).await;
        let text = |key: &str| created[key].as_str().expect("a text").to_owned();
        (text("id"), text("token"))
    }

    /// Notes the account's new token; gives the one before.
    fn keep(&self, number: usize, id: String) -> String {
        std::mem::replace(&mut *self.current[number].lock().unwrap_or_else(PoisonError::into_inner), id)
    }

    async fn write(&self, ground: &Ground, number: usize, value: String) {
        let path = ground.file(number);
        let written = tokio::task::spawn_blocking(move || write_durably(&path, &value)).await;
        written.expect("the write ends").expect("the file is written");
    }

    async fn revoke(&self, account: &str, id: &str) {
        self.answer(self.http.delete(format!("{}/{id}", self.tokens(account)))).await;
    }
}

/// The marker's file and then the value's, each as temporary file, `fsync`, rename; `fsync` of the directory.
fn write_durably(path: &Path, value: &str) -> std::io::Result<()> {
    let marker = "rotad1 bench/credential ".to_owned() + &"0".repeat(100);
    for (path, content) in [(path.with_extension("marker"), marker.as_str()), (path.to_owned(), value)] {
        let new = path.with_extension("new");
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
    }
    std::fs::File::open(path.parent().expect("a directory"))?.sync_all()
}

async fn bare(ground: &Arc<Ground>, answer_after: Duration) -> Found {
    let bearer = format!("Bearer {}", std::fs::read_to_string(&ground.stand_in.admin_token).expect("the admin token"));
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let current = (0..CREDENTIALS).map(|_| Mutex::default()).collect();
    let bare = Arc::new(Bare { http, url: ground.stand_in.url.clone(), bearer, current });
    let counters = Arc::new(Counters::default());
    // As rotad's, every file is there before the window, so that each write in it replaces one.
    let issue_first = async |number| {
        let (id, value) = bare.create(&account(number)).await;
        bare.write(ground, number, value).await;
        bare.keep(number, id);
    };
    futures_util::stream::iter(0..CREDENTIALS).for_each_concurrent(IN_FLIGHT, issue_first).await;
    set_pace(&ground.stand_in, answer_after).await;
    let next = Arc::new(AtomicUsize::new(0));
    let worker = |_| {
        let (ground, bare, next, counters) = (ground.clone(), bare.clone(), next.clone(), counters.clone());
        tokio::spawn(async move {
            while !counters.over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed) % CREDENTIALS;
                rotate_bare(&bare, &ground, number, &counters).await;
            }
        })
    };
    let workers: Vec<_> = (0..IN_FLIGHT).map(worker).collect();
    tokio::time::sleep(LEAD_IN).await;
    let found = watch_window(&ground.stand_in, &counters).await;
    counters.over.store(true, Ordering::Relaxed);
    futures_util::future::join_all(workers).await;
    found
}

async fn rotate_bare(bare: &Bare, ground: &Arc<Ground>, number: usize, counters: &Counters) {
    let account = account(number);
    bare.list(&account, None).await;
    let (id, value) = bare.create(&account).await;
    bare.list(&account, Some(&id)).await;
    bare.write(ground, number, value).await;
    bare.list(&account, Some(&id)).await;
    bare.revoke(&account, &bare.keep(number, id)).await;
    counters.revoked.fetch_add(1, Ordering::Relaxed);
}

fn runtime() -> tokio::runtime::Runtime {
    // As many threads as the daemon has.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn tell(who: &str, found: &Found) {
    let operations: Vec<String> = found.operations.iter().map(|(name, count)| format!("{count:.2} {name}")).collect();
    let Processor { own, stand_in } = found.processor;
    println!(
        "{who:6} {:7.1} rotations/s; each: {}; {:.2} saves in {:.2} commits; processor {own:.1} s own, {stand_in:.1} s stand-in",
        found.per_second,
        operations.join(", "),
        found.saves,
        found.commits
    );
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() {
    // What the daemon logs is rendered, and thrown away.
    tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO).with_writer(std::io::sink).init();
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let runs = numbers.next().map_or(RUNS, |runs: u32| runs as usize);
    let answer_after = numbers.next().map_or(ANSWER_AFTER, |milliseconds| Duration::from_millis(milliseconds.into()));
    println!("the API answers after {answer_after:?}");
    let (mut with_journal, mut without) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let found = runtime().block_on(rotad(&Ground::new(), answer_after));
        tell("rotad", &found);
        with_journal.push(found.per_second);
        let found = runtime().block_on(bare(&Arc::new(Ground::new()), answer_after));
        tell("bare", &found);
        without.push(found.per_second);
    }
    let (rotad, bare) = (median(with_journal), median(without));
    println!("median rotad {rotad:.1}, bare {bare:.1}: {:.2} of the bare client", rotad / bare);
}
