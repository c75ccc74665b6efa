//! The unit's `ExecStart`, run by hand as systemd runs it: with a socket to be told on, and a watchdog.

use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::plain::{Plain, SLOW};
use super::process::Process;
use super::tools::{ran, repository, text};

const UNIT: &str = "deploy/systemd/rotad.service";
const PATIENCE: Duration = Duration::from_secs(90);

/// The values of a key in a unit.
fn values(unit: &str, key: &str) -> Vec<String> {
    text(unit).lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned)).collect()
}

/// What a service manager hears.
struct Heard {
    socket: UnixDatagram,
    lines: VecDeque<String>,
}

impl Heard {
    /// The next line, other than the watchdog's food where it is not waited for.
    fn next(&mut self, wanted: &str) -> String {
        loop {
            while let Some(line) = self.lines.pop_front() {
                if line != "WATCHDOG=1" || wanted == line {
                    return line;
                }
            }
            let mut message = [0; 256];
            let length = self.socket.recv(&mut message).unwrap_or_else(|error| panic!("no `{wanted}`: {error}"));
            self.lines.extend(String::from_utf8(message[..length].to_vec()).unwrap().lines().map(str::to_owned));
        }
    }

    fn expect(&mut self, wanted: &str) {
        assert_eq!(self.next(wanted), wanted);
    }
}

/// `ExecStart` of the unit with this build's program, the configuration of a test and what systemd would add.
fn started(plain: &Plain) -> (Process, Heard) {
    let line = values(UNIT, "ExecStart").pop().unwrap();
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("/usr/bin/rotad"));
    let socket = UnixDatagram::bind(plain.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rotad"));
    command.args(words).stdin(Stdio::null());
    command
        .env("ROTAD_CONFIG", plain.path("rotad.toml"))
        .env("NOTIFY_SOCKET", plain.path("notify"))
        .env("WATCHDOG_USEC", "1000000");
    (plain.launch(&mut command), Heard { socket, lines: VecDeque::new() })
}

#[test]
fn systemd_hears_when_it_is_ready_alive_reloading_and_stopping() {
    assert_eq!(values(UNIT, "Type"), ["notify"]);
    let limit: u64 = values(UNIT, "WatchdogSec")[0].parse().unwrap();
    assert!((30..=120).contains(&limit), "a hang is to be noticed, a busy machine is not one: {limit} s");
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let (mut rotad, mut heard) = started(&plain);
    heard.expect("STATUS=rotates");
    heard.expect("READY=1");
    assert_eq!(plain.http("/healthz").0, 200, "ready, and nothing is served");
    heard.expect("WATCHDOG=1");
    heard.expect("WATCHDOG=1");
    let reload = values(UNIT, "ExecReload").pop().unwrap();
    assert_eq!(reload, "/bin/kill -HUP $MAINPID");
    // A configuration that is refused ends a reload, too.
    for configuration in [plain.head() + &plain.credential("etl", SLOW), "no configuration".to_owned()] {
        plain.configure(&configuration);
        rotad.signal(Signal::HUP);
        heard.expect("RELOADING=1");
        let moment = heard.next("MONOTONIC_USEC");
        assert!(
            moment.strip_prefix("MONOTONIC_USEC=").is_some_and(|usec| usec.parse::<u64>().is_ok_and(|usec| usec > 0)),
            "{moment}"
        );
        heard.expect("READY=1");
    }
    rotad.signal(Signal::TERM);
    heard.expect("STOPPING=1");
    plain.until("its end", || rotad.ended().is_some_and(|status| status.success()));
}

#[test]
fn a_configuration_that_is_wrong_is_never_ready_and_not_tried_again() {
    let plain = Plain::start();
    plain.configure("no configuration");
    let (mut rotad, heard) = started(&plain);
    plain.until("its end", || rotad.ended().is_some());
    assert_eq!(values(UNIT, "RestartPreventExitStatus"), ["2"]);
    assert_eq!(rotad.ended().unwrap().code(), Some(2));
    heard.socket.set_nonblocking(true).unwrap();
    assert!(heard.socket.recv(&mut [0; 16]).is_err(), "it said something");
}

/// What `systemd-analyze verify` says of the unit with drop-ins, this build's program in the place of the installed one.
fn verified(drop_ins: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("rotad.service");
    std::fs::write(&unit, text(UNIT).replace("/usr/bin/rotad", env!("CARGO_BIN_EXE_rotad"))).unwrap();
    std::fs::create_dir(directory.path().join("rotad.service.d")).unwrap();
    for name in drop_ins {
        let path = format!("rotad.service.d/{name}");
        std::fs::copy(repository("deploy/systemd").join(&path), directory.path().join(&path)).unwrap();
    }
    let output = ran(Command::new("systemd-analyze").arg("verify").arg(&unit));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn systemd_knows_every_line_of_the_other_drop_ins() {
    assert_eq!(verified(&["credentials.conf"]), "");
    let version = ran(Command::new("systemd-analyze").arg("--version"));
    let version = String::from_utf8(version.stdout).unwrap();
    let version: u32 = version.split_whitespace().nth(1).unwrap().parse().unwrap();
    let told = verified(&["notify-reload.conf"]);
    // Before 253 this drop-in is not to be used, and is told of.
    let unknown = |line: &&str| !(version < 253 && (line.contains("notify-reload") || line.contains("ReloadSignal")));
    assert_eq!(told.lines().filter(unknown).collect::<Vec<_>>(), Vec::<&str>::new());
    assert_eq!(told.is_empty(), version >= 253, "{told}");
}
