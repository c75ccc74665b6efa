//! `verify = "connect"`: a new token is proven at the Postgres endpoint, against a real PostgreSQL server with TLS and
//! passwords, and against a scripted one where that is too well-behaved. The API beside it is the stand-in.
#![cfg(feature = "stand-in")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

mod certificates;
mod daemon;
#[path = "../support/plain.rs"]
mod plain;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/process.rs"]
mod process;
mod scripted;
#[path = "../motherduck/support.rs"]
#[allow(dead_code)] // the tests of the client use the rest
mod support;

use std::path::Path;
use std::time::Duration;

use certificates::{Authority, Signed};
use postgres::Postgres;
use rcgen::date_time_ymd;
use rotad::motherduck::stand_in::Server;
use rotad::motherduck::{Endpoint, Limits, Provider, TimeLimits};
use rotad::rotation::{Account, Failed, Reason, TokenType, VerifyOutcome};
use rotad::secret::Secret;
use scripted::{Script, ScriptedPostgres};
use support::{ACCOUNT, Caller, account, caller_connecting, server_options};

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn at(port: u16, ca_cert: Option<&Path>) -> Endpoint {
    Endpoint { host: "127.0.0.1".to_owned(), port, ca_cert: ca_cert.map(Path::to_owned) }
}

/// Long enough for a busy machine.
fn patient() -> TimeLimits {
    TimeLimits { connect: Duration::from_secs(10), ..TimeLimits::default() }
}

async fn beside(endpoint: Endpoint) -> (Server, Caller) {
    beside_within(endpoint, patient()).await
}

/// A stand-in for the API, and a client that knows the endpoint.
async fn beside_within(endpoint: Endpoint, limits: TimeLimits) -> (Server, Caller) {
    let server = Server::start(server_options()).await.unwrap();
    let caller = caller_connecting(&server.url(), limits, Limits::NONE, Some(endpoint));
    (server, caller)
}

impl Caller {
    async fn verified(&self, value: &Secret) -> VerifyOutcome {
        self.client.verify_by_connecting(&account(), TokenType::ReadWrite, value).await
    }
}

fn failed(outcome: VerifyOutcome) -> Failed {
    match outcome {
        VerifyOutcome::Failed(failed) => support::checked(failed),
        other => panic!("{other:?}"),
    }
}

fn disproved(outcome: VerifyOutcome) -> Failed {
    match outcome {
        VerifyOutcome::Disproved(failed) => support::checked(failed),
        other => panic!("{other:?}"),
    }
}

/// A server as MotherDuck's endpoint is: a database `md:`, the account, and an instance's id.
async fn endpoint_of_postgres(signed: &Signed, method: &str, duckling: &str) -> Postgres {
    let server = Postgres::start(&signed.certificate, &signed.key, method).await;
    let postgres = server.superuser("postgres").await;
    postgres.batch_execute(&format!("CREATE ROLE {ACCOUNT} LOGIN")).await.unwrap();
    postgres.batch_execute("CREATE DATABASE \"md:\"").await.unwrap();
    let function = format!("CREATE FUNCTION __md_duckling_id() RETURNS text LANGUAGE sql AS $$ SELECT '{duckling}' $$");
    server.superuser("md:").await.batch_execute(&function).await.unwrap();
    server
}

async fn let_in(server: &Postgres, value: &Secret) {
    let sql = format!("ALTER ROLE {ACCOUNT} PASSWORD '{}'", value.expose());
    server.superuser("postgres").await.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_proves_a_token_whatever_its_way_with_passwords() {
    let authority = Authority::new();
    for method in ["scram-sha-256", "password"] {
        let postgres = endpoint_of_postgres(&authority.signs(), method, "0f3a.rw").await;
        let (_server, caller) = beside(at(postgres.port, Some(&authority.file))).await;
        let (_, value) = caller.issued().await;
        let_in(&postgres, &value).await;
        assert_eq!(caller.verified(&value).await, VerifyOutcome::Verified, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_type_of_the_instance_must_be_the_tokens() {
    let authority = Authority::new();
    let postgres = endpoint_of_postgres(&authority.signs(), "scram-sha-256", "0f3a.rs.3").await;
    let (_server, caller) = beside(at(postgres.port, Some(&authority.file))).await;
    let (_, value) = caller.issued().await;
    let_in(&postgres, &value).await;
    let told = disproved(caller.verified(&value).await);
    assert!(told.reason == Reason::BadAnswer && told.detail.contains("`read_scaling` there"), "{told}");
    let scaling = caller.client.verify_by_connecting(&account(), TokenType::ReadScaling, &value).await;
    assert_eq!(scaling, VerifyOutcome::Verified);
    // The function is internal, and may be gone: the answer to the issue told the type already.
    postgres.superuser("md:").await.batch_execute("DROP FUNCTION __md_duckling_id()").await.unwrap();
    assert_eq!(caller.verified(&value).await, VerifyOutcome::Verified);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_disproves_a_token_only_if_the_api_refuses_it_too() {
    let authority = Authority::new();
    let postgres = endpoint_of_postgres(&authority.signs(), "scram-sha-256", "0f3a.rw").await;
    let (_server, caller) = beside(at(postgres.port, Some(&authority.file))).await;
    let (token, value) = caller.issued().await;
    let told = failed(caller.verified(&value).await);
    assert!(told.reason == Reason::WrongRegion && told.detail.contains("correct `postgres`"), "{told}");
    caller.client.revoke(&account(), &token.token.id).await;
    let told = disproved(caller.verified(&value).await);
    assert!(told.reason == Reason::Revoked && told.detail.contains("the API refuses"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_without_the_database_is_not_held_against_the_token() {
    let authority = Authority::new();
    let signed = authority.signs();
    let postgres = Postgres::start(&signed.certificate, &signed.key, "password").await;
    let (_server, caller) = beside(at(postgres.port, Some(&authority.file))).await;
    let (_, value) = caller.issued().await;
    postgres.superuser("postgres").await.batch_execute(&format!("CREATE ROLE {ACCOUNT} LOGIN")).await.unwrap();
    let_in(&postgres, &value).await;
    let told = failed(caller.verified(&value).await);
    assert!(told.reason == Reason::Rejected && told.detail.contains("does not exist"), "{told}");
}

#[tokio::test]
async fn another_account_and_other_refusals_are_told_apart() {
    let authority = Authority::new();
    let signed = authority.signs();
    let refuse = Script::Refuse;
    let as_another = Script::LetIn { user: Some("somebody"), duckling: Some("0f3a.rw") };
    for (script, token_type, disproves, reason) in [
        (as_another, TokenType::ReadWrite, true, Reason::WrongAccount),
        (refuse("28000", "Jwt is expired"), TokenType::ReadWrite, true, Reason::Expired),
        (refuse("28000", "Jwt is expired"), TokenType::ReadScaling, true, Reason::Expired),
        (refuse("28P01", "Invalid MotherDuck token"), TokenType::ReadScaling, true, Reason::Revoked),
        // The API takes it, so that it is not the token.
        (refuse("28P01", "Invalid MotherDuck token"), TokenType::ReadWrite, false, Reason::WrongRegion),
        (refuse("28000", "organization is in another region"), TokenType::ReadScaling, false, Reason::WrongRegion),
        (refuse("XX000", "Your request is not authenticated"), TokenType::ReadWrite, false, Reason::WrongRegion),
        (refuse("XX000", "Your request is not authenticated"), TokenType::ReadScaling, false, Reason::Unauthorized),
        (refuse("53300", "too many connections"), TokenType::ReadWrite, false, Reason::Unavailable),
        (refuse("57P03", "the instance is starting up"), TokenType::ReadWrite, false, Reason::Unavailable),
        (Script::HangUp, TokenType::ReadWrite, false, Reason::BadAnswer),
        (Script::HangUpInside, TokenType::ReadWrite, false, Reason::BadAnswer),
    ] {
        let postgres = ScriptedPostgres::start(&signed, script.clone()).await;
        let (_server, caller) = beside(postgres.endpoint(Some(authority.file.clone()))).await;
        let (_, value) = caller.issued().await;
        let outcome = caller.client.verify_by_connecting(&account(), token_type, &value).await;
        let told = if disproves { disproved(outcome) } else { failed(outcome) };
        assert_eq!(told.reason, reason, "{script:?}: {told}");
        assert!(told.detail.contains(&format!("127.0.0.1:{}", postgres.port)), "{told}");
        assert!(!told.detail.contains(value.expose()), "{told}");
    }
}

#[tokio::test]
async fn a_name_of_other_capitals_is_the_same_account() {
    let authority = Authority::new();
    let script = Script::LetIn { user: Some("ETL_Prod"), duckling: None };
    let postgres = ScriptedPostgres::start(&authority.signs(), script).await;
    let (_server, caller) = beside(postgres.endpoint(Some(authority.file.clone()))).await;
    let (_, value) = caller.issued().await;
    assert_eq!(caller.verified(&value).await, VerifyOutcome::Verified);
    let other = caller.client.verify_by_connecting(&Account::new("etl_other"), TokenType::ReadWrite, &value).await;
    assert_eq!(disproved(other).reason, Reason::WrongAccount);
}

#[tokio::test]
async fn no_token_is_sent_where_tls_does_not_prove_the_server() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let past = |params: &mut rcgen::CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let let_in = Script::LetIn { user: None, duckling: Some("0f3a.rw") };
    for (what, signed, script) in [
        ("an authority that is not trusted", stranger.signs(), let_in.clone()),
        ("another name", authority.signs_with("pg.example.com", |_| {}), let_in.clone()),
        ("out of date", authority.signs_with("127.0.0.1", past), let_in.clone()),
        ("no TLS", authority.signs(), Script::NoTls),
    ] {
        let postgres = ScriptedPostgres::start(&signed, script).await;
        let (_server, caller) = beside(postgres.endpoint(Some(authority.file.clone()))).await;
        let (_, value) = caller.issued().await;
        let told = failed(caller.verified(&value).await);
        assert_eq!(told.reason, Reason::Unreachable, "{what}: {told}");
        let word = if what == "no TLS" { "TLS" } else { "postgres_ca_cert" };
        assert!(told.detail.contains(word), "{what}: {told}");
        assert!(postgres.passwords().iter().all(String::is_empty), "{what}");
    }
    // The system's authorities did not sign the test's.
    let postgres = ScriptedPostgres::start(&authority.signs(), let_in).await;
    let (_server, caller) = beside(postgres.endpoint(None)).await;
    let (_, value) = caller.issued().await;
    assert_eq!(failed(caller.verified(&value).await).reason, Reason::Unreachable);
    assert!(postgres.passwords().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_can_t_be_reached_or_says_nothing_is_asked_again() {
    let authority = Authority::new();
    let (_server, caller) = beside(at(free_port(), Some(&authority.file))).await;
    let (_, value) = caller.issued().await;
    assert_eq!(failed(caller.verified(&value).await).reason, Reason::Unreachable);

    let silent = ScriptedPostgres::start(&authority.signs(), Script::Silence).await;
    let (_server, caller) = beside_within(silent.endpoint(Some(authority.file.clone())), support::brief()).await;
    let (_, value) = caller.issued().await;
    assert_eq!(failed(caller.verified(&value).await).reason, Reason::TimedOut);
}

#[tokio::test]
async fn a_ca_file_that_holds_no_certificate_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, "not a certificate").unwrap();
    let options = |ca_cert| rotad::motherduck::Options {
        organization: "main".into(),
        api_url: "http://127.0.0.1:1".to_owned(),
        admin_token: rotad::motherduck::AdminSource::Secret(rotad::secret::SecretSource::File(file.clone())),
        postgres: Some(at(1, Some(ca_cert))),
        limits: Limits::NONE,
        time_limits: patient(),
        clock: std::sync::Arc::new(rotad::clock::Clock::new()),
        observer: std::sync::Arc::new(rotad::motherduck::Unobserved),
    };
    let missing = directory.path().join("none.pem");
    for path in [file.as_path(), missing.as_path()] {
        let told = rotad::motherduck::Client::new(options(path)).err().unwrap();
        assert!(told.detail.contains("postgres_ca_cert") && told.detail.contains(path.to_str().unwrap()), "{told}");
    }
}
