//! A journal that was lost, restored, or has a rival.

use std::path::Path;

use crate::plain::{FAST, Plain, SLOW, fingerprint};

const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "journal.db-shm"];

fn copy(from: &Path, to: &Path) {
    for name in FILES {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

/// What the file serves is live: held true at every look of a wait.
fn serves_nothing_dead(plain: &Plain) {
    let served = plain.served("etl").unwrap();
    let revoked = plain.effects("revoke_token").contains(&fingerprint(&served));
    // A value that was replaced meanwhile may be dead by now.
    let replaced = plain.served("etl").as_ref() != Some(&served);
    assert!(replaced || !revoked, "the file serves a revoked token\n{}", plain.log());
}

#[test]
fn without_its_journal_it_takes_over_what_is_served() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    plain.rotad_delivering(&["etl"]).stop();
    let before = plain.served("etl");
    let expires = plain.line("etl")["expires_at"].clone();
    FILES.iter().for_each(|name| drop(std::fs::remove_file(plain.path("journal").join(name))));
    let mut rotad = plain.rotad();
    plain.until("the rebuild", || plain.path("journal/journal.db").exists() && plain.line("etl")["state"] == "current");
    let line = plain.line("etl");
    assert_eq!((&line["tokens"]["current"], &line["expires_at"]), (&1.into(), &expires), "{line}");
    assert_eq!((plain.issued(), plain.revoked(), plain.served("etl")), (1, 0, before), "{}", plain.log());
    assert!(plain.log().contains("taken over"), "{}", plain.log());
    rotad.stop();
}

#[test]
fn a_journal_from_before_revokes_nothing_that_is_served() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the first revocation", || plain.revoked() >= 1);
    rotad.stop();
    std::fs::create_dir(plain.path("backup")).unwrap();
    copy(&plain.path("journal"), &plain.path("backup"));
    let issued = plain.issued();
    let mut rotad = plain.rotad();
    plain.until("two more rotations", || plain.issued() >= issued + 2 && plain.serves_live("etl"));
    rotad.stop();
    copy(&plain.path("backup"), &plain.path("journal"));
    let (issued, revoked) = (plain.issued(), plain.revoked());
    let mut rotad = plain.rotad();
    plain.until("two more rotations", || {
        serves_nothing_dead(&plain);
        plain.issued() >= issued + 2 && plain.revoked() > revoked
    });
    plain.until("the one current token", || {
        serves_nothing_dead(&plain);
        let line = plain.line("etl");
        line["block"].is_null() && line["tokens"]["lost"] == 0 && line["tokens"]["orphaned"] == 0
    });
    rotad.stop();
}

#[test]
fn a_rival_of_the_same_name_is_told_and_kept_from_work() {
    let plain = Plain::start();
    let first = plain.head() + &plain.credential("etl", SLOW);
    let second = first.replace("journal.db", "second.db");
    // The second one's journal is an hour old when the first issues its token.
    plain.configure(&second.replace("[credential.etl]", "[credential.idle]").replace("sinks/etl", "sinks/idle"));
    plain.rotad_delivering(&["idle"]).stop();
    let journal = rusqlite::Connection::open(plain.path("journal/second.db")).unwrap();
    let created: String = journal.query_row("SELECT created_at FROM identity", [], |row| row.get(0)).unwrap();
    let hour = jiff::SignedDuration::from_hours(1);
    let earlier = created.parse::<jiff::Timestamp>().unwrap() - hour;
    assert_eq!(journal.execute("UPDATE identity SET created_at = ?1", [earlier.to_string()]).unwrap(), 1);
    drop(journal);
    plain.configure(&first);
    plain.rotad_delivering(&["etl"]).stop();
    let served = plain.served("etl");
    plain.configure(&second);
    let mut rotad = plain.rotad();
    plain.until("the block", || plain.line("etl")["blocked"] == "second_installation");
    let text = plain.ask(&["status"]).out;
    assert!(text.contains("another installation") && text.contains("stop one of the two"), "{text}");
    assert_eq!((plain.issued(), plain.revoked(), plain.served("etl")), (2, 0, served));
    plain.until("the metric", || plain.metric("rotad_blocked{reason=\"second_installation\"}") == Some(1.0));
    rotad.stop();
}
