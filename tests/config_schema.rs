//! The schema takes what the reader takes: every configuration that the documents, the examples and the tests have; and it
//! refuses what a schema can know to be wrong. Judged by a validator of others, jsonschema, which schemathesis brings along.
//!
//! Needs `tests/servers/install` to have been run.
#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Reads `{schema, documents: {name: document}}` and writes, for each that is refused, why.
const VALIDATE: &str = "
import json, sys
import jsonschema_rs
given = json.load(sys.stdin)
validator = jsonschema_rs.Draft7Validator(given['schema'])
told = {name: [error.message for error in validator.iter_errors(document)] for name, document in given['documents'].items()}
json.dump({name: errors for name, errors in told.items() if errors}, sys.stdout)
";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The schema as users get it.
fn schema() -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_rotad")).args(["config", "schema"]).output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is wrong with each of the documents that the schema refuses.
fn refused(documents: &BTreeMap<String, Value>) -> BTreeMap<String, Vec<String>> {
    let servers = std::env::var_os("ROTAD_TEST_SERVERS").map_or_else(|| repository("target/test-servers"), PathBuf::from);
    let mut command = Command::new(servers.join("bin/python3"));
    let mut child =
        command.args(["-c", VALIDATE]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("tests/servers/install");
    let given = json!({ "schema": schema(), "documents": documents }).to_string();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(given.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn document(toml: &str) -> Value {
    serde_json::to_value(toml.parse::<toml::Table>().unwrap()).unwrap()
}

/// What `tests/config_errors.rs` holds the reader to, with the reader's verdict.
fn golden() -> impl Iterator<Item = (String, String, bool)> {
    let files = std::fs::read_dir(repository("tests/golden/config")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).map(|path| {
        let answer = text(&path.with_extension("txt"));
        let taken = answer.starts_with("accepted, ") || answer.contains("\naccepted, ");
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), text(&path), taken)
    })
}

/// Every TOML block of a document that is a whole configuration.
fn blocks(document: &str) -> Vec<String> {
    let blocks = document.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.filter(|block| block.contains("deployment = ") && block.contains("[credential.")).collect()
}

#[test]
fn every_configuration_that_is_shown_or_accepted_fits_the_schema() {
    let mut documents = BTreeMap::new();
    for folder in ["config", "config/examples", "deploy/kubernetes/base", "deploy/kubernetes/overlays/vault", "docs", "."] {
        for path in std::fs::read_dir(repository(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.display().to_string();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("toml") if text(&path).contains("deployment = ") => {
                    documents.insert(name, document(&text(&path)));
                }
                Some("md") => {
                    for (number, block) in blocks(&text(&path)).iter().enumerate() {
                        documents.insert(format!("{name} {number}"), document(block));
                    }
                }
                _ => {}
            }
        }
    }
    let shown = documents.len();
    assert!(shown >= 8, "{:?}", documents.keys());
    documents.extend(golden().filter(|(_, _, taken)| *taken).map(|(name, text, _)| (name, document(&text))));
    assert!(documents.len() > shown + 10, "{:?}", documents.keys());
    assert_eq!(refused(&documents), BTreeMap::new());
}

/// What the reader refuses for a single value, and the schema as well. The rest of the refusals need more than one.
const REFUSED: [&str; 47] = [
    "a-dozen-at-once",
    "account-digit-first",
    "account-hyphen",
    "account-short",
    "admin-token-both",
    "admin-token-inline",
    "admin-token-inline-in-table",
    "admin-token-missing",
    "admin-token-relative",
    "api-url-with-password",
    "both-every-and-cron",
    "choices",
    "credential-not-a-name",
    "credential-not-a-table",
    "cron-and-default-every",
    "delivery-empty",
    "delivery-incomplete",
    "deployment-missing",
    "deployment-not-a-name",
    "format",
    "grace-zero",
    "journal-relative",
    "journal-unknown",
    "key-unknown",
    "limits-zero",
    "mode",
    "nothing",
    "organization-missing",
    "organization-not-a-name",
    "postgres-endpoint",
    "requests-zero",
    "section-unknown",
    "server-listen",
    "server-listen-twice",
    "sink-aws",
    "sink-aws-role",
    "sink-kind-missing",
    "sink-kind-mistyped",
    "sink-kind-twice",
    "sink-vault",
    "sink-vault-login",
    "timezone-without-cron",
    "ttl-milliseconds",
    "ttl-number",
    "types",
    "webhook",
    "webhook-without-address",
];

#[test]
fn what_one_look_at_a_value_can_tell_is_refused() {
    let golden: BTreeMap<String, (String, bool)> = golden().map(|(name, text, taken)| (name, (text, taken))).collect();
    let mut documents = BTreeMap::new();
    for name in REFUSED {
        let (text, taken) = &golden[name];
        assert!(!taken, "the reader takes `{name}`");
        documents.insert(name.to_owned(), document(text));
    }
    let refused = refused(&documents);
    let missed: Vec<_> = documents.keys().filter(|name| !refused.contains_key(*name)).collect();
    assert_eq!(missed, [&""; 0]);
    assert!(refused["key-unknown"].iter().any(|why| why.contains("dditional propert")), "{refused:?}");
}
