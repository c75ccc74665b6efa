//! The stand-in does what other tests rely on.

use std::time::Duration;

use jiff::SignedDuration;
use rotad::motherduck::Provider;
use rotad::motherduck::stand_in::{Character, Fault, Misbehaviour, Operation as Op, Record, Server, State};
use rotad::rotation::{IssueOutcome, TokenType};
use rotad::secret::Secret;
use serde_json::{Value, json};

use crate::support::{ACCOUNT, ADMIN_TOKEN, account, caller, pair, pair_of, request, server_options};

/// A plain request, as somebody outside would make it.
async fn ask(server: &Server, method: &str, path: &str, bearer: &str, body: Option<Value>) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.request(method.parse().unwrap(), format!("{}{path}", server.url())).bearer_auth(bearer);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn create(server: &Server, body: Value) -> (u16, Value) {
    ask(server, "POST", "/v1/users/etl_prod/tokens", ADMIN_TOKEN, Some(body)).await
}

#[tokio::test]
async fn tokens_expire_by_the_stand_in_s_own_time() {
    let (server, caller) = pair().await;
    let (issued, value) = caller.issued().await;
    server.shift_time(SignedDuration::from_mins(59), SignedDuration::ZERO);
    assert!(server.is_live(&value));
    assert_eq!(caller.listed().await, vec![issued.token.clone()]);
    server.shift_time(SignedDuration::from_mins(61), SignedDuration::ZERO);
    assert!(!server.is_live(&value));
    assert_eq!(caller.listed().await, vec![]);
    // 404 with its code by default; 200 is the other side of the open question.
    caller.gone(&issued.token.id).await;
    assert_eq!(server.log(0).last().unwrap().status, Some(404));
    server.set_character(Character { expired_id_revokes: true, ..Character::default() });
    caller.gone(&issued.token.id).await;
    assert_eq!(server.log(0).last().unwrap().status, Some(200));
}

#[tokio::test]
async fn time_can_run_faster() {
    let mut options = server_options();
    options.speed = 3_600;
    let server = Server::start(options).await.unwrap();
    let (_, value) = caller(&server.url()).issued().await;
    // The token's hour is one second of ours.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(!server.is_live(&value));
}

#[tokio::test]
async fn the_date_that_it_claims_can_differ_from_its_time() {
    let (server, _) = pair().await;
    server.shift_time(SignedDuration::ZERO, SignedDuration::from_hours(-5));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.get(format!("{}/v1/active_accounts", server.url())).send().await.unwrap();
    let date = response.headers()["date"].to_str().unwrap().to_owned();
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(&date).unwrap();
    let behind = server.state().time.duration_since(date);
    assert!(behind >= SignedDuration::from_hours(5) && behind < SignedDuration::from_mins(301), "{behind}");
}

#[tokio::test]
async fn every_request_is_recorded_with_its_effect_and_without_a_value() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = server_options();
    options.log = Some(folder.path().join("log"));
    let server = Server::start(options).await.unwrap();
    let caller = caller(&server.url());
    let asked = request();
    let (IssueOutcome::Issued(issued), Some(value)) = caller.client.issue(&asked).await else { panic!("not issued") };
    server.misbehave(Fault::once(Misbehaviour::Reset { carry_out: false }));
    caller.not_gone(&issued.token.id).await;
    server.misbehave(Fault::once(Misbehaviour::Reset { carry_out: true }));
    caller.not_gone(&issued.token.id).await;

    let log = server.log(0);
    let text = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let written: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(log, written);
    assert!(!text.contains(value.expose()) && !text.contains(ADMIN_TOKEN));
    let brief: Vec<_> = log.iter().map(|r| (r.sequence, r.operation, r.effect, r.status, r.fault.as_deref())).collect();
    assert_eq!(
        brief,
        [
            (1, Op::CreateToken, true, Some(200), None),
            (2, Op::RevokeToken, false, None, Some("reset")),
            (3, Op::RevokeToken, true, Some(200), Some("reset")),
        ]
    );
    for record in &log {
        assert_eq!(record.account.as_deref(), Some(ACCOUNT));
        assert_eq!(record.caller.as_deref(), Some("admin"));
        assert_eq!(record.token_id.as_deref(), Some(issued.token.id.0.as_str()));
    }
    assert_eq!((log[0].fingerprint, log[2].fingerprint), (Some(issued.fingerprint), Some(issued.fingerprint)));
    assert_eq!(log[0].token_name, Some(asked.name.to_string()));
    assert!(log.windows(2).all(|pair| pair[0].at_ns <= pair[1].at_ns));
    assert_eq!(server.log(2), log[2..]);
}

#[tokio::test]
async fn names_are_unique_and_freed_or_not() {
    for free in [false, true] {
        let (server, _) = pair_of(Character { dead_names_are_free: free, ..Character::default() }).await;
        let name = json!({ "name": "one", "ttl": 300 });
        let (_, token) = create(&server, name.clone()).await;
        assert_eq!(create(&server, name.clone()).await.0, 409);
        let path = format!("/v1/users/etl_prod/tokens/{}", token["id"].as_str().unwrap());
        assert_eq!(ask(&server, "DELETE", &path, ADMIN_TOKEN, None).await.0, 200);
        assert_eq!(create(&server, name.clone()).await.0, if free { 200 } else { 409 });
        // Expired instead of revoked.
        server.shift_time(SignedDuration::from_mins(10), SignedDuration::ZERO);
        assert_eq!(create(&server, name).await.0, if free { 200 } else { 409 });
    }
}

#[tokio::test]
async fn each_question_that_is_open_has_both_sides() {
    let (server, _) = pair().await;
    let with = |change: fn(&mut Character)| {
        let mut character = Character::default();
        change(&mut character);
        server.set_character(character);
    };
    let textual = json!({ "name": "a", "ttl": "300" });
    let fractional = json!({ "name": "b", "ttl": 300.5 });
    assert_eq!((create(&server, textual.clone()).await.0, create(&server, fractional.clone()).await.0), (400, 400));
    with(|c| (c.textual_ttl, c.fractional_ttl) = (true, true));
    assert_eq!((create(&server, textual).await.0, create(&server, fractional).await.0), (200, 200));
    with(|c| c.slash_in_names = false);
    assert_eq!(create(&server, json!({ "name": "a/b" })).await.0, 400);
    with(|c| c.drop_description = true);
    assert_eq!(create(&server, json!({ "name": "c", "description": "d" })).await.1.get("description"), None);
    with(|c| c.tokens_max = Some(3));
    assert_eq!(create(&server, json!({ "name": "d" })).await.0, 400);

    let (_, own) = {
        with(|_| ());
        create(&server, json!({ "name": "own" })).await
    };
    let (own, path) = (own["token"].as_str().unwrap(), "/v1/users/etl_prod/tokens");
    let created = async |name: &str| ask(&server, "POST", path, own, Some(json!({ "name": name }))).await;
    let revoked = async |id: &Value| ask(&server, "DELETE", &format!("{path}/{}", id.as_str().unwrap()), own, None).await.0;
    let (status, token) = created("e").await;
    assert_eq!((status, ask(&server, "GET", path, own, None).await.0), (200, 200));
    with(|c| (c.member_creates, c.member_lists, c.member_revokes) = (false, false, false));
    assert_eq!(
        (created("f").await.0, ask(&server, "GET", path, own, None).await.0, revoked(&token["id"]).await),
        (403, 403, 403)
    );
    with(|_| ());
    assert_eq!(revoked(&token["id"]).await, 200);
    // Never for anyone else, and never with a read-scaling token.
    assert_eq!(ask(&server, "GET", "/v1/users/admin/tokens", own, None).await.0, 403);
    let (_, scaling) = create(&server, json!({ "name": "g", "token_type": "read_scaling" })).await;
    assert_eq!(scaling["read_only"], true);
    assert_eq!(ask(&server, "GET", path, scaling["token"].as_str().unwrap(), None).await.0, 403);
}

#[tokio::test]
async fn lists_can_lag_and_revocations_take_hold_late() {
    let late = Character { list_lag_ms: 60_000, list_linger_ms: 60_000, revocation_delay_ms: 30_000, ..Character::default() };
    let (server, caller) = pair_of(late).await;
    let (issued, value) = caller.issued().await;
    assert_eq!(caller.listed().await, vec![]);
    server.shift_time(SignedDuration::from_secs(61), SignedDuration::ZERO);
    assert_eq!(caller.listed().await.len(), 1);
    caller.gone(&issued.token.id).await;
    assert!(server.is_live(&value));
    server.shift_time(SignedDuration::from_secs(92), SignedDuration::ZERO);
    assert!(!server.is_live(&value));
    assert_eq!(caller.listed().await.len(), 1);
    server.shift_time(SignedDuration::from_secs(122), SignedDuration::ZERO);
    assert_eq!(caller.listed().await, vec![]);
}

#[tokio::test]
async fn a_request_can_be_carried_out_after_its_connection_is_gone() {
    let (server, caller) = pair().await;
    server.misbehave(Fault::once(Misbehaviour::Late { seconds: 0.5 }));
    caller.unknown().await;
    assert_eq!(caller.listed().await, vec![]);
    while server.state().live_tokens(ACCOUNT).is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.log(0).iter().filter(|record| record.effect).count(), 1);
}

#[tokio::test]
async fn faults_meet_the_requests_that_they_are_for() {
    let (server, caller) = pair().await;
    server.add_account("other").unwrap();
    let fault =
        |account: &str| Fault { account: Some(account.to_owned()), ..Fault::always(Misbehaviour::NoRoute {}).of(Op::ListTokens) };
    server.misbehave(fault("Other"));
    caller.issued().await;
    caller.listed().await;
    server.misbehave(fault(ACCOUNT));
    caller.issued().await;
    caller.not_listed().await;
    server.behave();
    server.misbehave(Fault { seconds: Some(0.3), ..Fault::always(Misbehaviour::NoRoute {}) });
    caller.not_listed().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    caller.listed().await;
    server.set_character(Character { requests_per_second: Some(0), ..Character::default() });
    assert_eq!(caller.not_listed().await.reason, rotad::rotation::Reason::Throttled);
}

#[tokio::test]
async fn it_is_steered_over_http() {
    let (server, caller) = pair().await;
    let (_, value) = caller.issued().await;
    let control =
        async |method: &str, path: &str, body: Option<Value>| ask(&server, method, &format!("/_stand-in/{path}"), "", body).await;

    assert_eq!(
        ask(&server, "GET", "/_stand-in/validate", value.expose(), None).await,
        (200, json!({ "username": ACCOUNT, "token_type": "read_write" }))
    );
    assert_eq!(ask(&server, "GET", "/_stand-in/validate", "nothing", None).await.0, 401);
    // Whoever uses a token has an instance running.
    let (_, active) = ask(&server, "GET", "/v1/active_accounts", ADMIN_TOKEN, None).await;
    assert_eq!(active["accounts"][0]["ducklings"][0], json!({ "id": "rw", "type": "read_write", "status": "active" }));

    let (_, state) = control("GET", "state", None).await;
    assert!(!state.to_string().contains(value.expose()));
    let state: State = serde_json::from_value(state).unwrap();
    assert_eq!(state.live_tokens(ACCOUNT)[0].fingerprint, value.fingerprint());
    assert_eq!(state.live_tokens(ACCOUNT)[0].token_type, TokenType::ReadWrite);
    let (_, log) = control("GET", "log?after=1", None).await;
    assert_eq!(serde_json::from_value::<Vec<Record>>(log).unwrap(), server.log(1));

    let fault = json!({ "misbehaviour": { "status": { "status": 503, "retry_after": { "seconds": 4 } } }, "operations": ["list_tokens"] });
    assert_eq!(control("POST", "faults", Some(fault)).await.0, 200);
    assert_eq!(control("GET", "faults", None).await.1.as_array().unwrap().len(), 1);
    assert_eq!(caller.not_listed().await.retry_after, Some(SignedDuration::from_secs(4)));
    assert_eq!(control("DELETE", "faults", None).await.0, 200);
    caller.listed().await;
    assert_eq!(control("POST", "faults", Some(json!({ "misbehaviour": "sulk" }))).await.0, 400);

    assert_eq!(control("PATCH", "character", Some(json!({ "page_size": 1, "time_format": "seconds" }))).await.0, 200);
    assert_eq!((server.character().page_size, server.character().slash_in_names), (Some(1), true));
    assert_eq!(control("PATCH", "character", Some(json!({ "colour": 1 }))).await.0, 400);
    assert_eq!(control("POST", "users", Some(json!({ "username": "ada", "roles": ["explorer"], "human": true }))).await.0, 200);
    assert_eq!(ask(&server, "POST", "/v1/users/ada/tokens", ADMIN_TOKEN, Some(json!({ "name": "x" }))).await.0, 403);
    assert_eq!(control("PATCH", "time", Some(json!({ "offset_seconds": 7200 }))).await.0, 200);
    assert!(!server.is_live(&value));
}

#[tokio::test]
async fn users_are_listed_in_pages_and_deleted_with_their_tokens() {
    let (server, caller) = pair().await;
    let (_, value) = caller.issued().await;
    for name in ["one", "two", "Three"] {
        assert_eq!(ask(&server, "POST", "/v1/users", ADMIN_TOKEN, Some(json!({ "username": name }))).await.0, 200);
    }
    assert_eq!(ask(&server, "POST", "/v1/users", ADMIN_TOKEN, Some(json!({ "username": "THREE" }))).await.0, 409);
    for wrong in ["", "ab", "1ab", "a-b", "a b", &"a".repeat(256)] {
        assert_eq!(ask(&server, "POST", "/v1/users", ADMIN_TOKEN, Some(json!({ "username": wrong }))).await.0, 400, "{wrong}");
    }
    let (mut names, mut query) = (Vec::new(), "?limit=2&is_service_account=true".to_owned());
    loop {
        let (_, page) = ask(&server, "GET", &format!("/v1/users{query}"), ADMIN_TOKEN, None).await;
        assert_eq!(page["total_count"], 4);
        names.extend(page["users"].as_array().unwrap().iter().map(|user| user["username"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_page_token"].as_str() else { break };
        query = format!("?limit=2&is_service_account=true&page_token={next}");
    }
    assert_eq!(names, ["etl_prod", "one", "two", "Three"]);
    assert_eq!(ask(&server, "DELETE", "/v1/users/ETL_PROD", ADMIN_TOKEN, None).await, (200, json!({ "username": "etl_prod" })));
    assert!(!server.is_live(&value));
    assert_eq!(caller.not_listed().await.reason, rotad::rotation::Reason::NoSuchAccount);
}

#[tokio::test]
async fn it_stops_though_a_request_hangs_and_its_admin_token_expires() {
    let mut options = server_options();
    options.admin_token_ttl = Some(SignedDuration::from_hours(1));
    let server = Server::start(options).await.unwrap();
    let caller = std::sync::Arc::new(caller(&server.url()));
    caller.listed().await;
    server.shift_time(SignedDuration::from_hours(2), SignedDuration::ZERO);
    assert_eq!(caller.refused().await.reason, rotad::rotation::Reason::Unauthorized);
    server.replace_admin_token(&Secret::new(ADMIN_TOKEN.to_owned()), None);
    server.misbehave(Fault::once(Misbehaviour::Hang { carry_out: false }));
    let hanging = tokio::spawn({
        let caller = std::sync::Arc::clone(&caller);
        async move { caller.client.list(&account()).await }
    });
    while server.faults_left() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::timeout(Duration::from_secs(10), server.stop()).await.unwrap();
    hanging.await.unwrap();
}
