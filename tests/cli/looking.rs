//! Looking commands: through the daemon where it answers, from the journal where it does not; on terminals and in pipes.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::ordering::{configure, controlled};
use crate::plain::{FAST, Plain, SLOW};
use crate::process::Process;

const FROM_THE_JOURNAL: &str = "this is from the journal as it is stored";
/// As long as a name can be.
const LONGEST: &str = "a-credential-whose-name-is-as-long-as-names-can-be-0123456789-a";

#[test]
fn a_member_of_the_control_group_needs_no_right_to_journal_and_secrets() {
    let plain = controlled(&["etl"]);
    configure(&plain, &["etl"], "control_group = \"65534\"");
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the delivery", || plain.line("etl")["state"] == "current");
    for name in ["journal", "admin-token"] {
        let mode = if name == "journal" { 0o700 } else { 0o600 };
        std::fs::set_permissions(plain.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for (arguments, word) in [
        (&["status"][..], "1 of 1"),
        (&["status", "etl"], "Last steps"),
        (&["status", "--json"], "\"daemon_answers\": true"),
        (&["history", "etl"], "promoted"),
        (&["plan", "etl"], "a new token is issued"),
        (&["rotate", "etl", "--wait"], "promoted"),
    ] {
        let answer = plain.ask_as_nobody(arguments);
        assert!(answer.code == 0 && answer.out.contains(word) && answer.err.is_empty(), "{arguments:?}: {answer:?}");
    }
    rotad.stop();
    plain.ask_as_nobody(&["status"]).complains(1, &[FROM_THE_JOURNAL, "journal.db"]);
}

#[test]
fn without_a_daemon_the_journal_is_read_and_one_line_says_so() {
    let plain = controlled(&["etl"]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the delivery", || plain.line("etl")["state"] == "current");
    rotad.kill();
    for arguments in [&["status"][..], &["status", "etl"], &["history"], &["plan"], &["status", "--json"]] {
        let answer = plain.ask(arguments);
        assert_eq!(answer.code, 0, "{answer:?}");
        let said: Vec<&str> = answer.err.lines().collect();
        assert!(said.len() == 1 && said[0].contains(FROM_THE_JOURNAL) && said[0].contains("control.sock"), "{answer:?}");
    }
    plain.ask(&["history", "nobody"]).complains(2, &["no credential is named `nobody`"]);
    let token = plain.as_admin("GET", &format!("/v1/users/{}/tokens", crate::plain::ACCOUNT), None)["tokens"][0]["id"].clone();
    let of_token = plain.ask(&["history", "--token", token.as_str().unwrap()]).out;
    assert!(of_token.contains("intended") && of_token.contains("issued"), "the steps of its rotation are left out: {of_token}");
}

#[test]
fn what_concerns_rotad_as_a_whole_stands_above_the_credentials() {
    let plain = controlled(&["etl"]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    assert_eq!(plain.status()["concerns"], json!([]));
    plain.shift_date(7_200);
    let concerned = || plain.status()["concerns"].as_array().is_some_and(|concerns| !concerns.is_empty());
    plain.until("the clocks' disagreement", || {
        plain.ask(&["sweep", "--all"]);
        concerned()
    });
    let (text, concern) = (plain.ask(&["status"]).out, plain.status()["concerns"][0].clone());
    for part in ["happened", "next", "remedy"] {
        let first: Vec<&str> = concern[part].as_str().unwrap().split(' ').take(3).collect();
        assert!(text.contains(&first.join(" ")), "`{part}` is not in:\n{text}");
    }
    assert!(text.find("to do:").unwrap() < text.find("CREDENTIAL").unwrap(), "{text}");
    rotad.stop();
}

/// `rotate etl --wait` while nothing can be issued, so that it waits.
fn waiting(plain: &Plain) -> Process {
    plain.misbehave(&json!({ "operations": ["create_token"], "misbehaviour": { "status": { "status": 503 } } }));
    let error = std::fs::File::create(plain.path("waiting.err")).unwrap();
    let mut command = plain.command(&["rotate", "etl", "--wait"]);
    let process = Process(command.stdout(Stdio::null()).stderr(error).spawn().unwrap());
    plain.until("the order", || !plain.line("etl")["orders"]["rotate_after"].is_null());
    process
}

fn ended(plain: &Plain, waiting: &mut Process) -> (Option<i32>, String) {
    let mut ended = None;
    plain.until("the command's end", || {
        ended = waiting.ended();
        ended.is_some()
    });
    (ended.unwrap().code(), std::fs::read_to_string(plain.path("waiting.err")).unwrap())
}

#[test]
fn a_wait_that_is_interrupted_leaves_the_order_standing() {
    let plain = controlled(&["etl"]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let before = plain.served("etl");
    let mut command = waiting(&plain);
    command.signal(Signal::INT);
    let (code, told) = ended(&plain, &mut command);
    assert!(code == Some(1) && told.contains("the order stands"), "{code:?} {told}");
    plain.behave();
    plain.until("what was ordered", || plain.served("etl") != before);
    rotad.stop();
}

#[test]
fn a_wait_outlives_a_restart_of_the_daemon_and_ends_where_it_does_not_come_back() {
    let plain = controlled(&["etl"]);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let mut command = waiting(&plain);
    rotad.kill();
    plain.behave();
    let mut rotad = plain.rotad();
    let (code, told) = ended(&plain, &mut command);
    assert_eq!(code, Some(0), "{told}");
    let mut command = waiting(&plain);
    rotad.kill();
    let (code, told) = ended(&plain, &mut command);
    assert!(code == Some(1) && told.contains("no daemon answers") && told.contains("what it recorded stands"), "{code:?} {told}");
}

#[test]
fn an_order_for_all_obeys_the_limits() {
    let plain = controlled(&["a", "b", "c", "d"]);
    let text = std::fs::read_to_string(plain.path("rotad.toml")).unwrap();
    plain.configure(&text.replace("rotations_per_minute = 600", "rotations_per_minute = 6"));
    let mut rotad = plain.rotad_delivering(&["a", "b", "c", "d"]);
    let answer = plain.ask(&["rotate", "--all"]);
    assert!(answer.code == 0 && answer.out.contains("recorded for a, b, c, d"), "{answer:?}");
    plain.until("as many as may", || plain.issued() >= 6);
    // Each gets a turn meanwhile, and is told to wait.
    plain.until("who waits", || {
        let ordered = |name: &&str| !plain.line(name)["orders"]["rotate_after"].is_null();
        ["a", "b", "c", "d"].iter().filter(|name| ordered(name)).count() == 2
    });
    plain.holds_the_limit(0, 6);
    rotad.stop();
}

#[test]
fn orders_go_by_label_and_a_place_is_forgotten_by_its_name() {
    let plain = controlled(&["etl", "web"]);
    let text = std::fs::read_to_string(plain.path("rotad.toml")).unwrap();
    let labelled = text.replacen("[credential.web]\n", "[credential.web]\nlabels = { team = \"web\" }\n", 1);
    plain.configure(&labelled);
    let mut rotad = plain.rotad_delivering(&["etl", "web"]);
    let before = (plain.served("etl"), plain.served("web"));
    let answer = plain.ask(&["rotate", "--label", "team=web", "--wait"]);
    assert!(answer.code == 0 && answer.out.contains("recorded for web"), "{answer:?}");
    assert!(plain.served("etl") == before.0 && plain.served("web") != before.1);
    plain.ask(&["rotate", "--label", "team=nobody"]).complains(2, &["no credential has these labels"]);
    let place = format!("file:{}", plain.path("sinks/web").display());
    plain.ask(&["forget", "web", &place]).complains(1, &["is configured"]);
    rotad.stop();
}

/// What a command writes to a terminal.
fn on_a_terminal(plain: &Plain, arguments: &str, no_color: Option<&str>) -> String {
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{} {arguments}", env!("CARGO_BIN_EXE_rotad")), "/dev/null"]);
    command.env("ROTAD_CONFIG", plain.path("rotad.toml")).env("TERM", "xterm").env_remove("NO_COLOR").stdin(Stdio::null());
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn the_table_fits_80_columns_and_is_coloured_on_a_terminal_alone() {
    let plain = Plain::start();
    plain.configure_with(&["etl", LONGEST], SLOW);
    std::fs::write(plain.path("sinks/etl"), "planted-by-hand").unwrap();
    let mut rotad = plain.rotad_delivering(&[LONGEST]);
    plain.until("the block", || plain.line("etl")["blocked"] == "take_over_needed");
    plain.until("the delivery", || plain.line(LONGEST)["state"] == "current");
    let text = plain.ask(&["status"]).out;
    let path = plain.path("sinks/etl").display().to_string();
    let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80 && !line.contains(&path)).collect();
    assert!(wide.is_empty() && text.contains(&format!("\n{LONGEST}\n")), "{wide:?}\n{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    let (coloured, plainly) = (on_a_terminal(&plain, "status", None), on_a_terminal(&plain, "status", Some("1")));
    assert!(coloured.contains("\x1b[1;31mblocked"), "{coloured:?}");
    assert!(!plainly.contains('\x1b') && plainly.contains("blocked"), "{plainly:?}");
    assert!(on_a_terminal(&plain, "status", Some("")).contains('\x1b'), "an empty NO_COLOR says nothing");
    let one = plain.ask(&["status", "etl"]).out;
    for part in [
        "works until",
        "next token",
        "deadline",
        "BLOCKED",
        "rotad:  ",
        "to do:  ",
        "Tokens, oldest first",
        "Places",
        "Last steps",
    ] {
        assert!(one.contains(part), "`{part}` is not in:\n{one}");
    }
    let wide: Vec<&str> = one.lines().filter(|line| line.chars().count() > 80 && !line.contains(&path)).collect();
    assert!(wide.is_empty(), "{wide:?}\n{one}");
    rotad.stop();
}

#[test]
fn a_wait_on_a_terminal_counts_what_is_done_on_a_line_that_is_written_over() {
    let names: Vec<String> = (0..60).map(|number| format!("c{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let plain = controlled(&names);
    let text = std::fs::read_to_string(plain.path("rotad.toml")).unwrap();
    plain.configure(&text.replace("requests_per_second = 100", "requests_per_second = 50"));
    let mut rotad = plain.rotad_delivering(&names);
    let shown = on_a_terminal(&plain, "rotate --all --wait", None);
    assert!(shown.contains(" of 60 done\r\x1b[K"), "{shown:?}");
    assert_eq!(shown.matches("  promoted").count(), 60, "each step is told, of more than are asked for one by one: {shown}");
    rotad.stop();
}

#[test]
fn watching_shows_what_changes_and_outlives_the_daemon() {
    let plain = controlled(&["etl"]);
    let text = std::fs::read_to_string(plain.path("rotad.toml")).unwrap();
    plain.configure(&text.replace(SLOW, FAST));
    let mut rotad = plain.rotad_delivering(&["etl"]);
    let out = std::fs::File::create(plain.path("watch.out")).unwrap();
    let mut command = plain.command(&["status", "--watch"]);
    let mut watch = Process(command.stdout(out).stderr(Stdio::null()).spawn().unwrap());
    let tables = || std::fs::read_to_string(plain.path("watch.out")).unwrap().matches("CREDENTIAL").count();
    plain.until("two looks", || tables() >= 2);
    rotad.kill();
    let before = tables();
    plain.until("looks at the journal", || tables() >= before + 2);
    assert!(watch.ended().is_none());
    watch.kill();
    let status: Value = plain.status();
    assert_eq!(status["credentials"][0]["name"], "etl");
}
