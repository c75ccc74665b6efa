//! What every journal must do, whatever it is kept in: `journal_contract!(open)` makes the tests.
//!
//! `open` is an `async fn() -> Opened`: a journal of its own for each test. One that has no batches (the simulated one)
//! is held to the rest by `journal_contract!(open, without batches)`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rotad::journal::{CLOCK_MARK, Commit, From, HistoryLine, Journal, JournalError, Observer, Page, Row, Save};
use rotad::rotation::{CredentialName, DeliveryId, Entry, Happened, InstallationId, Moment, Reason, RotationId, Steady, TokenId};

/// A journal under test, and what its observer saw.
pub struct Opened {
    pub journal: Arc<dyn Journal>,
    pub commits: Arc<Commits>,
    /// Whatever must live as long as the journal (a temporary directory).
    pub _keep: Box<dyn std::any::Any>,
}

/// Counts commits; told to, it holds each one up, so that saves gather behind it.
#[derive(Default)]
pub struct Commits {
    pub count: AtomicUsize,
    pub writes: Mutex<Vec<usize>>,
    pub slow: std::sync::atomic::AtomicBool,
}

impl Commits {
    pub fn observer(self: &Arc<Self>) -> Observer {
        let commits = Arc::clone(self);
        Arc::new(move |commit: Commit| {
            commits.count.fetch_add(1, Ordering::SeqCst);
            commits.writes.lock().unwrap().push(commit.writes);
            if commits.slow.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        })
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

pub fn name(text: &str) -> CredentialName {
    text.parse().unwrap()
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

pub fn entry(second: i64, what: Happened) -> Entry {
    Entry { at: at(second), what, rotation: None, token: None, delivery: None, reason: None, detail: None, by: None }
}

pub fn save(credential: &str, expected: Option<u64>, state: &str) -> Save {
    Save {
        credential: name(credential),
        expected,
        state: state.to_owned(),
        wake_at: at(0),
        entries: Vec::new(),
        takes_over: None,
    }
}

fn full_entry() -> Entry {
    Entry {
        at: Timestamp::new(1_790_000_000, 123_456_789).unwrap(),
        what: Happened::WriteUnknown,
        rotation: Some(RotationId::mint(at(0), None, InstallationId(7), 9)),
        token: Some(TokenId("c3e1".to_owned())),
        delivery: Some(DeliveryId::new("file:/run/etl/token")),
        reason: Some(Reason::TimedOut),
        detail: Some("`é` \" \\ \n \0 🦆".to_owned()),
        by: Some("1000 (alice)".to_owned()),
    }
}

pub async fn a_saved_row_and_its_entries_come_back_as_they_were(journal: &dyn Journal) {
    assert_eq!(journal.load(&name("etl")).await.unwrap(), None);
    let wake_at = Timestamp::new(1_790_000_000, 999_999_999).unwrap();
    let state = r#"{"a":"\u0000é🦆"}"#;
    let first = Save { wake_at, entries: vec![full_entry()], ..save("etl", None, state) };
    assert_eq!(journal.save(first).await.unwrap(), 1);
    let row = Row { version: 1, state: state.to_owned(), wake_at };
    assert_eq!(journal.load(&name("etl")).await.unwrap(), Some(row));
    let line = HistoryLine { credential: name("etl"), entry: full_entry() };
    assert_eq!(journal.history(None, 10).await.unwrap(), [line]);
    assert_eq!(journal.save(Save { wake_at: Timestamp::MAX, ..save("etl", Some(1), "{}") }).await.unwrap(), 2);
    let row = Row { version: 2, state: "{}".to_owned(), wake_at: Timestamp::MAX };
    assert_eq!(journal.load(&name("etl")).await.unwrap(), Some(row));
}

pub async fn a_save_of_another_version_is_a_conflict_and_records_nothing(journal: &dyn Journal) {
    assert_eq!(journal.save(save("etl", None, "1")).await.unwrap(), 1);
    assert_eq!(journal.save(save("etl", Some(1), "2")).await.unwrap(), 2);
    for (credential, expected) in [("etl", None), ("etl", Some(1)), ("etl", Some(3)), ("absent", Some(1)), ("absent", Some(0))] {
        let wrong = Save { entries: vec![entry(0, Happened::Issued)], ..save(credential, expected, "wrong") };
        let error = journal.save(wrong).await.unwrap_err();
        assert!(matches!(&error, JournalError::Conflict(name) if name.as_str() == credential), "{expected:?}: {error}");
    }
    assert_eq!(journal.load(&name("etl")).await.unwrap().map(|row| (row.version, row.state)), Some((2, "2".to_owned())));
    assert_eq!(journal.load(&name("absent")).await.unwrap(), None);
    assert_eq!(journal.history(None, 10).await.unwrap(), []);
}

/// A renamed credential: one row and one history go on, or nothing changes.
pub async fn an_earlier_name_is_taken_over_whole_or_not_at_all(journal: &dyn Journal) {
    let told = |second| Save { entries: vec![entry(second, Happened::Issued)], ..save("old", None, "history") };
    journal.save(told(1)).await.unwrap();
    journal.save(save("new", None, "blocked")).await.unwrap();
    let takes_over = |from: &str, version| Some((name(from), version));
    let taking = Save { entries: vec![entry(2, Happened::Renamed)], ..save("new", Some(1), "history") };
    for (from, version) in [("old", 2), ("absent", 1)] {
        let wrong = Save { takes_over: takes_over(from, version), ..taking.clone() };
        let error = journal.save(wrong).await.unwrap_err();
        assert!(matches!(&error, JournalError::Conflict(name) if name.as_str() == from), "{error}");
    }
    let wrong = Save { takes_over: takes_over("old", 1), expected: Some(7), ..taking.clone() };
    assert!(matches!(journal.save(wrong).await.unwrap_err(), JournalError::Conflict(name) if name.as_str() == "new"));
    assert_eq!(journal.load(&name("old")).await.unwrap().map(|row| row.state), Some("history".to_owned()));
    assert_eq!(journal.history(Some(&name("old")), 10).await.unwrap().len(), 1);
    assert_eq!(journal.save(Save { takes_over: takes_over("old", 1), ..taking }).await.unwrap(), 2);
    assert_eq!(journal.load(&name("old")).await.unwrap(), None);
    assert_eq!(journal.load(&name("new")).await.unwrap().map(|row| row.state), Some("history".to_owned()));
    let lines = journal.history(Some(&name("new")), 10).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.entry.what).collect::<Vec<_>>(), [Happened::Renamed, Happened::Issued]);
    assert_eq!(journal.save(Save { takes_over: None, ..told(3) }).await.unwrap(), 1, "the name is free again");
}

/// Of 64 savers that read the same version exactly one wins, though they share a commit.
pub async fn a_conflict_does_not_fail_the_saves_beside_it(journal: &Arc<dyn Journal>, commits: &Commits) {
    commits.slow.store(true, Ordering::SeqCst);
    journal.save(save("contended", None, "0")).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let journal = Arc::clone(journal);
            tokio::spawn(async move {
                let own = journal.save(save(&format!("own-{task}"), None, "1")).await;
                let contended =
                    Save { entries: vec![entry(task, Happened::Issued)], ..save("contended", Some(1), &task.to_string()) };
                (own, journal.save(contended).await)
            })
        })
        .collect();
    let mut winners = 0;
    for task in tasks {
        let (own, contended) = task.await.unwrap();
        assert_eq!(own.unwrap(), 1);
        match contended {
            Ok(version) => {
                assert_eq!(version, 2);
                winners += 1;
            }
            Err(error) => assert!(matches!(error, JournalError::Conflict(_)), "{error}"),
        }
    }
    assert_eq!(winners, 1);
    let history = journal.history(Some(&name("contended")), 100).await.unwrap();
    assert_eq!(history.len(), 1);
    let row = journal.load(&name("contended")).await.unwrap().unwrap();
    assert_eq!(row.state, (history[0].entry.at.as_second() - at(0).as_second()).to_string());
}

pub async fn saves_at_the_same_time_share_commits(journal: &Arc<dyn Journal>, commits: &Commits) {
    commits.slow.store(true, Ordering::SeqCst);
    let before = commits.count();
    let left = Arc::new(AtomicUsize::new(1_000));
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let (journal, left) = (Arc::clone(journal), Arc::clone(&left));
            tokio::spawn(async move {
                let mut version = None;
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                    let entries = vec![entry(0, Happened::Issued)];
                    let next = Save { entries, ..save(&format!("task-{task}"), version, "{}") };
                    version = Some(journal.save(next).await.unwrap());
                }
                version.unwrap_or(0)
            })
        })
        .collect();
    let mut saved = 0;
    for task in tasks {
        saved += task.await.unwrap();
    }
    assert_eq!(saved, 1_000);
    assert_eq!(journal.history(None, 2_000).await.unwrap().len(), 1_000);
    let commits = commits.count() - before;
    assert!(commits < 250, "{commits} commits for 1000 saves");
}

/// Nothing is waited for to fill a batch: each of these is committed by itself.
pub async fn a_save_that_comes_alone_is_committed_alone(journal: &dyn Journal, commits: &Commits) {
    let before = commits.count();
    for index in 0..5 {
        journal.save(save(&format!("c{index}"), None, "{}")).await.unwrap();
        // The observer may be told only after the answer was sent, but always before the next commit.
        assert!(commits.count() - before <= index + 1);
    }
    assert!(commits.writes.lock().unwrap().iter().all(|writes| *writes == 1));
}

pub async fn rows_come_in_the_order_of_names_in_portions(journal: &dyn Journal) {
    let names: BTreeSet<String> = (0..25).map(|n| format!("{}-{n}", ["b", "a", "_", "z9"][n % 4])).collect();
    for credential in names.iter().rev() {
        journal.save(save(credential, None, credential)).await.unwrap();
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let portion = journal.load_after(after.as_ref(), 10).await.unwrap();
        assert!(portion.len() <= 10);
        let Some((last, _)) = portion.last() else { break };
        after = Some(last.clone());
        found.extend(portion);
    }
    assert_eq!(found.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>(), names.into_iter().collect::<Vec<_>>());
    assert!(found.iter().all(|(name, row)| row.state == name.as_str() && row.version == 1));
}

pub async fn the_history_is_newest_first_of_one_credential_or_of_all(journal: &dyn Journal) {
    for (credential, second) in [("a", 1), ("b", 2), ("a", 3)] {
        let row = journal.load(&name(credential)).await.unwrap();
        let entries = vec![entry(second, Happened::Attempted), entry(second, Happened::Confirmed)];
        journal.save(Save { entries, ..save(credential, row.map(|row| row.version), "{}") }).await.unwrap();
    }
    let shown = |lines: Vec<HistoryLine>| -> Vec<(String, i64, Happened)> {
        lines
            .into_iter()
            .map(|line| (line.credential.to_string(), (line.entry.at - at(0)).get_seconds(), line.entry.what))
            .collect()
    };
    use Happened::{Attempted, Confirmed};
    let a = shown(journal.history(Some(&name("a")), 3).await.unwrap());
    assert_eq!(a, [("a".into(), 3, Confirmed), ("a".into(), 3, Attempted), ("a".into(), 1, Confirmed)]);
    let all = shown(journal.history(None, 3).await.unwrap());
    assert_eq!(all, [("a".into(), 3, Confirmed), ("a".into(), 3, Attempted), ("b".into(), 2, Confirmed)]);
}

pub async fn the_history_is_read_in_portions_from_either_end(journal: &dyn Journal) {
    for (credential, seconds) in [("a", 0..4), ("b", 4..7)] {
        let entries = seconds.map(|second| entry(second, Happened::Attempted)).collect();
        journal.save(Save { entries, ..save(credential, None, "{}") }).await.unwrap();
    }
    let page = |credential: Option<&str>, from, limit| Page {
        credential: credential.map(name),
        since: at(1),
        until: at(6),
        from,
        limit,
    };
    let read = async |page| -> (Vec<u64>, Vec<i64>) {
        let lines = journal.history_page(page).await.unwrap().into_iter();
        lines.map(|(number, line)| (number, (line.entry.at - at(0)).get_seconds())).unzip()
    };
    let (numbers, seconds) = read(page(None, From::After(0), 3)).await;
    assert_eq!(seconds, [1, 2, 3], "those before `since` are left out");
    let (_, seconds) = read(page(None, From::After(numbers[2]), 3)).await;
    assert_eq!(seconds, [4, 5], "and so are those from `until` on");
    let (numbers, seconds) = read(page(None, From::Before(u64::MAX), 3)).await;
    assert_eq!(seconds, [5, 4, 3]);
    assert_eq!(read(page(None, From::Before(numbers[2]), 9)).await.1, [2, 1]);
    assert_eq!(read(page(Some("b"), From::After(0), 9)).await.1, [4, 5]);
}

pub async fn pruning_removes_what_is_older_and_nothing_else(journal: &dyn Journal) {
    let old = (0..5_000).map(|n| entry(n % 10, Happened::Attempted));
    let entries = old.chain([entry(10, Happened::Confirmed), entry(11, Happened::Promoted)]).collect();
    journal.save(Save { entries, ..save("etl", None, "{}") }).await.unwrap();
    assert_eq!(journal.prune_history(at(10)).await.unwrap(), 5_000);
    let left: Vec<_> = journal.history(None, 10).await.unwrap().into_iter().map(|line| line.entry.what).collect();
    assert_eq!(left, [Happened::Promoted, Happened::Confirmed]);
    assert_eq!(journal.prune_history(at(10)).await.unwrap(), 0);
    assert_eq!(journal.load(&name("etl")).await.unwrap().map(|row| row.version), Some(1));
}

pub async fn facts_are_kept_by_name(journal: &dyn Journal) {
    assert_eq!(journal.fact("admin/main").await.unwrap(), None);
    for value in ["one", "two", ""] {
        journal.set_fact("admin/main", value.to_owned()).await.unwrap();
        assert_eq!(journal.fact("admin/main").await.unwrap().as_deref(), Some(value));
    }
    assert_eq!(journal.fact("admin/other").await.unwrap(), None);
}

pub async fn the_clocks_mark_goes_with_the_next_commit(journal: &dyn Journal, commits: &Commits) {
    let before = commits.count();
    for second in [1, 2] {
        let mark = Moment { wall: at(second), steady: Steady(second) };
        journal.mark_clock(mark).await.unwrap();
    }
    assert_eq!(journal.fact(CLOCK_MARK).await.unwrap(), None);
    assert_eq!(commits.count(), before, "a mark makes no commit of its own");
    journal.save(save("etl", None, "{}")).await.unwrap();
    let saved = journal.fact(CLOCK_MARK).await.unwrap().unwrap();
    let saved: Moment = serde_json::from_str(&saved).unwrap();
    assert_eq!(saved, Moment { wall: at(2), steady: Steady(2) });
}

pub async fn a_probe_is_a_durable_write(journal: &dyn Journal, commits: &Commits) {
    let before = commits.count();
    journal.probe().await.unwrap();
    journal.probe().await.unwrap();
    assert!(commits.count() > before);
}

pub async fn what_was_asked_for_before_the_close_is_durable_and_later_is_refused(journal: &Arc<dyn Journal>, commits: &Commits) {
    commits.slow.store(true, Ordering::SeqCst);
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let journal = Arc::clone(journal);
            tokio::spawn(async move { journal.save(save(&format!("c{task}"), None, "{}")).await })
        })
        .collect();
    tokio::task::yield_now().await;
    journal.close().await;
    for task in tasks {
        match task.await.unwrap() {
            Ok(version) => assert_eq!(version, 1),
            Err(error) => assert!(matches!(error, JournalError::Unwritable(_)), "{error}"),
        }
    }
    let error = journal.save(save("late", None, "{}")).await.unwrap_err();
    assert!(matches!(&error, JournalError::Unwritable(text) if text.ends_with("is closed")), "{error}");
    journal.close().await;
}

/// JSON of any content: keys and texts of any characters, deep and flat.
pub fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            proptest::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

pub async fn states_of_any_content_round_trip(journal: &dyn Journal) {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::default();
    let (json, wake) = (any_json(), 0_i64..4_000_000_000);
    let mut version = None;
    for _ in 0..150 {
        let state = json.new_tree(&mut runner).unwrap().current().to_string();
        let wake_at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(wake.new_tree(&mut runner).unwrap().current());
        version = Some(journal.save(Save { wake_at, ..save("etl", version, &state) }).await.unwrap());
        let row = journal.load(&name("etl")).await.unwrap().unwrap();
        assert_eq!(row, Row { version: version.unwrap(), state, wake_at });
    }
}

#[macro_export]
macro_rules! journal_contract {
    ($open:path) => {
        $crate::journal_contract!($open, without batches);
        $crate::journal_contract!(@counted $open; by_ref; saves_at_the_same_time_share_commits);
    };
    ($open:path, without batches) => {
        $crate::journal_contract!(@one $open;
            a_saved_row_and_its_entries_come_back_as_they_were,
            a_save_of_another_version_is_a_conflict_and_records_nothing,
            an_earlier_name_is_taken_over_whole_or_not_at_all,
            rows_come_in_the_order_of_names_in_portions,
            the_history_is_newest_first_of_one_credential_or_of_all,
            the_history_is_read_in_portions_from_either_end,
            pruning_removes_what_is_older_and_nothing_else,
            facts_are_kept_by_name,
            states_of_any_content_round_trip);
        $crate::journal_contract!(@counted $open; as_ref;
            a_save_that_comes_alone_is_committed_alone,
            the_clocks_mark_goes_with_the_next_commit,
            a_probe_is_a_durable_write);
        $crate::journal_contract!(@counted $open; by_ref;
            a_conflict_does_not_fail_the_saves_beside_it,
            what_was_asked_for_before_the_close_is_durable_and_later_is_refused);
    };
    (@one $open:path; $($test:ident),*) => {$(
        #[tokio::test]
        async fn $test() {
            let opened = $open().await;
            journal_contract::$test(opened.journal.as_ref()).await;
        }
    )*};
    (@counted $open:path; as_ref; $($test:ident),*) => {$(
        #[tokio::test]
        async fn $test() {
            let opened = $open().await;
            journal_contract::$test(opened.journal.as_ref(), &opened.commits).await;
        }
    )*};
    (@counted $open:path; by_ref; $($test:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let opened = $open().await;
            journal_contract::$test(&opened.journal, &opened.commits).await;
        }
    )*};
}
