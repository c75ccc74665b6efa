//! Metrics, health and status over HTTP. Nothing here changes anything: only `GET` and `HEAD` are answered.
//!
//! | path | says | where |
//! |---|---|---|
//! | `/metrics` | Prometheus text | both listeners |
//! | `/healthz` | 200 while the scheduler lives, otherwise 503 | both |
//! | `/readyz` | 200 when ready, otherwise 503 with every reason | both |
//! | `/`, `/credential/…` | the status page | `listen`, if it is on loopback or `page` is set |
//! | `/api/v1/…` | the same as JSON, described by `/api/v1/openapi.json` | as the page |

mod api;
mod page;
mod records;
mod select;
pub(crate) mod serve;
mod status;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use jiff::Timestamp;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::engine::Roster;
use crate::journal::Journal;
use crate::metrics::{CONTENT_TYPE, Exposition, Metrics};
use crate::rotation::{Deployment, Moment};
use crate::snapshot::Board;

/// `[server]`, as far as it is about HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub listen: SocketAddr,
    /// A second listener for metrics and health alone.
    pub metrics_listen: Option<SocketAddr>,
    /// Serve page and JSON on a `listen` that is not loopback.
    pub page: bool,
    /// Export the series that exist once per credential.
    pub per_credential: bool,
}

/// What is served, and the time.
#[derive(Clone)]
pub struct Watched {
    /// Whose page it is: tells one rotad's from another's.
    pub deployment: Deployment,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub journal: Arc<dyn Journal>,
    /// The credentials that are configured now.
    pub roster: Arc<dyn Fn() -> Arc<dyn Roster> + Send + Sync>,
    pub now: Arc<dyn Fn() -> Moment + Send + Sync>,
}

#[derive(Debug, Error)]
pub enum WebError {
    #[error("`{setting} = \"{address}\"` can't be listened on: {problem}")]
    Listen { setting: &'static str, address: SocketAddr, problem: String },
}

/// Listeners that are bound and wait to be served.
pub struct Server {
    listeners: Vec<(TcpListener, Router)>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Binds what `options` name.
    ///
    /// # Errors
    /// `Listen` if an address is in use, not ours or not allowed.
    pub async fn bind(options: Options, watched: Watched) -> Result<Self, WebError> {
        let mut server = Self { listeners: Vec::new(), addresses: Vec::new() };
        let loopback = options.listen.ip().to_canonical().is_loopback();
        let shared = Arc::new(Shared { watched, per_credential: options.per_credential, loopback });
        let mut router = watching();
        if loopback || options.page {
            let shown = page::router().merge(api::router());
            router = router.merge(shown.route_layer(middleware::from_fn_with_state(Arc::clone(&shared), guard)));
        }
        server.listen("server.listen", options.listen, router.with_state(Arc::clone(&shared))).await?;
        if let Some(address) = options.metrics_listen {
            let router = watching().with_state(shared);
            server.listen("server.metrics_listen", address, router).await?;
        }
        Ok(server)
    }

    async fn listen(&mut self, setting: &'static str, address: SocketAddr, router: Router) -> Result<(), WebError> {
        let failed = |error: io::Error| WebError::Listen { setting, address, problem: explained(&error) };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        self.addresses.push(listener.local_addr().map_err(failed)?);
        self.listeners.push((listener, router));
        Ok(())
    }

    /// Where it listens: `listen` first, then `metrics_listen` if there is one. A port 0 is filled in.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `shutdown` says `true` or its sender is gone; requests under way have 5 s to end then.
    pub async fn run(self, shutdown: watch::Receiver<bool>) {
        let listeners = self.listeners.into_iter().map(|door| serve::serve(door, shutdown.clone()));
        futures_util::future::join_all(listeners).await;
    }
}

/// Why binding failed, with the remedy.
fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there; stop it, or choose another port".to_owned(),
        io::ErrorKind::AddrNotAvailable => "the address is not one of this machine; choose one that is".to_owned(),
        io::ErrorKind::PermissionDenied => "it is not permitted; choose a port from 1024 up".to_owned(),
        _ => error.to_string(),
    }
}

struct Shared {
    watched: Watched,
    per_credential: bool,
    /// Whether `listen` is on loopback.
    loopback: bool,
}

impl Shared {
    fn now(&self) -> Moment {
        (self.watched.now)()
    }

    /// The page of credentials that is asked for.
    fn select(&self, query: &select::Query, now: Timestamp) -> select::Listing {
        select::select(&self.watched.board, &*(self.watched.roster)(), query, now)
    }
}

/// The routes that both listeners have.
fn watching() -> Router<Arc<Shared>> {
    Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let Watched { board, metrics, .. } = &shared.watched;
    let exposition = Exposition::new(metrics, Arc::clone(board), shared.now(), shared.per_credential);
    streamed(CONTENT_TYPE, exposition)
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.watched.board.is_alive(shared.now()) {
        text(StatusCode::OK, "alive\n".to_owned())
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "the scheduler has given no sign of life for three minutes\n".to_owned())
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    match shared.watched.board.not_ready(shared.now()).as_slice() {
        [] if shared.watched.board.is_standby() => {
            text(StatusCode::OK, "ready to take over: another rotad does the work\n".to_owned())
        }
        [] => text(StatusCode::OK, "ready\n".to_owned()),
        reasons => text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    }
}

/// What a browser may do with an answer: show it, with our style sheet and icon, and nothing else. No script runs, nothing is
/// asked for elsewhere, no other page can frame it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                                       base-uri 'none'; frame-ancestors 'none'";

/// Stands before page and JSON: who asks under another name gets nothing, and no answer may be put to another use.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = if shared.loopback && !names_loopback(request.headers()) {
        api::refusal(StatusCode::FORBIDDEN, "this is served to `localhost` or a loopback address only")
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

/// Whether the request was made to a loopback name. A page on the web can have its own name resolved to
/// 127.0.0.1 and make a browser ask here (DNS rebinding), but it can't change the name that is asked for.
fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// An answer that is made while it is sent, a portion at a time.
fn streamed(content_type: &'static str, portions: impl Iterator<Item = String> + Send + 'static) -> Response {
    let body = Body::from_stream(stream::iter(portions.map(Ok::<_, std::convert::Infallible>)));
    (headers(content_type), body).into_response()
}

fn text(status: StatusCode, text: String) -> Response {
    (status, headers("text/plain; charset=utf-8"), text).into_response()
}

/// Nothing of it may be kept, or taken for something else.
fn headers(content_type: &'static str) -> [(header::HeaderName, &'static str); 3] {
    [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
}

#[cfg(test)]
mod tests;
