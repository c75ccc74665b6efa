//! The file sink on real file systems: the contract of every sink, and what only files do.
//!
//! Needs root, for mounts, foreign owners and dropped capabilities: `cargo test --test sink_file` as root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)] // test code outside of `#[test]` functions

mod races;
mod refusals;
#[path = "../support/sink_contract.rs"]
mod sink_contract;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rotad::rotation::{Failed, Reason, RotationId, Shows, WriteOutcome};
use rotad::sinks::file::{Config, FilePlace, Sink, Target};
use rotad::sinks::format::Format;
use rotad::sinks::{Finding, Place};
use sink_contract::{Delivery, World, question};

const NOBODY: u32 = 65534;

/// A directory of one test, with nothing else in it.
struct Scene {
    root: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests mount file systems and change owners: run them as root (`sudo -E cargo test --test sink_file`)"
        );
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.root.path().canonicalize().unwrap()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Every name in `directory`, sorted.
    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(directory)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Something mounted for a test, unmounted at its end.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&str], at: &Path) -> Self {
        let status = Command::new("mount").args(arguments).arg(at).status().unwrap();
        assert!(status.success(), "`mount {arguments:?} {}` failed: these tests need the right to mount", at.display());
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn target(path: PathBuf) -> Target {
    Target { path, format: Format::Raw, mode: 0o600, owner: None, group: None }
}

fn build(target: Target) -> FilePlace {
    Sink::new(&Config::default()).place(target).unwrap()
}

fn raw(path: PathBuf) -> FilePlace {
    build(target(path))
}

fn env() -> Format {
    Format::Env { variable: "MOTHERDUCK_TOKEN".to_owned() }
}

/// Reads, and writes the delivery on the condition of what was read.
async fn deliver(place: &FilePlace, delivery: &Delivery) -> WriteOutcome {
    let reading = match place.read(&question("etl")).await {
        Ok(reading) => reading,
        Err(failed) => return WriteOutcome::Refused(failed),
    };
    place.write(&reading.version, &delivery.payload()).await
}

fn etl(number: u32) -> Delivery {
    Delivery::new("etl", number)
}

async fn shows(place: &FilePlace) -> Shows {
    place.read(&question("etl")).await.unwrap().shows
}

async fn rotation_shown(place: &FilePlace) -> Option<RotationId> {
    match shows(place).await {
        Shows::Value { rotation, .. } => rotation,
        Shows::Nothing { .. } | Shows::ScheduledForDeletion => None,
    }
}

fn refusal(outcome: WriteOutcome) -> Failed {
    match outcome {
        WriteOutcome::Refused(failed) => failed,
        other => panic!("it was not refused: {other:?}"),
    }
}

fn wrong(findings: &[Finding]) -> Vec<&Failed> {
    findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Wrong(failed) => Some(failed),
            Finding::Fine(_) | Finding::Unknowable(_) => None,
        })
        .collect()
}

/// The contract's world: one directory, places by name.
struct Files {
    scene: Scene,
    format: Format,
}

impl Files {
    fn text(&self, token: &str) -> String {
        match &self.format {
            Format::Raw => token.to_owned(),
            Format::Env { variable } => format!("{variable}={token}\n"),
            Format::Json { .. } => format!("{{\"token\": \"{token}\"}}"),
        }
    }
}

#[async_trait]
impl World for Files {
    async fn place(&self, name: &str) -> Arc<dyn Place> {
        Arc::new(build(Target { format: self.format.clone(), ..target(self.scene.at(name)) }))
    }

    async fn change_by_hand(&self, name: &str, token: &str) {
        fs::write(self.scene.at(name), self.text(token)).unwrap();
    }

    async fn roll_back(&self, name: &str, token: &str, _rotation: RotationId) {
        fs::write(self.scene.at(name), self.text(token)).unwrap();
    }

    async fn wipe(&self, name: &str) {
        fs::remove_file(self.scene.at(name)).unwrap();
    }

    async fn left_over(&self, name: &str) -> Vec<String> {
        let ours = [name.to_owned(), format!(".{name}.rotad")];
        self.scene.names("").into_iter().filter(|file| file.contains(name) && !ours.contains(file)).collect()
    }
}

#[tokio::test]
async fn raw_files_keep_the_contract_of_sinks() {
    sink_contract::holds(&Files { scene: Scene::new(), format: Format::Raw }).await;
}

#[tokio::test]
async fn env_files_keep_the_contract_of_sinks() {
    sink_contract::holds(&Files { scene: Scene::new(), format: env() }).await;
}

#[tokio::test]
async fn json_files_keep_the_contract_of_sinks() {
    sink_contract::holds(&Files { scene: Scene::new(), format: Format::json() }).await;
}

#[tokio::test]
async fn value_and_marker_get_the_mode_and_the_owner_and_nothing_else_is_left() {
    let scene = Scene::new();
    let (owner, group) = (Some("nobody".to_owned()), Some("4711".to_owned()));
    let place = build(Target { mode: 0o640, owner, group, ..target(scene.at("token")) });
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
    assert_eq!(deliver(&place, &etl(1)).await, WriteOutcome::Written);
    assert_eq!(scene.names(""), [".token.rotad", "token"]);
    for name in ["token", ".token.rotad"] {
        let status = fs::metadata(scene.at(name)).unwrap();
        assert_eq!((status.mode() & 0o7777, status.uid(), status.gid()), (0o640, NOBODY, 4711), "{name}");
    }
    assert_eq!(fs::read_to_string(scene.at("token")).unwrap(), etl(1).value.expose());
    let marker = fs::read_to_string(scene.at(".token.rotad")).unwrap();
    assert!(!marker.contains(etl(1).value.expose()) && marker.contains(&etl(1).rotation.to_string()), "{marker}");
}

/// What happens to the names of a directory while `work` runs, in order.
async fn watched(directory: &Path, work: impl Future<Output = ()>) -> Vec<String> {
    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
    let watcher = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    add_watch(&watcher, directory, WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_TO).unwrap();
    work.await;
    let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
    let mut reader = Reader::new(&watcher, &mut buffer);
    let mut seen = Vec::new();
    while let Ok(event) = reader.next() {
        let what = match event.events() {
            ReadFlags::CREATE => "made",
            ReadFlags::DELETE => "removed",
            ReadFlags::MOVED_TO => "put in place",
            other => panic!("{other:?}"),
        };
        seen.push(format!("{} {what}", event.file_name().unwrap().to_str().unwrap()));
    }
    seen
}

#[tokio::test]
async fn the_marker_is_put_in_place_before_the_value_and_no_copy_is_made() {
    let scene = Scene::new();
    let place = raw(scene.at("token"));
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
    let seen = watched(&scene.path(), async { assert_eq!(deliver(&place, &etl(1)).await, WriteOutcome::Written) }).await;
    let expected = [".token.rotad-new made", ".token.rotad-mark made", ".token.rotad put in place", "token put in place"];
    assert_eq!(seen, expected);

    // On the wrong condition nothing is put in place.
    let version = place.read(&question("etl")).await.unwrap().version;
    assert_eq!(deliver(&place, &etl(2)).await, WriteOutcome::Written);
    let conflict = async { assert_eq!(place.write(&version, &etl(3).payload()).await, WriteOutcome::Conflict) };
    assert_eq!(watched(&scene.path(), conflict).await, [".token.rotad-new made", ".token.rotad-new removed"]);
}

#[tokio::test]
async fn other_keys_of_a_json_file_are_kept_and_broken_json_is_mended() {
    let scene = Scene::new();
    let place = build(Target { format: Format::json(), ..target(scene.at("token")) });
    fs::write(scene.at("token"), "{\"host\": \"db1\"}").unwrap();
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
    let content: serde_json::Value = serde_json::from_slice(&fs::read(scene.at("token")).unwrap()).unwrap();
    assert_eq!((content["host"].as_str(), content["token"].as_str()), (Some("db1"), Some(etl(0).value.expose())));

    fs::write(scene.at("token"), "{\"token\": ").unwrap();
    let reading = place.read(&question("etl")).await.unwrap();
    assert!(matches!(reading.shows, Shows::Value { rotation: None, owner: Some(_), .. }), "{:?}", reading.shows);
    assert!(reading.value.is_none(), "what does not parse is no token to copy");
    assert_eq!(deliver(&place, &etl(1)).await, WriteOutcome::Written);
    assert_eq!(rotation_shown(&place).await, Some(etl(1).rotation));
}

#[tokio::test]
async fn what_an_env_reader_would_see_otherwise_counts_as_changed_by_hand() {
    let scene = Scene::new();
    let place = build(Target { format: env(), ..target(scene.at("token")) });
    fs::write(scene.at("token"), "OTHER=x\n").unwrap();
    assert!(matches!(shows(&place).await, Shows::Value { rotation: None, owner: None, .. }), "lines of others are a value");
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
    let line = format!("MOTHERDUCK_TOKEN={}\n", etl(0).value.expose());
    assert_eq!(fs::read_to_string(scene.at("token")).unwrap(), line);
    assert_eq!(rotation_shown(&place).await, Some(etl(0).rotation));
    for changed in [format!("{line}export MOTHERDUCK_TOKEN=other\n"), line.replace('\n', "\r\n"), line.replace('=', "=\"")] {
        fs::write(scene.at("token"), &changed).unwrap();
        assert_eq!(rotation_shown(&place).await, None, "{changed:?}");
    }
    fs::write(scene.at("token"), format!("# a comment\n{line}")).unwrap();
    assert_eq!(rotation_shown(&place).await, Some(etl(0).rotation));
}

#[tokio::test]
async fn a_line_end_that_an_editor_adds_is_another_value() {
    let scene = Scene::new();
    let place = raw(scene.at("token"));
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
    fs::write(scene.at("token"), format!("{}\n", etl(0).value.expose())).unwrap();
    assert_eq!(rotation_shown(&place).await, None);
    fs::write(scene.at("token"), [0xff, 0xfe]).unwrap();
    assert!(matches!(shows(&place).await, Shows::Value { rotation: None, .. }), "bytes that are no text are a value by hand");
}

#[tokio::test]
async fn a_changed_or_damaged_marker_is_a_conflict_and_then_mended() {
    let scene = Scene::new();
    let place = raw(scene.at("token"));
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
    let before = place.read(&question("etl")).await.unwrap().version;
    fs::write(scene.at(".token.rotad"), "{").unwrap();
    assert_eq!(place.write(&before, &etl(1).payload()).await, WriteOutcome::Conflict);
    assert!(matches!(shows(&place).await, Shows::Value { owner: None, rotation: None, .. }));
    assert_eq!(deliver(&place, &etl(1)).await, WriteOutcome::Written);
    assert_eq!(rotation_shown(&place).await, Some(etl(1).rotation));
    fs::remove_file(scene.at("token")).unwrap();
    assert_eq!(shows(&place).await, Shows::Nothing { owner: Some(etl(1).owner) });
}

#[tokio::test]
async fn the_longest_name_can_be_written() {
    let scene = Scene::new();
    let place = raw(scene.at(&"n".repeat(243)));
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
}

#[tokio::test]
async fn no_value_stands_in_a_failure() {
    let scene = Scene::new();
    let place = build(Target { format: Format::json(), ..target(scene.at("token")) });
    fs::write(scene.at("token"), "{\"token\": hunter2-hunter2").unwrap();
    let reading = place.read(&question("etl")).await.unwrap();
    assert!(!format!("{reading:?}").contains("hunter2"));
    fs::remove_file(scene.at("token")).unwrap();
    fs::create_dir(scene.at("token")).unwrap();
    let failed = refusal(place.write(&reading.version, &etl(0).payload()).await);
    assert!(!failed.detail.contains(etl(0).value.expose()), "{failed}");
}
