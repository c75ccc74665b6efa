//! `rotad demo`: what it opens with, that time runs as fast as it is told, that what is asked to go wrong does and comes
//! right, and that nothing of it is left.
#![cfg(feature = "stand-in")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

#[path = "support/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use process::Process;
use serde_json::Value;

/// How long anything may take on a busy machine before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// A demo that runs, with a directory for temporary files of its own.
struct Demo {
    process: Process,
    directory: tempfile::TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let told = std::fs::File::create(directory.path().join("told")).unwrap();
        let temporary = directory.path().join("temporary");
        std::fs::create_dir(&temporary).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotad"));
        command.arg("demo").args(arguments).env("TMPDIR", &temporary).env_remove("RUST_LOG");
        let child = command.stdin(Stdio::null()).stdout(told.try_clone().unwrap()).stderr(told).spawn().unwrap();
        let demo = Self { process: Process(child), directory };
        demo.until("the introduction", |told| told.contains("Stop it with Ctrl-C."));
        demo
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("told")).unwrap()
    }

    fn until(&self, what: &str, met: impl Fn(&str) -> bool) -> String {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            let told = self.told();
            assert!(!told.contains("DEAD TOKEN"), "{told}");
            if met(&told) {
                return told;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("{what} did not come:\n{}", self.told());
    }

    /// What the page's server answers.
    fn page(&self, path: &str) -> String {
        let told = self.told();
        let address = told.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{head}");
        body.to_owned()
    }

    fn credential(&self) -> Value {
        serde_json::from_str(&self.page("/api/v1/credentials/etl")).unwrap()
    }

    /// Ends it as Ctrl-C does; nothing may be left.
    fn stop(mut self) {
        self.process.signal(rustix::process::Signal::INT);
        let ended = self.until("the end", |told| told.contains("everything that the demo made is removed"));
        assert!(self.process.0.wait().unwrap().success(), "{ended}");
        let left: Vec<PathBuf> =
            std::fs::read_dir(self.directory.path().join("temporary")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn moment(text: &Value) -> jiff::Timestamp {
    text.as_str().unwrap_or_else(|| panic!("no moment: {text}")).parse().unwrap()
}

#[test]
fn it_opens_with_what_to_look_at_and_time_runs_as_fast_as_it_is_told() {
    let demo = Demo::start(&["--speed", "60"]);
    let told = demo.told();
    for line in ["look at           http://127.0.0.1:", "/credential/etl", "Time runs 60 times as fast", "every 20m"] {
        assert!(told.contains(line), "`{line}` is not in:\n{told}");
    }
    let (began, since) = (moment(&demo.credential()["taken_at"]), std::time::Instant::now());
    demo.until("two revocations", |told| told.matches("is gone. No consumer has noticed.").count() >= 2);
    let detail = demo.credential();
    let (passed, really) = (moment(&detail["taken_at"]).duration_since(began), since.elapsed());
    let times = passed.as_secs_f64() / really.as_secs_f64();
    assert!((50.0..70.0).contains(&times), "{passed} in {really:?}");
    // Three tokens' lives, each of 20 minutes until the next, none of which was waited for in real time.
    let tokens = detail["tokens_by_age"].as_array().unwrap();
    assert!(tokens.len() >= 3 && tokens[0]["ended"] == "revoked", "{detail}");
    let between = moment(&tokens[2]["created_at"]).duration_since(moment(&tokens[1]["created_at"]));
    assert!(between >= jiff::SignedDuration::from_mins(19), "{between}");
    let page = demo.page("/credential/etl");
    for part in ["class=\"delivering\"", "class=\"current\"", "class=\"grace\"", "class=\"revoked\"", "class=\"next\""] {
        assert!(page.contains(part), "`{part}` is not in the picture");
    }
    // By the demo's own clock all of it is there within what two minutes are at this speed, whatever this machine does besides.
    let whole = moment(&tokens[0]["ended_at"]).duration_since(moment(&tokens[0]["created_at"]));
    assert!(whole <= jiff::SignedDuration::from_secs(120 * 60), "{whole}: {detail}");
    demo.stop();
}

#[test]
fn a_place_that_is_down_is_shown_with_its_remedy_and_comes_right() {
    let demo = Demo::start(&["--speed", "30", "--fault", "sink-down"]);
    demo.until("the fault", |told| told.contains("The mirror's directory is gone."));
    let told = demo.until("what rotad says of it", |told| told.contains("mirror/motherduck_token can't be read: "));
    let (_, since) = told.split_once("The mirror's directory is gone.").unwrap();
    let steps = since.lines().skip(1).take_while(|line| !line.contains("can't be read: ")).count();
    assert!(steps <= 2 && since.contains("Whoever reads the other place goes on"), "it is told at once: {told}");
    demo.until("what a person should do", |_| demo.page("/").contains("create what is missing there"));
    let concern = &demo.credential()["concerns"][0];
    assert!(concern["place"].as_str().is_some_and(|place| place.ends_with("/mirror/motherduck_token")), "{concern}");
    demo.until("the place back", |told| told.contains("The mirror's directory is back."));
    demo.until("nothing to do for a person", |_| demo.page("/").contains("Nothing does."));
    let places = demo.credential()["places"].clone();
    assert!(places.as_array().unwrap().iter().all(|place| place["is_current"] == true), "{places}");
    demo.stop();
}

#[test]
fn an_api_that_is_down_costs_no_consumer_its_token_and_comes_right() {
    let demo = Demo::start(&["--speed", "30", "--fault", "api-down"]);
    demo.until("the fault", |told| told.contains("The API answers 503"));
    demo.until("what goes wrong", |told| told.contains("list failed: "));
    let told = demo.until("the API back", |told| told.contains("The API is back."));
    let revoked = told.matches("is gone. No consumer has noticed.").count();
    demo.until("revocations again", |told| told.matches("is gone. No consumer has noticed.").count() > revoked);
    demo.stop();
}

#[test]
fn a_leaked_token_is_revoked_without_its_grace_period() {
    let demo = Demo::start(&["--speed", "10", "--every", "20m", "--grace", "10m", "--fault", "leak"]);
    let told = demo.until("the revocation", |told| told.contains("is gone. No consumer has noticed."));
    assert!(told.contains("rotate now, and revoke the tokens before without a grace period"), "{told}");
    assert!(
        told.contains("is revoked, as ordered, without its grace period") && !told.contains("The grace period is over"),
        "{told}"
    );
    let detail = demo.credential();
    let tokens = detail["tokens_by_age"].as_array().unwrap();
    let (leaked, next) = (&tokens[0], &tokens[1]);
    assert_eq!((&leaked["ended"], &next["phase"]), (&serde_json::json!("revoked"), &serde_json::json!("current")));
    let lived_on = moment(&leaked["ended_at"]).duration_since(moment(&next["current_at"]));
    assert!(lived_on < jiff::SignedDuration::from_mins(5), "{lived_on}");
    demo.stop();
}
