//! The real binary beside a stand-in for the API, with the file sink alone: what a user and an
//! operator meet, without servers of others.
#![allow(dead_code)] // each test takes what it needs
#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::process::{Process, StandIn, counted, effects, effects_of, fingerprint, holds_no_token};

/// How long anything may take on a busy machine before a test gives up.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

/// The one account of the stand-in.
pub const ACCOUNT: &str = "etl_test";

/// A pace at which a token is replaced while a test waits.
pub const FAST: &str = "every = \"4s\"\ngrace = \"2s\"";
/// A pace at which nothing becomes due while a test runs.
pub const SLOW: &str = "ttl = \"30d\"\nevery = \"20d\"\ngrace = \"2d\"";

/// Everything around rotad.
pub struct Plain {
    directory: tempfile::TempDir,
    pub stand_in: StandIn,
}

impl Plain {
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// Where a reboot leaves things as they are: the directory for temporary files may be in memory.
    pub fn start_on_disk() -> Self {
        Self::start_in(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    fn start_in(directory: tempfile::TempDir) -> Self {
        for name in ["sinks", "journal"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let stand_in = StandIn::start(directory.path(), ACCOUNT);
        Self { directory, stand_in }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the stand-in for the API is, without a slash at its end.
    pub fn api(&self) -> &str {
        &self.stand_in.url
    }

    /// Everything but credentials.
    pub fn head(&self) -> String {
        let (directory, api) = (self.directory.path().display(), &self.stand_in.url);
        format!(
            r#"deployment = "test"

[organization.main]
admin_token = {{ file = "{directory}/admin-token" }}
api_url = "{api}"
requests_per_second = 100

[journal]
url = "sqlite:{directory}/journal/journal.db"

[server]
listen = "127.0.0.1:0"

[limits]
rotations_per_minute = 600
revocations_per_minute = 600

[sink.disk.file]

[defaults]
ttl = "10m"
"#
        )
    }

    /// A credential that is delivered to `sinks/NAME`.
    pub fn credential(&self, name: &str, pace: &str) -> String {
        let path = self.path("sinks").join(name);
        format!(
            "\n[credential.{name}]\naccount = \"{ACCOUNT}\"\n{pace}\ndeliver = [{{ sink = \"disk\", path = \"{}\" }}]\n",
            path.display()
        )
    }

    pub fn configure(&self, text: &str) {
        // As an orchestrator does it: another file takes the name.
        std::fs::write(self.path("rotad.toml.new"), text).unwrap();
        std::fs::rename(self.path("rotad.toml.new"), self.path("rotad.toml")).unwrap();
    }

    /// A head and these credentials, all at one pace.
    pub fn configure_with(&self, names: &[&str], pace: &str) {
        let credentials: String = names.iter().map(|name| self.credential(name, pace)).collect();
        self.configure(&(self.head() + &credentials));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotad"));
        command.args(arguments).env("ROTAD_CONFIG", self.path("rotad.toml")).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn ask(&self, arguments: &[&str]) -> Answer {
        Answer::of(&mut self.command(arguments))
    }

    /// Runs a command that should end by itself; after `limit` it is ended.
    pub fn ask_within(&self, arguments: &[&str], limit: Duration) -> Answer {
        let seconds = limit.as_secs().to_string();
        let inner = self.command(arguments);
        let mut command = Command::new("timeout");
        command.arg(seconds).arg(inner.get_program()).args(inner.get_args()).env("ROTAD_CONFIG", self.path("rotad.toml"));
        Answer::of(&mut command)
    }

    /// Runs a command as a user who owns nothing; that one must reach the binary and the configuration.
    pub fn ask_as_nobody(&self, arguments: &[&str]) -> Answer {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(self.reachable_binary());
        command.args(arguments).env("ROTAD_CONFIG", self.path("rotad.toml")).uid(65_534).gid(65_534);
        Answer::of(&mut command)
    }

    /// The program where every user can run it.
    fn reachable_binary(&self) -> PathBuf {
        std::fs::set_permissions(self.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
        let binary = self.path("rotad-binary");
        if !binary.exists() && std::fs::hard_link(env!("CARGO_BIN_EXE_rotad"), &binary).is_err() {
            std::fs::copy(env!("CARGO_BIN_EXE_rotad"), &binary).unwrap();
        }
        binary
    }

    /// Gives everything that the daemon reads and writes to a user who owns nothing else; gives the program for that user.
    pub fn as_nobodys(&self) -> PathBuf {
        for name in ["sinks", "journal", "admin-token", "rotad.toml"] {
            std::os::unix::fs::chown(self.path(name), Some(65_534), Some(65_534)).unwrap();
        }
        self.reachable_binary()
    }

    /// Starts the daemon; its log is appended to `rotad.log`.
    pub fn rotad(&self) -> Process {
        self.rotad_with(&[])
    }

    pub fn rotad_with(&self, arguments: &[&str]) -> Process {
        self.launch(self.command(&["run"]).args(arguments))
    }

    /// The daemon with one of `rotad::fail_point`'s points armed, as `POINT:N:kill`.
    pub fn rotad_failing_at(&self, armed: &str) -> Process {
        self.launch(self.command(&["run"]).env("ROTAD_FAIL_POINT", armed))
    }

    /// Starts a daemon whose command was made ready.
    pub fn launch(&self, command: &mut Command) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(self.path("rotad.log")).unwrap();
        Process(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// The daemon, once it has delivered to every one of `names`.
    pub fn rotad_delivering(&self, names: &[&str]) -> Process {
        let serving = || self.log().matches("address=").count();
        let before = serving();
        let process = self.rotad();
        self.until("every delivery", || serving() > before && names.iter().all(|name| self.served(name).is_some()));
        process
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("rotad.log")).unwrap_or_default()
    }

    /// Waits until `met`, or fails with the daemon's log.
    pub fn until(&self, what: &str, mut met: impl FnMut() -> bool) {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if met() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("{what} did not come; the daemon's log:\n{}", self.log());
    }

    /// The value that a credential's file holds.
    pub fn served(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path("sinks").join(name)).ok().filter(|text| !text.is_empty())
    }

    /// What a person writes into a credential's file.
    pub fn put(&self, name: &str, value: &str) {
        std::fs::write(self.path("sinks").join(name), value).unwrap();
    }

    /// What the file holds is not revoked: to be held at every look of a wait.
    pub fn serves_nothing_dead(&self, name: &str) {
        let served = self.served(name).unwrap();
        let revoked = self.effects("revoke_token").contains(&fingerprint(&served));
        // A value that was replaced meanwhile may be dead by now.
        let replaced = self.served(name).as_ref() != Some(&served);
        assert!(replaced || !revoked, "`{name}` serves a revoked token\n{}", self.log());
    }

    /// The limit was held by every rotation after the first `before`.
    pub fn holds_the_limit(&self, before: usize, per_minute: usize) {
        self.stand_in.saw_no_more_than("create_token", before, per_minute);
    }

    /// What a fault may not have left, once it is over and the daemon runs: a token too many, one that nobody is served,
    /// a block, a value where none belongs, or a burst beyond the limits.
    pub fn has_recovered(&self, name: &str) {
        let live = || {
            let records = self.stand_in.records();
            effects_of(&records, "create_token", name).len() - effects_of(&records, "revoke_token", name).len()
        };
        self.until("a state without anything left over", || {
            let line = self.line(name);
            let expected = counted(&line, &["current", "retiring", "issued"]);
            self.serves_live(name)
                && line["blocked"].is_null()
                && counted(&line, &["orphaned", "unfit"]) == 0
                && live() as u64 == expected
        });
        self.keeps_its_secrets();
        for operation in ["create_token", "revoke_token"] {
            self.stand_in.saw_no_more_than(operation, 0, 600);
        }
    }

    /// S4: neither in the status nor in a file but the sinks' own and the admin token's is there a token.
    pub fn keeps_its_secrets(&self) {
        holds_no_token(self.status().to_string().as_bytes(), "the status");
        self.keeps_its_files_secret();
    }

    /// The same of the files alone, while there is no journal to tell a status from.
    pub fn keeps_its_files_secret(&self) {
        let mut open = vec![self.path("")];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() && path != self.path("sinks") {
                    open.push(path);
                } else if path.is_file() && path != self.path("admin-token") {
                    holds_no_token(&std::fs::read(&path).unwrap_or_default(), &path.display().to_string());
                }
            }
        }
    }

    /// Where the daemon listens that was started last, without a slash at its end.
    pub fn address(&self) -> String {
        format!("http://{}", address_in(&self.log()))
    }

    /// Its answer: status and body.
    pub fn http(&self, path: &str) -> (u16, String) {
        exchange(address_in(&self.log()), "GET", path, None, None)
    }

    /// One metric's value; `None` where the series is absent.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (status, text) = self.http("/metrics");
        assert_eq!(status, 200, "{text}");
        metric_in(&text, series)
    }

    pub fn ready(&self) -> (u16, String) {
        self.http("/readyz")
    }

    /// `rotad status --json`.
    pub fn status(&self) -> Value {
        let answer = self.ask(&["status", "--json"]);
        assert_eq!(answer.code, 0, "{answer:?}");
        serde_json::from_str(&answer.out).unwrap()
    }

    /// A credential's line of the status.
    pub fn line(&self, name: &str) -> Value {
        let status = self.status();
        let line = status["credentials"].as_array().unwrap().iter().find(|line| line["name"] == name).cloned();
        line.unwrap_or(Value::Null)
    }

    pub fn misbehave(&self, fault: &Value) {
        self.steer("POST", "faults", Some(fault));
    }

    pub fn behave(&self) {
        self.steer("DELETE", "faults", None);
    }

    /// The `Date` that the API claims, in seconds from the true one.
    pub fn shift_date(&self, seconds: i64) {
        self.steer("PATCH", "time", Some(&serde_json::json!({ "date_offset_seconds": seconds })));
    }

    /// What a person with the admin token asks the API for.
    /// Has the API take these sides of what its documentation leaves open.
    pub fn is_like(&self, character: &Value) {
        self.steer("PATCH", "character", Some(character));
    }

    /// Moves the API's clock ahead, for the life of its tokens alone.
    pub fn pass_in_the_api(&self, seconds: i64) {
        self.steer("PATCH", "time", Some(&serde_json::json!({ "offset_seconds": seconds, "date_offset_seconds": -seconds })));
    }

    pub fn as_admin(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let admin = std::fs::read_to_string(self.path("admin-token")).unwrap();
        self.as_bearer(admin.trim(), method, path, body)
    }

    /// What whoever has this token asks the API for.
    pub fn as_bearer(&self, value: &str, method: &str, path: &str, body: Option<&Value>) -> Value {
        let address = self.stand_in.url.trim_start_matches("http://");
        let (status, text) = exchange(address, method, path, body, Some(value));
        assert!((200..300).contains(&status), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The status of the API's answer to a look by whoever has this token.
    pub fn status_as(&self, value: &str, path: &str) -> u16 {
        exchange(self.stand_in.url.trim_start_matches("http://"), "GET", path, None, Some(value)).0
    }

    fn steer(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let address = self.stand_in.url.trim_start_matches("http://");
        let (status, text) = exchange(address, method, &format!("/_stand-in/{path}"), body, None);
        assert!((200..300).contains(&status), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Another organization answers from now on, with an admin token of its own and an account of the same name.
    pub fn become_another_organization(&mut self) {
        self.stand_in.process.kill();
        std::fs::remove_file(self.path("admin-token")).unwrap();
        self.stand_in = StandIn::start(self.directory.path(), ACCOUNT);
    }

    pub fn stop_api(&mut self) {
        self.stand_in.process.kill();
    }

    /// Fingerprints of the account's live tokens, by the stand-in's account of its own doings.
    pub fn live(&self) -> Vec<String> {
        let revoked = self.effects("revoke_token");
        self.effects("create_token").into_iter().filter(|token| !revoked.contains(token)).collect()
    }

    /// Fingerprints of the tokens that an operation took effect on, in order.
    pub fn effects(&self, operation: &str) -> Vec<String> {
        effects(&self.stand_in.records(), operation).into_iter().map(|(token, _)| token).collect()
    }

    pub fn issued(&self) -> usize {
        self.effects("create_token").len()
    }

    pub fn revoked(&self) -> usize {
        self.effects("revoke_token").len()
    }

    /// Whether what the file holds is a live token.
    pub fn serves_live(&self, name: &str) -> bool {
        self.served(name).is_some_and(|value| self.live().contains(&fingerprint(&value)))
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
    }

    /// Ended so, having said each of `words` on standard error.
    pub fn complains(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in:\n{}", self.err);
        }
    }
}

/// One request of HTTP 1.0, whose answer ends with the connection.
fn exchange(address: &str, method: &str, path: &str, body: Option<&Value>, bearer: Option<&str>) -> (u16, String) {
    try_exchange(address, method, path, body, bearer).unwrap()
}

/// The same of what may not listen, or may end meanwhile.
pub fn try_exchange(
    address: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
    bearer: Option<&str>,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let bearer = bearer.map(|value| format!("Authorization: Bearer {value}\r\n")).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{bearer}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let no_answer = || std::io::Error::other(format!("no answer: `{answer}`"));
    let (head, text) = answer.split_once("\r\n\r\n").ok_or_else(no_answer)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(no_answer)?;
    Ok((status, text.to_owned()))
}

/// Where the daemon listens that wrote this log last.
pub fn address_in(log: &str) -> &str {
    let address = log.rsplit("address=").next().and_then(|rest| rest.split_whitespace().next());
    address.expect("the daemon says where it listens")
}

/// One metric's value in a scrape; `None` where the series is absent.
pub fn metric_in(scrape: &str, series: &str) -> Option<f64> {
    let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.trim().parse().unwrap())
}
