//! Bad input ends with status 2 and says what is wrong, where, and what would be right.

use crate::plain::{Plain, SLOW};

/// `check` and `run` refuse `text` alike, with each of `words`; nothing was begun.
fn refused(plain: &Plain, text: &str, words: &[&str]) {
    plain.configure(text);
    plain.ask(&["check"]).complains(2, words);
    plain.ask(&["run"]).complains(2, words);
    assert!(!plain.path("journal/journal.db").exists(), "a journal was begun");
    assert_eq!(plain.issued(), 0);
}

fn etl(plain: &Plain, pace: &str) -> String {
    plain.head() + &plain.credential("etl", pace)
}

#[test]
fn a_configuration_that_cannot_keep_the_promises_is_refused() {
    let plain = Plain::start();
    let pace = |pace: &str| etl(&plain, pace);
    refused(&plain, &pace("ttl = \"1m\"\nevery = \"4s\"\ngrace = \"2s\""), &["`ttl`", "rotad.toml:", "1 error"]);
    refused(&plain, &pace("every = \"9m\"\ngrace = \"2m\""), &["ttl", "grace", "margin"]);
    refused(&plain, &pace("every = \"1m\"\ngrace = \"1m\""), &["grace", "below"]);
    refused(&plain, &pace("cron = \"0 0 30 2 *\"\ngrace = \"2s\""), &["cron", "0 0 30 2 *"]);
    let twice = etl(&plain, SLOW) + &plain.credential("other", SLOW).replace("sinks/other", "sinks/etl");
    refused(&plain, &twice, &["both deliver", "sinks/etl"]);
    refused(&plain, &etl(&plain, SLOW).replace("\"etl_test\"", "\"9-lives\""), &["9-lives", "account"]);
    let postgres = etl(&plain, SLOW).replace("\"sqlite:", "\"postgres://h/");
    refused(&plain, &postgres, &["postgres://", "without a user"]);
}

#[test]
fn a_slip_of_the_pen_is_refused_with_what_was_meant() {
    let plain = Plain::start();
    refused(&plain, &etl(&plain, "every = 5"), &["`every`", "whole number", "in quotes", "rotad.toml:"]);
    refused(&plain, &etl(&plain, "evry = \"4m\""), &["evry", "every"]);
    refused(&plain, &etl(&plain, SLOW).replace("sink = \"disk\"", "sink = \"dsik\""), &["dsik", "disk"]);
    refused(
        &plain,
        &etl(&plain, SLOW).replace("[sink.disk.file]", "[sink.disk.fiel]"),
        &["fiel", "did you mean `[sink.disk.file]`"],
    );
    refused(&plain, &etl(&plain, SLOW).replace("[sink.disk.file]", "[sink.disk.redis]"), &["redis", "aws", "vault", "file"]);
    refused(&plain, &(etl(&plain, SLOW) + "\n[credential"), &["rotad.toml:"]);
    let many = etl(&plain, "evry = \"4m\"").replace("sink = \"disk\"", "sink = \"dsik\"");
    refused(&plain, &many, &["evry", "dsik", "2 errors"]);
}

#[test]
fn an_admin_token_that_cannot_be_read_is_refused() {
    let plain = Plain::start();
    let elsewhere = |path: &str| etl(&plain, SLOW).replace("/admin-token\"", path);
    refused(&plain, &elsewhere("/sinks\""), &["admin", "sinks", "directory"]);
    refused(&plain, &elsewhere("/nowhere\""), &["admin", "nowhere"]);
    // Root reads everything, so another user asks.
    plain.configure(&etl(&plain, SLOW));
    for command in ["check", "run"] {
        plain.ask_as_nobody(&[command]).complains(2, &["admin", "admin-token", "can't be read"]);
    }
}

#[test]
fn a_directory_where_a_file_should_be_is_refused() {
    let plain = Plain::start();
    let journal = etl(&plain, SLOW).replace("/journal/journal.db", "/sinks");
    refused(&plain, &journal, &["sinks", "directory", "journal.db"]);
    std::fs::remove_file(plain.path("rotad.toml")).unwrap();
    plain.ask(&["check"]).complains(2, &["rotad.toml"]);
    std::fs::create_dir(plain.path("rotad.toml")).unwrap();
    for command in ["check", "run", "status"] {
        plain.ask(&[command]).complains(2, &["rotad.toml", "directory"]);
    }
}

#[test]
fn a_wrong_call_is_refused() {
    let plain = Plain::start();
    plain.configure(&etl(&plain, SLOW));
    plain.ask(&["chekc"]).complains(2, &["chekc", "check"]);
    plain.ask(&["check", "--onlin"]).complains(2, &["--onlin", "--online"]);
    plain.ask(&[]).complains(2, &["Usage"]);
    plain.ask(&["run", "--log", "rotad=loud"]).complains(2, &["rotad=loud"]);
    plain.ask(&["run", "extra"]).complains(2, &["extra"]);
    let help = plain.ask(&["--help"]);
    assert!(help.code == 0 && help.out.contains("check") && help.err.is_empty(), "{help:?}");
    let version = plain.ask(&["--version"]);
    assert!(version.code == 0 && version.out.starts_with("rotad "), "{version:?}");
}
