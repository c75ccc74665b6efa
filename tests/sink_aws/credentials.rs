//! Where credentials come from: the process's environment, so each of these tests runs in a process of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rotad::rotation::{Failed, Reason, Shows};
use rotad::sinks::aws::{Config, Store};
use rotad::sinks::format::Format;
use serde_json::json;

use crate::aws_proxy::{Fault, Proxy};
use crate::moto::Moto;
use crate::{config, place_in, sink_contract};

/// Whether this is the process of its own for `test`.
fn is_child(test: &str) -> bool {
    std::env::var("ROTAD_TEST_CHILD").is_ok_and(|child| child == test)
}

/// Runs `test` once more, in a process with this environment and no other; it must pass there.
async fn run_child(test: &'static str, environment: &[(&'static str, String)]) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env_clear().env("ROTAD_TEST_CHILD", test);
    // No instance metadata, no files of whoever runs the tests.
    command.envs([("AWS_EC2_METADATA_DISABLED", "true"), ("HOME", "/nonexistent")]).envs(environment.iter().cloned());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// What the child reads, with nothing but its environment and this configuration.
async fn read_in_child(change: impl FnOnce(Config) -> Config) -> Result<Shows, Failed> {
    let store = Store::new(change(config(&std::env::var("TEST_ENDPOINT").unwrap()))).unwrap();
    let place = place_in(&store, "bench/nowhere", Format::Raw);
    place.read(&sink_contract::question("etl")).await.map(|reading| reading.shows)
}

fn keys() -> [(&'static str, String); 2] {
    [("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT".to_owned()), ("AWS_SECRET_ACCESS_KEY", "planted-secret-key".to_owned())]
}

#[tokio::test]
async fn credentials_come_from_the_environment() {
    const TEST: &str = "credentials::credentials_come_from_the_environment";
    if is_child(TEST) {
        assert_eq!(read_in_child(|config| config).await, Ok(Shows::Nothing { owner: None }));
        return;
    }
    let moto = Moto::shared();
    let proxy = Proxy::before(&moto.url).await;
    let [id, key] = keys();
    run_child(TEST, &[id, key, ("TEST_ENDPOINT", proxy.url.clone())]).await;
    assert!(proxy.take_calls()[0].authorization.contains("Credential=AKIDENVIRONMENT/"));
}

#[tokio::test]
async fn credentials_come_from_a_profile() {
    const TEST: &str = "credentials::credentials_come_from_a_profile";
    if is_child(TEST) {
        let change = |config| Config { profile: Some("staging".to_owned()), region: None, ..config };
        assert_eq!(read_in_child(change).await, Ok(Shows::Nothing { owner: None }));
        return;
    }
    let moto = Moto::shared();
    let proxy = Proxy::before(&moto.url).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    std::fs::write(&file, "[profile staging]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = x\nregion = eu-west-1\n")
        .unwrap();
    let environment = [("AWS_CONFIG_FILE", file.display().to_string()), ("TEST_ENDPOINT", proxy.url.clone())];
    run_child(TEST, &environment).await;
    let authorization = &proxy.take_calls()[0].authorization;
    assert!(authorization.contains("Credential=AKIDPROFILE/") && authorization.contains("/eu-west-1/"), "{authorization}");
}

fn with_role(config: Config) -> Config {
    Config {
        role_arn: Some("arn:aws:iam::123456789012:role/rotad".to_owned()),
        external_id: Some("external-7".to_owned()),
        ..config
    }
}

#[tokio::test]
async fn a_role_is_assumed_with_its_external_id() {
    const TEST: &str = "credentials::a_role_is_assumed_with_its_external_id";
    if is_child(TEST) {
        assert_eq!(read_in_child(with_role).await, Ok(Shows::Nothing { owner: None }));
        return;
    }
    let moto = Moto::shared();
    let proxy = Proxy::before(&moto.url).await;
    let [id, key] = keys();
    let environment = [id, key, ("TEST_ENDPOINT", proxy.url.clone()), ("AWS_ENDPOINT_URL_STS", proxy.url.clone())];
    run_child(TEST, &environment).await;
    let calls = proxy.take_calls();
    let (assumed, described) = (&calls[0], &calls[1]);
    for part in ["Action=AssumeRole", "ExternalId=external-7", "RoleSessionName=rotad", "role%2Frotad"] {
        assert!(assumed.text.contains(part), "{}", assumed.text);
    }
    assert!(assumed.authorization.contains("Credential=AKIDENVIRONMENT/"));
    assert!(!described.authorization.contains("AKIDENVIRONMENT"), "the role's own credentials are used");
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_is_named() {
    const TEST: &str = "credentials::a_role_that_may_not_be_assumed_is_named";
    if is_child(TEST) {
        let failed = read_in_child(with_role).await.unwrap_err();
        assert_eq!(failed.reason, Reason::Forbidden, "{failed}");
        assert!(failed.detail.contains("allow `sts:AssumeRole`") && failed.detail.contains("role/rotad"), "{failed}");
        return;
    }
    let moto = Moto::shared();
    let proxy = Proxy::before(&moto.url).await;
    let refusal = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/u is not authorized \
                   to perform: sts:AssumeRole on resource: arn:aws:iam::123456789012:role/rotad</Message></Error></ErrorResponse>";
    proxy.on("", usize::MAX, Fault::Text(403, refusal));
    let [id, key] = keys();
    let environment = [id, key, ("TEST_ENDPOINT", proxy.url.clone()), ("AWS_ENDPOINT_URL_STS", proxy.url.clone())];
    run_child(TEST, &environment).await;
}

/// Who stands beside a machine or a container and hands out credentials, as AWS documents it: keeps what it was asked.
struct Metadata {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Metadata {
    async fn start() -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let router = Router::new().fallback(hand_out).with_state(asked.clone());
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Each path of the instance's metadata (version 2) and of the container's agent, each only for who has its token.
async fn hand_out(State(asked): State<Arc<Mutex<Vec<String>>>>, request: Request) -> Response {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let line = format!("{} {}", request.method(), request.uri().path());
    asked.lock().unwrap().push(line.clone());
    let keys = |id: &str| {
        let keys = json!({
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": id, "SecretAccessKey": "planted-secret-key", "Token": "session",
            "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
        });
        keys.to_string().into_response()
    };
    let is_session = header("x-aws-ec2-metadata-token") == "metadata-session";
    match line.as_str() {
        "PUT /latest/api/token" => ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "metadata-session").into_response(),
        "GET /latest/meta-data/iam/security-credentials/" if is_session => "rotad-on-an-instance".into_response(),
        "GET /latest/meta-data/iam/security-credentials/rotad-on-an-instance" if is_session => keys("AKIDINSTANCE"),
        "GET /v1/credentials" if header("authorization") == "pod-identity" => keys("AKIDCONTAINER"),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

#[tokio::test]
async fn credentials_come_from_a_web_identity() {
    const TEST: &str = "credentials::credentials_come_from_a_web_identity";
    if is_child(TEST) {
        assert_eq!(read_in_child(|config| config).await, Ok(Shows::Nothing { owner: None }));
        return;
    }
    let moto = Moto::shared();
    let proxy = Proxy::before(&moto.url).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the.service.account").unwrap();
    // What Kubernetes puts into a pod whose service account has a role.
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.display().to_string()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/rotad-in-a-pod".to_owned()),
        ("TEST_ENDPOINT", proxy.url.clone()),
        ("AWS_ENDPOINT_URL_STS", proxy.url.clone()),
    ];
    run_child(TEST, &environment).await;
    let calls = proxy.take_calls();
    for part in ["Action=AssumeRoleWithWebIdentity", "WebIdentityToken=the.service.account", "role%2Frotad-in-a-pod"] {
        assert!(calls[0].text.contains(part), "{}", calls[0].text);
    }
    assert!(calls[1].authorization.contains("Credential=") && calls[1].action == "DescribeSecret", "{:?}", calls[1]);
}

#[tokio::test]
async fn credentials_come_from_a_containers_agent() {
    const TEST: &str = "credentials::credentials_come_from_a_containers_agent";
    if is_child(TEST) {
        assert_eq!(read_in_child(|config| config).await, Ok(Shows::Nothing { owner: None }));
        return;
    }
    let moto = Moto::shared();
    let (proxy, metadata) = (Proxy::before(&moto.url).await, Metadata::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "pod-identity").unwrap();
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", metadata.url)),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.display().to_string()),
        ("TEST_ENDPOINT", proxy.url.clone()),
    ];
    run_child(TEST, &environment).await;
    assert!(proxy.take_calls()[0].authorization.contains("Credential=AKIDCONTAINER/"));
    assert_eq!(metadata.asked(), ["GET /v1/credentials"]);
}

#[tokio::test]
async fn credentials_come_from_the_instances_role() {
    const TEST: &str = "credentials::credentials_come_from_the_instances_role";
    if is_child(TEST) {
        assert_eq!(read_in_child(|config| config).await, Ok(Shows::Nothing { owner: None }));
        return;
    }
    let moto = Moto::shared();
    let (proxy, metadata) = (Proxy::before(&moto.url).await, Metadata::start().await);
    let environment = [
        ("AWS_EC2_METADATA_DISABLED", "false".to_owned()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url.clone()),
        ("TEST_ENDPOINT", proxy.url.clone()),
    ];
    run_child(TEST, &environment).await;
    assert!(proxy.take_calls()[0].authorization.contains("Credential=AKIDINSTANCE/"));
    assert_eq!(metadata.asked()[0], "PUT /latest/api/token", "nothing is asked without a session");
}

#[tokio::test]
async fn no_credentials_at_all_is_said() {
    const TEST: &str = "credentials::no_credentials_at_all_is_said";
    if is_child(TEST) {
        let failed = read_in_child(|config| config).await.unwrap_err();
        assert_eq!(failed.reason, Reason::Unauthorized, "{failed}");
        assert!(failed.detail.starts_with("no AWS credentials were found"), "{failed}");
        return;
    }
    let moto = Moto::shared();
    run_child(TEST, &[("TEST_ENDPOINT", moto.url.clone())]).await;
}

#[tokio::test]
async fn no_region_at_all_is_said() {
    const TEST: &str = "credentials::no_region_at_all_is_said";
    if is_child(TEST) {
        let failed = read_in_child(|config| Config { region: None, ..config }).await.unwrap_err();
        assert_eq!(failed.reason, Reason::Missing, "{failed}");
        assert!(failed.detail.contains("`region`"), "{failed}");
        return;
    }
    let [id, key] = keys();
    run_child(TEST, &[id, key, ("TEST_ENDPOINT", "http://127.0.0.1:9".to_owned())]).await;
}

#[tokio::test]
async fn a_machine_without_ca_certificates_is_told_so_and_nothing_panics() {
    const TEST: &str = "credentials::a_machine_without_ca_certificates_is_told_so_and_nothing_panics";
    if is_child(TEST) {
        let failed = Store::new(config("http://127.0.0.1:9")).map(|_| ()).unwrap_err();
        assert_eq!(failed.reason, Reason::Missing);
        assert!(failed.detail.contains("ca-certificates"), "{failed}");
        return;
    }
    let environment = [("SSL_CERT_FILE", "/dev/null".to_owned()), ("SSL_CERT_DIR", "/nonexistent".to_owned())];
    run_child(TEST, &environment).await;
}
