//! The client of MotherDuck's API against the stand-in, and against scripted bytes where the
//! stand-in is too well-behaved.
#![cfg(feature = "stand-in")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

#[path = "motherduck/accounts.rs"]
mod accounts;
#[path = "support/log.rs"]
mod log;
#[path = "motherduck/stand_in.rs"]
mod stand_in;
#[path = "motherduck/support.rs"]
mod support;

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use log::Log;
use rotad::motherduck::stand_in::{
    Character, CursorEnd, DuplicateName, Fault, Misbehaviour, Operation as Op, RetryAfter, RevokeAnswer, TimeFormat,
};
use rotad::motherduck::{Code, Limits, Operation, Provider};
use rotad::rotation::{Account, IssueOutcome, ListOutcome, Reason, RevokeOutcome, TokenId, TokenType, VerifyOutcome};
use rotad::secret::Secret;
use support::{
    ACCOUNT, ADMIN_TOKEN, Act, Scripted, account, answer, brief, caller, caller_with, checked, limits, met, pair, pair_of,
    request,
};

fn status(status: u16, retry_after: Option<RetryAfter>, carry_out: bool) -> Misbehaviour {
    Misbehaviour::Status { status, retry_after, carry_out, html: false }
}

fn body(status: u16, text: &str) -> Misbehaviour {
    Misbehaviour::Body { status, content_type: "application/json".to_owned(), text: text.to_owned(), carry_out: false }
}

/// A token in an answer, with `changes` in place of its own fields.
fn token_json(changes: &str) -> String {
    let plain = r#"{"token":"eyJ.PLANTED.x","id":"5b0c7a3e-0000-4000-8000-000000000001","name":"n","created_ts":"2026-11-21T23:00:00Z",
        "expire_at":"2026-12-21T23:00:00Z","read_only":false,"token_type":"read_write"}"#;
    let mut token: serde_json::Value = serde_json::from_str(plain).unwrap();
    let changes: serde_json::Map<String, serde_json::Value> = serde_json::from_str(changes).unwrap();
    token.as_object_mut().unwrap().extend(changes);
    token.as_object_mut().unwrap().retain(|_, value| value != "DELETE");
    token.to_string()
}

#[tokio::test]
async fn a_token_is_issued_as_asked_listed_and_revoked() {
    let (server, caller) = pair().await;
    let asked = request();
    let (outcome, value) = caller.client.issue(&asked).await;
    let (IssueOutcome::Issued(issued), Some(value)) = (outcome, value) else { panic!("not issued") };
    assert_eq!(issued.fingerprint, value.fingerprint());
    assert_eq!(issued.token.name.as_deref(), Some(asked.name.to_string().as_str()));
    assert_eq!(issued.token.token_type, TokenType::ReadWrite);
    assert_eq!(issued.token.expires_at.unwrap().duration_since(issued.token.created_at), asked.ttl);
    assert!(server.is_live(&value));
    let live = server.state();
    assert_eq!(live.live_tokens(ACCOUNT)[0].fingerprint, issued.fingerprint);

    assert_eq!(caller.listed().await, vec![issued.token.clone()]);
    caller.gone(&issued.token.id).await;
    assert!(!server.is_live(&value));
    assert_eq!(caller.listed().await, vec![]);
    // Again: it is gone already.
    caller.gone(&issued.token.id).await;
    let codes = [
        (Operation::Issue, Code::Ok200),
        (Operation::List, Code::Ok200),
        (Operation::Revoke, Code::Ok200),
        (Operation::List, Code::Ok200),
        (Operation::Revoke, Code::NotFound404),
    ];
    assert_eq!(caller.seen.take(), codes);
    server.stop().await;
}

#[tokio::test]
async fn a_request_goes_over_the_wire_as_the_contract_has_it() {
    let server = Scripted::start(vec![answer("200 OK", &token_json("{}"))]).await;
    let caller = caller(&format!("{}/base/", server.url));
    let mut asked = request();
    asked.account = Account::new("a/b?c");
    asked.token_type = TokenType::ReadScaling;
    caller.client.issue(&asked).await;
    caller.client.revoke(&account(), &TokenId("../x".to_owned())).await;
    let requests = server.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /base/v1/users/a%2Fb%3Fc/tokens HTTP/1.1\r\n"), "{head}");
    let headers = [
        ("accept", "application/json".to_owned()),
        ("authorization", format!("Bearer {ADMIN_TOKEN}")),
        ("content-type", "application/json".to_owned()),
        ("user-agent", format!("rotad/{}", env!("CARGO_PKG_VERSION"))),
    ];
    for (name, value) in headers {
        assert!(head.contains(&format!("\r\n{name}: {value}")), "{name} in {head}");
    }
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, serde_json::json!({ "name": asked.name.to_string(), "ttl": 3600, "token_type": "read_scaling" }));
    assert!(requests[1].starts_with("DELETE /base/v1/users/etl_prod/tokens/..%2Fx HTTP/1.1\r\n"), "{}", requests[1]);
}

#[tokio::test]
async fn a_name_that_could_be_another_path_is_refused_before_anything_is_sent() {
    let (server, caller) = pair().await;
    for name in ["", ".", "..", &"a".repeat(256)] {
        let account = Account::new(name);
        let mut asked = request();
        asked.account = account.clone();
        let (outcome, _) = caller.client.issue(&asked).await;
        assert!(matches!(outcome, IssueOutcome::Refused(ref failed) if failed.reason == Reason::Rejected), "{outcome:?}");
        assert!(matches!(caller.client.list(&account).await, ListOutcome::Failed(_)));
        assert!(matches!(caller.client.revoke(&account, &TokenId("x".to_owned())).await, RevokeOutcome::Failed(_)));
    }
    for id in ["", ".", ".."] {
        assert_eq!(caller.not_gone(&TokenId(id.to_owned())).await.reason, Reason::Rejected);
    }
    assert_eq!(server.log(0).len(), 0);
    assert_eq!(caller.seen.take(), []);
}

#[tokio::test]
async fn throttling_is_a_refusal_and_gives_the_wait_back_instead_of_sleeping() {
    let (server, caller) = pair().await;
    for (header, least, most) in [
        (None, None, None),
        (Some(RetryAfter::Seconds(7)), Some(7), Some(7)),
        (Some(RetryAfter::Date(90)), Some(89), Some(90)),
        // A day would run over deadlines: an hour is the most.
        (Some(RetryAfter::Seconds(86_400)), Some(3_600), Some(3_600)),
    ] {
        let start = Instant::now();
        server.misbehave(Fault::once(status(429, header, false)));
        let failed = caller.refused().await;
        assert_eq!(failed.reason, Reason::Throttled);
        let waits = failed.retry_after.map(|wait| wait.as_secs());
        assert!(waits >= least && waits <= most, "{waits:?} for {header:?}");
        server.misbehave(Fault::once(status(429, header, false)));
        assert_eq!(caller.not_listed().await.retry_after.is_some(), header.is_some());
        assert!(start.elapsed() < Duration::from_secs(6), "it slept for {:?}", start.elapsed());
    }
    assert_eq!(met(&server, Op::CreateToken), 4);
}

#[tokio::test]
async fn a_retry_date_counts_from_the_server_s_clock_and_the_past_is_no_wait() {
    let (server, caller) = pair().await;
    // The server is two hours ahead: against our clock the wait would be two hours and 20 s.
    server.shift_time(SignedDuration::from_hours(2), SignedDuration::ZERO);
    server.misbehave(Fault::once(status(429, Some(RetryAfter::Date(20)), false)));
    let wait = caller.refused().await.retry_after.unwrap();
    assert!(wait.as_secs() >= 19 && wait.as_secs() <= 20, "{wait}");
    let server = Scripted::start(vec![Act::Write(
        b"HTTP/1.1 429 x\r\nretry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n".to_vec(),
    )])
    .await;
    assert_eq!(support::caller(&server.url).refused().await.retry_after, Some(SignedDuration::ZERO));
}

#[tokio::test]
async fn the_clock_is_told_of_the_date_of_each_answer() {
    let (server, caller) = pair().await;
    assert_eq!(caller.clock.skew(), None);
    for hours in [3, -2, 0] {
        server.shift_time(SignedDuration::ZERO, SignedDuration::from_hours(hours));
        // A failure has a date as well as a success.
        server.misbehave(Fault::once(status(500, None, false)));
        caller.not_listed().await;
        let ahead = -caller.clock.skew().unwrap();
        assert!((ahead - SignedDuration::from_hours(hours)).abs() < SignedDuration::from_secs(10), "{ahead} for {hours} h");
    }
}

#[tokio::test]
async fn a_5xx_to_an_issue_is_an_unknown_outcome_and_nothing_is_sent_again() {
    let (server, caller) = pair().await;
    for (count, code) in [500, 502, 503, 504, 599].into_iter().enumerate() {
        for (carried, carry_out) in [false, true].into_iter().enumerate() {
            server.misbehave(Fault::once(status(code, Some(RetryAfter::Seconds(3)), carry_out)));
            let failed = caller.unknown().await;
            assert_eq!((failed.reason, failed.retry_after), (Reason::Unavailable, Some(SignedDuration::from_secs(3))));
            assert_eq!(met(&server, Op::CreateToken), 2 * count + carried + 1);
        }
    }
    assert_eq!(caller.listed().await.len(), 5);
    server.misbehave(Fault::once(Misbehaviour::Status { status: 502, retry_after: None, carry_out: false, html: true }));
    assert!(!caller.unknown().await.detail.contains("html"));
}

#[tokio::test]
async fn a_page_is_asked_for_again_after_a_passing_failure_and_a_revocation_is_not() {
    let (server, caller) = pair().await;
    let (issued, _) = caller.issued().await;
    for code in [502, 503, 504] {
        server.misbehave(Fault { requests: Some(2), ..Fault::always(status(code, None, false)) });
        assert_eq!(caller.listed().await.len(), 1);
        server.misbehave(Fault { requests: Some(3), ..Fault::always(status(code, None, false)) });
        assert_eq!(caller.not_listed().await.reason, Reason::Unavailable);
    }
    let before = met(&server, Op::ListTokens);
    server.misbehave(Fault::once(status(500, None, false)));
    assert_eq!(caller.not_listed().await.reason, Reason::Unavailable);
    server.misbehave(Fault::once(status(503, Some(RetryAfter::Seconds(9)), false)));
    assert_eq!(caller.not_listed().await.retry_after, Some(SignedDuration::from_secs(9)));
    assert_eq!(met(&server, Op::ListTokens), before + 2);
    // Its caller must read the deliveries anew first.
    server.misbehave(Fault::once(status(503, None, false)));
    assert_eq!(caller.not_gone(&issued.token.id).await.reason, Reason::Unavailable);
    assert_eq!(met(&server, Op::RevokeToken), 1);
}

#[tokio::test]
async fn without_a_connection_nothing_was_issued() {
    let (server, caller) = pair().await;
    // A connection is kept from before: it is reset when the port closes.
    caller.issued().await;
    server.misbehave(Fault { seconds: Some(60.0), ..Fault::always(Misbehaviour::Refuse {}) });
    caller.seen.take();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let failed = caller.refused().await;
    assert_eq!(failed.reason, Reason::Unreachable);
    assert!(failed.detail.contains("refused"), "{failed}");
    assert_eq!(caller.not_listed().await.reason, Reason::Unreachable);
    assert_eq!(caller.not_gone(&TokenId("x".to_owned())).await.reason, Reason::Unreachable);
    assert!(caller.seen.take().iter().all(|(_, code)| *code == Code::Connect));
    server.behave();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(caller.listed().await.len(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_an_issue_unknown() {
    let (server, caller) = pair().await;
    for (index, carry_out) in [false, true].into_iter().enumerate() {
        server.misbehave(Fault::once(Misbehaviour::Reset { carry_out }).of(Op::CreateToken));
        assert_eq!(caller.unknown().await.reason, Reason::BadAnswer);
        assert_eq!(caller.listed().await.len(), index, "carried out: {carry_out}");
        assert_eq!(met(&server, Op::CreateToken), index + 1, "it was sent again");
    }
    assert_eq!(caller.seen.take()[0], (Operation::Issue, Code::Broken));
    let (issued, _) = caller.issued().await;
    server.misbehave(Fault::once(Misbehaviour::Reset { carry_out: true }));
    assert_eq!(caller.not_gone(&issued.token.id).await.reason, Reason::BadAnswer);
    caller.gone(&issued.token.id).await;
    let server = Scripted::start(vec![Act::Reset]).await;
    assert_eq!(support::caller(&server.url).unknown().await.reason, Reason::BadAnswer);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn no_answer_in_time_leaves_an_issue_unknown() {
    let (server, caller) = pair().await;
    server.misbehave(Fault::once(Misbehaviour::Hang { carry_out: true }));
    let failed = caller.unknown().await;
    assert_eq!(failed.reason, Reason::TimedOut);
    assert_eq!(caller.listed().await.len(), 1);
    server.misbehave(Fault::once(Misbehaviour::Hang { carry_out: false }));
    assert_eq!(caller.not_listed().await.reason, Reason::TimedOut);
    let codes = caller.seen.take();
    assert_eq!([codes[0], codes[2]], [(Operation::Issue, Code::Timeout), (Operation::List, Code::Timeout)]);
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_off_by_the_limit_of_the_whole() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n".to_vec();
    let server = Scripted::start(vec![Act::Drip(head)]).await;
    let caller = caller(&server.url);
    assert_eq!(caller.unknown().await.reason, Reason::TimedOut);
    assert_eq!(caller.not_listed().await.reason, Reason::TimedOut);
    assert_eq!(caller.seen.take(), [(Operation::Issue, Code::Timeout), (Operation::List, Code::Timeout)]);
}

#[tokio::test]
async fn a_list_as_a_whole_has_a_limit() {
    let limits = rotad::motherduck::TimeLimits { list: Duration::from_millis(400), ..brief() };
    let (server, _) = pair_of(Character { page_size: Some(1), ..Character::default() }).await;
    let caller = caller_with(&server.url(), limits, Limits::NONE);
    for _ in 0..4 {
        caller.issued().await;
    }
    server.misbehave(Fault::always(Misbehaviour::Delay { seconds: 0.2 }));
    assert_eq!(caller.not_listed().await.reason, Reason::TimedOut);
}

#[tokio::test]
async fn a_success_that_can_t_be_read_leaves_an_issue_unknown_and_a_list_failed() {
    let (server, caller) = pair().await;
    for fault in [
        Misbehaviour::Truncate {},
        Misbehaviour::Empty {},
        body(200, "<html>PLANTED</html>"),
        body(200, "{\"token\":\"eyJ.PLANTED.x\""),
        body(200, "[]"),
        body(200, "[[]]"),
        body(200, r#"["eyJ.PLANTED.x","5b0c","n","2026-11-21T23:00:00Z","2026-12-21T23:00:00Z","read_write"]"#),
        body(200, r#"{"tokens":[["PLANTED","5b0c","n","2026-11-21T23:00:00Z","2026-12-21T23:00:00Z","read_write"]]}"#),
        body(200, "{}"),
        body(204, ""),
        body(200, &token_json(r#"{"token":"DELETE"}"#)),
        body(200, &token_json(r#"{"token":""}"#)),
        body(200, &token_json(r#"{"token":"PLANTED PLANTED"}"#)),
        body(200, &token_json(r#"{"token":["PLANTED"]}"#)),
        body(200, &token_json(r#"{"id":"DELETE"}"#)),
        body(200, &token_json(r#"{"id":""}"#)),
        body(200, &token_json(r#"{"id":{"PLANTED":1}}"#)),
        body(200, &token_json(r#"{"created_ts":"PLANTED"}"#)),
        body(200, &token_json(r#"{"expire_at":"PLANTED"}"#)),
        body(200, &token_json(r#"{"token_type":"PLANTED"}"#)),
    ] {
        server.misbehave(Fault::once(fault.clone()));
        let failed = caller.unknown().await;
        assert_eq!(failed.reason, Reason::BadAnswer, "{fault:?}");
        server.misbehave(Fault::once(fault.clone()));
        assert_eq!(caller.not_listed().await.reason, Reason::BadAnswer, "{fault:?}");
    }
    assert_eq!(server.faults_left(), 0);
    // The truncated and the empty one were carried out, which is why they are unknown.
    assert_eq!(caller.listed().await.len(), 2);
}

#[tokio::test]
async fn bodies_have_limits() {
    let (server, caller) = pair().await;
    let large = format!("{{\"tokens\":[],\"x\":\"{}\"}}", "x".repeat(16 << 20));
    server.misbehave(Fault::once(body(200, &large)));
    let failed = caller.not_listed().await;
    assert!(failed.reason == Reason::BadAnswer && failed.detail.contains("16 MiB"), "{failed}");
    // Within the limit.
    server.misbehave(Fault::once(body(200, &large.replacen(&"x".repeat(100), "", 1))));
    assert_eq!(caller.listed().await, vec![]);
    // An error's status counts whatever its size; its code is not read.
    let large = format!("{{\"code\":\"NOT_FOUND\",\"message\":\"{}\"}}", "x".repeat(1 << 20));
    server.misbehave(Fault::once(body(400, &large)));
    assert_eq!(caller.refused().await.reason, Reason::Rejected);
    server.misbehave(Fault::once(body(404, &large)));
    assert_eq!(caller.not_gone(&TokenId("x".to_owned())).await.reason, Reason::BadAnswer);
    // Without a length, too.
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; (16 << 20) + 1]].concat();
    let server = Scripted::start(vec![Act::Write(endless)]).await;
    let failed = support::caller(&server.url).not_listed().await;
    assert!(failed.detail.contains("16 MiB"), "{failed}");
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let elsewhere = Scripted::start(vec![answer("200 OK", &token_json("{}"))]).await;
    let (server, caller) = pair().await;
    for code in [300, 301, 302, 303, 304, 307, 308] {
        let redirect = Misbehaviour::Redirect { status: code, location: format!("{}/v1/PLANTED", elsewhere.url) };
        server.misbehave(Fault { requests: Some(3), ..Fault::always(redirect) });
        // A 307 or 308 asks for the same request elsewhere: nothing was done. Any other may follow on work that was done.
        let failed = if code >= 307 { caller.refused().await } else { caller.unknown().await };
        assert_eq!(failed.reason, Reason::NoRoute);
        assert!(failed.detail.contains("api_url"), "{failed}");
        assert_eq!(caller.not_listed().await.reason, Reason::NoRoute);
        assert_eq!(caller.not_gone(&TokenId("x".to_owned())).await.reason, Reason::NoRoute);
    }
    assert_eq!(elsewhere.requests().len(), 0, "a redirect was followed");
}

#[tokio::test]
async fn pages_are_read_to_the_last_however_it_says_so() {
    for cursor_end in [CursorEnd::Absent, CursorEnd::Null, CursorEnd::Empty] {
        let (server, caller) = pair_of(Character { page_size: Some(2), cursor_end, ..Character::default() }).await;
        let mut issued = Vec::new();
        for count in [0, 1, 2, 3, 5] {
            while issued.len() < count {
                issued.push(caller.issued().await.0.token);
            }
            let before = met(&server, Op::ListTokens);
            assert_eq!(caller.listed().await, issued, "{cursor_end:?}");
            assert_eq!(met(&server, Op::ListTokens) - before, count.div_ceil(2).max(1));
        }
    }
}

#[tokio::test]
async fn a_list_with_a_page_missing_or_in_a_circle_is_no_list() {
    let paged = Character { page_size: Some(2), ..Character::default() };
    let (server, caller) = pair_of(paged.clone()).await;
    for _ in 0..5 {
        caller.issued().await;
    }
    for page in 0..3 {
        server.set_character(Character { missing_page: Some(page), ..paged.clone() });
        assert_eq!(caller.not_listed().await.reason, Reason::Unavailable);
    }
    server.set_character(Character { cursor_loop: true, ..paged.clone() });
    let failed = caller.not_listed().await;
    assert!(failed.reason == Reason::BadAnswer && failed.detail.contains("circle"), "{failed}");
    server.set_character(paged);
    for fault in [Misbehaviour::NoRoute {}, Misbehaviour::Truncate {}, body(404, r#"{"code":"NOT_FOUND","message":"x"}"#)] {
        server.misbehave(Fault { skip: 2, ..Fault::once(fault) });
        caller.not_listed().await;
    }
    server.set_character(Character { page_size: Some(1), ..Character::default() });
    for _ in 0..96 {
        caller.issued().await;
    }
    let failed = caller.not_listed().await;
    assert!(failed.detail.contains("100 pages"), "{failed}");
}

#[tokio::test]
async fn a_token_on_two_pages_counts_once() {
    let token = |id: u8| format!(r#"{{"id":"{id}","created_ts":"2026-11-21T23:00:00Z","token_type":"read_write"}}"#);
    let first = format!(r#"{{"tokens":[{},{}],"next_page_token":"a b&c"}}"#, token(1), token(2));
    let server = Scripted::start(vec![
        answer("200 OK", &first),
        answer("200 OK", &format!(r#"{{"tokens":[{},{}]}}"#, token(2), token(3))),
    ])
    .await;
    let listed = caller(&server.url).listed().await;
    assert_eq!(listed.iter().map(|token| token.id.0.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(server.requests()[1].starts_with("GET /v1/users/etl_prod/tokens?page_token=a%20b%26c HTTP/1.1"));
}

#[tokio::test]
async fn only_a_404_with_its_code_proves_absence() {
    let (server, caller) = pair().await;
    let nobody = Account::new("nobody");
    let mut asked = request();
    asked.account = nobody.clone();
    let (outcome, _) = caller.client.issue(&asked).await;
    assert!(matches!(outcome, IssueOutcome::Refused(ref failed) if failed.reason == Reason::NoSuchAccount), "{outcome:?}");
    let outcome = caller.client.list(&nobody).await;
    assert!(matches!(outcome, ListOutcome::Failed(ref failed) if failed.reason == Reason::NoSuchAccount), "{outcome:?}");

    let (issued, value) = caller.issued().await;
    let no_code = [
        Misbehaviour::NoRoute {},
        body(404, ""),
        body(404, "{}"),
        body(404, r#"{"message":"NOT_FOUND"}"#),
        body(404, r#"{"code":"OTHER","message":"entity not found"}"#),
    ];
    for fault in no_code {
        server.misbehave(Fault { requests: Some(3), ..Fault::always(fault) });
        assert_eq!(caller.refused().await.reason, Reason::NoRoute);
        assert_eq!(caller.not_listed().await.reason, Reason::NoRoute);
        let failed = caller.not_gone(&issued.token.id).await;
        assert!(failed.reason == Reason::NoRoute && failed.detail.contains("api_url"), "{failed}");
    }
    assert!(server.is_live(&value));
    // An odd message does not hide the code.
    server.misbehave(Fault::once(body(404, r#"{"code":"NOT_FOUND","message":7,"issues":"none"}"#)));
    caller.gone(&issued.token.id).await;
}

#[tokio::test]
async fn a_taken_name_is_an_unknown_outcome_since_we_may_hold_it() {
    for duplicate_name in [DuplicateName::Conflict, DuplicateName::BadRequest] {
        let (server, caller) = pair_of(Character { duplicate_name, ..Character::default() }).await;
        let asked = request();
        server.misbehave(Fault::once(Misbehaviour::Reset { carry_out: true }));
        assert!(matches!(caller.client.issue(&asked).await.0, IssueOutcome::Unknown(_)));
        let (outcome, value) = caller.client.issue(&asked).await;
        assert!(value.is_none());
        assert!(matches!(outcome, IssueOutcome::Unknown(ref failed) if failed.reason == Reason::NameTaken), "{outcome:?}");
        assert_eq!(caller.listed().await.len(), 1);
    }
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let (server, caller) = pair_of(Character { slash_in_names: false, ..Character::default() }).await;
    let failed = caller.refused().await;
    assert_eq!(failed.reason, Reason::Rejected);
    assert!(failed.detail.contains("`BAD_REQUEST` (name is not allowed)"), "{failed}");

    server.replace_admin_token(&Secret::new("eyJ.another.one".to_owned()), None);
    for failed in [caller.refused().await, caller.not_listed().await, caller.not_gone(&TokenId("x".to_owned())).await] {
        assert_eq!(failed.reason, Reason::Unauthorized);
        assert!(
            failed.detail.contains("admin token of organization `main` is expired, revoked or wrong: replace it"),
            "{failed}"
        );
    }
    // The replacement is taken up without a wait, for a POST too: the 401 came before anything was done.
    server.set_character(Character::default());
    std::fs::write(&caller.token_file, "eyJ.another.one").unwrap();
    let (issued, value) = caller.issued().await;
    assert_eq!(caller.listed().await, vec![issued.token]);

    // An account's own token may not act for another account.
    server.add_account("other").unwrap();
    std::fs::write(&caller.token_file, value.expose()).unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let ListOutcome::Failed(failed) = caller.client.list(&Account::new("other")).await else { panic!("listed") };
    assert_eq!(checked(failed.clone()).reason, Reason::Forbidden);
    assert!(failed.detail.contains("(Unauthorized: minimum role org_admin is required)"), "{failed}");
    assert!(failed.detail.contains("read/write token of a user with the role Admin"), "{failed}");

    for code in [402, 405, 415, 418, 422] {
        server.misbehave(Fault::once(status(code, None, false)));
        assert_eq!(caller.refused().await.reason, Reason::Rejected);
    }
    // A gateway's time-out does not say whether the API saw the request.
    server.misbehave(Fault::once(status(408, None, true)));
    assert_eq!(caller.unknown().await.reason, Reason::TimedOut);
}

#[tokio::test]
async fn an_admin_token_that_can_t_be_read_is_a_refusal() {
    let (server, caller) = pair().await;
    std::fs::remove_file(&caller.token_file).unwrap();
    let failed = caller.refused().await;
    assert!(failed.reason == Reason::Unauthorized && failed.detail.contains("can't be read"), "{failed}");
    assert_eq!(server.log(0).len(), 0);
}

#[tokio::test]
async fn every_form_of_a_success_means_revoked() {
    for revoke_answer in [RevokeAnswer::EmptyObject, RevokeAnswer::NoContent, RevokeAnswer::EmptyBody] {
        let (server, caller) = pair_of(Character { revoke_answer, ..Character::default() }).await;
        let (issued, value) = caller.issued().await;
        caller.gone(&issued.token.id).await;
        assert!(!server.is_live(&value), "{revoke_answer:?}");
    }
    // The status says it all; the body may be cut off.
    let (server, caller) = pair().await;
    let (issued, value) = caller.issued().await;
    server.misbehave(Fault::once(Misbehaviour::Truncate {}));
    caller.gone(&issued.token.id).await;
    assert!(!server.is_live(&value));
    for (code, reason) in
        [(400, Reason::Rejected), (401, Reason::Unauthorized), (403, Reason::Forbidden), (429, Reason::Throttled)]
    {
        server.misbehave(Fault::once(status(code, None, false)));
        assert_eq!(caller.not_gone(&issued.token.id).await.reason, reason);
    }
}

#[tokio::test]
async fn times_are_read_in_every_form_and_unknown_fields_ignored() {
    use TimeFormat::{Milliseconds, Nanoseconds, Offset, Seconds, WithoutOffset};
    for time_format in [Seconds, Milliseconds, Nanoseconds, Offset, WithoutOffset] {
        let (server, caller) = pair_of(Character { time_format, ..Character::default() }).await;
        let (issued, _) = caller.issued().await;
        let truth = server.state().live_tokens(ACCOUNT)[0].clone();
        assert!(issued.token.created_at.duration_since(truth.created_at).abs() < SignedDuration::from_secs(1), "{time_format:?}");
        let life = issued.token.expires_at.unwrap().duration_since(issued.token.created_at);
        assert_eq!(life, SignedDuration::from_hours(1), "{time_format:?}");
        assert_eq!(caller.listed().await, vec![issued.token]);
    }
    let (server, caller) = pair().await;
    server.misbehave(Fault::once(body(200, &token_json(r#"{"created_ts":"2026-11-22t00:30:00.5+01:30","new":{"a":[1]}}"#))));
    let (issued, value) = caller.issued().await;
    assert_eq!(issued.token.created_at.to_string(), "2026-11-21T23:00:00.5Z");
    assert_eq!(value.expose(), "eyJ.PLANTED.x");
    for never in [r#"{"expire_at":"DELETE","name":"DELETE"}"#, r#"{"expire_at":null,"name":null}"#] {
        server.misbehave(Fault::once(body(200, &token_json(never))));
        let (issued, _) = caller.issued().await;
        assert_eq!((issued.token.expires_at, issued.token.name), (None, None));
    }
}

#[tokio::test]
async fn fields_that_the_api_dropped_show_in_the_outcome() {
    let dropping = Character { drop_ttl: true, drop_token_type: true, ..Character::default() };
    let (_server, caller) = pair_of(dropping).await;
    let mut asked = request();
    asked.token_type = TokenType::ReadScaling;
    let (IssueOutcome::Issued(issued), _) = caller.client.issue(&asked).await else { panic!("not issued") };
    assert_eq!((issued.token.expires_at, issued.token.token_type), (None, TokenType::ReadWrite));
}

#[tokio::test]
async fn a_new_token_proves_itself() {
    let (server, caller) = pair().await;
    let (issued, value) = caller.issued().await;
    assert_eq!(caller.client.verify_itself(&account(), &value).await, VerifyOutcome::Verified);
    // Known, but not allowed: that proves it too.
    server.set_character(Character { member_lists: false, ..Character::default() });
    assert_eq!(caller.client.verify_itself(&account(), &value).await, VerifyOutcome::Verified);
    for fault in [
        body(403, "{}"),
        body(401, "<html>"),
        body(401, r#"{"message":"a gateway's"}"#),
        body(200, "<html>"),
        status(500, None, false),
        status(429, None, false),
        Misbehaviour::NoRoute {},
        Misbehaviour::Reset { carry_out: false },
    ] {
        server.misbehave(Fault::once(fault.clone()));
        let outcome = caller.client.verify_itself(&account(), &value).await;
        assert!(matches!(outcome, VerifyOutcome::Failed(_)), "{fault:?}: {outcome:?}");
    }
    caller.gone(&issued.token.id).await;
    let outcome = caller.client.verify_itself(&account(), &value).await;
    assert!(matches!(outcome, VerifyOutcome::Disproved(ref failed) if failed.reason == Reason::Unauthorized), "{outcome:?}");
    let calls = server.log(0).into_iter().filter(|record| record.operation == Op::ListTokens);
    assert!(calls.filter_map(|record| record.caller).all(|caller| caller == ACCOUNT), "it asked as the admin");
}

#[tokio::test]
async fn a_probe_says_what_it_proves_and_what_not() {
    let (server, caller) = pair().await;
    let probe = caller.client.probe(&account()).await.unwrap();
    assert_eq!(probe.tokens, 0);
    assert!(probe.proven.contains("admin token is valid") && probe.unknowable.contains("issue and revoke"), "{probe:?}");
    assert!(server.log(0).iter().all(|record| record.operation == Op::ListTokens));
    assert_eq!(caller.client.probe(&Account::new("nobody")).await.unwrap_err().reason, Reason::NoSuchAccount);
}

#[tokio::test]
async fn the_limits_hold_for_the_client_s_requests() {
    let (server, _) = pair().await;
    let caller = caller_with(&server.url(), brief(), limits(Some(10), None));
    let start = Instant::now();
    for _ in 0..8 {
        caller.listed().await;
    }
    assert!(start.elapsed() >= Duration::from_millis(690), "8 requests at 10 a second took {:?}", start.elapsed());

    let narrow = std::sync::Arc::new(caller_with(&server.url(), brief(), limits(None, Some(2))));
    server.misbehave(Fault::always(Misbehaviour::Delay { seconds: 0.2 }));
    let start = Instant::now();
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            tokio::spawn({
                let narrow = std::sync::Arc::clone(&narrow);
                async move { narrow.listed().await }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(590), "6 requests of 0.2 s, 2 at a time, took {:?}", start.elapsed());
}

#[tokio::test]
async fn a_revocation_waits_5_seconds_for_its_slot_at_most() {
    let (server, _) = pair().await;
    let whole = rotad::motherduck::TimeLimits { whole: Duration::from_secs(20), read: Duration::from_secs(20), ..brief() };
    let caller = std::sync::Arc::new(caller_with(&server.url(), whole, limits(None, Some(1))));
    server.misbehave(Fault::once(Misbehaviour::Hang { carry_out: false }));
    let hanging = tokio::spawn({
        let caller = std::sync::Arc::clone(&caller);
        async move { caller.listed().await }
    });
    while server.faults_left() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let failed = caller.not_gone(&TokenId("x".to_owned())).await;
    assert!(failed.reason == Reason::Throttled && failed.retry_after.is_some(), "{failed:?}");
    hanging.abort();
    assert_eq!(met(&server, Op::RevokeToken), 0);
}

#[tokio::test]
async fn no_value_is_in_any_failure_debug_text_or_log_line() {
    // The test runs on this thread alone, the client's connections included.
    let captured = Log::of_this_thread();
    let (server, caller) = pair().await;
    let mut texts = Vec::new();
    let (issued, value) = caller.issued().await;
    texts.push(format!("{issued:?} {value:?}"));
    texts.push(format!("{:?}", caller.client.issue(&request()).await));
    let echo = format!(
        r#"{{"code":"X {ADMIN_TOKEN}","message":"bad {ADMIN_TOKEN} and eyJ.PLANTED.x","issues":[{{"message":"eyJPLANTED"}}]}}"#
    );
    for code in [200, 302, 400, 401, 403, 404, 408, 409, 429, 500] {
        for text in [&echo, &token_json(r#"{"id":7}"#), "eyJ.PLANTED.x"] {
            server.misbehave(Fault { requests: Some(4), ..Fault::always(body(code, text)) });
            texts.push(format!("{:?}", caller.client.issue(&request()).await));
            texts.push(format!("{:?}", caller.client.list(&account()).await));
            texts.push(format!("{:?}", caller.client.revoke(&account(), &issued.token.id).await));
            texts.push(format!("{:?}", caller.client.verify_itself(&account(), &value).await));
            server.behave();
        }
    }
    for fault in [Misbehaviour::Truncate {}, Misbehaviour::Hang { carry_out: true }, Misbehaviour::Reset { carry_out: true }] {
        server.misbehave(Fault::once(fault));
        texts.push(format!("{:?}", caller.client.issue(&request()).await));
    }
    let log = captured.text();
    assert!(log.contains("asked MotherDuck") && log.contains("TRACE"), "nothing was captured");
    texts.push(log);
    for text in texts {
        let at = text.find("PLANTED").or_else(|| text.find(value.expose())).or_else(|| text.find("eyJ"));
        assert_eq!(at.map(|at| &text[at.saturating_sub(200)..(at + 20).min(text.len())]), None);
    }
}
