//! The Debian package: installed into a system of its own as docs/install.md says, rotad at work there, upgraded, removed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::documents::block;
use super::plain::{ACCOUNT, Plain};
use super::process::{Process, fingerprint};
use super::tools::{ran, repository, said};

/// A Debian that this test may change; the program's own checks of directories want a disk under it.
struct System(tempfile::TempDir);

impl System {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let made = repository("target/test-tools/debian");
        said(Command::new("cp").arg("-a").arg(made).arg(directory.path().join("root")));
        Self(directory)
    }

    /// A file of the system, seen from here.
    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("root").join(path.trim_start_matches('/'))
    }

    /// A shell's line, run in it by its own root.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.path("/")).args(["/bin/sh", "-ec", line]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }

    fn says(&self, line: &str) -> String {
        said(&mut self.command(line))
    }

    /// A file's mode, owner and group.
    fn access(&self, path: &str) -> (u32, u32, u32) {
        let metadata = std::fs::metadata(self.path(path)).unwrap();
        (metadata.permissions().mode() & 0o7777, metadata.uid(), metadata.gid())
    }

    fn id(&self, of: &str) -> u32 {
        self.says(&format!("id {of} rotad")).trim().parse().unwrap()
    }

    /// The unit's `ExecStart` as its user.
    fn rotad(&self, plain: &Plain) -> Process {
        let unit = std::fs::read_to_string(self.path("/usr/lib/systemd/system/rotad.service")).unwrap();
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        plain.launch(&mut self.command(&format!("exec setpriv --reuid rotad --regid rotad --clear-groups {start}")))
    }
}

/// The package with this build's program.
fn package() -> PathBuf {
    let program = env!("CARGO_BIN_EXE_rotad");
    let output = ran(Command::new(repository("deploy/debian/build")).arg(program).env("DPKG_DEB_COMPRESSOR_LEVEL", "1"));
    assert!(output.status.success(), "{output:?}");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// The document's configuration, and what a test adds: an API and a port of its own.
fn configuration(plain: &Plain) -> String {
    let text = block("docs/install.md", "What you need first", "toml").replace("etl_prod", ACCOUNT);
    let added = format!("\napi_url = \"{}\"\n\n[server]\nlisten = \"127.0.0.1:0\"\n\n[sink.disk.file]", plain.api());
    text.replace("\n[sink.disk.file]", &added)
}

#[test]
fn a_package_is_made_of_a_program_without_demo_and_without_a_faster_clock() {
    let check = |program: &Path| ran(Command::new(repository("deploy/is-production")).arg(program));
    let trying_out = check(Path::new(env!("CARGO_BIN_EXE_rotad")));
    let told = String::from_utf8(trying_out.stderr).unwrap();
    assert!(!trying_out.status.success() && told.contains("--no-default-features"), "{told}");
    let directory = tempfile::tempdir().unwrap();
    let knows = |call: &str| {
        let program = directory.path().join("rotad");
        std::fs::write(&program, format!("#!/bin/sh\ncase \"$*\" in {call}) exit 0;; *) exit 2;; esac\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        !check(&program).status.success()
    };
    assert!(!knows("nothing"), "what knows none of it is one for production");
    assert!(["demo*", "stand-in*", "*--speed*"].into_iter().all(knows));
    // Those that build a program themselves ask.
    for path in ["deploy/debian/build", "deploy/release", "Dockerfile"] {
        let text = std::fs::read_to_string(repository(path)).unwrap();
        let (_, after) = text.split_once("cargo build --release --locked --no-default-features").unwrap();
        assert!(after.contains("is-production"), "{path}");
    }
}

#[test]
fn the_package_installs_rotates_upgrades_and_leaves_the_journal() {
    let (package, system, plain) = (package(), System::new(), Plain::start());
    std::fs::copy(&package, system.path("/rotad.deb")).unwrap();
    system.says("dpkg --install /rotad.deb");
    assert_eq!(system.access("/etc/rotad"), (0o750, 0, system.id("-g")));
    assert_eq!(system.says("dpkg --verify rotad"), "", "a file is not as the package has it");
    for page in ["man/man1/rotad-plan.1.gz", "bash-completion/completions/rotad", "doc/rotad/docs/runbook.md"] {
        assert!(system.path("/usr/share").join(page).exists(), "{page}");
    }

    std::fs::write(system.path("/rotad.toml"), configuration(&plain)).unwrap();
    std::fs::copy(plain.path("admin-token"), system.path("/admin-token")).unwrap();
    let steps = block("docs/install.md", "Debian", "sh");
    let steps: Vec<&str> = steps.lines().filter(|line| line.starts_with("install ") || line.starts_with("runuser ")).collect();
    assert_eq!(steps.len(), 4, "{steps:?}");
    system.says(&format!("cd /; {}", steps.join("; ")));
    let mut rotad = system.rotad(&plain);
    plain.until("the first rotation", || plain.log().contains("promoted"));
    rotad.stop();
    let token = std::fs::read_to_string(system.path("/var/lib/rotad/etl-token")).unwrap();
    assert_eq!(plain.live(), [fingerprint(&token)]);

    // The same package stands for the next version: it takes up what this one left.
    system.says("dpkg --install /rotad.deb");
    let mut rotad = system.rotad(&plain);
    plain.until("the next start", || plain.log().matches("address=").count() == 2);
    assert!(system.says("runuser -u rotad -- rotad status").contains("1 of 1"));
    rotad.stop();
    assert_eq!(plain.issued(), 1, "an upgrade is no reason for a rotation");

    system.says("dpkg --remove rotad");
    assert!(!system.path("/usr/bin/rotad").exists());
    let told = system.says("dpkg --purge rotad");
    assert!(told.contains("/var/lib/rotad (the journal)"), "{told}");
    assert_eq!(system.access("/var/lib/rotad/journal.db"), (0o600, system.id("-u"), system.id("-g")));
}
