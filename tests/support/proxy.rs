//! A TCP proxy that can refuse or hang, between rotad and a store.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does with connections, open ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Pass,
    /// Open connections are cut and new ones closed at once.
    Refuse,
    /// Connections stand, and nothing goes through.
    Hang,
}

pub struct Proxy {
    pub url: String,
    manner: Arc<watch::Sender<Manner>>,
}

impl Proxy {
    /// In front of `target`, an `http://127.0.0.1:PORT` without a path.
    pub async fn before(target: &str) -> Self {
        let target: SocketAddr = target.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let manner = Arc::new(watch::Sender::new(Manner::Pass));
        let accepted = manner.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, accepted.subscribe()));
            }
        });
        Self { url, manner }
    }

    pub fn set(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut manner: watch::Receiver<Manner>) {
    loop {
        let now = *manner.borrow_and_update();
        match now {
            Manner::Refuse => return,
            Manner::Hang => {
                if manner.changed().await.is_err() {
                    return;
                }
            }
            Manner::Pass => break,
        }
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        // Whatever was under way is cut, or (hanging) kept open without a word until the manner changes again.
        _ = manner.changed() => {
            if *manner.borrow_and_update() == Manner::Hang {
                let _ = manner.changed().await;
            }
        }
    }
}
