//! The program itself with its journal in PostgreSQL.

use std::path::Path;

use rotad::journal::Database;

use crate::plain::{FAST, Plain};
use crate::{PASSWORD, Server};

/// A configuration with one credential, whose journal is `database`, over verified TLS.
fn configure(plain: &Plain, server: &Server, database: &Database) {
    plain.configure(&(head(plain, server, database) + &plain.credential("etl", FAST)));
}

/// Everything but credentials.
pub fn head(plain: &Plain, server: &Server, database: &Database) -> String {
    let file = format!("url = \"sqlite:{}\"", plain.path("journal/journal.db").display());
    let there = format!(
        "url = \"postgres://rotad@127.0.0.1:{}/{}?sslmode=verify-full\"\npassword = {{ file = \"{}\" }}\nca_cert = \"{}\"",
        database.port,
        database.name,
        server.password_file().display(),
        server.authority.file.display()
    );
    let head = plain.head();
    assert!(head.contains(&file));
    head.replace(&file, &there)
}

fn has_password(path: &Path) -> bool {
    let text = std::fs::read(path).unwrap();
    text.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_rotates_through_crashes_and_every_command_reads_the_journal() {
    let server = Server::shared().await;
    let database = server.database().await;
    tokio::task::block_in_place(|| {
        let plain = Plain::start();
        configure(&plain, &server, &database);
        let checked = plain.ask(&["check", "--online"]);
        assert!(checked.code == 0 && checked.out.contains("answers and holds no journal yet"), "{checked:?}");
        let planned = plain.ask(&["plan"]);
        assert_eq!(planned.code, 0, "before the first start, too: {planned:?}");
        let refused = plain.ask(&["status"]);
        assert!(refused.code == 1 && refused.err.contains("has not run yet, start it"), "{refused:?}");

        let mut rotad = restarted(&plain);
        plain.until("a delivery", || plain.served("etl").is_some());
        let second = plain.ask(&["run"]);
        let holder = format!("is in use by `rotad {} on ", rotad.0.id());
        assert!(second.code == 1 && second.err.contains(&holder), "{second:?}");
        plain.until("a revocation", || plain.revoked() >= 1);
        rotad.kill();

        for round in 2..4 {
            let mut rotad = restarted(&plain);
            plain.until("another revocation", || plain.revoked() >= round);
            plain.serves_nothing_dead("etl");
            if round == 3 { rotad.stop() } else { rotad.kill() }
        }
        assert_eq!(plain.line("etl")["blocked"], serde_json::Value::Null);
        for arguments in
            [&["history"][..], &["plan"], &["check", "--online"], &["support"], &["status", "etl"], &["history", "--all"]]
        {
            let answer = plain.ask(arguments);
            assert_eq!(answer.code, 0, "{arguments:?}: {answer:?}");
            assert!(!answer.out.contains(PASSWORD) && !answer.err.contains(PASSWORD), "{arguments:?}");
        }
        assert!(plain.ask(&["history"]).out.contains("revoked"));
        assert!(plain.ask(&["support"]).out.contains("\"kind\": \"postgres\""));
        assert!(!has_password(&plain.path("rotad.log")));
        assert!(plain.log().contains("fsync = off"), "the tests' server has it off, which is to be warned of");
    });
}

/// The daemon again: the server may need a moment to see that the one before is gone.
fn restarted(plain: &Plain) -> crate::process::Process {
    let serving = || plain.log().matches("address=").count();
    let before = serving();
    // Whatever the libraries log, the password is not in it.
    let start = || plain.rotad_with(&["--log", "trace"]);
    let mut rotad = start();
    plain.until("a start", || {
        if rotad.ended().is_some() {
            rotad = start();
        }
        serving() > before
    });
    rotad
}

/// Killed around every commit and effect, and started again: it goes on, and nobody is served what is dead.
#[cfg(feature = "fail-points")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_boundary_it_goes_on_from_what_the_server_has() {
    let server = Server::shared().await;
    let database = server.database().await;
    tokio::task::block_in_place(|| {
        let plain = Plain::start();
        configure(&plain, &server, &database);
        let mut rotad = restarted(&plain);
        plain.until("the first delivery", || plain.served("etl").is_some());
        rotad.stop();
        for point in ["BeforeCommit:4", "AfterCommit:4", "AfterIssue:1", "AfterWrite:1", "BeforeRevoke:1"] {
            let mut rotad = plain.rotad_failing_at(&format!("{point}:kill"));
            plain.until("the kill", || match rotad.ended() {
                // The server had not seen the end of the one before.
                Some(status) if status.code().is_some() => {
                    rotad = plain.rotad_failing_at(&format!("{point}:kill"));
                    false
                }
                ended => ended.is_some(),
            });
            let revoked = plain.revoked();
            let mut rotad = restarted(&plain);
            plain.until("a revocation afterwards", || {
                plain.serves_nothing_dead("etl");
                plain.revoked() > revoked
            });
            rotad.stop();
        }
        assert_eq!(plain.line("etl")["blocked"], serde_json::Value::Null);
        let left = || plain.live().len();
        let mut rotad = restarted(&plain);
        plain.until("the end of what the kills left", || left() <= 2);
        rotad.stop();
    });
}

/// Suspended between a save and what it announced, with its session ended and another daemon at work since: continued, it
/// finds that the journal is not its own any more, and asks for nothing.
#[cfg(feature = "fail-points")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_lost_the_journal_while_it_was_suspended_begins_nothing_more() {
    use std::time::Duration;

    use rustix::process::Signal;

    let server = Server::shared().await;
    let database = server.database().await;
    let admin = server.admin("postgres").await;
    let plain = Plain::start();
    configure(&plain, &server, &database);
    let mut first = tokio::task::block_in_place(|| plain.rotad_failing_at("BeforeIssue:2:stop"));
    tokio::task::block_in_place(|| plain.until("the suspension", || first.is_stopped()));
    assert_eq!(plain.issued(), 1);
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'rotad' AND datname = $1";
    assert!(admin.query_one(ended, &[&database.name]).await.unwrap().get::<_, i64>(0) >= 1);
    tokio::task::block_in_place(|| {
        let mut second = restarted(&plain);
        plain.until("the second one's rotation", || plain.issued() >= 2);
        // Longer than an effect may begin after its save.
        std::thread::sleep(Duration::from_secs(11));
        let intended = plain.ask(&["history", "etl", "--what", "intended", "--json"]).out;
        first.signal(Signal::CONT);
        plain.until("that the first one finds it", || plain.log().contains("the journal can't be written"));
        std::thread::sleep(Duration::from_secs(2));
        let lost = intended.lines().filter(|line| !line.is_empty()).count();
        assert!(lost >= 3, "{intended}");
        let names = plain.stand_in.records().into_iter().filter(|record| record["operation"] == "create_token");
        let issued: Vec<String> = names.map(|record| record["token_name"].as_str().unwrap().to_owned()).collect();
        let rotations = intended.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut rotations: Vec<String> = rotations.filter_map(|line| line["rotation"].as_str().map(str::to_owned)).collect();
        rotations.sort();
        // The second that was intended is the one that the first was about to ask for.
        assert!(!issued.iter().any(|name| name.ends_with(&rotations[1])), "{issued:?}");
        plain.serves_nothing_dead("etl");
        first.kill();
        second.stop();
    });
}
