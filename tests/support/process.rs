//! Processes that a test starts: any, and the stand-in for the API as one of them.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

/// A child process that does not outlive the test.
pub struct Process(pub Child);

impl Process {
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Whether a signal has suspended it.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        // The name may hold anything; the state comes right after its last parenthesis.
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    /// Asks it to stop, and gives its exit status; `None` if it did not end within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        for _ in 0..limit.as_millis() / 20 {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Stops it as an operator does, within the 20 s that are promised.
    pub fn stop(&mut self) {
        let ended = self.terminate(Duration::from_secs(20)).expect("SIGTERM ends the daemon within 20 s");
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The stand-in for the API, with its admin token and its log in the test's directory.
pub struct StandIn {
    pub process: Process,
    /// Without a slash at the end.
    pub url: String,
    log: PathBuf,
}

impl StandIn {
    /// Writes `admin-token` and `api.log` into `directory`.
    pub fn start(directory: &Path, account: &str) -> Self {
        let log = directory.join("api.log");
        let child = Command::new(env!("CARGO_BIN_EXE_rotad"))
            .args(["stand-in", "--account", account])
            .arg("--admin-token-file")
            .arg(directory.join("admin-token"))
            .arg("--log")
            .arg(&log)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut process = Process(child);
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.unwrap_or_else(|| panic!("no address in `{line}`")).trim_end_matches('/').to_owned();
        Self { process, url, log }
    }

    /// Everything that took effect so far, from its timed log; a line that is being written is left for
    /// the next time. Lists, which are nearly all of the log, take none.
    pub fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().filter(|line| line.contains("\"effect\":true")).map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl StandIn {
    /// In no span of time were there more effects of this operation, after the first `before`, than the limit
    /// allows: one minute's permits at once, and those that came in since. Gives the most within a minute.
    pub fn saw_no_more_than(&self, operation: &str, before: usize, per_minute: usize) -> usize {
        let times: Vec<i64> =
            effects(&self.records(), operation).into_iter().skip(before).map(|(_, at)| at / 1_000_000).collect();
        let mut most = 0;
        for (first, from) in times.iter().enumerate() {
            for (count, to) in times[first..].iter().enumerate() {
                let came = usize::try_from(to - from).unwrap() * per_minute / 60_000;
                // One that was about to come in when the first was taken, and one that is on its way.
                assert!(count < per_minute + came + 2, "{operation}: {} in {} ms", count + 1, to - from);
                most = most.max(if to - from < 60_000 { count + 1 } else { 0 });
            }
        }
        most
    }
}

/// The token that each effect of an operation was on, as a fingerprint, and when (ns since 1970), in order.
pub fn effects(records: &[Value], operation: &str) -> Vec<(String, i64)> {
    let of = records.iter().filter(|record| record["operation"] == operation && record["effect"] == true);
    of.map(|record| (record["fingerprint"].as_str().unwrap_or_default().to_owned(), record["at_ns"].as_i64().unwrap())).collect()
}

/// The same for the tokens of one credential, as their names tell.
pub fn effects_of(records: &[Value], operation: &str, credential: &str) -> Vec<(String, i64)> {
    let prefix = format!("rotad/test/{credential}/");
    let named = |record: &&Value| record["token_name"].as_str().is_some_and(|name| name.starts_with(&prefix));
    effects(&records.iter().filter(named).cloned().collect::<Vec<_>>(), operation)
}

/// How every token of the stand-in begins: a JWT's header.
pub const TOKEN_START: &str = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.";

/// S4: no token's value stands in this.
pub fn holds_no_token(content: &[u8], name: &str) {
    let found = content.windows(TOKEN_START.len()).any(|window| window == TOKEN_START.as_bytes());
    assert!(!found, "a value stands in {name}");
}

/// The tokens that a credential's line of the status counts in these phases.
pub fn counted(line: &Value, phases: &[&str]) -> u64 {
    phases.iter().map(|phase| line["tokens"][*phase].as_u64().unwrap()).sum()
}

/// SHA-256 as hexadecimal text, as the stand-in's log has it.
pub fn fingerprint(value: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(value.trim().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
