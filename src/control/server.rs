//! The daemon's end: a socket that only the right users can open.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::look::{self, Shown};
use super::{Asked, FleetRequest, OrderRequest, Refused, What};
use crate::identities;
use crate::web::serve::{self, Door};

/// Commands that may wait for the daemon; more wait at the socket.
const WAITING_MAX: usize = 16;

/// A socket that is bound and waits to be served.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    router: Router,
}

/// Who is at the other end.
#[derive(Clone)]
struct Peer(String);

impl Server {
    /// Binds `path`, for this user and those of `group`. What is ordered comes out of the receiver; looks are answered
    /// from what is `shown`.
    ///
    /// # Errors
    /// What speaks against it, with what to do.
    pub fn bind(path: &Path, group: Option<&str>, shown: Shown) -> anyhow::Result<(Self, mpsc::Receiver<Asked>)> {
        let (listener, mode) = (listen(path)?, if group.is_some() { 0o660 } else { 0o600 });
        if let Some(group) = group {
            let number = identities::resolve(group, identities::Kind::Group).map_err(anyhow::Error::msg)?;
            std::os::unix::fs::chown(path, None, Some(number)).with_context(|| {
                format!("`server.control_group`: the socket can't be given to the group `{group}`: is rotad's user in it?")
            })?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .with_context(|| format!("the mode of `{}` can't be set", path.display()))?;
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        let router = Router::new()
            .route("/v1/orders", post(order))
            .route("/v1/reload", post(reload))
            .route("/v1/fleets", post(fleet))
            .with_state(asks)
            .merge(Router::new().route("/v1/look", post(look::answer)).with_state(Arc::new(shown)));
        Ok((Self { listener, path: path.to_owned(), router }, asked))
    }

    /// Serves until `shutdown` says so, and takes the socket away.
    pub async fn run(self, shutdown: watch::Receiver<bool>) {
        let path = self.path.clone();
        serve::serve(self, shutdown).await;
        // Gone already, or another's by now: nothing is left to do.
        let _ = std::fs::remove_file(path);
    }
}

impl Door for Server {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Router)> {
        let (stream, _) = self.listener.accept().await?;
        let user = stream.peer_cred()?.uid();
        let by = identities::user_name(user).map_or_else(|| format!("uid {user}"), |name| format!("{name} (uid {user})"));
        Ok((stream, self.router.clone().layer(Extension(Peer(by)))))
    }
}

/// Binds a socket that nobody else can open yet: the process's umask makes it private.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let shown = path.display();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let metadata = std::fs::metadata(directory).with_context(|| {
        format!(
            "`server.control`: the directory `{}` can't be reached: create it, owned by the user that rotad runs as",
            directory.display()
        )
    })?;
    ensure!(
        metadata.mode() & 0o002 == 0,
        "`server.control`: everybody may write to `{}`, and so put another socket in the place of ours: choose a directory of rotad's own",
        directory.display()
    );
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("`server.control`: `{shown}` can't be looked at")),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            bail!("`server.control`: `{shown}` is something else than a socket: choose another path")
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            bail!("`server.control`: another daemon listens at `{shown}`: stop it, or choose another path")
        }
        // What a process that was killed left behind.
        Ok(_) => std::fs::remove_file(path).with_context(|| format!("the left-over socket `{shown}` can't be removed"))?,
    }
    UnixListener::bind(path).with_context(|| format!("`server.control`: `{shown}` can't be listened at"))
}

async fn order(
    State(asks): State<mpsc::Sender<Asked>>,
    Extension(Peer(by)): Extension<Peer>,
    Json(request): Json<OrderRequest>,
) -> Response {
    ask(&asks, What::Order(request), by).await
}

async fn reload(State(asks): State<mpsc::Sender<Asked>>, Extension(Peer(by)): Extension<Peer>) -> Response {
    ask(&asks, What::Reload, by).await
}

async fn fleet(
    State(asks): State<mpsc::Sender<Asked>>,
    Extension(Peer(by)): Extension<Peer>,
    Json(request): Json<FleetRequest>,
) -> Response {
    ask(&asks, What::Fleet(request), by).await
}

async fn ask(asks: &mpsc::Sender<Asked>, what: What, by: String) -> Response {
    let (answer, answered) = oneshot::channel();
    if asks.send(Asked { what, by, answer }).await.is_err() {
        return refused(&Refused::failed("the daemon is stopping: ask again when it runs"));
    }
    match answered.await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(refusal)) => refused(&refusal),
        Err(_) => refused(&Refused::failed("the daemon is stopping: ask again when it runs")),
    }
}

pub(super) fn refused(refused: &Refused) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(refused)).into_response()
}
