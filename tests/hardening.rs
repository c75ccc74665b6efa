//! A hardened process dumps no core and makes no file that others can read.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, setrlimit};

/// How this program aborts as a child of its own test: `plain` or `hardened`.
const ROLE: &str = "ROTAD_TEST_HARDENING_ROLE";

fn abort_as(role: &str, directory: &Path) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_hardened_process_dumps_no_core_and_opens_no_file_to_others"])
        .env(ROLE, role)
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

// One test, since what it sets holds for the whole process and its children.
#[test]
fn a_hardened_process_dumps_no_core_and_opens_no_file_to_others() {
    if let Ok(role) = std::env::var(ROLE) {
        // As much as may be dumped at all, so that the two children differ in the hardening alone.
        let maximum = getrlimit(Resource::Core).maximum;
        setrlimit(Resource::Core, Rlimit { current: maximum, maximum }).unwrap();
        if role == "hardened" {
            rotad::hardening::harden().unwrap();
        }
        std::process::abort();
    }

    let directory = tempfile::tempdir().unwrap();
    let hardened = abort_as("hardened", directory.path());
    assert_eq!((hardened.signal(), hardened.core_dumped()), (Some(6), false));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    let plain = abort_as("plain", directory.path());
    assert_eq!(plain.signal(), Some(6));
    // Where this machine writes cores to files at all, the same abort without the hardening left one.
    let to_a_file = !fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap().starts_with('|');
    assert_eq!(plain.core_dumped(), to_a_file && getrlimit(Resource::Core).maximum != Some(0));

    rotad::hardening::harden().unwrap();
    assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    File::create(directory.path().join("file")).unwrap();
    assert_eq!(fs::metadata(directory.path().join("file")).unwrap().permissions().mode() & 0o777, 0o600);
    rotad::hardening::harden().unwrap();
}
