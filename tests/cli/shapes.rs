//! The shapes of what `--json` prints: keys and types, from real runs, as `tests/golden/json.txt` pins them. Scripts of others
//! read them, so a key that goes or becomes something else breaks those. With `ROTAD_GOLDEN=write` the file is written
//! anew: read the difference then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::plain::{Plain, SLOW};

/// Tables whose keys are names that a user chose.
const NAMED: [&str; 2] = [".labels", ".orders.revoke"];

/// What was seen at one path: types, and whether an object around it lacked it.
#[derive(Default)]
struct Seen {
    types: BTreeSet<String>,
    optional: bool,
}

/// Every path of a command's answers.
#[derive(Default)]
struct Shape(BTreeMap<String, Seen>);

impl Shape {
    fn see(&mut self, path: &str, value: &Value) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        self.0.entry(path.to_owned()).or_default().types.insert(kind.to_owned());
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.see(&format!("{path}[]"), item)),
            Value::Object(fields) if NAMED.iter().any(|named| path.ends_with(named)) => {
                fields.values().for_each(|field| self.see(&format!("{path}.*"), field));
            }
            Value::Object(fields) => fields.iter().for_each(|(key, field)| self.see(&format!("{path}.{key}"), field)),
            _ => {}
        }
    }

    /// Marks what an object of `path` lacks that another one has.
    fn lacks(&mut self, path: &str, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.lacks(&format!("{path}[]"), item)),
            Value::Object(fields) if !NAMED.iter().any(|named| path.ends_with(named)) => {
                let prefix = format!("{path}.");
                for (known, seen) in &mut self.0 {
                    let key = known.strip_prefix(&prefix).filter(|key| !key.contains(['.', '[']));
                    seen.optional |= key.is_some_and(|key| !fields.contains_key(key));
                }
                fields.iter().for_each(|(key, field)| self.lacks(&format!("{path}.{key}"), field));
            }
            _ => {}
        }
    }

    fn of(answers: &[Value]) -> Self {
        let mut shape = Self::default();
        answers.iter().for_each(|answer| shape.see("", answer));
        answers.iter().for_each(|answer| shape.lacks("", answer));
        shape
    }

    /// As the golden file has it, one path a line: `path: types`, with a `?` after a key that may be absent.
    fn parse(lines: &str) -> Self {
        let line = |line: &str| {
            let (path, types) = line.split_once(": ").unwrap();
            let types = types.split('|').map(str::to_owned).collect();
            (path.trim_end_matches('?').to_owned(), Seen { types, optional: path.ends_with('?') })
        };
        Self(lines.lines().map(line).collect())
    }

    fn text(&self) -> String {
        let line = |(path, seen): (&String, &Seen)| {
            let types: Vec<&str> = seen.types.iter().map(String::as_str).collect();
            format!("{path}{}: {}\n", if seen.optional { "?" } else { "" }, types.join("|"))
        };
        self.0.iter().map(line).collect()
    }

    /// Takes over what another run showed as well, of the paths that are still there.
    fn join(&mut self, other: &Self) {
        for (path, seen) in &mut self.0 {
            let Some(other) = other.0.get(path) else { continue };
            seen.types.extend(other.types.iter().cloned());
            seen.optional |= other.optional;
        }
    }

    /// What a script that was written for `golden` would trip over, or not know.
    fn differences(&self, golden: &Self, command: &str) -> Vec<String> {
        let breaking = "that is a breaking change for whoever reads it";
        let mut found = Vec::new();
        for (path, was) in &golden.0 {
            let Some(is) = self.0.get(path) else {
                found.push(format!("`{command}` has no `{path}` any more: {breaking}"));
                continue;
            };
            if let Some(other) = is.types.difference(&was.types).next() {
                found.push(format!("`{path}` of `{command}` may be {other} now: {breaking}"));
            }
            if is.optional && !was.optional {
                found.push(format!("`{path}` of `{command}` may be absent now: {breaking}"));
            }
        }
        let new = self.0.keys().filter(|path| !golden.0.contains_key(*path));
        found.extend(new.map(|path| format!("`{path}` of `{command}` is new: pin it with ROTAD_GOLDEN=write")));
        found
    }
}

/// The answers of each command, under its name.
#[derive(Default)]
struct Answers(BTreeMap<&'static str, Vec<Value>>);

impl Answers {
    /// Runs a command that ends with `code`, and keeps what it printed: one value, or one a line.
    fn ask(&mut self, plain: &Plain, name: &'static str, code: i32, arguments: &[&str]) -> Value {
        let answer = plain.ask(arguments);
        assert_eq!(answer.code, code, "{arguments:?}: {answer:?}");
        let values = serde_json::Deserializer::from_str(&answer.out).into_iter::<Value>();
        let values: Vec<Value> = values.map(|value| value.unwrap_or_else(|error| panic!("{arguments:?}: {error}"))).collect();
        assert!(!values.is_empty(), "{arguments:?} printed nothing: {answer:?}");
        let first = values[0].clone();
        self.0.entry(name).or_default().extend(values);
        first
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/json.txt")
}

/// An account that rotad only looks at, and that is not there.
const WATCHED: &str = "\n[account.watched_1]\nmode = \"observe\"\n";

/// A fleet with something of everything: a credential that rotates, one that is blocked, one whose place can't be written, a
/// `[fleet]`, an `[account]`; and a daemon that takes commands.
fn configure(plain: &Plain) -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = format!("listen = \"{free}\"\ncontrol = \"{}\"", plain.path("control.sock").display());
    let head = plain.head().replace("listen = \"127.0.0.1:0\"", &listen).replace("ttl = \"10m\"", "ttl = \"7d\"");
    let labelled = format!("{SLOW}\nlabels = {{ team = \"data\" }}");
    let at_three = "ttl = \"30d\"\ncron = \"0 3 * * *\"\ntimezone = \"Europe/Berlin\"\nwindow = \"2h\"";
    let missing = plain.credential("web", SLOW).replace("sinks/web", "sinks/missing/web");
    let tenants = format!(
        "\n[fleet.tenants]\naccounts = \"tenant_*\"\n{SLOW}\ndeliver = [{{ sink = \"disk\", path = \"{}/{{account}}\" }}]\n",
        plain.path("sinks").display()
    );
    let text = head + &plain.credential("etl", &labelled) + &plain.credential("odd", at_three) + &missing + &tenants + WATCHED;
    plain.configure(&text);
    plain.put("odd", "planted-by-hand");
    text
}

fn without_a_daemon(answers: &mut Answers, plain: &Plain, text: &str) {
    answers.ask(plain, "check", 0, &["check", "--json"]);
    answers.ask(plain, "plan", 0, &["plan", "--json"]);
    answers.ask(plain, "healthcheck", 1, &["healthcheck", "--json"]);
    let sizes = ["--read-write", "jumbo,cooldown=5m", "--json"];
    answers.ask(plain, "account create", 0, &["account", "create", "tenant_1", "--json"]);
    answers.ask(plain, "account create", 0, &["account", "create", "spare", "--json"]);
    answers.ask(plain, "account ducklings", 0, &[&["account", "ducklings", "spare"], &sizes[..]].concat());
    plain.as_admin("POST", "/v1/users/spare/tokens", Some(&serde_json::json!({ "name": "by hand" })));
    let imported = ["import", "--account", "spare", "--deliver", "{ sink = \"disk\", path = \"/run/spare\" }", "--json"];
    answers.ask(plain, "import", 0, &imported);
    answers.ask(plain, "account list", 0, &["account", "list", "--json"]);
    answers.ask(plain, "account show", 0, &["account", "show", "spare", "--json"]);
    answers.ask(plain, "account delete", 0, &["account", "delete", "spare", "--yes", "spare", "--json"]);
    plain.as_admin("POST", "/v1/users", Some(&serde_json::json!({ "username": "probe_me" })));
    answers.ask(plain, "probe", 0, &["probe", "--account", "probe_me", "--yes", "--json"]);
    plain.configure(&text.replace("ttl =", "tll ="));
    answers.ask(plain, "check", 2, &["check", "--json"]);
    plain.configure(text);
}

fn with_a_daemon(answers: &mut Answers, plain: &Plain, text: &str) {
    let mut rotad = plain.rotad_delivering(&["etl", "tenant_1"]);
    plain.until("the block", || plain.line("odd")["blocked"] == "take_over_needed");
    plain.until("the trouble", || plain.line("web")["deliveries_failing"] == 1);
    answers.ask(plain, "healthcheck", 0, &["healthcheck", "--json"]);
    answers.ask(plain, "check", 1, &["check", "--online", "--json"]);
    answers.ask(plain, "rotate", 0, &["rotate", "etl", "--wait", "--json"]);
    answers.ask(plain, "pause", 0, &["pause", "etl", "--for", "25d", "--reason", "an audit", "--json"]);
    answers.ask(plain, "rotate", 1, &["rotate", "etl", "--json"]);
    answers.ask(plain, "plan", 0, &["plan", "--for", "60d", "--json"]);
    plain.until("what is apart", || plain.status()["accounts_apart"][0]["username"] == "watched_1");
    answers.ask(plain, "status", 0, &["status", "--json"]);
    for name in ["etl", "odd", "web"] {
        answers.ask(plain, "status NAME", 0, &["status", name, "--json"]);
    }
    answers.ask(plain, "resume", 0, &["resume", "etl", "--json"]);
    answers.ask(plain, "sweep", 0, &["sweep", "etl", "--json"]);
    answers.ask(plain, "forget", 1, &["forget", "etl", "file:/nowhere", "--json"]);
    let steps = plain.ask(&["history", "etl", "--what", "issued", "--all", "--json"]).out;
    let first: Value = serde_json::from_str(steps.lines().next().unwrap()).unwrap();
    answers.ask(plain, "revoke", 0, &["revoke", first["token"].as_str().unwrap(), "--yes", "--json"]);
    answers.ask(plain, "reload", 0, &["reload", "--json"]);
    for number in [2, 3] {
        plain.as_admin("POST", "/v1/users", Some(&serde_json::json!({ "username": format!("tenant_{number}") })));
    }
    answers.ask(plain, "sweep --fleet", 0, &["sweep", "--fleet", "tenants", "--json"]);
    for number in [1, 2, 3] {
        plain.as_admin("DELETE", &format!("/v1/users/tenant_{number}"), None);
    }
    answers.ask(plain, "sweep --fleet", 0, &["sweep", "--fleet", "tenants", "--json"]);
    plain.until("a word of those that are missing", || {
        plain.status()["concerns"].as_array().is_some_and(|concerns| !concerns.is_empty())
    });
    answers.ask(plain, "status", 0, &["status", "--json"]);
    answers.ask(plain, "history", 0, &["history", "--all", "--json"]);
    let other = plain.path("other.toml");
    let moved =
        text.replace("sinks/etl", "sinks/elsewhere").replace("[credential.web]", "[credential.new]\nrenamed_from = \"web\"");
    let moved = moved
        .replace("rotations_per_minute = 600", "rotations_per_minute = 601")
        .replace("[credential.odd]", "[credential.odder]");
    std::fs::write(&other, moved).unwrap();
    answers.ask(plain, "plan --diff", 0, &["plan", "--diff", other.to_str().unwrap(), "--json"]);
    rotad.stop();
    answers.ask(plain, "status", 0, &["status", "--json"]);
    // One that was let go, and one that has not begun: both without what is known of the others.
    plain.configure(&text.replace("[credential.odd]", "[credential.later]"));
    answers.ask(plain, "status", 0, &["status", "--json"]);
}

#[test]
fn what_scripts_read_keeps_its_keys_and_types() {
    let (plain, mut answers) = (Plain::start(), Answers::default());
    let text = configure(&plain);
    without_a_daemon(&mut answers, &plain, &text);
    with_a_daemon(&mut answers, &plain, &text);
    let pinned = std::fs::read_to_string(golden()).unwrap_or_default();
    let pinned: BTreeMap<&str, Shape> = pinned
        .split("\n\n")
        .filter_map(|part| part.trim_end().split_once('\n'))
        .map(|(name, lines)| (name.trim_start_matches("rotad "), Shape::parse(lines)))
        .collect();
    let shapes = answers.0.iter().map(|(name, answers)| (*name, Shape::of(answers)));
    let mut shapes: BTreeMap<&str, Shape> = shapes.collect();
    if std::env::var_os("ROTAD_GOLDEN").is_some_and(|value| value == "write") {
        for (name, shape) in &mut shapes {
            pinned.get(name).into_iter().for_each(|known| shape.join(known));
        }
        let text: Vec<String> = shapes.iter().map(|(name, shape)| format!("rotad {name}\n{}", shape.text())).collect();
        return std::fs::write(golden(), text.join("\n")).unwrap();
    }
    let nothing = Shape::default();
    let differ = |(name, shape): (&&str, &Shape)| shape.differences(pinned.get(name).unwrap_or(&nothing), name);
    let found: Vec<String> = shapes.iter().flat_map(differ).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    let names = |all: &BTreeMap<&str, Shape>| all.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&pinned), names(&shapes), "a command is pinned that is not run");
}

#[test]
fn a_key_that_goes_or_changes_is_told_as_what_it_is() {
    let golden = Shape::parse(".a: number\n.b[].c?: null|string\n.b[].d: boolean\n.b: array\n.b[]: object\n: object\n");
    let is = |text: &str| Shape::of(&[serde_json::from_str(text).unwrap()]).differences(&golden, "plan");
    assert_eq!(is(r#"{ "a": 1, "b": [{ "c": null, "d": true }, { "d": false }] }"#), [""; 0]);
    let gone = is(r#"{ "b": [{ "c": 1, "d": true, "e": 2 }, {}] }"#);
    for (difference, words) in gone.iter().zip([
        "no `.a` any more: that is a breaking change",
        "`.b[].c` of `plan` may be number now: that is a breaking change",
        "`.b[].d` of `plan` may be absent now: that is a breaking change",
        "`.b[].e` of `plan` is new: pin it",
    ]) {
        assert!(difference.contains(words), "{gone:?}");
    }
    assert_eq!(gone.len(), 4, "{gone:?}");
}
