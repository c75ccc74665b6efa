//! A crash leaves no core, and nobody looks into a running daemon, not even its own user.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;

use crate::plain::{Plain, SLOW};
use crate::process::Process;

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// Ends it as a crash does.
pub fn abort(daemon: &mut Process) -> ExitStatus {
    daemon.signal(Signal::ABORT);
    daemon.0.wait().unwrap()
}

/// The processes that a process started and that still run.
pub fn children(pid: u32) -> Vec<u32> {
    let parent = |pid: &u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    all.filter(|child| parent(child) == Some(pid)).collect()
}

/// Runs a program in `directory` with as large a core allowed as there may be. A shell's job in the background
/// ignores SIGQUIT, and what it starts would, too.
fn with_core(directory: &Path, program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=QUIT", "sh", "-c", "ulimit -c \"$(ulimit -H -c)\"; exec \"$0\" \"$@\""]);
    command.arg(program).args(arguments);
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_daemon_that_crashes_dumps_no_core_where_another_program_does() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for signal in [Signal::ABORT, Signal::QUIT] {
        let plain = Plain::start();
        plain.configure_with(&["etl"], SLOW);
        let mut command = with_core(directory, Path::new(env!("CARGO_BIN_EXE_rotad")), &["run"]);
        let mut daemon = Process(command.env("ROTAD_CONFIG", plain.path("rotad.toml")).spawn().unwrap());
        plain.until("a delivery", || plain.served("etl").is_some());
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.0.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
        daemon.signal(signal);
        let ended = daemon.0.wait().unwrap();
        assert_eq!((ended.signal(), ended.core_dumped()), (Some(signal.as_raw()), false));
        assert_eq!(files(directory), 0, "{signal:?} left a file");
    }
    // The same for a program that does not forbid it, where this machine writes cores at all.
    let mut other = with_core(directory, Path::new("sleep"), &["60"]).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    rustix::process::kill_process(rustix::process::Pid::from_child(&other), Signal::ABORT).unwrap();
    let dumped = other.wait().unwrap().core_dumped();
    let to_a_file = !std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap().starts_with('|');
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Core).maximum != Some(0);
    assert_eq!(dumped, to_a_file && allowed, "what the daemon is compared with");
}

/// Whether the user may read what the system shows of a process to its owner alone.
fn may_look(pid: u32, file: &str) -> bool {
    let mut command = Command::new("head");
    command.args(["-c", "1"]).arg(format!("/proc/{pid}/{file}")).uid(NOBODY).gid(NOBODY);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_users_daemon_can_not_be_looked_into_by_that_user() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let binary = plain.as_nobodys();
    let mut command = Command::new(&binary);
    command.arg("run").env("ROTAD_CONFIG", plain.path("rotad.toml")).uid(NOBODY).gid(NOBODY).current_dir("/");
    let daemon = Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    plain.until("a delivery", || plain.served("etl").is_some());
    let mut sleep = Command::new("sleep");
    let other = Process(sleep.arg("60").uid(NOBODY).gid(NOBODY).spawn().unwrap());
    let owner = |process: &Process| std::fs::metadata(format!("/proc/{}/environ", process.0.id())).unwrap().uid();
    assert_eq!((owner(&daemon), owner(&other)), (0, NOBODY), "the kernel keeps it from its user");
    assert!(may_look(other.0.id(), "environ") && may_look(daemon.0.id(), "cmdline"), "what it is compared with");
    for file in ["environ", "maps", "auxv", "mem"] {
        assert!(!may_look(daemon.0.id(), file), "`{file}` can be read");
    }
}
