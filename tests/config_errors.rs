//! What people read when a configuration is wrong: one input for each refusal, beside its whole answer in
//! `tests/golden/config`. With `ROTAD_GOLDEN=write` the answers are written anew: read the difference then.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rotad::config::{self, FileFact, MountFact, Surroundings};

/// A machine with a few files and one variable, the same wherever the test runs.
struct Machine;

impl Surroundings for Machine {
    fn now(&self) -> Timestamp {
        "2026-11-22T00:00:00Z".parse().unwrap()
    }

    fn file(&self, path: &Path) -> FileFact {
        match path.to_str().unwrap() {
            "/etc/rotad" => FileFact::Directory,
            "/dev/pipe" => FileFact::Special,
            "/secret/empty" => FileFact::Empty,
            "/secret/public" => FileFact::Readable { mode: 0o644 },
            "/secret/forbidden" => FileFact::Unreadable("Permission denied".to_owned()),
            "/secret/none" => FileFact::Unreadable("No such file or directory".to_owned()),
            _ => FileFact::Readable { mode: 0o600 },
        }
    }

    fn has_variable(&self, name: &str) -> bool {
        name != "NOT_SET"
    }

    fn mount(&self, directory: &Path) -> MountFact {
        match directory.to_str().unwrap() {
            "/run/rotad" => MountFact::Memory("tmpfs"),
            "/secret/mounted" => MountFact::ReadOnly,
            _ => MountFact::Lasting,
        }
    }
}

fn answer(name: &str, text: &str) -> String {
    let mut answer = String::new();
    match config::parse(text, name, &Machine) {
        Err(problems) => writeln!(answer, "{problems}").unwrap(),
        Ok(config) => {
            config.warnings.iter().for_each(|warning| writeln!(answer, "{warning}\n").unwrap());
            writeln!(answer, "accepted, {} warnings", config.warnings.len()).unwrap();
        }
    }
    answer
}

fn inputs() -> BTreeMap<String, PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let inputs = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    inputs.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

#[test]
fn every_refusal_reads_as_it_did() {
    let inputs = inputs();
    assert!(inputs.len() >= 60, "{} inputs", inputs.len());
    let mut differences = Vec::new();
    for (name, path) in inputs {
        let text = std::fs::read_to_string(&path).unwrap();
        let answer = answer(&format!("{name}.toml"), &text);
        let golden = path.with_extension("txt");
        if std::env::var_os("ROTAD_GOLDEN").is_some_and(|value| value == "write") {
            std::fs::write(&golden, &answer).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if answer != expected {
            differences.push(format!("{name}:\n{answer}\nexpected:\n{expected}"));
        }
        // What is not named as a warning or as fine is a refusal.
        let refused = !answer.contains("\naccepted, ") && !answer.starts_with("accepted, ");
        assert_eq!(refused, !(name.starts_with("warning-") || name.starts_with("fine-")), "{name}:\n{answer}");
        assert_eq!(answer.contains("warning:"), name.starts_with("warning-"), "{name}:\n{answer}");
        has_its_parts(&name, &answer);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// Each problem says what was found, at which spot of the file, and what would be right.
fn has_its_parts(name: &str, answer: &str) {
    let problems = answer.split("\n\n").filter(|part| part.starts_with("error:") || part.starts_with("warning:"));
    for problem in problems {
        let part = |is: fn(&&str) -> bool| problem.lines().any(|line| is(&line));
        assert!(part(|line| line.starts_with("  --> ") && line.len() > 10), "{name} says not where:\n{problem}");
        let help = problem.lines().find_map(|line| line.trim_start().strip_prefix("= help: ")).unwrap_or_default();
        assert!(help.len() > 8 && !help.ends_with('.'), "{name} says not what would be right:\n{problem}");
    }
}

#[test]
fn a_golden_text_without_its_input_is_stale() {
    let inputs = inputs();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    for entry in std::fs::read_dir(folder).unwrap() {
        let stem = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(inputs.contains_key(&stem), "{stem}");
    }
}

#[test]
fn no_secret_written_inline_is_ever_shown() {
    for (name, path) in inputs() {
        let text = std::fs::read_to_string(&path).unwrap();
        let answer = answer(&name, &text);
        assert!(!answer.contains("hunter2") && !answer.contains("eyJ"), "{name}:\n{answer}");
    }
}
