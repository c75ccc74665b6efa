//! The stand-in is held to the contract (`tests/motherduck/openapi.yaml`) by schemathesis: the
//! boundaries of each parameter and field, random requests, good and bad, and sequences that follow
//! the contract's links (create an account, give it a token, list it, revoke it, use it again).
//!
//! Needs `tests/servers/install` to have been run.
#![cfg(feature = "stand-in")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rotad::motherduck::stand_in::{Character, Operation, Options, Server, TimeFormat};
use rotad::secret::Secret;
use tokio::process::Command;

const ADMIN_TOKEN: &str = "eyJhbGciOiJIUzUxMiJ9.e30.contract";

/// The operations on one account, without the links.
const ONE_ACCOUNT: [&str; 6] = ["--phases", "coverage,fuzzing", "--include-tag", "tokens", "--include-tag", "ducklings"];

/// Far more than the run takes, so that only one that hangs is cut off.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Where `tests/servers/install` puts `st`.
fn schemathesis() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let servers = std::env::var_os("ROTAD_TEST_SERVERS").map_or_else(|| root.join("target/test-servers"), PathBuf::from);
    let st = servers.join("bin/st");
    assert!(st.exists(), "`{}` does not exist; run `tests/servers/install` first", st.display());
    st
}

/// One run of schemathesis.
struct Run {
    /// Whether it found nothing wrong, and what it said.
    content: bool,
    said: String,
    /// The operations that took effect at the stand-in, how often each, and on how many accounts.
    effects: BTreeMap<Operation, usize>,
}

/// Runs schemathesis against a stand-in of this character, with a configuration from `tests/contract`.
async fn hold_to_the_contract(character: Character, configuration: &str, arguments: &[&str]) -> Run {
    let mut options = Options::new(Secret::new(ADMIN_TOKEN.to_owned()));
    options.character = character;
    options.accounts = vec!["etl_prod".to_owned()];
    let server = Server::start(options).await.unwrap();
    // What it keeps goes where it is thrown away.
    let folder = tempfile::tempdir().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let child = Command::new(schemathesis())
        .current_dir(folder.path())
        .arg("--config-file")
        .arg(tests.join("contract").join(configuration))
        .arg("run")
        .arg(tests.join("motherduck/openapi.yaml"))
        .args(["--url", &server.url(), "--header", &format!("Authorization: Bearer {ADMIN_TOKEN}"), "--no-color"])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TIME_LIMIT, child).await.expect("schemathesis hangs").unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut effects = BTreeMap::new();
    for record in server.log(0).into_iter().filter(|record| record.effect) {
        *effects.entry(record.operation).or_insert(0) += 1;
    }
    server.stop().await;
    Run { content: output.status.success(), said, effects }
}

#[tokio::test]
async fn the_stand_in_follows_the_contract() {
    let run = hold_to_the_contract(Character::default(), "schemathesis.toml", &[]).await;
    assert!(run.content, "{}", run.said);
    // The links were followed to the end: accounts were made, given tokens, and both taken away again.
    use Operation::{CreateToken, CreateUser, DeleteUser, RevokeToken, SetInstances};
    for operation in [CreateUser, SetInstances, CreateToken, RevokeToken, DeleteUser] {
        assert!(run.effects.contains_key(&operation), "{operation:?} never took effect: {:?}\n{}", run.effects, run.said);
    }
}

#[tokio::test]
async fn the_stand_in_follows_the_contract_for_an_account_that_exists() {
    let run = hold_to_the_contract(Character::default(), "one_account.toml", &ONE_ACCOUNT).await;
    assert!(run.content, "{}", run.said);
    // Few, since random names are often the same one, and a taken name is a 409.
    assert!(
        run.effects[&Operation::CreateToken] >= 5 && run.effects[&Operation::SetInstances] >= 20,
        "{:?}\n{}",
        run.effects,
        run.said
    );
}

#[tokio::test]
async fn a_stand_in_that_leaves_the_contract_is_found_out() {
    let broken = Character { time_format: TimeFormat::WithoutOffset, ..Character::default() };
    let run = hold_to_the_contract(broken, "one_account.toml", &["--phases", "coverage", "--include-tag", "tokens"]).await;
    assert!(!run.content, "times that are not RFC 3339 went unnoticed:\n{}", run.said);
    assert!(run.said.contains("created_ts") || run.said.contains("date-time"), "{}", run.said);
}
