//! What `[server]` names: the listeners for health, metrics, page and JSON, and the control socket. The daemon and a rotad
//! that stands by have the same.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::control::{self, Asked};
use crate::engine::general_concerns;
use crate::web::{self, Watched};

/// Bound, and not served yet.
pub(super) struct Doors {
    web: web::Server,
    control: Option<(control::Server, mpsc::Receiver<Asked>)>,
}

impl Doors {
    /// Binds them. Whoever may open the socket is shown the same as the listeners show.
    ///
    /// # Errors
    /// What can't be bound, with what to do about it.
    pub(super) async fn bind(config: &Config, watched: Watched) -> anyhow::Result<Self> {
        let server = &config.server;
        let options = web::Options {
            listen: server.listen,
            metrics_listen: server.metrics_listen,
            page: server.page,
            per_credential: server.per_credential_metrics,
        };
        let (journal, board, now) = (watched.journal.clone(), watched.board.clone(), watched.now.clone());
        let web = web::Server::bind(options, watched).await?;
        let control = match &server.control {
            Some(path) => {
                let concerns = Box::new(move || general_concerns(&board.snapshot(now())));
                let shown = control::Shown { journal, concerns };
                Some(control::Server::bind(path, server.control_group.as_deref(), shown)?)
            }
            None => None,
        };
        Ok(Self { web, control })
    }

    /// Serves until `stopped` says so.
    pub(super) fn open(self, stopped: &watch::Receiver<bool>) -> Open {
        let addresses = self.web.addresses().into();
        let web = tokio::spawn(self.web.run(stopped.clone()));
        let (control, asked) = match self.control {
            Some((server, asked)) => (Some(tokio::spawn(server.run(stopped.clone()))), Some(asked)),
            None => (None, None),
        };
        Open { addresses, web, control, asked }
    }
}

/// Served.
pub(super) struct Open {
    addresses: Arc<[SocketAddr]>,
    web: JoinHandle<()>,
    control: Option<JoinHandle<()>>,
    /// Commands from the control socket; `None` where none is configured.
    asked: Option<mpsc::Receiver<Asked>>,
}

impl Open {
    /// Where metrics and health are served.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The next command from the control socket; never where there is none. May be dropped at any time.
    pub(super) async fn asked(&mut self) -> Asked {
        let asked = match &mut self.asked {
            Some(asked) => asked.recv().await,
            None => None,
        };
        match asked {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
    }

    /// Waits until nothing is served any more, once that was said.
    pub(super) async fn closed(self) {
        let _ = self.web.await;
        if let Some(control) = self.control {
            // Who still waits for an answer is told that there will be none.
            drop(self.asked);
            let _ = control.await;
        }
    }
}
