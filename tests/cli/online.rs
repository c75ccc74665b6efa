//! `check`, offline and online, and the configuration to begin with.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::plain::{Answer, Plain, SLOW};

fn probes(answer: &Answer) -> Vec<Value> {
    let report: Value = serde_json::from_str(&answer.out).unwrap_or_else(|_| panic!("{answer:?}"));
    report["probes"].as_array().unwrap().clone()
}

/// The findings of this outcome, as `what: detail`.
fn found(answer: &Answer, outcome: &str) -> Vec<String> {
    let of = probes(answer).into_iter().filter(|probe| probe["outcome"] == outcome);
    of.map(|probe| format!("{}: {}", probe["what"].as_str().unwrap(), probe["detail"].as_str().unwrap())).collect()
}

#[test]
fn a_right_configuration_passes_and_the_probes_say_what_works_and_what_can_not_be_known() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let offline = plain.ask(&["check"]);
    assert!(offline.code == 0 && offline.out.contains("1 credential,"), "{offline:?}");
    let online = plain.ask(&["check", "--online"]);
    assert_eq!(online.code, 0, "{online:?}");
    for word in ["journal: works", "organization `main`: works", "organization `main`: can't be known", "sinks/etl`: works"] {
        assert!(online.out.contains(word), "`{word}` is not in:\n{}", online.out);
    }
    let json = plain.ask(&["check", "--online", "--json"]);
    assert!(found(&json, "wrong").is_empty() && !found(&json, "fine").is_empty(), "{json:?}");
    assert_eq!(plain.issued(), 0, "a probe issued a token");
    assert!(plain.served("etl").is_none() && !plain.path("journal/journal.db").exists(), "a probe wrote");
}

#[test]
fn the_admin_token_s_expiry_is_told_where_it_says_so() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let found_in = |outcome: &str| found(&plain.ask(&["check", "--online", "--json"]), outcome);
    std::fs::write(plain.path("admin-token"), "says-nothing").unwrap();
    assert!(found_in("unknowable").iter().any(|told| told.contains("when the admin token expires")));
    // The claims are `{"exp":1800000000}`.
    std::fs::write(plain.path("admin-token"), "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE4MDAwMDAwMDB9.c2ln").unwrap();
    assert!(found_in("fine").iter().any(|told| told.contains("2027-01-15T08:00:00Z")));
}

#[test]
fn a_probe_that_fails_says_what_to_do() {
    let mut plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let admin = std::fs::read_to_string(plain.path("admin-token")).unwrap();
    std::fs::write(plain.path("admin-token"), "planted-wrong-admin-token").unwrap();
    let wrong = plain.ask(&["check", "--online", "--json"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    let told = found(&wrong, "wrong");
    assert!(told.len() == 1 && told[0].contains("organization `main`") && told[0].contains("admin token"), "{told:?}");
    assert!(!wrong.out.contains("planted") && !wrong.err.contains("planted"), "{wrong:?}");
    assert!(wrong.err.contains("1 of"), "{wrong:?}");
    std::fs::write(plain.path("admin-token"), admin).unwrap();

    plain.stop_api();
    let stopped = plain.ask(&["check", "--online"]);
    assert_eq!(stopped.code, 1, "{stopped:?}");
    assert!(stopped.out.contains("organization `main`: FAILS") && stopped.out.contains("journal: works"), "{stopped:?}");
}

#[test]
fn a_directory_that_takes_no_file_is_told_with_its_remedy() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    std::fs::remove_dir(plain.path("sinks")).unwrap();
    std::fs::remove_dir(plain.path("journal")).unwrap();
    let answer = plain.ask(&["check", "--online", "--json"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let told = found(&answer, "wrong");
    let tells = |part: &str, remedy: &str| told.iter().any(|line| line.contains(part) && line.contains(remedy));
    assert!(tells("journal", "create it"), "{told:?}");
    assert!(tells("sinks", "create"), "{told:?}");
}

#[test]
fn a_directory_of_somebody_else_is_told_with_its_remedy() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    std::fs::set_permissions(plain.path("admin-token"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let answer = plain.ask_as_nobody(&["check", "--online", "--json"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let told = found(&answer, "wrong");
    let tells = |part: &str, remedy: &str| told.iter().any(|line| line.contains(part) && line.contains(remedy));
    assert!(tells("journal", "owned by the user that rotad runs as"), "{told:?}");
    assert!(tells("sinks", "65534"), "{told:?}");
    assert!(answer.err.contains("others can read") || answer.err.contains("admin-token"), "{answer:?}");
}

#[test]
fn the_example_lacks_nothing_but_what_it_names() {
    let plain = Plain::start();
    let example = plain.ask(&["config", "example"]);
    assert_eq!(example.code, 0, "{example:?}");
    plain.configure(&example.out);
    let bare = plain.ask(&["check"]);
    assert_eq!(bare.code, 2, "{bare:?}");
    let token = plain.path("admin-token").display().to_string();
    plain.configure(&example.out.replace("/var/lib/rotad/admin-token", &token));
    std::fs::set_permissions(plain.path("admin-token"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = plain.command(&["check"]);
    let answer = Answer::of(command.env("ROTAD_VAULT_SECRET_ID", "planted"));
    assert_eq!(answer.code, 0, "{answer:?}");
}
