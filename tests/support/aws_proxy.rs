//! What moto gets wrong or lacks: an HTTP proxy in front of it that answers some calls itself, loses
//! answers, changes them, or keeps the caller waiting; and remembers every call.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to a call.
#[derive(Clone)]
pub enum Fault {
    /// It is refused with this code and message, and never reaches the server.
    Refuse(u16, &'static str, String),
    /// It is refused with this code and a message that repeats what was sent, and never reaches the server.
    Echo(&'static str),
    /// It is carried out, and the answer lacks its last character: that is no JSON.
    Mangle,
    /// An answer that is not AWS's.
    Text(u16, &'static str),
    /// It never reaches the server: the connection is reset.
    Reset,
    /// It is carried out, and the connection reset before the answer.
    LoseAnswer,
    /// It never reaches the server and is never answered.
    Hang,
    /// It is carried out and never answered.
    CarryOutAndHang,
    /// It is carried out, and the answer changed.
    Edit(Arc<dyn Fn(&mut Value) + Send + Sync>),
    /// It is answered so, and never reaches the server: an old answer, as reads that lag give.
    Answer(Value),
}

impl Fault {
    pub fn refuse(code: &'static str) -> Self {
        Self::Refuse(400, code, format!("{code}, says the proxy"))
    }

    pub fn edit(edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self::Edit(Arc::new(edit))
    }
}

/// A call that came in: the action's name, such as `PutSecretValue`, and its parameters.
#[derive(Debug, Clone)]
pub struct Call {
    pub action: String,
    pub body: Value,
    /// The body as it came: STS takes no JSON, and its calls have no `action`.
    pub text: String,
    /// Who signed it.
    pub authorization: String,
}

struct Rule {
    action: String,
    left: usize,
    fault: Fault,
}

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    calls: Vec<Call>,
    /// The only actions that are permitted, where that is restricted.
    permitted: Option<Vec<String>>,
}

pub struct Proxy {
    pub url: String,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<()>,
}

impl Proxy {
    pub async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let (upstream, shared) = (upstream.to_owned(), script.clone());
        let server = tokio::spawn(async move {
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (http, upstream, shared) = (http.clone(), upstream.clone(), shared.clone());
                tokio::spawn(async move {
                    // A caller that goes away early is none of the proxy's business.
                    let _ = serve(stream, &http, &upstream, &shared).await;
                });
            }
        });
        Self { url, script, server }
    }

    /// Lets the next `times` calls of `action` meet `fault`; rules are used up in their order.
    pub fn on(&self, action: &str, times: usize, fault: Fault) {
        self.script.lock().unwrap().rules.push(Rule { action: action.to_owned(), left: times, fault });
    }

    /// Refuses every action that is not among these, as IAM would.
    pub fn permit_only(&self, actions: &[String]) {
        self.script.lock().unwrap().permitted = Some(actions.to_vec());
    }

    /// All is well again.
    pub fn heal(&self) {
        let mut script = self.script.lock().unwrap();
        script.rules.clear();
        script.permitted = None;
    }

    /// The calls so far, and forgets them.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.script.lock().unwrap().calls)
    }

    pub fn take_actions(&self) -> Vec<String> {
        self.take_calls().into_iter().map(|call| call.action).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream, http: &reqwest::Client, upstream: &str, script: &Mutex<Script>) -> std::io::Result<()> {
    let Some((head, body)) = request(&mut stream).await? else { return Ok(()) };
    let headers: Vec<(String, String)> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let target = headers.iter().find(|(name, _)| name == "x-amz-target").map_or("", |(_, value)| value);
    let action = target.rsplit('.').next().unwrap_or("").to_owned();

    let authorization = headers.iter().find(|(name, _)| name == "authorization").map_or("", |(_, value)| value);
    let text = String::from_utf8_lossy(&body).into_owned();
    let parameters = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let fault = next_fault(script, Call { action, body: parameters, text, authorization: authorization.to_owned() });
    let (status, answer) = match fault {
        Some(Fault::Refuse(status, code, message)) => (status, json!({ "__type": code, "message": message }).to_string()),
        Some(Fault::Echo(code)) => {
            let sent: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let value = sent["SecretString"].as_str().unwrap_or_default();
            let told = |name: &str| headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
            let message = format!("{value} {} {}", told("x-amz-security-token"), told("authorization"));
            (400, json!({ "__type": code, "message": message }).to_string())
        }
        Some(Fault::Mangle) => {
            let (status, mut text) = forward(http, upstream, &headers, body).await;
            text.pop();
            (status, text)
        }
        Some(Fault::Text(status, text)) => (status, text.to_owned()),
        Some(Fault::Answer(value)) => (200, value.to_string()),
        Some(Fault::Reset) => return stream.set_zero_linger(),
        Some(Fault::Hang) => return hang().await,
        Some(Fault::LoseAnswer) => {
            forward(http, upstream, &headers, body).await;
            return stream.set_zero_linger();
        }
        Some(Fault::CarryOutAndHang) => {
            forward(http, upstream, &headers, body).await;
            return hang().await;
        }
        Some(Fault::Edit(edit)) => {
            let (status, text) = forward(http, upstream, &headers, body).await;
            let mut value = serde_json::from_str(&text).unwrap();
            edit(&mut value);
            (status, value.to_string())
        }
        None => forward(http, upstream, &headers, body).await,
    };
    let head = format!(
        "HTTP/1.1 {status} Proxied\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Head and body of one request; `None` if the caller went away first.
async fn request(stream: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ").map(|length| length.trim().parse::<usize>().unwrap())
        })
        .unwrap_or(0);
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((head, body)))
}

fn next_fault(script: &Mutex<Script>, call: Call) -> Option<Fault> {
    let mut script = script.lock().unwrap();
    let action = call.action.clone();
    script.calls.push(call);
    let needed = format!("secretsmanager:{action}");
    if script.permitted.as_ref().is_some_and(|permitted| !permitted.contains(&needed)) {
        let message = format!("User: arn:aws:iam::123456789012:user/rotad is not authorized to perform: {needed} on resource: x");
        return Some(Fault::Refuse(400, "AccessDeniedException", message));
    }
    let rule = script.rules.iter_mut().find(|rule| rule.action == action && rule.left > 0)?;
    rule.left -= 1;
    Some(rule.fault.clone())
}

async fn forward(http: &reqwest::Client, upstream: &str, headers: &[(String, String)], body: Vec<u8>) -> (u16, String) {
    let mut request = http.post(upstream).body(body);
    for (name, value) in headers {
        if !matches!(name.as_str(), "host" | "content-length" | "connection") {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Longer than any time limit of a test.
async fn hang() -> std::io::Result<()> {
    tokio::time::sleep(Duration::from_secs(600)).await;
    Ok(())
}
