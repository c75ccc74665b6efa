//! What `deploy/release` makes: whole, and the same each time; and of what it makes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools::{ran, repository, said};

/// A repository of one commit that holds what this one holds, to tag and to change.
struct Checkout(tempfile::TempDir);

impl Checkout {
    fn new() -> Self {
        let checkout = Self(tempfile::tempdir().unwrap());
        let copy = "tar --create --exclude=./target --exclude=./.git --file - . | tar --extract --file - --directory \"$0\"";
        said(Command::new("sh").args(["-ec", copy]).arg(checkout.0.path()).current_dir(repository(".")));
        checkout.git(&["init", "--quiet"]);
        checkout.git(&["add", "--all"]);
        checkout.git(&["commit", "--quiet", "--message", "all of it"]);
        checkout
    }

    fn git(&self, arguments: &[&str]) -> String {
        let own = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
        said(Command::new("git").args(own).args(arguments).current_dir(&self.0))
    }

    fn release(&self) -> Command {
        Command::new(self.0.path().join("deploy/release"))
    }

    fn made(&self) -> PathBuf {
        self.0.path().join("target/releases").join(env!("CARGO_PKG_VERSION"))
    }

    /// Makes the archives of this build's program; their checksums, by name.
    fn make(&self) -> BTreeMap<String, String> {
        // How small it gets is not looked at, and takes a minute.
        said(self.release().arg(env!("CARGO_BIN_EXE_rotad")).env("DPKG_DEB_COMPRESSOR_LEVEL", "1"));
        let sums = std::fs::read_to_string(self.made().join("SHA256SUMS")).unwrap();
        sums.lines().filter_map(|line| line.split_once("  ")).map(|(sum, name)| (name.to_owned(), sum.to_owned())).collect()
    }
}

/// The files in an archive, below its one folder.
fn files(archive: &Path) -> Vec<String> {
    let list = said(Command::new("tar").arg("--list").arg("--file").arg(archive));
    let paths = list.lines().filter(|path| !path.ends_with('/')).filter_map(|path| path.split_once('/'));
    paths.map(|(_, path)| path.to_owned()).collect()
}

#[test]
fn a_release_is_whole_runs_and_is_the_same_each_time() {
    let (version, checkout) = (env!("CARGO_PKG_VERSION"), Checkout::new());
    let made = checkout.make();
    let path = |start: &str, end: &str| {
        let name = made.keys().find(|name| name.starts_with(start) && name.ends_with(end));
        checkout.made().join(name.unwrap_or_else(|| panic!("no {start}…{end} in {made:?}")))
    };
    let (program, chart) = (path(&format!("rotad-{version}-"), ".tar.gz"), path(&format!("rotad-chart-{version}"), ".tgz"));
    path(&format!("rotad_{version}_"), ".deb");
    path(&format!("rotad-{version}"), ".cdx.json");
    assert_eq!(made.len(), 4, "{made:?}");
    said(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(checkout.made()));

    let inside = files(&program);
    for path in
        ["rotad", "README.md", "LICENSE-MIT", "LICENSE-APACHE", "systemd/rotad.service", "docs/install.md", "man/rotad-plan.1"]
    {
        assert!(inside.iter().any(|inside| inside == path), "`{path}` is not in {inside:?}");
    }
    let unpacked = tempfile::tempdir().unwrap();
    said(Command::new("tar").args(["--extract", "--strip-components=1", "--file"]).arg(&program).current_dir(&unpacked));
    assert_eq!(said(Command::new(unpacked.path().join("rotad")).arg("--version")).trim(), format!("rotad {version}"));

    let shipped = checkout.git(&["ls-files", "deploy/kubernetes/chart"]);
    let mut shipped: Vec<&str> = shipped.lines().filter_map(|path| path.strip_prefix("deploy/kubernetes/chart/")).collect();
    let mut in_chart = files(&chart);
    in_chart.sort();
    shipped.sort_unstable();
    assert_eq!(in_chart, shipped);

    assert_eq!(checkout.make(), made, "the same commit and program gave other archives");
}

#[test]
fn nothing_is_released_without_tag_changelog_and_a_clean_checkout() {
    let checkout = Checkout::new();
    let refused = |why: &str| {
        let refused = ran(&mut checkout.release());
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && told.contains(why), "{refused:?}");
        assert!(!checkout.made().exists());
    };
    refused("has no tag v");
    checkout.git(&["tag", &format!("v{}", env!("CARGO_PKG_VERSION"))]);
    // Until the version is released its section is that of what is unreleased.
    let changelog = checkout.0.path().join("CHANGELOG.md");
    let text = std::fs::read_to_string(&changelog).unwrap().replace(concat!("## ", env!("CARGO_PKG_VERSION")), "## before");
    std::fs::write(&changelog, text).unwrap();
    checkout.git(&["commit", "--quiet", "--all", "--allow-empty", "--message", "without the section"]);
    checkout.git(&["tag", "--force", &format!("v{}", env!("CARGO_PKG_VERSION"))]);
    refused("has no section");
    std::fs::write(checkout.0.path().join("left-over"), "x").unwrap();
    refused("has changes");
}
