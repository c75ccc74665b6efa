//! What a person reads when a command, the control socket or the journal fails, in its parts: what happened, and what to do.
//! All of it stands in `tests/golden/errors.txt`, from real runs. With `ROTAD_GOLDEN=write` that is written anew: read the
//! difference then.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::ordering::controlled;
use crate::plain::{Answer, Plain, SLOW};

/// What was told, call by call.
#[derive(Default)]
struct Told {
    text: String,
    lacking: Vec<String>,
}

impl Told {
    /// Notes a call that ended with `code`. `to_do` is how what a person should do begins in its words.
    fn note(&mut self, plain: &Plain, call: &str, answer: &Answer, code: i32, to_do: &str) {
        assert_eq!(answer.code, code, "{call}: {answer:?}");
        let said = plain_words(plain, &answer.err);
        let said = said.trim_start_matches("rotad: ").trim();
        let Some((happened, remedy)) = said.find(to_do).map(|at| said.split_at(at)) else {
            return self.lacking.push(format!("`{call}` says not what to do (`{to_do}`):\n{said}"));
        };
        let happened = happened.trim_end_matches(['\n', ' ', ':', ';', ',']);
        if happened.len() < 9 || remedy.trim().len() < 9 || remedy.trim_end().ends_with(". ") {
            self.lacking.push(format!("`{call}` lacks a part:\n{said}"));
        }
        let indented = |text: &str| text.trim().replace('\n', "\n            ").replace("            \n", "\n");
        let (happened, remedy) = (indented(happened), indented(remedy));
        let _ = writeln!(self.text, "{call} ({code})\n  happened  {happened}\n  to do     {remedy}\n");
    }

    fn ask(&mut self, plain: &Plain, arguments: &[&str], code: i32, to_do: &str) {
        let call = format!("rotad {}", plain_words(plain, &arguments.join(" ")));
        self.note(plain, &call, &plain.ask(arguments), code, to_do);
    }
}

/// Without what differs from one run to the next: folders, ports, times, the process that is met.
fn plain_words(plain: &Plain, text: &str) -> String {
    let mut text = text.replace(&plain.path("").display().to_string(), "/DIR/");
    if let Some((before, after)) = text.split_once(" in use by process ") {
        let (_, after) = after.split_once(": ").unwrap_or_default();
        text = format!("{before} in use by process NUMBER on `HOST`: {after}");
    }
    let mut shown = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || "-:TZ.".contains(c))).unwrap_or(rest.len());
        let run = rest[..end].trim_end_matches(['.', ':', '-']);
        let is_time = run.len() >= 19 && run.contains('T');
        let port = run.strip_prefix("127.0.0.1:").filter(|port| port.len() > 1);
        shown.push_str(match (is_time, port) {
            (true, _) => "TIME",
            (false, Some(_)) => "127.0.0.1:PORT",
            (false, None) => run,
        });
        rest = &rest[run.len()..];
    }
    shown + rest
}

fn wrong_calls(told: &mut Told) {
    let plain = controlled(&["etl"]);
    let help = "For more information";
    told.ask(&plain, &["chekc"], 2, "tip:");
    told.ask(&plain, &["check", "--onlin"], 2, "tip:");
    told.ask(&plain, &["pause", "etl", "--reason", "x"], 2, "--for <DURATION>");
    told.ask(&plain, &["plan", "--for", "soon"], 2, "a duration is");
    told.ask(&plain, &["rotate", "--label", "team"], 2, "a label is");
    told.ask(&plain, &["healthcheck", "--now"], 2, help);
    told.ask(&plain, &["run", "--log", "rotad=loud"], 2, "a level (");
    told.ask(&plain, &["history", "--what", "isued"], 2, "the steps are");
    told.ask(&plain, &["history", "--since", "yesterday"], 2, "such as");
    told.ask(&plain, &["rotate"], 2, "give names");
    told.ask(&plain, &["rotate", "etl", "--all"], 2, "give the one or the other");
    told.ask(&plain, &["rotate", "wbe", "--revoke-now"], 2, "`rotad status` lists");
    told.ask(&plain, &["rotate", "etl", "--revoke-now"], 2, "repeat the command with `--yes`");
    told.ask(&plain, &["plan", "wbe"], 2, "`rotad status` lists");
    told.ask(&plain, &["import", "--organization", "mian"], 2, "there are");
    told.ask(&plain, &["account", "create", "9-lives"], 2, "it has 3 to 255");
    told.ask(&plain, &["account", "delete", "etl_test", "--yes", "etl"], 2, "repeat the name");
    told.ask(&plain, &["account", "delete", "etl_test", "--yes", "etl_test"], 2, "Remove that first");
    told.ask(&plain, &["healthcheck"], 1, "give it a port");
    plain.configure_with(&["etl"], SLOW);
    told.ask(&plain, &["rotate", "etl"], 2, "set it, for example");
    std::fs::remove_file(plain.path("rotad.toml")).unwrap();
    told.ask(&plain, &["check"], 2, "= help:");
}

/// What the API says of accounts.
fn accounts(told: &mut Told) {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    told.ask(&plain, &["account", "create", "ETL_TEST"], 1, "`rotad account show");
    told.ask(&plain, &["account", "delete", "nobody", "--yes", "nobody"], 1, "`rotad account list`");
    let listed = plain.as_admin("GET", "/v1/users", None);
    let person = listed["users"].as_array().unwrap().iter().find(|user| user["is_service_account"] == false).unwrap();
    let person = person["username"].as_str().unwrap();
    told.ask(&plain, &["account", "delete", person, "--yes", person], 2, "rotad deletes no people");
    std::fs::write(plain.path("out.toml"), "").unwrap();
    let output = plain.path("out.toml").display().to_string();
    let imported = ["import", "--account", "etl_test", "--output", &output];
    plain.configure(&(plain.head().replace("ttl = \"10m\"", "ttl = \"7d\"") + &plain.credential("etl", SLOW)));
    told.ask(&plain, &imported, 1, "name a file that is not there yet");
}

fn orders(told: &mut Told) {
    let plain = controlled(&["etl", "web"]);
    told.ask(&plain, &["rotate", "etl"], 1, "start it");
    told.ask(&plain, &["history", "etl"], 1, "start it with `rotad run`");
    let mut rotad = plain.rotad_delivering(&["etl", "web"]);
    plain.until("both current", || ["etl", "web"].iter().all(|name| plain.line(name)["state"] == "current"));
    told.ask(&plain, &["status", "wbe"], 2, "`rotad status` lists");
    told.ask(&plain, &["history", "wbe"], 2, "`rotad status` lists");
    told.ask(&plain, &["rotate", "wbe"], 2, "`rotad status` lists");
    told.ask(&plain, &["rotate", "--label", "team=none"], 2, "see `labels`");
    told.ask(&plain, &["sweep", "--fleet", "tenants"], 2, "give the name");
    told.ask(&plain, &["pause", "etl", "--until", "2020-01-01T00:00:00Z", "--reason", "x"], 1, "give a later end");
    told.ask(&plain, &["pause", "etl", "--for", "1h", "--reason", &"x".repeat(201)], 1, "shorten it");
    told.ask(&plain, &["pause", "etl", "--for", "400d", "--reason", "x"], 1, "choose an earlier end");
    told.ask(&plain, &["forget", "etl", "file:/nowhere"], 1, "nothing is to be done");
    let place = format!("file:{}", plain.path("sinks/etl").display());
    told.ask(&plain, &["forget", "etl", &place], 1, "remove the delivery");
    told.ask(&plain, &["revoke", "no-such-token", "--yes"], 1, "say which with");
    let issued = plain.ask(&["history", "etl", "--what", "issued", "--json", "--all"]).out;
    let issued: serde_json::Value = serde_json::from_str(issued.lines().next().unwrap()).unwrap();
    let refused = plain.ask(&["revoke", issued["token"].as_str().unwrap(), "--yes"]);
    told.note(&plain, "rotad revoke TOKEN_ID --yes, of one that is served", &refused, 1, "`rotad rotate NAME --revoke-now`");
    assert_eq!(plain.ask(&["pause", "etl", "--for", "1h", "--reason", "an audit"]).code, 0);
    told.ask(&plain, &["rotate", "etl"], 1, "resume it first");
    told.note(&plain, "rotad sweep etl, by another user", &plain.ask_as_nobody(&["sweep", "etl"]), 1, "start it, or run this as");
    let text = std::fs::read_to_string(plain.path("rotad.toml")).unwrap();
    plain.configure(&text.replace("[server]\n", "[server]\nmetrics_listen = \"127.0.0.1:1\"\n"));
    told.ask(&plain, &["reload"], 1, "that needs a restart");
    plain.configure(&text.replace("etl_test", "9-lives"));
    told.ask(&plain, &["reload"], 2, "= help:");
    rotad.stop();
    plain.configure(&text);
    // Something that takes the order, and ends before it has answered.
    let socket = std::os::unix::net::UnixListener::bind(plain.path("run/control.sock")).unwrap();
    std::thread::spawn(move || drop(socket.accept()));
    let answer = plain.ask(&["rotate", "etl"]);
    // How the connection ends is by chance, and said in the system's words.
    let (before, after) = answer.err.split_once(" (").unwrap();
    let (_, after) = after.split_once("): ").unwrap();
    let answer = Answer { err: format!("{before} (CAUSE): {after}"), ..answer };
    told.note(&plain, "rotad rotate etl, broken off", &answer, 1, "look with `rotad status`");
}

/// Why the daemon can't have its socket.
fn sockets(told: &mut Told) {
    let plain = controlled(&["etl"]);
    let configured = std::fs::read_to_string(plain.path("rotad.toml")).unwrap();
    let mode = |mode| std::fs::set_permissions(plain.path("run"), std::fs::Permissions::from_mode(mode)).unwrap();
    let run = |told: &mut Told, call: &str, to_do: &str| {
        let answer = plain.ask_within(&["run"], std::time::Duration::from_secs(60));
        let answer = Answer { err: answer.err.lines().last().unwrap_or_default().to_owned(), ..answer };
        told.note(&plain, call, &answer, 1, to_do);
    };
    mode(0o1777);
    run(told, "rotad run, everybody may write to the socket's directory", "choose a directory");
    mode(0o755);
    std::fs::write(plain.path("run/control.sock"), "somebody's").unwrap();
    run(told, "rotad run, a file is in the socket's place", "choose another path");
    std::fs::remove_file(plain.path("run/control.sock")).unwrap();
    plain.configure(&configured.replace("run/control.sock", "nowhere/control.sock"));
    run(told, "rotad run, the socket's directory is not there", "create it");
    let listener = std::os::unix::net::UnixListener::bind(plain.path("run/control.sock")).unwrap();
    plain.configure(&configured);
    run(told, "rotad run, another daemon has the socket", "stop it");
    drop(listener);
    let group = "control_group = \"nobody-is-called-so\"\n";
    plain.configure(&configured.replace("[server]\n", &format!("[server]\n{group}")));
    run(told, "rotad run, no such group", "create it");
}

fn journals(told: &mut Told) {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    told.ask(&plain, &["status"], 1, "start it with `rotad run`");
    let run = |told: &mut Told, call: &str, to_do: &str| {
        let answer = plain.ask_within(&["run"], std::time::Duration::from_secs(60));
        let answer = Answer { err: answer.err.lines().last().unwrap_or_default().to_owned(), ..answer };
        told.note(&plain, call, &answer, 1, to_do);
    };
    let journal = plain.path("journal/journal.db");
    let away = |name: &str| drop(std::fs::remove_file(plain.path("journal").join(name)));
    let mut rotad = plain.rotad_delivering(&["etl"]);
    run(told, "rotad run, another rotad has the journal", "stop that one");
    rotad.stop();
    std::fs::write(&journal, "not a database, whatever its name says ".repeat(100)).unwrap();
    run(told, "rotad run, the journal is damaged", "restore it");
    ["journal.db", "journal.db-wal", "journal.db-shm"].iter().for_each(|name| away(name));
    database(&journal, "CREATE TABLE somebody (s)");
    run(told, "rotad run, another program's database", "give `journal.url` another path");
    let directory = Path::new(&plain.path("journal")).to_owned();
    std::fs::remove_dir_all(&directory).unwrap();
    run(told, "rotad run, the journal's directory is not there", "create it");
}

/// A database of somebody else's.
fn database(path: &Path, statement: &str) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch(statement).unwrap();
}

#[test]
fn every_error_of_a_command_says_what_happened_and_what_to_do() {
    let mut told = Told::default();
    wrong_calls(&mut told);
    accounts(&mut told);
    orders(&mut told);
    sockets(&mut told);
    journals(&mut told);
    assert!(told.lacking.is_empty(), "{}", told.lacking.join("\n\n"));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/errors.txt");
    if std::env::var_os("ROTAD_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&golden, &told.text).unwrap();
    }
    assert_eq!(told.text, std::fs::read_to_string(&golden).unwrap_or_default());
}
