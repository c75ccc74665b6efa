//! From a request to its answer: route, fault, effect.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Core;
use super::control;
use super::fault::{Misbehaviour, RetryAfter, duration};
use super::listen::Connection;
use super::route::{Call, Route, route};
use super::time::http_date;
use crate::rotation::Fingerprint;
use crate::secret::Secret;

/// The most bytes of a request's body; the contract needs a few hundred.
const BODY_MAX: usize = 1 << 20;

/// An answer in the making.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub status: u16,
    pub headers: Vec<(HeaderName, String)>,
    pub body: Payload,
}

#[derive(Debug, Clone)]
pub(super) enum Payload {
    None,
    Json(Value),
    /// A type and a text.
    Text(String, String),
}

impl Reply {
    pub(super) fn json(status: u16, value: Value) -> Self {
        Self { status, headers: Vec::new(), body: Payload::Json(value) }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Payload::None }
    }

    pub(super) fn text(status: u16, content_type: &str, text: &str) -> Self {
        Self { status, headers: Vec::new(), body: Payload::Text(content_type.to_owned(), text.to_owned()) }
    }

    /// The API's error body.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, json!({ "message": message, "code": code }))
    }

    fn no_route() -> Self {
        Self::text(404, "text/plain; charset=utf-8", "Not Found")
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What a request asks for, once it is read.
pub(super) struct Asked {
    pub call: Call,
    /// SHA-256 of the bearer token.
    pub bearer: Option<Fingerprint>,
    /// Whether the body claims to be JSON.
    pub claims_json: bool,
    pub body: Bytes,
}

pub(super) async fn answer(
    State(core): State<Arc<Core>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        return render(&core, Reply::error(400, "BAD_REQUEST", "the body is too large or broke off"));
    };
    if let Some(path) = parts.uri.path().strip_prefix("/_stand-in/") {
        let reply = control::answer(&core, &parts.method, path, parts.uri.query(), bearer(&parts.headers), &body);
        return render(&core, reply);
    }
    let call = match route(&parts.method, &parts.uri) {
        Route::Call(call) => call,
        Route::None => return render(&core, Reply::no_route()),
        Route::Undecodable => {
            return render(&core, Reply::error(400, "BAD_REQUEST", "the path or the query is not encoded text"));
        }
        Route::WrongMethod(allowed) => {
            let reply = Reply::error(405, "METHOD_NOT_ALLOWED", "no such operation").with(ALLOW, allowed);
            return render(&core, if parts.method == Method::HEAD { Reply { body: Payload::None, ..reply } } else { reply });
        }
    };
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let claims_json = content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    let fault = core.faults.meet(&call);
    let asked = Asked { call, bearer: bearer(&parts.headers), claims_json, body };
    match fault {
        None => render(&core, core.carry_out(&asked, None)),
        Some(fault) => misbehave(&core, &connection, asked, fault).await,
    }
}

fn bearer(headers: &HeaderMap) -> Option<Fingerprint> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(value.trim().to_owned()).fingerprint())
}

async fn misbehave(core: &Arc<Core>, connection: &Connection, asked: Asked, fault: Misbehaviour) -> Response {
    let name = fault.name();
    let carry_out = |carry_out: bool| {
        if carry_out { Some(core.carry_out(&asked, Some(name))) } else { core.pass_over(&asked, name) }
    };
    match fault {
        // Closing the port is done when the fault is given.
        Misbehaviour::Refuse {} => render(core, core.carry_out(&asked, None)),
        Misbehaviour::Reset { carry_out: carried } => {
            carry_out(carried);
            connection.reset();
            render(core, Reply::empty(500))
        }
        Misbehaviour::Hang { carry_out: carried } => {
            carry_out(carried);
            std::future::pending().await
        }
        Misbehaviour::Status { status, retry_after, carry_out: carried, html } => {
            carry_out(carried);
            render(core, status_reply(core, status, retry_after, html))
        }
        Misbehaviour::Body { status, content_type, text, carry_out: carried } => {
            carry_out(carried);
            render(core, Reply::text(status, &content_type, &text))
        }
        Misbehaviour::Truncate {} => truncated(core, connection, core.carry_out(&asked, Some(name))),
        Misbehaviour::Empty {} => {
            let status = core.carry_out(&asked, Some(name)).status;
            render(core, Reply::empty(status))
        }
        Misbehaviour::NoRoute {} => {
            carry_out(false);
            render(core, Reply::no_route())
        }
        Misbehaviour::Redirect { status, location } => {
            carry_out(false);
            render(core, Reply::empty(status).with(LOCATION, location))
        }
        Misbehaviour::Delay { seconds } => {
            sleep(duration(seconds)).await;
            render(core, core.carry_out(&asked, Some(name)))
        }
        Misbehaviour::Late { seconds } => {
            let later = Arc::clone(core);
            tokio::spawn(async move {
                sleep(duration(seconds)).await;
                later.carry_out(&asked, Some(name));
            });
            connection.reset();
            render(core, Reply::empty(500))
        }
    }
}

fn status_reply(core: &Core, status: u16, retry_after: Option<RetryAfter>, html: bool) -> Reply {
    let (code, message) = match status {
        400 => ("BAD_REQUEST", "Bad Request"),
        401 => ("UNAUTHORIZED", "Invalid Credentials"),
        403 => ("FORBIDDEN", "Unauthorized"),
        404 => ("NOT_FOUND", "entity not found"),
        409 => ("CONFLICT", "already exists"),
        429 => ("TOO_MANY_REQUESTS", "too many requests"),
        _ => ("INTERNAL_SERVER_ERROR", "internal error"),
    };
    let mut reply = Reply::error(status, code, message);
    if html {
        reply = Reply::text(status, "text/html", "<html><body><h1>an error of a gateway</h1></body></html>");
    }
    match retry_after {
        None => reply,
        Some(RetryAfter::Seconds(seconds)) => reply.with(RETRY_AFTER, seconds.to_string()),
        Some(RetryAfter::Date(seconds)) => {
            let moment = core.time.date() + jiff::SignedDuration::from_secs(i64::from(seconds));
            reply.with(RETRY_AFTER, http_date(moment))
        }
    }
}

/// The whole head, half of the body, and a reset.
fn truncated(core: &Core, connection: &Connection, reply: Reply) -> Response {
    let (kind, bytes) = serialize(&reply.body);
    let half = bytes.slice(..bytes.len() / 2);
    let connection = connection.clone();
    let rest = stream::once(async move {
        // Long enough for the half to leave.
        sleep(std::time::Duration::from_millis(50)).await;
        connection.reset();
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    let body = Body::from_stream(stream::iter([Ok(half)]).chain(rest));
    let reply = Reply { body: Payload::None, ..reply }.with(CONTENT_LENGTH, bytes.len().to_string());
    let reply = match kind {
        Some(kind) => reply.with(CONTENT_TYPE, kind),
        None => reply,
    };
    let (parts, _) = render(core, reply).into_parts();
    Response::from_parts(parts, body)
}

fn serialize(body: &Payload) -> (Option<String>, Bytes) {
    match body {
        Payload::None => (None, Bytes::new()),
        Payload::Json(value) => (Some("application/json".to_owned()), value.to_string().into()),
        Payload::Text(kind, text) => (Some(kind.clone()), text.clone().into()),
    }
}

fn render(core: &Core, reply: Reply) -> Response {
    let (kind, bytes) = serialize(&reply.body);
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let own = kind.map(|kind| (CONTENT_TYPE, kind)).into_iter().chain([(DATE, http_date(core.time.date()))]);
    for (name, value) in own.chain(reply.headers) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
