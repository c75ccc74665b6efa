//! A real PostgreSQL server for a test: its own process, port and directory, gone when dropped.
//!
//! Debian's, installed or as `tests/run` unpacks it into `target/test-tools/postgresql`.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio_postgres::{Client, NoTls};

use super::process::Process;

/// How long a server may take to answer first, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The server refuses to run as root.
const NOBODY: u32 = 65_534;

/// A running server that takes TLS connections alone, by password, and the tests' own over its socket.
pub struct Postgres {
    process: Process,
    pub port: u16,
    directory: tempfile::TempDir,
}

impl Postgres {
    /// `method` is how a client proves its password: `scram-sha-256`, or `password` in the clear.
    pub async fn start(certificate: &str, key: &str, method: &str) -> Self {
        Self::start_with(certificate, key, &format!("hostssl all all all {method}")).await
    }

    /// `hosts` is who is let in over TCP, as a line of `pg_hba.conf` says it.
    pub async fn start_with(certificate: &str, key: &str, hosts: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        give_away(&data);
        let path = data.to_str().unwrap();
        let made = command("initdb").args(["-D", path, "-U", "postgres", "--no-locale", "--encoding=UTF8", "--no-sync"]).output();
        let made = made.expect("initdb can't be run");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        for (name, content) in
            [("server.crt", certificate), ("server.key", key), ("pg_hba.conf", &format!("local all all trust\n{hosts}\n"))]
        {
            let file = data.join(name);
            std::fs::write(&file, content).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            give_away(&file);
        }
        let port = crate::free_port();
        let server = Self { process: Process(serve(&data, port)), port, directory };
        server.until_ready().await;
        server
    }

    /// A session of the superuser, over the socket.
    pub async fn superuser(&self, database: &str) -> Client {
        self.try_superuser(database).await.unwrap()
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Ends it as a crash of its machine's power does not: what was committed is there at the next start.
    pub async fn crash_and_start_again(&mut self) {
        self.process.signal(Signal::QUIT);
        while self.process.ended().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.process = Process(serve(&self.socket(), self.port));
        self.until_ready().await;
    }

    async fn try_superuser(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.directory.path().join("data")).port(self.port).user("postgres").dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn until_ready(&self) {
        let waiting = async {
            while self.try_superuser("postgres").await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let log = self.directory.path().join("data/log");
        if tokio::time::timeout(READY_LIMIT, waiting).await.is_err() {
            panic!("the server is not ready: {}", std::fs::read_to_string(log).unwrap_or_default());
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed, it would leave its shared memory behind.
        self.process.signal(Signal::INT);
        for _ in 0..100 {
            if self.process.ended().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn serve(data: &Path, port: u16) -> std::process::Child {
    let log = std::fs::File::create(data.join("log")).unwrap();
    command("postgres")
        .arg("-D")
        .arg(data)
        .args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}"), "-c", "ssl=on", "-c", "fsync=off"])
        .args(["-c", &format!("unix_socket_directories={}", data.display())])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("postgres can't be started")
}

/// A program of the server's, as nobody where the tests run as root.
fn command(program: &str) -> Command {
    let binaries = binaries();
    let mut command = Command::new(binaries.join(program));
    command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    let libraries = tools().join("usr/lib");
    if binaries.starts_with(&libraries) {
        command.env("LD_LIBRARY_PATH", libraries.join(format!("{}-linux-gnu", std::env::consts::ARCH)));
    }
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/postgresql")
}

/// Where the newest server's programs are.
fn binaries() -> PathBuf {
    let versions = |root: &Path| -> Vec<PathBuf> {
        let found = std::fs::read_dir(root.join("usr/lib/postgresql")).into_iter().flatten().flatten();
        let mut found: Vec<_> = found.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).collect();
        found.sort();
        found
    };
    let found = versions(Path::new("/")).pop().or_else(|| versions(&tools()).pop());
    found.expect("PostgreSQL is missing: `tests/run` gets it, or install Debian's `postgresql`")
}

fn give_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}
