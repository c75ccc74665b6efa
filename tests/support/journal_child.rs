//! A journal that is used in a process of its own, and killed there: what was answered must be in it.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rotad::journal::{Journal, JournalError, Save};
use rotad::rotation::Happened;

use super::journal_contract::{entry, name, save};

/// Tells the child of a test which journal it works on.
const CHILD: &str = "ROTAD_TEST_JOURNAL";

/// This test again, in a process of its own, with `journal` for it.
pub fn spawn_child(test: &str, journal: &str) -> Running {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, journal)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Running(child)
}

/// What `spawn_child` gave, in the child.
pub fn child_journal() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// A child that does not outlive a test that failed.
pub struct Running(pub Child);

impl Running {
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
    }

    pub fn wait(&mut self) {
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Eight tasks that save until the process is killed, and tell each answer: `saved <name> <version>`.
pub async fn save_until_killed(journal: Arc<dyn Journal>) {
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                let mut version = None;
                loop {
                    let next = version.map_or(1, |version: u64| version + 1);
                    let entries = vec![entry(0, Happened::Attempted), entry(0, Happened::Confirmed)];
                    let saved =
                        journal.save(Save { entries, ..save(&format!("c{task}"), version, &next.to_string()) }).await.unwrap();
                    version = Some(saved);
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "\nsaved c{task} {saved}").unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        let () = task.await.unwrap();
    }
}

/// Reads what the child tells until `enough` saves, and goes on to the end once `at_enough` was called.
pub fn follow(child: &mut Running, enough: usize, at_enough: impl FnOnce(&mut Running)) -> BTreeMap<String, u64> {
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let (mut told, mut count, mut at_enough) = (BTreeMap::new(), 0, Some(at_enough));
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        // A line that the kill cut short is no answer that anybody saw.
        if let ["saved", name, version] = words[..]
            && let Ok(version) = version.parse()
        {
            told.insert(name.to_owned(), version);
            count += 1;
        }
        if count >= enough
            && let Some(at_enough) = at_enough.take()
        {
            at_enough(child);
        }
    }
    assert!(at_enough.is_none(), "the child ended after {count} saves");
    told
}

/// That the journal holds what was told, and each save as a whole.
pub async fn judge(journal: &dyn Journal, told: BTreeMap<String, u64>) {
    assert_eq!(told.len(), 8);
    for (credential, version) in told {
        let row = journal.load(&name(&credential)).await.unwrap().unwrap();
        assert!(row.version >= version, "`{credential}` was answered {version}, the journal has {}", row.version);
        assert_eq!(row.state, row.version.to_string(), "state and version are of one save");
        let lines = journal.history(Some(&name(&credential)), usize::MAX).await.unwrap();
        assert_eq!(lines.len() as u64, 2 * row.version, "entries and version are of the same saves");
    }
}

/// A reader beside the child sees its saves, whole ones only, and can't write.
pub async fn reads_follow_the_writer(reader: &dyn Journal) {
    let first = reader.load(&name("c0")).await.unwrap().unwrap().version;
    loop {
        let row = reader.load(&name("c0")).await.unwrap().unwrap();
        assert_eq!(row.state, row.version.to_string());
        if row.version > first + 3 {
            break;
        }
    }
    assert!(!reader.history(None, 10).await.unwrap().is_empty());
    let error = reader.save(save("c0", Some(first), "wrong")).await.unwrap_err();
    assert!(matches!(&error, JournalError::Unwritable(text) if text.ends_with("was opened for reading only")), "{error}");
}
