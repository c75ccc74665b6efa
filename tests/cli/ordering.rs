//! What a person orders at the running daemon, over its socket.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use crate::plain::{ACCOUNT, Plain, SLOW};
use crate::process::fingerprint;

/// A configuration with a control socket in a directory of its own.
pub fn controlled(names: &[&str]) -> Plain {
    let plain = Plain::start();
    std::fs::create_dir(plain.path("run")).unwrap();
    std::fs::set_permissions(plain.path("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    configure(&plain, names, "");
    plain
}

pub fn configure(plain: &Plain, names: &[&str], server: &str) {
    let socket = plain.path("run/control.sock").display().to_string();
    let listen = "listen = \"127.0.0.1:0\"";
    let head = plain.head().replace(listen, &format!("{listen}\ncontrol = \"{socket}\"\n{server}"));
    let credentials: String = names.iter().map(|name| plain.credential(name, SLOW)).collect();
    plain.configure(&(head + &credentials));
}

/// Runs a command that succeeds; gives what it said.
fn ask(plain: &Plain, arguments: &[&str]) -> String {
    let answer = plain.ask(arguments);
    assert_eq!(answer.code, 0, "{answer:?}\n{}", plain.log());
    answer.out
}

#[test]
fn rotate_shows_its_steps_and_the_history_says_who_asked() {
    let plain = controlled(&["etl", "web"]);
    let mut rotad = plain.rotad_delivering(&["etl", "web"]);
    let before = plain.served("etl");
    let steps = ask(&plain, &["rotate", "etl", "--wait"]);
    for step in ["recorded for etl", "etl  ordered", "etl  intended", "etl  issued", "etl  confirmed", "etl  promoted"] {
        assert!(steps.contains(step), "`{step}` is not in:\n{steps}");
    }
    assert!(!steps.contains("web"), "another's steps are told:\n{steps}");
    assert_ne!(plain.served("etl"), before);
    assert_eq!((plain.issued(), plain.revoked()), (3, 0), "the grace period holds");
    let history = ask(&plain, &["history", "etl", "--what", "ordered"]);
    assert!(history.contains("rotate now  by root (uid 0)") && history.lines().count() == 1, "{history}");
    rotad.stop();
    let mut rotad = plain.rotad();
    plain.until("the first sweep", || plain.log().matches("address=").count() == 2 && plain.ready().0 == 200);
    rotad.stop();
    assert_eq!(plain.issued(), 3, "an order is carried out once");
}

#[test]
fn a_leaked_token_is_gone_when_the_command_returns_and_a_script_must_say_yes() {
    let plain = controlled(&["etl"]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let leaked = plain.live();
    plain.ask(&["rotate", "etl", "--revoke-now", "--wait"]).complains(2, &["sinks/etl", "--yes"]);
    assert_eq!(plain.live(), leaked, "nothing is done before somebody agreed");
    ask(&plain, &["rotate", "etl", "--revoke-now", "--wait", "--yes"]);
    assert_eq!(plain.effects("revoke_token"), leaked);
    assert!(plain.serves_live("etl"));
    rotad.stop();
}

#[test]
fn a_panic_replaces_and_revokes_all_that_rotad_made_and_tells_of_the_rest() {
    let plain = controlled(&["etl", "web"]);
    plain.as_admin("POST", &format!("/v1/users/{ACCOUNT}/tokens"), Some(&serde_json::json!({ "name": "by hand" })));
    let mut rotad = plain.rotad_delivering(&["etl", "web"]);
    plain.until("both current", || ["etl", "web"].iter().all(|name| plain.line(name)["state"] == "current"));
    let served = [plain.served("etl").unwrap(), plain.served("web").unwrap()];
    plain.ask(&["panic", "--account", "nobody", "--yes"]).complains(2, &["no credential has", "this account"]);
    plain.ask(&["panic", "--account", ACCOUNT]).complains(2, &["sinks/etl", "sinks/web", "--yes"]);
    let answer = plain.ask(&["panic", "--account", ACCOUNT, "--yes"]);
    assert!(answer.code == 0 && answer.err.contains("rotad import --account"), "{answer:?}");
    assert_eq!(plain.revoked(), 2, "and what was made by hand lives on");
    assert!(served.iter().all(|value| !plain.live().contains(&fingerprint(value))), "what leaked lives on");
    assert!(plain.serves_live("etl") && plain.serves_live("web"));
    rotad.stop();
}

#[test]
fn a_pause_is_shown_with_its_reason_and_end_and_is_ended_by_resume() {
    let plain = controlled(&["etl", "web"]);
    let mut rotad = plain.rotad_delivering(&["etl", "web"]);
    plain.until("both current", || ["etl", "web"].iter().all(|name| plain.line(name)["state"] == "current"));
    plain
        .ask(&["pause", "--all", "--for", "400d", "--reason", "x"])
        .complains(1, &["etl: refused", "--let-expire", "2 credentials"]);
    let told = ask(&plain, &["pause", "e*", "--for", "2h", "--reason", "a migration"]);
    assert!(told.starts_with("a pause until 20") && told.ends_with("Z is recorded for etl\n"), "{told}");
    let pause = plain.line("etl")["orders"]["paused"].clone();
    assert_eq!((pause["reason"].as_str(), pause["by"].as_str()), (Some("a migration"), Some("root (uid 0)")));
    assert!(ask(&plain, &["status"]).contains("paused for 1"), "{}", ask(&plain, &["status"]));
    plain.ask(&["rotate", "--all"]).complains(1, &["etl: refused", "a migration"]);
    ask(&plain, &["resume", "etl"]);
    ask(&plain, &["rotate", "etl", "--wait"]);
    assert_eq!(plain.issued(), 4);
    rotad.stop();
}

#[test]
fn a_token_is_revoked_by_its_id_and_a_served_one_only_on_purpose() {
    let plain = controlled(&["etl"]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let issued = |index: usize| -> String {
        let lines = ask(&plain, &["history", "etl", "--what", "issued", "--json", "--all"]);
        let line: serde_json::Value = serde_json::from_str(lines.lines().nth(index).unwrap()).unwrap();
        line["token"].as_str().unwrap().to_owned()
    };
    let first = issued(0);
    plain.ask(&["revoke", &first, "--yes"]).complains(1, &["serves it", "--revoke-now"]);
    ask(&plain, &["rotate", "etl", "--wait"]);
    let told = ask(&plain, &["revoke", &first, "--yes", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&told).unwrap()[0]["credential"], "etl");
    plain.until("the revocation", || plain.revoked() >= 1);
    assert_eq!(plain.revoked(), 1, "it did not wait for the grace period");
    let second = issued(1);
    ask(&plain, &["revoke", &second, "--even-if-served", "--yes", "--wait"]);
    plain.until("the replacement", || plain.serves_live("etl"));
    plain.ask(&["revoke", "no-such-token", "--yes"]).complains(1, &["no-such-token", "--credential"]);
    rotad.stop();
}

#[test]
fn a_wrong_call_ends_with_2_and_what_is_refused_at_a_credential_with_1() {
    let plain = controlled(&["etl"]);
    plain.ask(&["rotate"]).complains(2, &["--all"]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let pause = ["pause", "--for", "1h", "--reason", "x"];
    for command in [&["rotate"][..], &["resume"], &["sweep"], &pause] {
        plain.ask(command).complains(2, &["no credential is named", "--all"]);
        plain.ask(&[command, &["etl", "--all"]].concat()).complains(2, &["names beside `--all`"]);
        plain.ask(&[command, &["--label", "team=none"]].concat()).complains(2, &["these labels"]);
    }
    let place = plain.path("sinks/etl").display().to_string();
    let forget = ["forget", "wbe", &place];
    let revoke = ["revoke", "some-token", "--credential", "wbe", "--yes"];
    for command in
        [&["rotate", "wbe"][..], &["resume", "wbe"], &["sweep", "wbe"], &[&pause[..], &["wbe"]].concat(), &forget, &revoke]
    {
        plain.ask(command).complains(2, &["no credential of the running configuration is named `wbe`"]);
    }
    plain.ask(&["sweep", "--fleet", "tenants"]).complains(2, &["no fleet", "`tenants`"]);
    plain.ask(&["forget", "etl", "file:/nowhere"]).complains(1, &["etl: refused", "file:/nowhere"]);
    rotad.stop();
}

#[test]
fn the_socket_is_private_and_goes_with_the_daemon() {
    let plain = controlled(&["etl"]);
    let socket = plain.path("run/control.sock");
    plain.ask(&["rotate", "etl"]).complains(1, &["no daemon answers", "control.sock"]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let metadata = std::fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o777, 0o600);
    plain.ask_as_nobody(&["sweep", "etl"]).complains(1, &["Permission denied"]);
    rotad.kill();
    assert!(socket.exists(), "a killed process leaves it behind");
    configure(&plain, &["etl"], "control_group = \"daemon\"");
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let metadata = std::fs::metadata(&socket).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.gid()), (0o660, 1));
    ask(&plain, &["sweep", "--all"]);
    rotad.stop();
    assert!(!socket.exists());
}

#[test]
fn a_directory_that_everybody_may_write_to_is_refused() {
    let plain = controlled(&["etl"]);
    std::fs::set_permissions(plain.path("run"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    plain.ask_within(&["run"], std::time::Duration::from_secs(60)).complains(1, &["everybody may write", "server.control"]);
    std::fs::set_permissions(plain.path("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(plain.path("run/control.sock"), "somebody's").unwrap();
    plain.ask_within(&["run"], std::time::Duration::from_secs(60)).complains(1, &["something else than a socket"]);
    assert_eq!(std::fs::read_to_string(plain.path("run/control.sock")).unwrap(), "somebody's");
}

#[test]
fn reload_answers_whether_the_configuration_is_in_force() {
    let plain = controlled(&["etl"]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    configure(&plain, &["etl", "web"], "");
    assert_eq!(ask(&plain, &["reload"]), "the new configuration is in force\n");
    assert_eq!(ask(&plain, &["reload", "--json"]), "{\n  \"in_force\": true\n}\n");
    plain.until("the new credential", || plain.served("web").is_some());
    configure(&plain, &["etl", "web"], "metrics_listen = \"127.0.0.1:1\"");
    plain.ask(&["reload"]).complains(1, &["[server]", "restart", "stays in force"]);
    std::fs::write(plain.path("rotad.toml"), "deployment = 1").unwrap();
    plain.ask(&["reload"]).complains(2, &["rotad.toml:1:14", "stays in force"]);
    rotad.stop();
}

#[test]
fn history_is_filtered_and_exported_in_its_order() {
    let plain = controlled(&["etl", "web"]);
    plain.rotad_delivering(&["etl", "web"]).stop();
    let lines = |arguments: &[&str]| -> Vec<serde_json::Value> {
        ask(&plain, arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines(&["history", "--all", "--json"]);
    assert!(all.len() >= 10 && all.is_sorted_by_key(|line| line["number"].as_u64()), "{all:?}");
    let rotation = all.iter().find(|line| line["credential"] == "web").unwrap()["rotation"].as_str().unwrap();
    let of_one = lines(&["history", "--rotation", rotation, "--json", "-n", "1000"]);
    assert!(of_one.len() >= 4 && of_one.iter().all(|line| line["credential"] == "web" && line["rotation"] == rotation));
    assert_eq!(lines(&["history", "etl", "--json", "-n", "2"]).len(), 2);
    assert_eq!(lines(&["history", "--until", "1h", "--json"]).len(), 0, "all of it is younger");
    assert_eq!(lines(&["history", "--since", "1h", "--all", "--json"]).len(), all.len());
    plain.ask(&["history", "--what", "isued"]).complains(2, &["`isued`", "issued"]);
    plain.ask(&["history", "--since", "yesterday"]).complains(2, &["24h"]);
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let plain = Plain::start();
    for shell in ["bash", "zsh", "fish"] {
        let script = ask(&plain, &["completions", shell]);
        assert!(["rotate", "pause", "history"].iter().all(|command| script.contains(command)), "{shell}");
    }
    assert!(ask(&plain, &["man"]).contains(".TH"));
    std::fs::create_dir(plain.path("man")).unwrap();
    ask(&plain, &["man", "--into", plain.path("man").to_str().unwrap()]);
    let page = std::fs::read_to_string(plain.path("man/rotad-rotate.1")).unwrap();
    assert!(page.contains("revoke"), "{page}");
}
