//! The main job's surroundings: the real binary, the stand-in as a process of its own, OpenBao, moto and a file.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::consumer::{Location, Reader, Watch};
use super::moto::Moto;
use super::openbao::Bao;
use super::process::{Process, StandIn, TOKEN_START, counted, effects, effects_of, holds_no_token};
use super::proxy::Proxy;

pub const ACCOUNT: &str = "etl_prod";
/// The credential of a bench that has one.
pub const CREDENTIAL: &str = "etl";
/// Every phase that the status counts tokens in.
const PHASES: [&str; 7] = ["issued", "current", "retiring", "orphaned", "lost", "unfit", "by_hand"];

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The limits of the blast radius: a third more than the largest of these fleets needs, so that they bind after an outage.
pub const PER_MINUTE: usize = 120;

/// Everything around rotad.
pub struct Bench {
    pub directory: tempfile::TempDir,
    pub bao: Bao,
    pub bao_proxy: Proxy,
    pub moto: Arc<Moto>,
    pub moto_proxy: Proxy,
    pub stand_in: StandIn,
    pub http: reqwest::Client,
    pub credentials: Vec<String>,
}

impl Bench {
    /// Starts everything but rotad, for one credential. `every` and `grace` as the configuration writes them.
    pub async fn start(every: &str, grace: &str) -> Self {
        Self::start_fleet(&[CREDENTIAL], every, grace).await
    }

    /// The same for several.
    pub async fn start_fleet(credentials: &[&str], every: &str, grace: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bao = Bao::dev().await;
        let moto = Moto::shared();
        let (bao_proxy, moto_proxy) = (Proxy::before(&bao.address).await, Proxy::before(&moto.url).await);
        let stand_in = StandIn::start(directory.path(), ACCOUNT);
        let credentials = credentials.iter().map(|name| (*name).to_owned()).collect();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        let bench = Self { directory, bao, bao_proxy, moto, moto_proxy, stand_in, http, credentials };
        for name in ["sinks", "tmp"] {
            std::fs::create_dir(bench.path(name)).unwrap();
        }
        std::fs::write(bench.path("vault-token"), &bench.bao.root_token).unwrap();
        bench.restrict("vault-token");
        std::fs::write(bench.path("rotad.toml"), bench.configuration(every, grace)).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn restrict(&self, name: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn configuration(&self, every: &str, grace: &str) -> String {
        let directory = self.directory.path().display();
        format!(
            r#"deployment = "test"

[organization.main]
admin_token = {{ file = "{directory}/admin-token" }}
api_url = "{api}"
requests_per_second = 100

[journal]
url = "sqlite:{directory}/journal.db"

[server]
listen = "127.0.0.1:0"

[limits]
rotations_per_minute = {PER_MINUTE}
revocations_per_minute = {PER_MINUTE}

[sink.cloud.aws]
region = "eu-central-1"
endpoint_url = "{aws}"

[sink.main.vault]
address = "{vault}"
auth = {{ token = {{ file = "{directory}/vault-token" }} }}

[sink.disk.file]

[defaults]
account = "{ACCOUNT}"
ttl = "2h" # longer than any test: none expires meanwhile
every = "{every}"
grace = "{grace}"
{credentials}"#,
            api = self.stand_in.url,
            aws = self.moto_proxy.url,
            vault = self.bao_proxy.url,
            credentials = self.credentials.iter().map(|name| self.credential(name)).collect::<String>(),
        )
    }

    fn credential(&self, name: &str) -> String {
        let (directory, secret) = (self.directory.path().display(), self.secret(name));
        format!(
            r#"
[credential.{name}]
deliver = [
  {{ sink = "cloud", secret = "{secret}", format = "json" }},
  {{ sink = "main", path = "{name}/motherduck", key = "token" }},
  {{ sink = "disk", path = "{directory}/sinks/{name}" }},
]
"#
        )
    }

    /// A name of this bench's own, since moto is shared.
    pub fn secret(&self, credential: &str) -> String {
        let own = self.directory.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.');
        format!("rotad-test/{own}/{credential}")
    }

    /// Starts the daemon; its log goes to `rotad.log` in the bench's directory.
    pub fn rotad(&self) -> Process {
        self.launch(&mut self.command(&["run"]))
    }

    /// The daemon with one of `rotad::fail_point`'s points armed, as `POINT:N:kill`.
    pub fn rotad_failing_at(&self, armed: &str) -> Process {
        self.launch(self.command(&["run"]).env("ROTAD_FAIL_POINT", armed))
    }

    fn launch(&self, command: &mut Command) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(self.path("rotad.log")).unwrap();
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// `rotad` with this bench's configuration and AWS credentials that moto takes.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotad"));
        command
            .args(arguments)
            .env("ROTAD_CONFIG", self.path("rotad.toml"))
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("TMPDIR", self.path("tmp"));
        command
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.path("rotad.log")).unwrap_or_default()
    }

    pub async fn stand_in_call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let mut request = self.http.request(method, format!("{}/_stand-in/{path}", self.stand_in.url));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        serde_json::from_str(&response.text().await.unwrap()).unwrap_or(Value::Null)
    }

    /// One misbehaviour of the API for `seconds`.
    pub async fn misbehave(&self, misbehaviour: Value, seconds: u32) {
        let fault = json!({ "misbehaviour": misbehaviour, "seconds": seconds });
        self.stand_in_call(reqwest::Method::POST, "faults", Some(fault)).await;
    }

    /// The stand-in's timed log.
    pub fn api_log(&self) -> Vec<Value> {
        self.stand_in.records()
    }

    /// `rotad status --json`.
    pub fn status(&self) -> Value {
        let output = self.command(&["status", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until `met`, looked at ten times a second.
    pub async fn until(&self, what: &str, mut met: impl FnMut() -> bool) {
        for _ in 0..PATIENCE.as_millis() / 100 {
            if met() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what} did not come; the daemon's log:\n{}", self.log_text());
    }

    /// How many tokens were revoked so far.
    pub fn revoked(&self) -> usize {
        effects(&self.api_log(), "revoke_token").len()
    }

    /// How many tokens of a credential live, by the stand-in's account of its own doings.
    fn live(&self, credential: &str) -> usize {
        let log = self.api_log();
        effects_of(&log, "create_token", credential).len() - effects_of(&log, "revoke_token", credential).len()
    }

    /// A credential's line of the status.
    pub fn line(&self, credential: &str) -> Value {
        let status = self.status();
        status["credentials"].as_array().unwrap().iter().find(|line| line["name"] == credential).cloned().unwrap()
    }

    /// With the daemon down, the status knows every token that lives, but for one that was being asked
    /// for, and shows no block. Gives how many it knows.
    pub fn tells_the_state(&self) -> u64 {
        let told = self.credentials.iter().map(|name| {
            let line = self.line(name);
            assert!(line["block"].is_null(), "{line}");
            let (live, known) = (self.live(name) as u64, counted(&line, &PHASES));
            assert!(live <= known + 1, "{live} tokens live, {known} are known: {line}");
            known
        });
        told.sum()
    }

    /// Every place serves the one current token, nothing is orphaned or blocked, and the live tokens are
    /// the current one and those in grace. Otherwise what is not so. One that was asked for just before a
    /// kill, and never came to be, is looked for as lost for an hour and more.
    async fn converged(&self, credential: &str) -> Result<(), String> {
        let served = self.serves(credential).await;
        let first = served[0].clone().ok_or("a place is empty")?;
        if served.iter().any(|value| value.as_ref() != Some(&first)) {
            return Err("the places serve different tokens".to_owned());
        }
        let line = self.line(credential);
        if counted(&line, &["orphaned", "unfit"]) > 0 {
            return Err(format!("tokens that nobody is served: {line}"));
        }
        if !line["blocked"].is_null() {
            return Err(format!("blocked: {line}"));
        }
        let (live, expected) = (self.live(credential) as u64, counted(&line, &["current", "retiring"]));
        if live != expected || counted(&line, &["issued"]) > 0 {
            return Err(format!("{live} tokens live, {expected} expected: {line}"));
        }
        Ok(())
    }

    /// Converges after the last fault; the states in between are allowed to be seen. Gives how long that took. A token
    /// with a write that a crash cut off waits for twice the longest time limit, two minutes.
    pub async fn converges(&self) -> Duration {
        let began = Instant::now();
        for credential in &self.credentials {
            for attempt in 0.. {
                let Err(why) = self.converged(credential).await else { break };
                assert!(attempt < 600, "`{credential}` has not converged after five minutes: {why}\n{}", self.log_text());
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        began.elapsed()
    }

    /// Where no process died, every token that was asked for came to be or was refused: none is looked for any more.
    pub async fn looks_for_none(&self) {
        let lost = |name: &String| counted(&self.line(name), &["lost"]);
        self.until("the end of every search for a lost token", || self.credentials.iter().all(|name| lost(name) == 0)).await;
    }

    /// Converges and rotates again; gives how long the first took. How far it came meanwhile depends on the machine; that it goes on
    /// does not.
    pub async fn goes_on(&self) -> Duration {
        let took = self.converges().await;
        let before = self.revoked();
        self.until("a revocation after the faults", || self.revoked() > before).await;
        let revoked = |log: &[Value], name: &String| effects_of(log, "revoke_token", name).len();
        let enough = || {
            let log = self.api_log();
            self.credentials.iter().all(|name| revoked(&log, name) >= 2)
        };
        self.until("two revocations of each credential", enough).await;
        took
    }

    /// The blast radius, over the whole life of the bench and however often rotad was killed in it: the most rotations
    /// and revocations within a minute.
    pub fn holds_the_limits(&self) -> [usize; 2] {
        ["create_token", "revoke_token"].map(|operation| self.stand_in.saw_no_more_than(operation, 0, PER_MINUTE))
    }

    /// S4: no token's value stands in a file but where it is meant to be: not in the log, the journal or
    /// a temporary file. `mid_write`: a write may have been cut off, whose file the next one removes.
    pub fn keeps_its_secrets(&self, mid_write: bool) {
        let files: Vec<PathBuf> = self.credentials.iter().map(|name| self.path("sinks").join(name)).collect();
        let served = std::fs::read_to_string(&files[0]).unwrap();
        assert!(served.starts_with(TOKEN_START), "tokens have another shape by now: this would find none");
        holds_no_token(self.status().to_string().as_bytes(), "the status");
        let new = |name: &String| self.path(&format!("sinks/.{name}.rotad-new"));
        let mut homes = vec![self.path("admin-token")];
        homes.extend(self.credentials.iter().filter(|_| mid_write).map(new));
        homes.extend(files);
        let mut open = vec![self.path("")];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                match std::fs::read(&path) {
                    _ if path.is_dir() => open.push(path),
                    Ok(content) if !homes.contains(&path) => holds_no_token(&content, &path.display().to_string()),
                    Ok(_) | Err(_) => is_private(&path),
                }
            }
        }
        assert_eq!(std::fs::read_dir(self.path("tmp")).unwrap().count(), 0, "something is left in the temporary directory");
        let left = std::fs::read_dir(self.path("sinks")).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<String> = left.map(|name| name.into_string().unwrap()).filter(|name| name.contains("rotad-")).collect();
        assert!(mid_write || left.is_empty(), "left beside the files: {left:?}");
    }

    /// The value that each place of a credential serves now.
    async fn serves(&self, credential: &str) -> Vec<Option<String>> {
        let reader = self.reader(credential);
        let mut served = Vec::new();
        for place in Location::ALL {
            served.push(reader.fetch(place).await.unwrap());
        }
        served
    }

    fn reader(&self, credential: &str) -> Reader {
        Reader {
            credential: credential.to_owned(),
            http: self.http.clone(),
            vault: format!("{}/v1/secret/data/{credential}/motherduck", self.bao.address),
            vault_token: self.bao.root_token.clone(),
            aws: self.moto.url.clone(),
            secret: self.secret(credential),
            file: self.path("sinks").join(credential),
        }
    }

    /// Consumers at every place, who read every 50 ms, or less often where they are many.
    pub fn watch(&self) -> Watch {
        let every = Duration::from_millis(50) * u32::try_from(self.credentials.len()).unwrap().div_ceil(2);
        Watch::begin(self.credentials.iter().map(|name| self.reader(name)), every)
    }
}

/// A file that holds a value is its owner's alone. It may be gone by now.
fn is_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o077);
    assert_eq!(mode, 0, "`{}` is open to others", path.display());
}
