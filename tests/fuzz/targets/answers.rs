//! Answers of the API, whatever they say: the client as it is, over a socket, against a server that follows a
//! script. No panic, no secret in a failure, and no answer taken for more than it is.
//!
//! The input is the script. Its first line is what is asked: `issue`, `list`, `users`, `revoke` or `verify`. Then come the
//! answers, with a line `%%` between two: a status, headers (`cut: N` breaks the body off after N bytes), an empty
//! line, the body. `@A` in an answer stands for the admin token, `@T` for the new token's value.
#![no_main]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use libfuzzer_sys::fuzz_target;
use rotad::clock::Clock;
use rotad::motherduck::{Client, Limits, Options, Provider, TimeLimits, Unobserved, User};
use rotad::rotation::{
    Account, Failed, IssueOutcome, IssueRequest, ListOutcome, RevokeOutcome, RotationId, TokenId, TokenName, TokenType,
    VerifyOutcome,
};
use rotad::secret::{Secret, SecretSource};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const ADMIN: &str = "mdadminPLANTED0123456789abcdef";
const TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJQTEFOVEVEIjoxfQ.PLANTEDc2ln";
const PLANTED: &str = "PLANTED";
/// Headers that the server sets by itself, or by which the two sides would understand another body.
const FRAMING: [&str; 5] = ["content-length", "transfer-encoding", "connection", "content-encoding", "cut"];

/// One answer of the script.
#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// How much of the body comes, if not all of it.
    cut: Option<usize>,
}

impl Answer {
    fn parse(text: &[u8], listing: bool) -> Self {
        let (head, body) = match text.windows(2).position(|pair| pair == b"\n\n") {
            Some(end) => (&text[..end], &text[end + 2..]),
            None => (text, &text[text.len()..]),
        };
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let number: u16 = lines.next().and_then(|line| line.trim().parse().ok()).unwrap_or(200);
        // What is below 200 is not an answer yet.
        let status = 200 + number.wrapping_sub(200) % 800;
        let mut answer = Self { status, headers: Vec::new(), body: body.to_vec(), cut: None };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            if name == "cut" {
                answer.cut = value.parse().ok();
            }
            let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if plain && !FRAMING.contains(&name.as_str()) && !value.contains(|c: char| c.is_control()) {
                answer.headers.push((name, value.to_owned()));
            }
        }
        if matches!(status, 204 | 304) {
            answer.body.clear();
        }
        if listing && matches!(status, 502..=504) {
            // Otherwise the client asks again after a pause, which only takes time.
            answer.headers.push(("retry-after".to_owned(), "0".to_owned()));
        }
        answer
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn is_whole(&self) -> bool {
        self.cut.is_none_or(|cut| cut >= self.body.len())
    }

    fn wire(&self) -> Vec<u8> {
        let mut wire = format!("HTTP/1.1 {} Scripted\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            wire.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        if !matches!(self.status, 204 | 304) {
            wire.extend(format!("content-length: {}\r\n", self.body.len()).into_bytes());
        }
        wire.extend(b"\r\n");
        wire.extend(&self.body[..self.cut.unwrap_or(usize::MAX).min(self.body.len())]);
        wire
    }

    /// The body by another reader than the client's.
    fn json(&self) -> Option<Value> {
        // Bytes that are no text are no fault where nothing reads them.
        serde_json::from_str(&String::from_utf8_lossy(&self.body)).ok().filter(|_| self.is_whole())
    }

    fn code(&self) -> Option<String> {
        Some(self.json()?.get("code")?.as_str()?.to_owned())
    }
}

type Script = Arc<Mutex<VecDeque<Answer>>>;

/// The client and its server, on one thread, for the whole run.
struct Bench {
    runtime: Runtime,
    client: Client,
    script: Script,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("admin-token");
        std::fs::write(&file, ADMIN).expect("a file");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let script = Script::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let api_url = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(serve(listener, Arc::clone(&script)));
        let limit = Duration::from_secs(5);
        let client = runtime.block_on(async {
            Client::new(Options {
                organization: "main".into(),
                api_url,
                admin_token: rotad::motherduck::AdminSource::Secret(SecretSource::File(file)),
                postgres: None,
                limits: Limits::NONE,
                time_limits: TimeLimits { connect: limit, read: limit, whole: limit, list: limit },
                clock: Arc::new(Clock::new()),
                observer: Arc::new(Unobserved),
            })
        });
        Self { runtime, client: client.expect("a client"), script, _directory: directory }
    }
}

async fn serve(listener: TcpListener, script: Script) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let script = Arc::clone(&script);
        tokio::spawn(async move { while answer(&mut stream, &script).await.is_some() {} });
    }
}

/// Reads a request and answers it; `None` ends the connection.
async fn answer(stream: &mut TcpStream, script: &Script) -> Option<()> {
    let mut request = Vec::new();
    let end = loop {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    while request.len() < end + length.unwrap_or(0) {
        stream.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
    }
    let next = script.lock().ok()?.pop_front();
    let answer = next.unwrap_or(Answer { status: 500, headers: Vec::new(), body: Vec::new(), cut: None });
    stream.write_all(&answer.wire()).await.ok()?;
    answer.is_whole().then_some(())
}

thread_local! {
    static BENCH: Bench = Bench::start();
}

fuzz_target!(|data: &[u8]| {
    // A part of a secret, which the fuzzer learned from a comparison, is not the secret: that comes in by `planted` alone.
    if data.windows(PLANTED.len()).any(|window| window == PLANTED.as_bytes()) {
        return;
    }
    let (operation, rest) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let listing = matches!(operation, b"list" | b"users");
    let answers: Vec<Answer> =
        split(rest.get(1..).unwrap_or_default(), b"\n%%\n").map(|text| Answer::parse(&planted(text), listing)).collect();
    BENCH.with(|bench| {
        if let Ok(mut script) = bench.script.lock() {
            *script = answers.iter().cloned().collect();
        }
        let account = Account::new("etl_prod");
        match operation {
            b"issue" => issued(&bench.runtime.block_on(bench.client.issue(&request(&account))), &answers[0]),
            b"list" => listed(&bench.runtime.block_on(bench.client.list(&account)), &answers),
            b"users" => users(&bench.runtime.block_on(bench.client.users()), &answers),
            b"revoke" => {
                let outcome = bench.runtime.block_on(bench.client.revoke(&account, &TokenId("5b0c".to_owned())));
                revoked(&outcome, &answers[0]);
            }
            b"verify" => {
                let value = Secret::new(TOKEN.to_owned());
                verified(&bench.runtime.block_on(bench.client.verify_itself(&account, &value)), &answers);
            }
            _ => {}
        }
    });
});

fn split<'d>(data: &'d [u8], separator: &'static [u8]) -> impl Iterator<Item = &'d [u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = text.windows(separator.len()).position(|window| window == separator);
        rest = end.map(|end| &text[end + separator.len()..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// The answer with the secrets in their places.
fn planted(text: &[u8]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        let (piece, length) = match rest {
            [b'@', b'A', ..] => (ADMIN.as_bytes(), 2),
            [b'@', b'T', ..] => (TOKEN.as_bytes(), 2),
            [_, ..] => (&rest[..1], 1),
            [] => return filled,
        };
        filled.extend(piece);
        rest = &rest[length..];
    }
}

fn request(account: &Account) -> IssueRequest {
    let rotation: RotationId = "0197f6c0-0000-7000-8000-0000deadbeef".parse().expect("an id");
    IssueRequest {
        organization: "main".into(),
        account: account.clone(),
        name: TokenName { owner: "prod/etl".parse().expect("an owner"), rotation },
        token_type: TokenType::ReadWrite,
        ttl: SignedDuration::from_hours(168),
    }
}

/// What is kept and shown of a failure is a sentence without a secret, and a wait that is bearable.
fn told(failed: &Failed) {
    assert!(!format!("{failed:?}").contains(PLANTED), "a secret is told: {failed}");
    assert!(!failed.detail.is_empty() && failed.detail.chars().count() <= 300, "{failed}");
    assert!(!failed.detail.contains(|c: char| c.is_control()), "control characters are told: {failed:?}");
    let bearable = SignedDuration::ZERO..=SignedDuration::from_hours(1);
    assert!(failed.retry_after.is_none_or(|wait| bearable.contains(&wait)), "{failed:?}");
}

fn issued((outcome, value): &(IssueOutcome, Option<Secret>), answer: &Answer) {
    match outcome {
        IssueOutcome::Issued(token) => {
            let value = value.as_ref().expect("the value that was issued");
            let body = answer.json().expect("a token is read out of JSON");
            assert!(answer.is_success(), "issued by status {}", answer.status);
            assert_eq!(Some(value.expose()), body["token"].as_str());
            assert_eq!(Some(token.token.id.0.as_str()), body["id"].as_str());
            assert_eq!(token.fingerprint, value.fingerprint());
            assert!(!value.expose().is_empty() && value.expose().bytes().all(|byte| byte.is_ascii_graphic()));
            return;
        }
        // Whatever is neither a clear refusal nor a token may have issued one.
        IssueOutcome::Refused(failed) => {
            assert!(matches!(answer.status, 307 | 308 | 400..=407 | 410..=499), "{} is no refusal", answer.status);
            told(failed);
        }
        IssueOutcome::Unknown(failed) => told(failed),
    }
    assert!(value.is_none(), "a value without a token");
}

/// The ids of a list of `what` that is complete by these answers: every page read, the last one the last, and as many
/// users as any page says.
fn complete(what: &str, pages: &[Answer]) -> Option<Vec<String>> {
    let (mut ids, mut total): (Vec<String>, u64) = (Vec::new(), 0);
    for page in pages {
        let body = page.json().filter(|_| page.is_success())?;
        for item in body.get(what)?.as_array()? {
            let id = item.get("id")?.as_str()?;
            if !ids.iter().any(|known| known == id) {
                ids.push(id.to_owned());
            }
        }
        if what == "users" {
            total = total.max(body.get("total_count").and_then(Value::as_u64).unwrap_or(0));
        }
        match body.get("next_page_token") {
            Some(Value::String(cursor)) if !cursor.is_empty() => {}
            None | Some(Value::Null | Value::String(_)) => return Some(ids).filter(|ids| ids.len() as u64 >= total),
            Some(_) => return None,
        }
    }
    None
}

fn listed(outcome: &ListOutcome, pages: &[Answer]) {
    match outcome {
        ListOutcome::Complete(tokens) => {
            let ids: Vec<String> = tokens.iter().map(|token| token.id.0.clone()).collect();
            assert_eq!(complete("tokens", pages), Some(ids), "a list claims to be complete");
        }
        ListOutcome::Failed(failed) => told(failed),
    }
}

/// Who is not on this list is gone, and a fleet lets go of them: it must be whole.
fn users(outcome: &Result<Vec<User>, Failed>, pages: &[Answer]) {
    match outcome {
        Ok(users) => {
            let ids: Vec<String> = users.iter().map(|user| user.id.clone()).collect();
            assert_eq!(complete("users", pages), Some(ids), "a list claims to be complete");
            assert!(users.iter().all(|user| !user.username.as_str().is_empty()), "somebody without a name: {users:?}");
        }
        Err(failed) => told(failed),
    }
}

fn revoked(outcome: &RevokeOutcome, answer: &Answer) {
    match outcome {
        RevokeOutcome::Gone => {
            let gone = answer.status == 404 && answer.code().as_deref() == Some("NOT_FOUND");
            assert!(answer.is_success() || gone, "{} is taken for a revocation", answer.status);
        }
        RevokeOutcome::Failed(failed) => told(failed),
    }
}

fn verified(outcome: &VerifyOutcome, answers: &[Answer]) {
    let answer = &answers[0];
    match outcome {
        VerifyOutcome::Verified => {
            let known = answer.status == 403 && answer.code().as_deref() == Some("FORBIDDEN");
            let lists = answer.is_success() && answer.json().is_some_and(|body| body["tokens"].is_array());
            assert!(known || lists, "{} is taken for a proof", answer.status);
        }
        VerifyOutcome::Disproved(failed) => {
            let refused = answer.status == 401 && answer.code().as_deref() == Some("UNAUTHORIZED");
            assert!(refused, "{} is taken for a disproof", answer.status);
            told(failed);
        }
        VerifyOutcome::Failed(failed) => told(failed),
    }
}
