//! The server or the way to it is lost: what was answered is true, and what is told of the rest is as much as is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rotad::journal::{Database, Journal, JournalError, PostgresJournal, Save};
use rotad::rotation::Happened;

use crate::cutter::{Cut, Cutter};
use crate::journal_contract::{entry, name, save};
use crate::{Server, open};

/// A journal behind a cutter.
async fn behind_a_cutter(server: &Server) -> (PostgresJournal, Cutter, Database) {
    let database = server.database().await;
    let cutter = Cutter::before(server.postgres.port).await;
    let journal = open(&server.over_tcp(&database, cutter.port)).await.unwrap();
    (journal, cutter, database)
}

fn next(expected: Option<u64>, state: &str) -> Save {
    Save { entries: vec![entry(0, Happened::Attempted)], ..save("etl", expected, state) }
}

/// Version and state of the row, and how many lines the history has.
async fn recorded(journal: &dyn Journal) -> (u64, String, usize) {
    let row = journal.load(&name("etl")).await.unwrap().unwrap();
    (row.version, row.state, journal.history(None, 100).await.unwrap().len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_looked_for_and_carried_out_once() {
    let server = Server::shared().await;
    let (journal, cutter, _) = behind_a_cutter(&server).await;
    let mut version = journal.save(next(None, "1")).await.unwrap();
    // Where the server does not know that its client is gone, its session and the lock stand until they are ended.
    for (cut, unnoticed) in [(Cut::Before, false), (Cut::After, false), (Cut::Before, true), (Cut::After, true)] {
        let cuts = cutter.cuts();
        cutter.cut(cut, unnoticed, false);
        version = journal.save(next(Some(version), &format!("{}", version + 1))).await.unwrap();
        assert_eq!(cutter.cuts(), cuts + 1, "{cut:?}");
        assert_eq!(recorded(&journal).await, (version, version.to_string(), usize::try_from(version).unwrap()), "{cut:?}");
    }
    // A fact has no version: it is written again.
    cutter.cut(Cut::After, false, false);
    journal.set_fact("fact", "value".to_owned()).await.unwrap();
    assert_eq!(journal.fact("fact").await.unwrap().as_deref(), Some("value"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_found_out_is_told_as_not_known_and_nothing_is_told_as_failed_that_may_be_recorded() {
    let server = Server::shared().await;
    let (journal, cutter, _) = behind_a_cutter(&server).await;
    let mut version = journal.save(next(None, "1")).await.unwrap();
    for (cut, is_recorded) in [(Cut::Before, false), (Cut::After, true)] {
        cutter.cut(cut, false, true);
        let error = journal.save(next(Some(version), "unsettled")).await.unwrap_err();
        assert!(matches!(&error, JournalError::Unsettled(text) if text.ends_with("was recorded is not known")), "{error}");
        cutter.let_through();
        let (found, state, _) = recorded(&journal).await;
        assert_eq!((found > version, state == "unsettled"), (is_recorded, is_recorded), "{cut:?}");
        version = journal.save(next(Some(found), "settled")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_nothing_is_recorded_and_with_one_it_goes_on() {
    let server = Server::shared().await;
    let (journal, cutter, database) = behind_a_cutter(&server).await;
    assert_eq!(journal.save(next(None, "1")).await.unwrap(), 1);
    cutter.cut_all_and_refuse();
    let error = journal.save(next(Some(1), "2")).await.unwrap_err();
    assert!(matches!(&error, JournalError::Unwritable(text) if text.contains("can't be reached")), "{error}");
    assert!(journal.probe().await.is_err());
    assert!(matches!(journal.load(&name("etl")).await, Err(JournalError::Unusable(_))));
    cutter.let_through();
    journal.probe().await.unwrap();
    assert_eq!(recorded(&journal).await, (1, "1".to_owned(), 1));
    assert_eq!(journal.save(next(Some(1), "2")).await.unwrap(), 2);
    // An operator who ends every session of rotad's is not noticed at all.
    let sessions = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'rotad' AND datname = $1";
    let ended = server.admin("postgres").await.query_one(sessions, &[&database.name]).await.unwrap();
    assert_eq!(ended.get::<_, i64>(0), 2);
    assert_eq!(journal.save(next(Some(2), "3")).await.unwrap(), 3);
    assert_eq!(recorded(&journal).await, (3, "3".to_owned(), 3));
}

/// The connection stands and nothing comes: it is given up after its time limit, and the server's half of it ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_hangs_is_given_up_and_the_save_carried_out_on_another() {
    let server = Server::shared().await;
    let (journal, cutter, _) = behind_a_cutter(&server).await;
    assert_eq!(journal.save(next(None, "1")).await.unwrap(), 1);
    cutter.hang();
    let saved = tokio::time::timeout(Duration::from_secs(60), journal.save(next(Some(1), "2"))).await;
    assert_eq!(saved.expect("no answer within a minute").unwrap(), 2);
    assert_eq!(recorded(&journal).await, (2, "2".to_owned(), 2));
}

/// A commit that waits for a standby is not told as done while no standby has it, though its rows show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_no_standby_has_is_not_told_as_done() {
    let server = Server::start().await;
    let journal = open(&server.database().await).await.unwrap();
    assert_eq!(journal.save(next(None, "1")).await.unwrap(), 1);
    let admin = server.admin("postgres").await;
    let standby = async |name: &str| {
        admin.batch_execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'")).await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    standby("nobody").await;
    let error = journal.save(next(Some(1), "2")).await.unwrap_err();
    assert!(matches!(error, JournalError::Unsettled(_)), "{error}");
    standby("").await;
    assert_eq!(recorded(&journal).await, (2, "2".to_owned(), 2));
    assert_eq!(journal.save(next(Some(2), "3")).await.unwrap(), 3);
}

/// One that was cut off for so long that another took its place writes nothing, until that one is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_another_process_took_meanwhile_is_written_by_that_one_alone() {
    let server = Server::shared().await;
    let (journal, cutter, database) = behind_a_cutter(&server).await;
    assert_eq!(journal.save(next(None, "1")).await.unwrap(), 1);
    cutter.cut_all_and_refuse();
    let other = loop {
        match open(&database).await {
            Err(JournalError::InUse(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(other.save(next(Some(1), "the other's")).await.unwrap(), 2);
    cutter.let_through();
    let error = journal.save(next(Some(1), "2")).await.unwrap_err();
    assert!(matches!(&error, JournalError::Unwritable(text) if text.contains("is in use by `rotad ")), "{error}");
    assert_eq!(recorded(&journal).await, (2, "the other's".to_owned(), 2));
    other.close().await;
    assert!(matches!(journal.save(next(Some(1), "2")).await, Err(JournalError::Conflict(_))));
    assert_eq!(journal.save(next(Some(2), "3")).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_was_dropped_or_replaced_under_rotad_takes_no_more_writes() {
    let server = Server::shared().await;
    let (journal, cutter, database) = behind_a_cutter(&server).await;
    journal.save(next(None, "1")).await.unwrap();
    cutter.cut_all_and_refuse();
    server.admin(&database.name).await.batch_execute("DROP SCHEMA rotad CASCADE").await.unwrap();
    cutter.let_through();
    let replaced = |result: Result<u64, JournalError>| {
        assert!(matches!(&result, Err(JournalError::Unwritable(text)) if text.contains("was replaced or dropped")), "{result:?}");
    };
    replaced(journal.save(next(Some(1), "2")).await);
    cutter.cut_all_and_refuse();
    open(&database).await.unwrap().close().await;
    cutter.let_through();
    replaced(journal.save(next(None, "2")).await);
}

/// Behind a pooler that gives each transaction another session, the lock is some other session's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_process_that_is_not_the_one_with_the_lock_is_written_to_by_nobody() {
    let server = Server::shared().await;
    let (journal, cutter, database) = behind_a_cutter(&server).await;
    assert_eq!(journal.save(next(None, "1")).await.unwrap(), 1);
    let sql = "SELECT pid FROM pg_stat_activity WHERE usename = 'rotad' AND datname = $1 AND query <> '' ORDER BY backend_start LIMIT 1";
    let backend: i32 = server.admin("postgres").await.query_one(sql, &[&database.name]).await.unwrap().get(0);
    cutter.pretend_to_be_another(backend);
    let error = journal.save(next(Some(1), "2")).await.unwrap_err();
    assert!(matches!(&error, JournalError::Unwritable(text) if text.contains("behind a pooler")), "{error}");
    assert_eq!(recorded(&open_to_read(&server, &database).await).await, (1, "1".to_owned(), 1));
}

async fn open_to_read(server: &Server, database: &Database) -> PostgresJournal {
    PostgresJournal::look(&server.over_tcp(database, server.postgres.port)).await.unwrap().unwrap()
}

/// The server crashes in the middle of saves and comes back: each answer was true, and nobody has to do anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_comes_back_has_what_was_answered() {
    let mut server = Server::start().await;
    let database = server.database().await;
    let journal: Arc<dyn Journal> = Arc::new(open(&database).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (journal, stop) = (journal.clone(), stop.clone());
            tokio::spawn(save_and_check(journal, format!("c{task}"), stop))
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        server.postgres.crash_and_start_again().await;
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        let version = task.await.unwrap();
        assert!(version > 10, "only {version} saves");
    }
}

/// Saves on and on; after each failure what is recorded must be what was told.
async fn save_and_check(journal: Arc<dyn Journal>, credential: String, stop: Arc<AtomicBool>) -> u64 {
    let mut version = None;
    while !stop.load(Ordering::SeqCst) {
        let state = version.map_or(1, |version: u64| version + 1).to_string();
        let entries = vec![entry(0, Happened::Attempted)];
        match journal.save(Save { entries, ..save(&credential, version, &state) }).await {
            Ok(saved) => version = Some(saved),
            Err(error) => {
                let row = loop {
                    match journal.load(&name(&credential)).await {
                        Ok(row) => break row.map(|row| row.version),
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                };
                match error {
                    JournalError::Unwritable(text) => assert_eq!(row, version, "told as not recorded: {text}"),
                    JournalError::Unsettled(_) => version = row,
                    other => panic!("{other}"),
                }
            }
        }
    }
    let version = version.unwrap();
    let row = journal.load(&name(&credential)).await.unwrap().unwrap();
    assert_eq!((row.version, row.state), (version, version.to_string()));
    let lines = journal.history(Some(&name(&credential)), usize::MAX).await.unwrap();
    assert_eq!(lines.len() as u64, version, "each save was carried out once");
    version
}
