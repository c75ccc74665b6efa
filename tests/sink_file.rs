//! The file sink on real file systems: the contract of every sink, and what only files do.
//!
//! Needs root, for mounts, foreign owners and dropped capabilities: `cargo test --test sink_file` as root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)] // test code outside of `#[test]` functions

#[path = "support/sink_contract.rs"]
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
async fn a_missing_user_or_group_is_told_and_nothing_is_written() {
    let scene = Scene::new();
    let place = build(Target { group: Some("no-such-group".to_owned()), ..target(scene.at("token")) });
    let failed = refusal(deliver(&place, &etl(0)).await);
    assert_eq!(failed.reason, Reason::Missing);
    assert!(failed.detail.contains("no group `no-such-group`"), "{failed}");
    assert_eq!(wrong(&place.check().await), [&failed]);
    assert!(scene.names("").is_empty());
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
async fn no_symbolic_link_is_followed_anywhere() {
    let scene = Scene::new();
    fs::create_dir_all(scene.at("real/inner")).unwrap();
    fs::write(scene.at("victim"), "untouched").unwrap();
    symlink(scene.at("real"), scene.at("link")).unwrap();
    symlink(scene.at("victim"), scene.at("real/token")).unwrap();
    symlink(scene.at("victim"), scene.at("real/.other.rotad")).unwrap();
    symlink(scene.at("victim"), scene.at("real/.third.rotad-new")).unwrap();
    for (path, named) in [
        ("link/inner/token", scene.at("link")),
        ("link/token", scene.at("link")),
        ("real/token", scene.at("real/token")),
        ("real/other", scene.at("real/.other.rotad")),
        ("real/third", scene.at("real/.third.rotad-new")),
    ] {
        let failed = refusal(deliver(&raw(scene.at(path)), &etl(0)).await);
        assert_eq!(failed.reason, Reason::Unsuitable, "{path}: {failed}");
        assert!(failed.detail.contains(&format!("`{}`", named.display())), "{path}: {failed}");
    }
    assert_eq!(fs::read_to_string(scene.at("victim")).unwrap(), "untouched");
    assert!(scene.names("real/inner").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_swapped_for_a_link_leads_no_write_astray() {
    let scene = Scene::new();
    fs::create_dir_all(scene.at("real")).unwrap();
    fs::create_dir_all(scene.at("outside")).unwrap();
    symlink(scene.at("outside"), scene.at("trap")).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (done, real, trap) = (Arc::clone(&done), scene.at("real"), scene.at("trap"));
        std::thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &real, rustix::fs::CWD, &trap, flags).unwrap();
            }
        })
    };
    let place = raw(scene.at("real/token"));
    let mut written = 0;
    for number in 0..2000 {
        match deliver(&place, &etl(number)).await {
            WriteOutcome::Written => written += 1,
            WriteOutcome::Refused(failed) => assert_eq!(failed.reason, Reason::Unsuitable, "{failed}"),
            other => panic!("{other:?}"),
        }
        if number >= 200 && written > 0 {
            break;
        }
    }
    done.store(true, Ordering::SeqCst);
    swapper.join().unwrap();
    assert!(written > 0, "the real directory was never met");
    assert!(scene.names("outside").is_empty(), "a write went through the link");
}

#[tokio::test]
async fn only_regular_files_are_read_and_none_is_waited_for() {
    let scene = Scene::new();
    assert!(Command::new("mkfifo").arg(scene.at("pipe")).status().unwrap().success());
    assert!(Command::new("mknod").arg(scene.at("device")).args(["c", "1", "5"]).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(scene.at("socket")).unwrap();
    fs::create_dir(scene.at("folder")).unwrap();
    for (name, kind) in [("pipe", "a named pipe"), ("device", "a device"), ("socket", "a socket"), ("folder", "a directory")] {
        let place = raw(scene.at(name));
        let failed = place.read(&question("etl")).await.unwrap_err();
        assert_eq!(failed.reason, Reason::Unsuitable, "{name}: {failed}");
        assert!(failed.detail.contains(&format!("is {kind}")), "{name}: {failed}");
        assert_eq!(wrong(&place.check().await), [&failed]);
    }
    let large = fs::File::create(scene.at("large")).unwrap();
    large.set_len((1 << 20) + 1).unwrap();
    let failed = raw(scene.at("large")).read(&question("etl")).await.unwrap_err();
    assert!(failed.detail.contains("larger than 1 MiB"), "{failed}");
}

#[tokio::test]
async fn a_missing_directory_is_told() {
    let scene = Scene::new();
    let place = raw(scene.at("absent/token"));
    let failed = refusal(deliver(&place, &etl(0)).await);
    assert_eq!(failed.reason, Reason::Missing);
    assert!(failed.detail.contains("absent` does not exist: create it"), "{failed}");
    assert_eq!(wrong(&place.check().await), [&failed]);
}

#[tokio::test]
async fn a_file_that_is_a_mount_point_is_refused_and_says_what_to_mount() {
    let scene = Scene::new();
    fs::write(scene.at("source"), "").unwrap();
    fs::write(scene.at("token"), "").unwrap();
    let _mounted = Mounted::new(&["--bind", scene.at("source").to_str().unwrap()], &scene.at("token"));
    let place = raw(scene.at("token"));
    let failed = refusal(deliver(&place, &etl(0)).await);
    assert_eq!(failed.reason, Reason::Unsuitable);
    assert!(failed.detail.contains("is a mount point") && failed.detail.contains("mount its directory"), "{failed}");
    assert_eq!(wrong(&place.check().await), [&failed]);
    assert_eq!(fs::read_to_string(scene.at("source")).unwrap(), "");
    assert_eq!(scene.names(""), ["source", "token"]);
}

#[tokio::test]
async fn a_read_only_file_system_is_told() {
    let scene = Scene::new();
    fs::create_dir(scene.at("mount")).unwrap();
    let _mounted = Mounted::new(&["-t", "tmpfs", "-o", "ro,size=64k", "rotad-test"], &scene.at("mount"));
    let place = raw(scene.at("mount/token"));
    let failed = refusal(deliver(&place, &etl(0)).await);
    assert_eq!(failed.reason, Reason::Forbidden);
    assert!(failed.detail.contains("is read-only"), "{failed}");
    assert_eq!(wrong(&place.check().await).len(), 1);
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_value_and_nothing_else_and_heals() {
    let scene = Scene::new();
    fs::create_dir(scene.at("mount")).unwrap();
    let _mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=64k", "rotad-test"], &scene.at("mount"));
    let place = raw(scene.at("mount/token"));
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
    let filler = scene.at("mount/filler");
    // One page less than full: the marker fits, the value does not. Then none at all.
    for spare in [4096, 0] {
        let status = rustix::fs::statvfs(scene.at("mount")).unwrap();
        fs::write(&filler, vec![0; usize::try_from(status.f_bavail * status.f_bsize - spare).unwrap()]).unwrap();
        let failed = refusal(deliver(&place, &etl(1)).await);
        assert_eq!(failed.reason, Reason::Full, "{failed}");
        assert!(failed.detail.contains("make room"), "{failed}");
        assert_eq!(rotation_shown(&place).await, Some(etl(0).rotation));
        assert_eq!(scene.names("mount"), [".token.rotad", "filler", "token"]);
        fs::remove_file(&filler).unwrap();
    }
    assert_eq!(deliver(&place, &etl(1)).await, WriteOutcome::Written);
    assert_eq!(rotation_shown(&place).await, Some(etl(1).rotation));
}

/// Runs `test` on threads that, although root, have no right to override permissions or change owners.
fn without_capabilities(test: impl Future<Output = ()> + Send + 'static) {
    let drop_them = || {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective = rustix::thread::CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets).unwrap();
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().on_thread_start(drop_them).build();
    let runtime = runtime.unwrap();
    runtime.block_on(async move { tokio::spawn(test).await.unwrap() });
}

#[test]
fn a_missing_permission_on_the_directory_is_told_with_its_remedy() {
    let scene = Scene::new();
    fs::create_dir(scene.at("theirs")).unwrap();
    fs::set_permissions(scene.at("theirs"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(scene.at("theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
    let path = scene.at("theirs/token");
    without_capabilities(async move {
        let place = raw(path);
        let failed = refusal(deliver(&place, &etl(0)).await);
        assert_eq!(failed.reason, Reason::Forbidden);
        assert!(failed.detail.contains("user 0 lacks a permission") && failed.detail.contains("`rwx`"), "{failed}");
        assert_eq!(wrong(&place.check().await)[0].reason, Reason::Forbidden);
    });
    assert!(scene.names("theirs").is_empty());
}

#[test]
fn a_foreign_owner_needs_a_right_that_is_named_and_before_it_nothing_is_written() {
    let scene = Scene::new();
    let path = scene.at("token");
    without_capabilities(async move {
        for (owner, group) in [(Some("nobody".to_owned()), None), (None, Some("4711".to_owned()))] {
            let place = build(Target { owner, group, ..target(path.clone()) });
            let failed = refusal(deliver(&place, &etl(0)).await);
            assert_eq!(failed.reason, Reason::Forbidden);
            assert!(failed.detail.contains("CAP_CHOWN") && failed.detail.contains("SupplementaryGroups="), "{failed}");
            assert_eq!(wrong(&place.check().await)[0].reason, Reason::Forbidden);
        }
    });
    assert!(scene.names("").is_empty());
}

#[test]
fn a_value_that_could_not_be_read_back_is_told() {
    let scene = Scene::new();
    let path = scene.at("token");
    fs::write(&path, "theirs").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    without_capabilities(async move {
        let failed = raw(path).read(&question("etl")).await.unwrap_err();
        assert_eq!(failed.reason, Reason::Forbidden);
        assert!(failed.detail.contains("may not read") && failed.detail.contains("0640"), "{failed}");
    });
}

#[tokio::test]
async fn a_check_finds_directories_that_anybody_may_write_to_and_second_names() {
    let scene = Scene::new();
    fs::create_dir(scene.at("open")).unwrap();
    let place = raw(scene.at("open/token"));
    let findings = place.check().await;
    assert!(wrong(&findings).is_empty(), "{findings:?}");
    assert!(matches!(&findings[..], [Finding::Fine(_), Finding::Unknowable(_)]), "{findings:?}");

    fs::set_permissions(scene.at("open"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(wrong(&place.check().await)[0].detail.contains("everybody may replace"), "{:?}", place.check().await);
    fs::set_permissions(scene.at("open"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(wrong(&place.check().await).is_empty());

    fs::write(scene.at("open/token"), "").unwrap();
    fs::hard_link(scene.at("open/token"), scene.at("open/second")).unwrap();
    assert!(wrong(&place.check().await)[0].detail.contains("2 names"), "{:?}", place.check().await);
    assert_eq!(scene.names("open"), ["second", "token"], "a check writes nothing");
}

#[tokio::test]
async fn what_a_crash_left_is_removed_by_the_next_read_and_foreign_files_are_not() {
    let scene = Scene::new();
    let place = raw(scene.at("token"));
    for name in [".token.rotad-new", ".token.rotad-mark"] {
        fs::write(scene.at(name), "half a val").unwrap();
    }
    assert_eq!(shows(&place).await, Shows::Nothing { owner: None });
    assert!(scene.names("").is_empty(), "{:?}", scene.names(""));

    fs::write(scene.at(".token.rotad-mark"), "half a mark").unwrap();
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
    assert_eq!(scene.names(""), [".token.rotad", "token"]);

    for foreign in [".token.rotad-new", ".token.rotad-mark"] {
        fs::write(scene.at(foreign), "somebody else's").unwrap();
        std::os::unix::fs::chown(scene.at(foreign), Some(NOBODY), None).unwrap();
        let failed = refusal(deliver(&place, &etl(1)).await);
        assert_eq!(failed.reason, Reason::Unsuitable);
        assert!(failed.detail.contains("not a file of ours"), "{failed}");
        assert_eq!(fs::read_to_string(scene.at(foreign)).unwrap(), "somebody else's");
        assert_eq!(rotation_shown(&place).await, Some(etl(0).rotation), "the place itself can still be read");
        assert_eq!(scene.names(""), [".token.rotad", foreign, "token"]);
        fs::remove_file(scene.at(foreign)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_one_wins_and_no_reader_sees_half_a_value() {
    let scene = Scene::new();
    let path = scene.at("token");
    let first = raw(path.clone());
    assert_eq!(deliver(&first, &etl(0)).await, WriteOutcome::Written);
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (done, path) = (Arc::clone(&done), path.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let text = fs::read_to_string(&path).expect("the value is always there");
                let number = text.split('-').nth(2).and_then(|number| number.parse().ok()).expect("the value is whole");
                assert_eq!(text, etl(number).value.expose());
            }
        })
    };
    // Two places of two sinks share nothing in this process, like two processes.
    let second = raw(path);
    for round in 1..100 {
        let version = first.read(&question("etl")).await.unwrap().version;
        let deliveries = [etl(2 * round), etl(2 * round + 1)];
        let payloads = [deliveries[0].payload(), deliveries[1].payload()];
        let (one, other) = tokio::join!(first.write(&version, &payloads[0]), second.write(&version, &payloads[1]));
        let winner = match (one, other) {
            (WriteOutcome::Written, WriteOutcome::Conflict) => &deliveries[0],
            (WriteOutcome::Conflict, WriteOutcome::Written) => &deliveries[1],
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(rotation_shown(&second).await, Some(winner.rotation), "round {round}");
        assert_eq!(scene.names(""), [".token.rotad", "token"]);
    }
    done.store(true, Ordering::SeqCst);
    reader.join().unwrap();
}

/// A reader removes left-over files, and a writer's file is unlocked for a moment after it was made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_clean_up_never_disturb_a_living_writer() {
    let scene = Scene::new();
    fs::create_dir(scene.at("mount")).unwrap();
    let _mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "rotad-test"], &scene.at("mount"));
    let path = scene.at("mount/token");
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (done, place) = (Arc::clone(&done), raw(path.clone()));
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                place.read(&question("etl")).await.unwrap();
            }
        })
    };
    let place = raw(path);
    for number in 0..3000 {
        assert_eq!(deliver(&place, &etl(number)).await, WriteOutcome::Written, "{number}");
    }
    done.store(true, Ordering::SeqCst);
    reader.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_hangs_is_given_up_keeps_the_place_busy_and_never_lands_later() {
    let scene = Scene::new();
    let sink = Sink::with_limit(&Config::default(), Duration::from_millis(300));
    let place = sink.place(target(scene.at("token"))).unwrap();
    let version = place.read(&question("etl")).await.unwrap().version;
    // The lock of a writer that makes no progress: our write waits for it in the kernel.
    let hung = fs::File::create(scene.at(".token.rotad-new")).unwrap();
    hung.lock().unwrap();
    assert_eq!(refusal(place.write(&version, &etl(0).payload()).await).reason, Reason::TimedOut);
    assert_eq!(refusal(place.write(&version, &etl(1).payload()).await).reason, Reason::Busy);
    assert_eq!(place.read(&question("etl")).await.unwrap_err().reason, Reason::Busy);
    assert!(matches!(&place.check().await[..], [Finding::Wrong(failed)] if failed.reason == Reason::Busy));

    drop(hung);
    let after = loop {
        match place.read(&question("etl")).await {
            Ok(reading) => break reading,
            Err(failed) => assert_eq!(failed.reason, Reason::Busy, "{failed}"),
        }
    };
    assert_eq!(after.shows, Shows::Nothing { owner: None }, "what was given up did not land");
    assert!(scene.names("").is_empty(), "{:?}", scene.names(""));
    assert_eq!(place.write(&after.version, &etl(2).payload()).await, WriteOutcome::Written);
    assert_eq!(rotation_shown(&place).await, Some(etl(2).rotation));
}

#[tokio::test]
async fn a_sink_of_another_host_is_neither_read_nor_written() {
    let scene = Scene::new();
    let elsewhere = Sink::new(&Config { host: Some("another-host.example".to_owned()) });
    let place = elsewhere.place(target(scene.at("token"))).unwrap();
    let failed = refusal(deliver(&place, &etl(0)).await);
    assert!(failed.detail.contains("belongs to the host `another-host.example`"), "{failed}");
    let version = raw(scene.at("token")).read(&question("etl")).await.unwrap().version;
    assert_eq!(place.write(&version, &etl(0).payload()).await, WriteOutcome::Refused(failed));

    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let here = Sink::new(&Config { host: Some(own) }).place(target(scene.at("token"))).unwrap();
    assert_eq!(deliver(&here, &etl(0)).await, WriteOutcome::Written);
}

#[test]
fn paths_and_modes_that_can_never_work_are_rejected() {
    let sink = Sink::new(&Config::default());
    let long = format!("/run/{}", "n".repeat(244));
    for path in ["token", "/", "/run/", "/run/../token", "/run/./token", "/run//token", "/run/.token.rotad", &long] {
        let failed = sink.place(target(path.into())).err().unwrap_or_else(|| panic!("`{path}` was taken"));
        assert_eq!(failed.reason, Reason::Rejected, "{path}: {failed}");
    }
    for mode in [0o602, 0o200, 0o4600, 0o000] {
        assert!(sink.place(Target { mode, ..target("/run/token".into()) }).is_err(), "{mode:o}");
    }
    let longest = format!("/run/{}", "n".repeat(243));
    assert_eq!(sink.place(target(longest.clone().into())).unwrap().id().as_str(), format!("file:{longest}"));
}

#[tokio::test]
async fn the_longest_name_can_be_written() {
    let scene = Scene::new();
    let place = raw(scene.at(&"n".repeat(243)));
    assert_eq!(deliver(&place, &etl(0)).await, WriteOutcome::Written);
}

/// Where a writer that is killed writes to; unset when this program runs as a test.
const VICTIM: &str = "ROTAD_TEST_FILE_TO_WRITE";

/// The number of the delivery that the file holds whole, if it holds any.
async fn number_held(place: &FilePlace) -> Option<u32> {
    let reading = place.read(&question("etl")).await.unwrap();
    let value = reading.value?;
    let number = value.expose().split('-').nth(2).unwrap().parse().unwrap();
    assert_eq!(value.expose(), etl(number).value.expose(), "the value is whole");
    let Shows::Value { rotation, .. } = reading.shows else { panic!("{:?}", reading.shows) };
    assert_eq!(rotation, Some(etl(number).rotation), "the marker explains the value");
    Some(number)
}

/// By itself: a few deliveries in a row. As the child of the next test: without an end.
#[tokio::test]
async fn deliveries_follow_each_other() {
    let victim = std::env::var_os(VICTIM);
    let scene = Scene::new();
    let place = raw(victim.clone().map_or_else(|| scene.at("token"), PathBuf::from));
    let first = number_held(&place).await.map_or(0, |number| number + 1);
    for number in first.. {
        assert_eq!(deliver(&place, &etl(number)).await, WriteOutcome::Written);
        assert_eq!(number_held(&place).await, Some(number));
        if victim.is_none() && number == 20 {
            break;
        }
    }
}

#[tokio::test]
async fn a_writer_killed_at_any_moment_leaves_a_whole_value_that_its_marker_explains() {
    let scene = Scene::new();
    let place = raw(scene.at("token"));
    let (mut killed_while_writing, mut held) = (0, None);
    for round in 0..200_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "deliveries_follow_each_other", "--nocapture"])
            .env(VICTIM, scene.at("token"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while fs::read(scene.at("token")).ok() == held {
            assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(round * 370 % 9000));
        child.kill().unwrap();
        child.wait().unwrap();
        killed_while_writing += u32::from(scene.names("").iter().any(|name| name.ends_with("-new")));
        let number = number_held(&place).await.expect("there was a value before");
        assert_eq!(scene.names(""), [".token.rotad", "token"], "the read removed what the crash left");
        assert_eq!(deliver(&place, &etl(number + 1)).await, WriteOutcome::Written);
        held = fs::read(scene.at("token")).ok();
        if round >= 40 && killed_while_writing >= 5 {
            break;
        }
    }
    eprintln!("{killed_while_writing} kills hit the middle of a write");
    assert!(killed_while_writing >= 5, "hardly a kill hit the middle of a write: the test shows nothing");
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
