//! Connections and their limits: whoever connects can't hold memory, sockets or the end of the process.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// A handful of scrapers and probes ask; more connections wait until one of these is closed.
const CONNECTIONS_MAX: usize = 64;

/// A request's head must be there within this time, the next one on the same connection too.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// Requests here have a line and a few headers; the least that hyper takes is 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A connection is closed after this time, so that a client that doesn't read can't keep it for ever.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(120);

/// How long a request under way may go on once its connection is to be closed.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// Out of sockets, `accept` fails at once, again and again: a pause keeps that from filling the log.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Where connections come in, and what answers them.
pub trait Door: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and the routes for it.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Router)>> + Send;
}

impl Door for (TcpListener, Router) {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Router)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, self.1.clone()))
    }
}

/// Accepts connections until `shutdown`, then ends them.
pub async fn serve(door: impl Door, mut shutdown: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = told(&mut shutdown) => break,
            accepted = accept(&door, &room) => accepted,
        };
        // Those that ended are taken out, so that the set stays as small as the limit.
        while connections.try_join_next().is_some() {}
        let Some((stream, router, permit)) = accepted else { break };
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            converse(stream, router, shutdown).await;
            drop(permit);
        });
    }
    drop(door);
    connections.join_all().await;
}

/// Waits for `true`, or for the end of whoever would say so.
async fn told(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone.
    let _ = shutdown.wait_for(|told| *told).await;
}

/// The next connection, once there is room for it; `None` never comes in practice.
async fn accept<D: Door>(door: &D, room: &Arc<Semaphore>) -> Option<(D::Stream, Router, OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    loop {
        match door.accept().await {
            Ok((stream, router)) => return Some((stream, router, permit)),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    // How a connection ends is the client's affair; what it was told was logged where it was decided.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = told(&mut shutdown) => {}
        () = tokio::time::sleep(CONNECTION_TIME_MAX) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, connection).await;
}
