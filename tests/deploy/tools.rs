//! The tools that the tests run, and how their files are read.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn text(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("`{path}` can't be read: {error}"))
}

/// A program out of a Debian package, unpacked by `tests/run`, or as it is installed.
pub fn unpacked(program: &str) -> PathBuf {
    let local = repository("target/test-tools").join(program);
    if local.exists() { local } else { PathBuf::from(program) }
}

/// A program from PyPI, installed by `tests/run`.
pub fn from_pypi(program: &str) -> PathBuf {
    let servers = std::env::var_os("ROTAD_TEST_SERVERS").map_or_else(|| repository("target/test-servers"), PathBuf::from);
    servers.join("bin").join(program)
}

/// Runs it to its end.
pub fn ran(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?} can't be run ({error}); `tests/run` gets what it needs"))
}

/// All that was said, where it succeeded.
pub fn said(command: &mut Command) -> String {
    let output = ran(command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said
}

/// A YAML file as JSON, read by the library that other tests' servers bring along.
pub fn yaml(path: &Path) -> Value {
    let program = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    serde_json::from_str(&said(Command::new(from_pypi("python3")).args(["-c", program]).arg(path))).unwrap()
}
