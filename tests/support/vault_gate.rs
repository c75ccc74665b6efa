//! A gate before a Vault server or MotherDuck's API: it lets requests through, counts them, and misbehaves when told to.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;

/// What the gate does with the requests that a rule is for.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers with this status and body; the server sees nothing.
    Answer(u16, &'static str),
    /// Lets the server do it, and breaks the answer off.
    BreakOff,
    /// Never answers; the server sees nothing.
    Hang,
    /// Redirects; the server sees nothing.
    Redirect(String),
    /// Lets it through; before the answer comes, somebody else writes this body to this path.
    ThenForeignWrite(&'static str, &'static str),
    /// Lets it through and adds a header to the answer.
    AddHeader(&'static str, &'static str),
    /// Lets the server do it, and answers with this status and an error in both servers' forms that repeats
    /// what was sent and what the server answered, each time beginning with another part of that.
    Echo(u16),
    /// Lets the server do it, and answers with what it said but for the last character: that is no JSON.
    Mangle,
}

struct Rule {
    method: Method,
    path: String,
    fault: Fault,
}

/// One request as it came to the gate.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
}

struct Shared {
    upstream: String,
    http: reqwest::Client,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    answered: Mutex<Vec<(String, String)>>,
}

pub struct Gate {
    /// Without a slash at the end.
    pub address: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Gate {
    pub async fn before(upstream: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            http,
            rules: Mutex::default(),
            seen: Mutex::default(),
            answered: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(pass).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, task }
    }

    /// From now on `fault` for requests with this method whose path begins so, below `/v1/`.
    pub fn misbehave(&self, method: &str, path: &str, fault: Fault) {
        let rule = Rule { method: method.parse().unwrap(), path: format!("/v1/{path}"), fault };
        self.shared.rules.lock().unwrap().push(rule);
    }

    pub fn behave(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// How many requests came with a path that begins so, below `/v1/`.
    pub fn count(&self, path: &str) -> usize {
        self.seen(path).len()
    }

    /// What the server answered to requests with a path that begins so, below `/v1/`, whatever became of the answer.
    pub fn answered(&self, path: &str) -> Vec<String> {
        let path = format!("/v1/{path}");
        let answered = self.shared.answered.lock().unwrap();
        answered.iter().filter(|(to, _)| to.starts_with(&path)).map(|(_, text)| text.clone()).collect()
    }

    pub fn seen(&self, path: &str) -> Vec<Seen> {
        let path = format!("/v1/{path}");
        self.shared.seen.lock().unwrap().iter().filter(|seen| seen.path.starts_with(&path)).cloned().collect()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    shared.seen.lock().unwrap().push(Seen { method: parts.method.clone(), path: path.clone(), headers: parts.headers.clone() });
    let fault = {
        let rules = shared.rules.lock().unwrap();
        rules.iter().find(|rule| rule.method == parts.method && path.starts_with(&rule.path)).map(|rule| rule.fault.clone())
    };
    match fault {
        None => forward(&shared, parts, body).await,
        Some(Fault::Answer(status, text)) => {
            Response::builder().status(status).header("Retry-After", "7").body(Body::from(text)).unwrap()
        }
        Some(Fault::BreakOff) => {
            forward(&shared, parts, body).await;
            let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("broken off"))]);
            Response::new(Body::from_stream(broken))
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Redirect(to)) => {
            Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header("Location", to).body(Body::empty()).unwrap()
        }
        Some(Fault::ThenForeignWrite(path, content)) => {
            let token = parts.headers.get("X-Vault-Token").unwrap().clone();
            let response = forward(&shared, parts, body).await;
            let url = format!("{}/v1/{path}", shared.upstream);
            let written = shared.http.post(url).header("X-Vault-Token", token).body(content).send().await.unwrap();
            assert!(written.status().is_success());
            response
        }
        Some(Fault::Echo(status)) => echo(&shared, status, parts, body).await,
        Some(Fault::Mangle) => {
            let (head, text) = split(forward(&shared, parts, body).await).await;
            let mut response = Response::new(Body::from(text[..text.len().saturating_sub(1)].to_owned()));
            *response.status_mut() = head.status;
            response
        }
        Some(Fault::AddHeader(name, value)) => {
            let mut response = forward(&shared, parts, body).await;
            response.headers_mut().insert(name, value.parse().unwrap());
            response
        }
    }
}

async fn forward(shared: &Shared, parts: axum::http::request::Parts, body: Bytes) -> Response {
    let path = parts.uri.path_and_query().unwrap();
    let mut headers = parts.headers;
    headers.remove("host");
    let sent = shared.http.request(parts.method, format!("{}{path}", shared.upstream)).headers(headers).body(body).send().await;
    let answer = sent.unwrap();
    let to = answer.url().path().to_owned();
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name != "transfer-encoding") {
        response = response.header(name, value);
    }
    let text = answer.bytes().await.unwrap();
    shared.answered.lock().unwrap().push((to, String::from_utf8_lossy(&text).into_owned()));
    response.body(Body::from(text)).unwrap()
}

async fn split(response: Response) -> (axum::http::response::Parts, String) {
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (head, String::from_utf8_lossy(&bytes).into_owned())
}

async fn echo(shared: &Shared, status: u16, parts: axum::http::request::Parts, body: Bytes) -> Response {
    let told = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let sent = format!("{}{}", told("x-vault-token"), told("authorization"));
    let mut words = [sent, String::from_utf8_lossy(&body).into_owned(), String::new()];
    let (_, text) = split(forward(shared, parts, body).await).await;
    words[2] = text;
    let first = shared.seen.lock().unwrap().len() % words.len();
    words.rotate_left(first);
    let words = words.join(" ");
    let error =
        serde_json::json!({ "errors": [words], "message": words, "code": "BAD_REQUEST", "issues": [{ "message": words }] });
    Response::builder().status(status).body(Body::from(error.to_string())).unwrap()
}
