//! The SQLite journal: the contract of every journal, and what only a file on a disk can meet.
//! Runs as root: it mounts small file systems to fill them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

#[path = "support/journal_child.rs"]
mod journal_child;
#[path = "support/journal_contract.rs"]
mod journal_contract;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rotad::journal::{Journal, JournalError, Save, SqliteJournal};
use rotad::rotation::Happened;
use tempfile::TempDir;

use journal_child::{child_journal, follow, judge, reads_follow_the_writer, save_until_killed, spawn_child};
use journal_contract::{Commits, Opened, at, entry, name, save};

async fn open_new() -> Opened {
    let directory = tempfile::tempdir().unwrap();
    let commits = Arc::new(Commits::default());
    let journal = SqliteJournal::open(&directory.path().join("journal.db"), at(0), commits.observer()).unwrap();
    Opened { journal: Arc::new(journal), commits, _keep: Box::new(directory) }
}

journal_contract!(open_new);

/// A child process that another test begins has our locks with it until it runs its own program, so a journal that was
/// closed just now may seem to be in use for a moment.
fn open(path: &Path) -> Result<SqliteJournal, JournalError> {
    let open = || SqliteJournal::open(path, at(0), Arc::new(|_| {}));
    for _ in 0..20 {
        match open() {
            Err(JournalError::InUse(_)) => std::thread::sleep(std::time::Duration::from_millis(20)),
            opened => return opened,
        }
    }
    open()
}

fn unusable(result: Result<SqliteJournal, JournalError>) -> String {
    match result {
        Err(JournalError::Unusable(text)) => text,
        other => panic!("expected `Unusable`, found {other:?}"),
    }
}

fn in_directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    (directory, path)
}

/// A journal with 300 credentials, closed.
async fn filled(path: &Path) {
    let journal = Arc::new(open(path).unwrap());
    let tasks: Vec<_> = (0..300)
        .map(|n| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move { journal.save(save(&format!("c{n}"), None, &"x".repeat(500))).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    journal.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_answered_is_lost_by_kill_9() {
    if let Some(path) = child_journal() {
        return save_until_killed(Arc::new(open(Path::new(&path)).unwrap())).await;
    }
    let (_directory, path) = in_directory();
    for round in 1..=3 {
        let _ = std::fs::remove_file(&path);
        let mut child = spawn_child("nothing_that_was_answered_is_lost_by_kill_9", path.to_str().unwrap());
        let told = follow(&mut child, 100 * round, |child| child.kill());
        child.wait();
        judge(&open(&path).expect("the kernel released the lock"), told).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_refused_and_told_who_has_it_and_may_read_meanwhile() {
    if let Some(path) = child_journal() {
        return save_until_killed(Arc::new(open(Path::new(&path)).unwrap())).await;
    }
    let (directory, path) = in_directory();
    let link = directory.path().join("link.db");
    let mut child = spawn_child("a_second_process_is_refused_and_told_who_has_it_and_may_read_meanwhile", path.to_str().unwrap());
    let runtime = tokio::runtime::Handle::current();
    let told = tokio::task::block_in_place(|| {
        follow(&mut child, 50, |child| {
            let expected = format!("is in use by process {} on", child.0.id());
            let error = open(&path).unwrap_err();
            assert!(matches!(&error, JournalError::InUse(text) if text.contains(&expected)), "{error}");
            // Another path to the same file has another lock file; the lock on the file itself still stands.
            std::fs::hard_link(&path, &link).unwrap();
            assert!(matches!(open(&link), Err(JournalError::InUse(_))));
            runtime.block_on(reads_follow_the_writer(&SqliteJournal::open_read_only(&path).unwrap()));
            child.kill();
        })
    });
    child.wait();
    assert_eq!(told.len(), 8);
    let journal = open(&path).unwrap();
    assert_eq!(journal.load_after(None, 100).await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_journal_keeps_identity_rows_and_facts_when_it_is_opened_again() {
    let (_directory, path) = in_directory();
    let first = open(&path).unwrap();
    first.save(save("etl", None, "{}")).await.unwrap();
    first.set_fact("fact", "value".to_owned()).await.unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(&error, JournalError::InUse(text) if text.contains(&std::process::id().to_string())), "{error}");
    let identity = first.identity();
    drop(first);
    let again = SqliteJournal::open(&path, at(1_000), Arc::new(|_| {})).unwrap();
    assert_eq!(again.identity(), identity);
    assert_eq!(again.identity().created_at, at(0));
    assert_eq!(again.load(&name("etl")).await.unwrap().map(|row| row.version), Some(1));
    assert_eq!(again.fact("fact").await.unwrap().as_deref(), Some("value"));
    drop(again);
    std::fs::remove_file(&path).unwrap();
    assert_ne!(open(&path).unwrap().identity().installation, identity.installation, "a new journal is a new installation");
}

#[tokio::test]
async fn every_file_of_a_journal_is_for_its_owner_alone() {
    let (directory, path) = in_directory();
    let journal = open(&path).unwrap();
    journal.save(save("etl", None, "{}")).await.unwrap();
    let mut names = Vec::new();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        names.push(file.file_name().into_string().unwrap());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
    names.sort();
    assert_eq!(names, ["journal.db", "journal.db-shm", "journal.db-wal", "journal.db.lock"]);
}

#[tokio::test]
async fn a_closed_journal_is_one_file() {
    // Two threads end at the same time: whichever comes first.
    for number in 0..200 {
        let (directory, path) = in_directory();
        let journal = open(&path).unwrap();
        journal.save(save(&format!("c{number}"), None, "{}")).await.unwrap();
        journal.load(&name("c0")).await.unwrap();
        journal.close().await;
        let left = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<String> = left.collect();
        left.sort();
        assert_eq!(left, ["journal.db", "journal.db.lock"], "the {number}th time");
    }
}

#[test]
fn a_journal_that_can_not_be_is_refused_with_what_to_do() {
    let (directory, path) = in_directory();
    let text = unusable(open(&directory.path().join("absent/journal.db")));
    assert!(text.contains("absent` of journal") && text.contains("create it"), "{text}");
    let text = unusable(open(directory.path()));
    assert!(text.contains("is not a regular file"), "{text}");
    let text = unusable(SqliteJournal::open_read_only(&path));
    assert!(text.contains("does not exist: rotad has not run yet"), "{text}");
    assert!(!path.exists(), "reading makes no journal");
    std::fs::write(&path, "").unwrap();
    assert!(SqliteJournal::look(&path).unwrap().is_none(), "what a daemon has only just begun");
    std::fs::remove_file(&path).unwrap();

    std::fs::write(&path, "not a database, whatever its name says ".repeat(100)).unwrap();
    for text in [unusable(open(&path)), unusable(SqliteJournal::open_read_only(&path))] {
        assert!(text.contains("is damaged or not a journal of rotad") && text.contains("or delete `"), "{text}");
    }
    std::fs::write(&path, "").unwrap();
    assert!(open(&path).is_ok(), "an empty file is a journal that never began");
}

#[tokio::test]
async fn a_damaged_or_newer_journal_and_a_foreign_database_are_refused() {
    let (directory, path) = in_directory();
    filled(&path).await;
    let whole = std::fs::read(&path).unwrap();

    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let text = unusable(open(&path));
    assert!(text.contains("is damaged") && text.contains("or delete `"), "{text}");

    std::fs::write(&path, &whole).unwrap();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    for text in [unusable(open(&path)), unusable(SqliteJournal::open_read_only(&path))] {
        assert!(text.contains("was written by a newer rotad (its schema has version 99, this rotad knows up to 1)"), "{text}");
    }

    let foreign = directory.path().join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    let text = unusable(open(&foreign));
    assert!(text.contains("is an SQLite database, but not a journal of rotad"), "{text}");
    assert_eq!(std::fs::read(&foreign).unwrap(), before, "a foreign database is not touched");
}

#[test]
fn a_directory_that_rotads_user_can_not_write_to_is_named() {
    let (directory, path) = in_directory();
    drop(open(&path).unwrap());
    let closed = directory.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    // The user id is a thread's own, so only this one becomes nobody.
    let texts = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        [unusable(open(&path)), unusable(open(&closed.join("journal.db")))]
    });
    for text in texts.join().unwrap() {
        assert!(text.contains("can't be opened for writing (Permission denied"), "{text}");
        assert!(text.contains("must be writable for the user that rotad runs as"), "{text}");
    }
}

#[tokio::test]
async fn a_journal_that_was_deleted_under_rotad_takes_no_more_writes() {
    let (directory, path) = in_directory();
    let journal = open(&path).unwrap();
    journal.save(save("etl", None, "{}")).await.unwrap();
    let elsewhere = directory.path().join("elsewhere.db");
    std::fs::rename(&path, &elsewhere).unwrap();
    let error = journal.save(save("etl", Some(1), "{}")).await.unwrap_err();
    assert!(matches!(&error, JournalError::Unwritable(text) if text.contains("was deleted or replaced")), "{error}");
    assert!(matches!(open(&path), Err(JournalError::InUse(_))), "a deleted database does not end the hold");
    std::fs::rename(&elsewhere, &path).unwrap();
    assert_eq!(journal.save(save("etl", Some(1), "{}")).await.unwrap(), 2);
}

/// A small file system of its own.
struct Small {
    directory: TempDir,
}

impl Small {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(directory.path()));
        Self { directory }
    }

    fn journal(&self) -> PathBuf {
        self.directory.path().join("journal.db")
    }

    fn filler(&self) -> PathBuf {
        self.directory.path().join("filler")
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        let error = std::iter::repeat_with(|| file.write_all(&[7; 1_024])).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run(Command::new("umount").arg(self.directory.path()));
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status} (these tests run as root)");
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_journal_works_again_when_there_is_room() {
    let small = Small::mount();
    let journal = open(&small.journal()).unwrap();
    assert_eq!(journal.save(save("etl", None, "before")).await.unwrap(), 1);
    small.fill();
    let large = "x".repeat(100_000);
    for _ in 0..3 {
        let refused = Save { entries: vec![entry(0, Happened::Issued)], ..save("etl", Some(1), &large) };
        let error = journal.save(refused).await.unwrap_err();
        assert!(matches!(&error, JournalError::Unwritable(text) if text.contains("is full: make room")), "{error}");
    }
    assert!(matches!(journal.probe().await, Err(JournalError::Unwritable(_))));
    let row = journal.load(&name("etl")).await.unwrap().unwrap();
    assert_eq!((row.version, row.state.as_str()), (1, "before"), "reading goes on, and nothing half-done shows");
    assert_eq!(journal.history(None, 10).await.unwrap(), []);

    small.make_room();
    journal.probe().await.unwrap();
    assert_eq!(journal.save(save("etl", Some(1), &large)).await.unwrap(), 2);
    drop(journal);
    let row = open(&small.journal()).unwrap().load(&name("etl")).await.unwrap().unwrap();
    assert_eq!((row.version, row.state), (2, large));
}

#[tokio::test]
async fn a_save_without_room_does_not_fail_the_one_that_shares_its_commit() {
    let small = Small::mount();
    let commits = Arc::new(Commits::default());
    let journal = SqliteJournal::open(&small.journal(), at(0), commits.observer()).unwrap();
    // While the observer holds up this commit, the next two saves gather behind it.
    commits.slow.store(true, std::sync::atomic::Ordering::SeqCst);
    journal.save(save("first", None, "{}")).await.unwrap();
    let too_large = "x".repeat(4_000_000);
    let (large, small_one) = tokio::join!(journal.save(save("large", None, &too_large)), journal.save(save("small", None, "{}")));
    assert!(matches!(large, Err(JournalError::Unwritable(_))), "{large:?}");
    assert_eq!(small_one.unwrap(), 1);
    assert_eq!(journal.load(&name("large")).await.unwrap(), None);
}

#[test]
fn a_full_or_read_only_disk_is_refused_at_the_start() {
    let small = Small::mount();
    small.fill();
    let text = unusable(open(&small.journal()));
    assert!(text.contains("is full: make room"), "{text}");
    small.make_room();
    drop(open(&small.journal()).unwrap());
    small.fill();
    let text = unusable(open(&small.journal()));
    assert!(text.contains("is full: make room"), "{text}");
    small.make_room();
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(small.directory.path()));
    let text = unusable(open(&small.journal()));
    assert!(text.contains("its file system is read-only"), "{text}");
}
