//! AWS as far as moto plays it: a real HTTP server, one for all tests of a binary that run at once.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// A running `moto_server` on loopback; it ends when the last handle is dropped.
pub struct Moto {
    pub url: String,
    server: Child,
}

static SHARED: Mutex<Weak<Moto>> = Mutex::new(Weak::new());

impl Moto {
    /// The server that the running tests share: so each uses secrets of its own names.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    fn start() -> Self {
        let program = test_servers().join("bin/moto_server");
        // Somebody else may take the port between our look and the server's start: then another one.
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let server = Command::new(&program)
                .args(["-H", "127.0.0.1", "-p", &port.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("`{}` does not start: {error}", program.display()));
            let mut moto = Self { url: format!("http://127.0.0.1:{port}"), server };
            if moto.is_up(port) {
                return moto;
            }
        }
        panic!("moto did not start in five attempts");
    }

    /// Waits for the server; `false` if it ended.
    fn is_up(&mut self, port: u16) -> bool {
        for _ in 0..600 {
            if self.server.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("moto did not listen within 60 s");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The folder of the pinned test servers; installs them if they are missing, once for all processes.
fn test_servers() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("target");
    let folder = std::env::var_os("ROTAD_TEST_SERVERS").map_or_else(|| target.join("test-servers"), PathBuf::from);
    std::fs::create_dir_all(&target).unwrap();
    let lock = File::create(target.join("test-servers.lock")).unwrap();
    lock.lock().unwrap();
    let status = Command::new(root.join("tests/servers/install")).env("ROTAD_TEST_SERVERS", &folder).status().unwrap();
    assert!(status.success(), "`tests/servers/install` failed: {status}");
    folder
}
