//! What is shipped beside the program is accepted by the tools that read it.
//!
//! Needs Debian's `systemd` for `systemd-analyze` (it need not be running).

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The most that `systemd-analyze security` may find exposed, in tenths: 15 is the network and no more.
const EXPOSURE_MAX: &str = "15";

fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The unit in a directory of its own, running this build's program, with the drop-in or without.
fn unit(directory: &Path, with_drop_in: bool) -> PathBuf {
    let unit = shipped("deploy/systemd/rotad.service");
    assert!(unit.contains("ExecStart=/usr/bin/rotad run\n"));
    let path = directory.join("rotad.service");
    fs::write(&path, unit.replace("/usr/bin/rotad", env!("CARGO_BIN_EXE_rotad"))).unwrap();
    if with_drop_in {
        // With every line that a person may take the comment sign from.
        let drop_in = shipped("deploy/systemd/rotad.service.d/file-sinks.conf");
        let chosen = ["SupplementaryGroups=", "CapabilityBoundingSet=", "AmbientCapabilities="];
        let drop_in = chosen.iter().fold(drop_in, |text, key| text.replace(&format!("#{key}"), key));
        fs::create_dir(directory.join("rotad.service.d")).unwrap();
        fs::write(directory.join("rotad.service.d/file-sinks.conf"), drop_in).unwrap();
    }
    path
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    let output = Command::new("systemd-analyze").args(arguments).arg(unit).output();
    output.expect("`systemd-analyze` is needed: `apt-get install systemd`")
}

#[test]
fn systemd_knows_every_line_of_the_unit_and_of_the_drop_in() {
    for with_drop_in in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let verified = analyze(&["verify"], &unit(directory.path(), with_drop_in));
        let told = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success() && told.is_empty(), "drop-in: {with_drop_in}: {told}");
    }
}

#[test]
fn an_unknown_line_in_a_unit_would_be_told() {
    let directory = tempfile::tempdir().unwrap();
    let unit = unit(directory.path(), false);
    let text = fs::read_to_string(&unit).unwrap().replace("LimitCORE=", "LimitCORES=");
    fs::write(&unit, text).unwrap();
    let verified = analyze(&["verify"], &unit);
    assert!(String::from_utf8_lossy(&verified.stderr).contains("LimitCORES"), "{verified:?}");
}

#[test]
fn the_unit_exposes_the_network_and_hardly_more() {
    let directory = tempfile::tempdir().unwrap();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let rated = analyze(&["security", "--offline=true", "--no-pager", &threshold], &unit(directory.path(), false));
    assert!(rated.status.success(), "{}{}", String::from_utf8_lossy(&rated.stdout), String::from_utf8_lossy(&rated.stderr));
}

#[test]
fn unit_and_image_keep_values_from_disk_and_leave_the_stand_in_out() {
    let unit = shipped("deploy/systemd/rotad.service");
    for line in ["LimitCORE=0", "MemorySwapMax=0", "UMask=0077", "StartLimitIntervalSec=0"] {
        assert!(unit.lines().any(|found| found == line), "the unit lacks `{line}`");
    }
    let image = shipped("Dockerfile");
    assert!(image.contains("--locked --no-default-features") && image.contains("\nUSER 65532:65532\n"), "{image}");
    assert!(image.contains("cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/"), "{image}");
    // The context is a list of what may enter, so that no journal or token gets into a layer.
    assert_eq!(shipped(".dockerignore").lines().find(|line| !line.starts_with('#')), Some("*"));
}

#[test]
fn the_image_says_of_itself_what_the_manifest_says() {
    let image = shipped("Dockerfile");
    let told = [
        ("title", env!("CARGO_PKG_NAME")),
        ("description", env!("CARGO_PKG_DESCRIPTION")),
        ("licenses", env!("CARGO_PKG_LICENSE")),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    for (label, value) in told {
        let line = format!("org.opencontainers.image.{label}=\"{value}\"");
        assert!(image.contains(&line), "the Dockerfile lacks `{line}`");
    }
}

#[test]
fn the_version_is_the_same_wherever_it_stands() {
    let version = env!("CARGO_PKG_VERSION");
    let stands = [
        ("deploy/kubernetes/chart/Chart.yaml", format!("\nversion: {version}\n")),
        ("deploy/kubernetes/chart/Chart.yaml", format!("\nappVersion: {version}\n")),
        ("deploy/kubernetes/base/statefulset.yaml", format!("image: rotad:{version}\n")),
        ("docs/install.md", format!("rotad_{version}_amd64.deb")),
        ("docs/install.md", format!("newTag: {version} ")),
    ];
    for (path, line) in stands {
        assert!(shipped(path).contains(&line), "`{path}` lacks `{}`", line.trim());
    }
}

#[test]
fn the_image_s_context_holds_all_that_the_manifest_names() {
    let (root, context) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap());
    for entry in shipped(".dockerignore").lines().filter_map(|line| line.strip_prefix('!')) {
        let target = context.path().join(entry);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let copied = Command::new("cp").arg("-r").arg(root.join(entry)).arg(&target).status().unwrap();
        assert!(copied.success(), "`{entry}` is let in and is not there");
    }
    // Every target is looked for before one that is not there is refused, and nothing is compiled.
    let asked = Command::new(env!("CARGO")).args(["check", "--offline", "--bin", "absent"]).current_dir(context.path()).output();
    let told = String::from_utf8(asked.unwrap().stderr).unwrap();
    assert!(told.contains("no bin target named `absent`"), "{told}");
}
