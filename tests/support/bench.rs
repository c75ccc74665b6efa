//! The main job's surroundings: the real binary, the stand-in as a process of its own, OpenBao,
//! moto, a file, and a reader of all three places that knows nothing of rotad.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::moto::Moto;
use super::openbao::Bao;
use super::proxy::Proxy;

pub const ACCOUNT: &str = "etl_prod";
pub const CREDENTIAL: &str = "etl";
pub const GRACE: Duration = Duration::from_secs(2);

/// Nanoseconds since 1970, as the stand-in's log counts them.
#[allow(clippy::disallowed_methods)] // a test measures from outside of rotad
pub fn now_ns() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// A child process that does not outlive the test.
pub struct Process(pub Child);

impl Process {
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Asks it to stop, and gives its exit status; `None` if it did not end within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        for _ in 0..limit.as_millis() / 20 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Everything around rotad.
pub struct Bench {
    pub directory: tempfile::TempDir,
    pub bao: Bao,
    pub bao_proxy: Proxy,
    pub moto: Arc<Moto>,
    pub moto_proxy: Proxy,
    pub stand_in: Process,
    pub stand_in_url: String,
    pub http: reqwest::Client,
    /// A name of this bench's own, since moto is shared.
    pub secret: String,
}

impl Bench {
    /// Starts everything but rotad. `every` and `grace` as the configuration writes them.
    pub async fn start(every: &str, grace: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bao = Bao::dev().await;
        let moto = Moto::shared();
        let (bao_proxy, moto_proxy) = (Proxy::before(&bao.address).await, Proxy::before(&moto.url).await);
        let (stand_in, stand_in_url) = start_stand_in(directory.path());
        let secret =
            format!("rotad-test/{}/motherduck", directory.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.'));
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        let bench = Self { directory, bao, bao_proxy, moto, moto_proxy, stand_in, stand_in_url, http, secret };
        std::fs::create_dir(bench.path("sinks")).unwrap();
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
rotations_per_minute = 600
revocations_per_minute = 600

[sink.cloud.aws]
region = "eu-central-1"
endpoint_url = "{aws}"

[sink.main.vault]
address = "{vault}"
auth = {{ token = {{ file = "{directory}/vault-token" }} }}

[sink.disk.file]

[credential.{CREDENTIAL}]
account = "{ACCOUNT}"
ttl = "10m"
every = "{every}"
grace = "{grace}"
deliver = [
  {{ sink = "cloud", secret = "{secret}", format = "json" }},
  {{ sink = "main", path = "etl/motherduck", key = "token" }},
  {{ sink = "disk", path = "{directory}/sinks/token" }},
]
"#,
            api = self.stand_in_url,
            aws = self.moto_proxy.url,
            vault = self.bao_proxy.url,
            secret = self.secret,
        )
    }

    /// Starts the daemon; its log goes to `rotad.log` in the bench's directory.
    pub fn rotad(&self) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(self.path("rotad.log")).unwrap();
        let child = self.command(&["run"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Process(child)
    }

    /// `rotad` with this bench's configuration and AWS credentials that moto takes.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotad"));
        command
            .args(arguments)
            .env("ROTAD_CONFIG", self.path("rotad.toml"))
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.path("rotad.log")).unwrap_or_default()
    }

    pub async fn stand_in_call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let mut request = self.http.request(method, format!("{}/_stand-in/{path}", self.stand_in_url));
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
        let text = std::fs::read_to_string(self.path("api.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// `rotad status --json`.
    pub fn status(&self) -> Value {
        let output = self.command(&["status", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The value that each place serves now.
    pub async fn serves(&self) -> Vec<Option<String>> {
        let mut served = Vec::new();
        for place in Location::ALL {
            served.push(self.reader().fetch(place).await.unwrap());
        }
        served
    }

    pub fn reader(&self) -> Reader {
        Reader {
            http: self.http.clone(),
            vault: format!("{}/v1/secret/data/etl/motherduck", self.bao.address),
            vault_token: self.bao.root_token.clone(),
            aws: self.moto.url.clone(),
            secret: self.secret.clone(),
            file: self.path("sinks/token"),
        }
    }
}

fn start_stand_in(directory: &Path) -> (Process, String) {
    let child = Command::new(env!("CARGO_BIN_EXE_rotad"))
        .args(["stand-in", "--account", ACCOUNT])
        .arg("--admin-token-file")
        .arg(directory.join("admin-token"))
        .arg("--log")
        .arg(directory.join("api.log"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url =
        line.split_whitespace().find(|word| word.starts_with("http://")).unwrap_or_else(|| panic!("no address in `{line}`"));
    (process, url.to_owned())
}

/// Where a consumer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    Aws,
    Vault,
    File,
}

impl Location {
    pub const ALL: [Self; 3] = [Self::Aws, Self::Vault, Self::File];
}

/// A consumer: plain HTTP to the stores, and the file.
#[derive(Clone)]
pub struct Reader {
    http: reqwest::Client,
    vault: String,
    vault_token: String,
    aws: String,
    secret: String,
    file: PathBuf,
}

/// One read by the consumer.
#[derive(Debug, Clone)]
pub struct Look {
    pub place: Location,
    /// SHA-256 of the value, as hexadecimal text; `None` when there was none, or the read failed.
    pub fingerprint: Option<String>,
    pub began_ns: i64,
    pub ended_ns: i64,
}

impl Reader {
    /// The value at the place; `None` where there is none.
    pub async fn fetch(&self, place: Location) -> Result<Option<String>, String> {
        match place {
            Location::File => match std::fs::read_to_string(&self.file) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.to_string()),
            },
            Location::Vault => {
                let request = self.http.get(&self.vault).header("X-Vault-Token", &self.vault_token);
                let (status, body) = answer(request).await?;
                match status {
                    200 => Ok(body["data"]["data"]["token"].as_str().map(str::to_owned)),
                    404 => Ok(None),
                    other => Err(format!("vault answered {other}")),
                }
            }
            Location::Aws => {
                let request = self
                    .http
                    .post(&self.aws)
                    .header("X-Amz-Target", "secretsmanager.GetSecretValue")
                    .header("Content-Type", "application/x-amz-json-1.1")
                    .header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=0")
                    .body(json!({ "SecretId": self.secret, "VersionStage": "AWSCURRENT" }).to_string());
                let (status, body) = answer(request).await?;
                if body["__type"].as_str().is_some_and(|kind| kind.contains("ResourceNotFound")) {
                    return Ok(None);
                }
                if status != 200 {
                    return Err(format!("aws answered {status}"));
                }
                let secret: Value =
                    serde_json::from_str(body["SecretString"].as_str().unwrap_or("{}")).map_err(|error| error.to_string())?;
                Ok(secret["token"].as_str().map(str::to_owned))
            }
        }
    }

    /// Reads every place every 50 ms until aborted.
    pub fn watch(&self) -> (Arc<Mutex<Vec<Look>>>, Vec<JoinHandle<()>>) {
        let looks = Arc::new(Mutex::new(Vec::new()));
        let watchers = Location::ALL.map(|place| {
            let (reader, looks) = (self.clone(), looks.clone());
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(50));
                loop {
                    ticks.tick().await;
                    let began_ns = now_ns();
                    let value = reader.fetch(place).await;
                    let fingerprint = value.ok().flatten().map(|value| hex(&Sha256::digest(value.as_bytes())));
                    looks.lock().unwrap().push(Look { place, fingerprint, began_ns, ended_ns: now_ns() });
                }
            })
        });
        (looks, watchers.into_iter().collect())
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, Value), String> {
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(|error| error.to_string())?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the judgement counted.
#[derive(Debug)]
pub struct Verdict {
    pub looks: usize,
    pub issued: usize,
    pub revoked: usize,
}

/// Holds the consumer's reads against the stand-in's log: each value was live during the whole
/// read, no read failed after the first delivery, and each revocation came at least the grace
/// period after the last place first showed a successor.
pub fn judge(looks: &[Look], log: &[Value]) -> Verdict {
    let effects = |operation: &str| -> Vec<(String, i64)> {
        let of = |record: &&Value| record["operation"] == operation && record["effect"] == true;
        let pair =
            |record: &Value| (record["fingerprint"].as_str().unwrap_or_default().to_owned(), record["at_ns"].as_i64().unwrap());
        log.iter().filter(of).map(pair).collect()
    };
    let (issued, revoked) = (effects("create_token"), effects("revoke_token"));
    let order = |fingerprint: &str| issued.iter().position(|(issued, _)| issued == fingerprint);
    for place in Location::ALL {
        let mut delivered = false;
        for look in looks.iter().filter(|look| look.place == place) {
            let Some(fingerprint) = &look.fingerprint else {
                assert!(!delivered, "a read of {place:?} failed after the first delivery: {look:?}");
                continue;
            };
            delivered = true;
            let (_, issued_at) = issued
                .iter()
                .find(|(issued, _)| issued == fingerprint)
                .unwrap_or_else(|| panic!("{place:?} served what was never issued: {look:?}"));
            // The stand-in logs an issue when it takes effect, before the answer goes out.
            assert!(*issued_at <= look.ended_ns, "{place:?} served a token before it was issued: {look:?}");
            if let Some((_, revoked_at)) = revoked.iter().find(|(revoked, _)| revoked == fingerprint) {
                assert!(*revoked_at > look.ended_ns, "{place:?} served a revoked token: {look:?}, revoked at {revoked_at}");
            }
        }
        assert!(delivered, "{place:?} never served a token");
    }
    for (fingerprint, revoked_at) in &revoked {
        let place_of = order(fingerprint).expect("a revoked token was issued");
        let is_later = |look: &Look| look.fingerprint.as_deref().and_then(order).is_some_and(|at| at > place_of);
        // Between the last read that did not show a successor and the first that did, the place came to
        // show it: no earlier than the former began. However late a busy machine lets the reader look,
        // a revocation that came too early by this is one that came too early.
        let shown_from = |place: Location| {
            let here = || looks.iter().filter(|look| look.place == place);
            assert!(here().any(is_later), "{place:?} never showed a successor of a revoked token");
            here().take_while(|look| !is_later(look)).last().map_or(0, |look| look.began_ns)
        };
        let last_shown_from = Location::ALL.map(shown_from).into_iter().max().unwrap_or_default();
        let waited = revoked_at - last_shown_from;
        let grace = i64::try_from(GRACE.as_nanos()).unwrap();
        assert!(waited >= grace, "a token was revoked {} ms after the last place first showed a successor", waited / 1_000_000);
    }
    Verdict { looks: looks.len(), issued: issued.len(), revoked: revoked.len() }
}
