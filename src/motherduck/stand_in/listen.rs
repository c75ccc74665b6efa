//! The port: accepts connections, can break them, and can be closed for a while without being lost.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::Core;

/// How long requests under way have to end once the server is told to stop.
const FAREWELL: Duration = Duration::from_millis(500);

/// Serves until `stopped` resolves.
pub(super) async fn serve(entrance: Entrance, core: Arc<Core>, stopped: oneshot::Receiver<()>) {
    let app = Router::new().fallback(super::api::answer).with_state(Arc::clone(&core));
    let served = axum::serve(entrance, app.into_make_service_with_connect_info::<Connection>());
    let end = async move {
        // An error means that the server's handle was dropped: that ends it too.
        drop(stopped.await);
        tokio::spawn(async move {
            sleep(FAREWELL).await;
            core.doors.break_all();
        });
    };
    if let Err(error) = served.with_graceful_shutdown(end).await {
        tracing::error!(%error, "the stand-in ended");
    }
}

/// Opens, closes and breaks.
pub(super) struct Doors {
    address: SocketAddr,
    /// Bound but never listening: keeps the port ours while it is closed, so that connections are
    /// refused and nobody else takes it.
    _reserve: TcpSocket,
    closed_until: watch::Sender<Option<Instant>>,
    connections: Arc<Mutex<Vec<Weak<Cut>>>>,
}

impl Doors {
    pub(super) fn open(address: SocketAddr) -> io::Result<(Self, Entrance)> {
        let reserve = bind(address)?;
        let address = reserve.local_addr()?;
        let listener = Some(bind(address)?.listen(1024)?);
        let (closed_until, closed) = watch::channel(None);
        let connections = Arc::new(Mutex::new(Vec::new()));
        let entrance = Entrance { address, listener, closed, connections: Arc::clone(&connections) };
        Ok((Self { address, _reserve: reserve, closed_until, connections }, entrance))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Refuses connections for a while, and resets the open ones.
    pub(super) fn close_for(&self, period: Duration) {
        self.closed_until.send_replace(Some(Instant::now() + period));
        self.break_all();
    }

    pub(super) fn reopen(&self) {
        self.closed_until.send_replace(None);
    }

    pub(super) fn break_all(&self) {
        for cut in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..).filter_map(|cut| cut.upgrade()) {
            cut.cut();
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Where connections come in.
pub(super) struct Entrance {
    address: SocketAddr,
    listener: Option<TcpListener>,
    closed: watch::Receiver<Option<Instant>>,
    connections: Arc<Mutex<Vec<Weak<Cut>>>>,
}

impl Entrance {
    fn closed_until(&mut self) -> Option<Instant> {
        self.closed.borrow_and_update().filter(|until| *until > Instant::now())
    }
}

impl axum::serve::Listener for Entrance {
    type Io = Wire;
    type Addr = Connection;

    async fn accept(&mut self) -> (Wire, Connection) {
        loop {
            if let Some(until) = self.closed_until() {
                self.listener = None;
                tokio::select! {
                    () = sleep_until(until) => {}
                    _ = self.closed.changed() => {}
                }
                continue;
            }
            let listener = match self.listener.take().map_or_else(|| bind(self.address)?.listen(1024), Ok) {
                Ok(listener) => self.listener.insert(listener),
                Err(error) => {
                    tracing::warn!(%error, "the stand-in's port can't be opened again yet");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            tokio::select! {
                accepted = TcpListener::accept(listener) => if let Ok((stream, _)) = accepted {
                    let cut = Arc::new(Cut::default());
                    let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
                    connections.retain(|cut| cut.strong_count() > 0);
                    connections.push(Arc::downgrade(&cut));
                    // Answers are small: without this each would wait for an acknowledgement.
                    drop(stream.set_nodelay(true));
                    return (Wire { stream, cut: Arc::clone(&cut) }, Connection(cut));
                },
                _ = self.closed.changed() => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<Connection> {
        Ok(Connection(Arc::default()))
    }
}

/// One connection, as the handlers of its requests see it.
#[derive(Debug, Clone)]
pub(super) struct Connection(Arc<Cut>);

impl Connection {
    /// Resets the connection: nothing more is sent or read.
    pub(super) fn reset(&self) {
        self.0.cut();
    }
}

impl Connected<IncomingStream<'_, Entrance>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Entrance>) -> Self {
        stream.remote_addr().clone()
    }
}

#[derive(Debug, Default)]
struct Cut {
    done: AtomicBool,
    waker: AtomicWaker,
}

impl Cut {
    fn cut(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.waker.wake();
    }
}

/// A stream that fails once it is cut, and is then closed with a reset.
pub(super) struct Wire {
    stream: TcpStream,
    cut: Arc<Cut>,
}

impl Wire {
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        self.cut.waker.register(context.waker());
        if self.cut.done.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.cut.done.load(Ordering::SeqCst) {
            // Closing with unsent data discarded is a reset; if that can't be had it is a plain close.
            drop(self.stream.set_zero_linger());
        }
    }
}
