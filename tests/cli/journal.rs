//! A journal that was lost, restored, or has a rival.

use std::path::Path;

use crate::plain::{FAST, Plain, SLOW};

const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "journal.db-shm"];

fn copy(from: &Path, to: &Path) {
    for name in FILES {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
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
        plain.serves_nothing_dead("etl");
        plain.issued() >= issued + 2 && plain.revoked() > revoked
    });
    plain.until("the one current token", || {
        plain.serves_nothing_dead("etl");
        let line = plain.line("etl");
        line["block"].is_null() && line["tokens"]["lost"] == 0 && line["tokens"]["orphaned"] == 0
    });
    rotad.stop();
}

/// Runs it until it has rotated, so that its journal has something to lose, and stops it.
fn a_used_journal() -> Plain {
    let plain = Plain::start();
    plain.configure_with(&["etl"], FAST);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the first revocation", || plain.revoked() >= 1);
    rotad.stop();
    plain
}

/// From the state that it finds it goes on, and revokes nothing that is served.
fn goes_on(plain: &Plain) {
    let (issued, revoked) = (plain.issued(), plain.revoked());
    let mut rotad = plain.rotad();
    plain.until("the next rotations", || {
        plain.serves_nothing_dead("etl");
        plain.issued() >= issued + 2 && plain.revoked() > revoked
    });
    let line = plain.line("etl");
    assert!(line["block"].is_null() && line["tokens"]["lost"] == 0, "{line}");
    plain.keeps_its_secrets();
    rotad.stop();
}

#[test]
fn a_damaged_journal_is_refused_with_what_to_do_and_that_helps() {
    type Damage = fn(&mut Vec<u8>);
    let half = |journal: &mut Vec<u8>| journal.truncate(journal.len() / 2);
    let head = |journal: &mut Vec<u8>| journal.truncate(100);
    let garbage = |journal: &mut Vec<u8>| journal.iter_mut().for_each(|byte| *byte ^= 0xa5);
    let middle = |journal: &mut Vec<u8>| journal.iter_mut().skip(4096).for_each(|byte| *byte = 0);
    let damages: [(&str, Damage); 4] =
        [("cut in half", half), ("cut to its head", head), ("garbage", garbage), ("zeroes behind the first page", middle)];
    let plain = a_used_journal();
    std::fs::create_dir(plain.path("backup")).unwrap();
    copy(&plain.path("journal"), &plain.path("backup"));
    let (issued, revoked) = (plain.issued(), plain.revoked());
    for (name, damage) in damages {
        copy(&plain.path("backup"), &plain.path("journal"));
        let mut journal = std::fs::read(plain.path("journal/journal.db")).unwrap();
        damage(&mut journal);
        std::fs::write(plain.path("journal/journal.db"), journal).unwrap();
        for command in ["run", "status"] {
            plain.ask(&[command]).complains(1, &["damaged", "restore it from a backup, or delete", "rebuilds from MotherDuck"]);
        }
        assert_eq!((plain.issued(), plain.revoked()), (issued, revoked), "with a journal {name}");
        assert!(plain.serves_live("etl"));
    }
    FILES.iter().for_each(|name| drop(std::fs::remove_file(plain.path("journal").join(name))));
    goes_on(&plain);
}

#[test]
fn an_emptied_journal_is_a_lost_one() {
    let plain = a_used_journal();
    FILES.iter().for_each(|name| drop(std::fs::remove_file(plain.path("journal").join(name))));
    std::fs::write(plain.path("journal/journal.db"), "").unwrap();
    plain.ask(&["status"]).complains(1, &["is empty", "has not run yet"]);
    goes_on(&plain);
    assert!(plain.log().contains("taken over"), "{}", plain.log());
}

#[test]
fn a_journal_that_is_cut_or_deleted_while_it_runs_costs_no_served_token() {
    for is_deleted in [false, true] {
        let plain = a_used_journal();
        let mut rotad = plain.rotad_delivering(&["etl"]);
        plain.until("readiness", || plain.ready().0 == 200);
        if is_deleted {
            FILES.iter().for_each(|name| drop(std::fs::remove_file(plain.path("journal").join(name))));
            plain.until("what it says", || plain.log().contains("deleted or replaced while rotad runs"));
        } else {
            let journal = std::fs::File::options().write(true).open(plain.path("journal/journal.db")).unwrap();
            journal.set_len(journal.metadata().unwrap().len() / 2).unwrap();
        }
        // Two due times pass, whether anything can be done or not.
        for _ in 0..90 {
            plain.serves_nothing_dead("etl");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        rotad.terminate(std::time::Duration::from_secs(20)).expect("it ends within 20 s");
        if !is_deleted {
            // What was cut off may stand in the log beside the journal, and then nothing is missing.
            let again = plain.ask_within(&["run"], std::time::Duration::from_secs(5));
            if again.code == 1 {
                again.complains(1, &["damaged", "restore it from a backup, or delete"]);
                FILES.iter().for_each(|name| drop(std::fs::remove_file(plain.path("journal").join(name))));
            }
        }
        goes_on(&plain);
    }
}

/// The journal was made an hour earlier than it was.
fn make_older(plain: &Plain, name: &str) {
    let journal = rusqlite::Connection::open(plain.path("journal").join(name)).unwrap();
    let created: String = journal.query_row("SELECT created_at FROM identity", [], |row| row.get(0)).unwrap();
    let earlier = created.parse::<jiff::Timestamp>().unwrap() - jiff::SignedDuration::from_hours(1);
    assert_eq!(journal.execute("UPDATE identity SET created_at = ?1", [earlier.to_string()]).unwrap(), 1);
}

#[test]
fn a_rival_of_the_same_name_is_told_and_kept_from_work() {
    let plain = Plain::start();
    let first = plain.head() + &plain.credential("etl", SLOW);
    let second = first.replace("journal.db", "second.db");
    // The second one's journal is an hour old when the first issues its token.
    plain.configure(&second.replace("[credential.etl]", "[credential.idle]").replace("sinks/etl", "sinks/idle"));
    plain.rotad_delivering(&["idle"]).stop();
    make_older(&plain, "second.db");
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

#[test]
fn two_installations_of_one_name_at_the_same_time_break_no_consumer() {
    let plain = Plain::start();
    let first = plain.head() + &plain.credential("etl", FAST);
    std::fs::write(plain.path("second.toml"), first.replace("journal.db", "second.db")).unwrap();
    plain.configure(&first);
    let mut one = plain.rotad_delivering(&["etl"]);
    let mut two = plain.launch(plain.command(&["run"]).env("ROTAD_CONFIG", plain.path("second.toml")));
    // Both journals are young: neither can tell the other from its own past, so each takes over what it
    // finds, and may only revoke what it issued itself.
    let revoked = plain.revoked();
    plain.until("revocations", || {
        plain.serves_nothing_dead("etl");
        plain.revoked() >= revoked + 3
    });
    for rotad in [&mut one, &mut two] {
        assert!(rotad.ended().is_none(), "{}", plain.log());
        rotad.stop();
    }
    // An hour later each knows that the other is no past of its own.
    for name in ["journal.db", "second.db"] {
        make_older(&plain, name);
    }
    let mut one = plain.rotad();
    let mut two = plain.launch(plain.command(&["run"]).env("ROTAD_CONFIG", plain.path("second.toml")));
    let blocked = |config: &str| {
        let answer = crate::plain::Answer::of(plain.command(&["status"]).env("ROTAD_CONFIG", plain.path(config)));
        answer.out.contains("another installation") && answer.out.contains("stop one of the two")
    };
    plain.until("a block", || {
        plain.serves_nothing_dead("etl");
        blocked("rotad.toml") || blocked("second.toml")
    });
    for rotad in [&mut one, &mut two] {
        rotad.stop();
    }
    assert!(plain.serves_live("etl"));
}

#[test]
fn the_history_is_kept_as_long_as_the_configuration_says() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    plain.rotad_delivering(&["etl"]).stop();
    let recorded = plain.ask(&["history", "--all"]).out.lines().count();
    assert!(recorded >= 6, "{recorded}");
    // The first three lines become 30 days old, and one of the rest nearly so.
    let journal = rusqlite::Connection::open(plain.path("journal/journal.db")).unwrap();
    let month = 30_i64 * 86_400 * 1_000_000;
    let age = |first: i64, last: i64, by: i64| {
        journal.execute("UPDATE history SET at = at - ?1 WHERE id BETWEEN ?2 AND ?3", [by, first, last]).unwrap()
    };
    assert_eq!((age(1, 3, month), age(4, 4, month - 3_600_000_000)), (3, 1));
    drop(journal);
    let kept = plain.head().replace("[server]", "keep_history = \"30d\"\n\n[server]");
    plain.configure(&(kept + &plain.credential("etl", SLOW)));
    let mut rotad = plain.rotad();
    plain.until("the pruning", || plain.log().contains("old history was removed"));
    rotad.stop();
    assert!(plain.log().contains("lines=3"), "{}", plain.log());
}
