//! A TCP proxy before the server that cuts a connection at its commit: before the server has it, or after, with the answer
//! kept back. It reads what is sent, so there must be no TLS.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The statement by itself, and the server's word that it is done; not a part of `READ COMMITTED`.
const COMMIT: &[u8] = b"COMMIT\0";

/// Where the next commit is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never has it.
    Before,
    /// The server has carried it out.
    After,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    cut: Cut,
    /// The server is not told that its client is gone.
    unnoticed: bool,
    /// Nobody is let through afterwards.
    then_refuse: bool,
}

/// What begins a transaction, and ends none.
const BEGIN: &[u8] = b"BEGIN ";

struct Shared {
    target: u16,
    plan: Mutex<Option<Plan>>,
    refuses: AtomicBool,
    cuts: AtomicUsize,
    /// The next transaction is begun and never answered.
    hangs: AtomicBool,
    /// The number of a server's process, which is told as another's.
    disguised: Mutex<Option<i32>>,
    /// Changes when open connections are to be cut.
    all: watch::Sender<()>,
}

pub struct Cutter {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Cutter {
    pub async fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (plan, refuses, cuts) = (Mutex::default(), AtomicBool::new(false), AtomicUsize::new(0));
        let hangs = AtomicBool::new(false);
        let disguised = Mutex::default();
        let shared = Arc::new(Shared { target, plan, refuses, cuts, hangs, disguised, all: watch::Sender::new(()) });
        let accepted = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !accepted.refuses.load(Ordering::SeqCst) {
                    tokio::spawn(carry(client, accepted.clone()));
                }
            }
        });
        Self { port, shared }
    }

    pub fn cut(&self, cut: Cut, unnoticed: bool, then_refuse: bool) {
        *self.shared.plan.lock().unwrap() = Some(Plan { cut, unnoticed, then_refuse });
    }

    pub fn cut_all_and_refuse(&self) {
        self.shared.refuses.store(true, Ordering::SeqCst);
        self.shared.all.send_replace(());
    }

    pub fn let_through(&self) {
        self.shared.refuses.store(false, Ordering::SeqCst);
    }

    /// From the next transaction on nothing goes through its connection, which stands.
    pub fn hang(&self) {
        self.shared.hangs.store(true, Ordering::SeqCst);
    }

    /// As a pooler does that has another session answer.
    pub fn pretend_to_be_another(&self, backend: i32) {
        *self.shared.disguised.lock().unwrap() = Some(backend);
    }

    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

fn has(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn disguise(bytes: &mut [u8], backend: i32) {
    let found = bytes.windows(4).position(|window| window == backend.to_be_bytes());
    if let Some(at) = found {
        bytes[at..at + 4].copy_from_slice(&(backend + 1).to_be_bytes());
    }
}

async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let mut all = shared.all.subscribe();
    let mut server = TcpStream::connect(("127.0.0.1", shared.target)).await.unwrap();
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            biased;
            _ = all.changed() => return,
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let sent = &from_client[..length];
                if has(sent, BEGIN) && shared.hangs.swap(false, Ordering::SeqCst) {
                    server.write_all(sent).await.unwrap();
                    // Until the client has had enough, or the server.
                    let _ = client.read(&mut from_client).await;
                    let _ = server.read(&mut from_server).await;
                    return;
                }
                let plan = if has(sent, COMMIT) { shared.plan.lock().unwrap().take() } else { None };
                let Some(plan) = plan else {
                    if server.write_all(sent).await.is_err() { return }
                    continue;
                };
                shared.refuses.store(plan.then_refuse, Ordering::SeqCst);
                if plan.cut == Cut::After {
                    server.write_all(sent).await.unwrap();
                    let length = server.read(&mut from_server).await.unwrap();
                    assert!(has(&from_server[..length], COMMIT), "the server did not commit");
                }
                shared.cuts.fetch_add(1, Ordering::SeqCst);
                drop(client);
                if plan.unnoticed {
                    // Until the server ends it.
                    let _ = server.read(&mut from_server).await;
                }
                return;
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                let disguised = *shared.disguised.lock().unwrap();
                if let Some(backend) = disguised {
                    disguise(&mut from_server[..length], backend);
                }
                if client.write_all(&from_server[..length]).await.is_err() { return }
            }
        }
    }
}
