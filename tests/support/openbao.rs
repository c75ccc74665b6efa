//! A real OpenBao server for a test: its own process, port and directory, gone when dropped.
//!
//! The `bao` binary comes from the virtual environment that `tests/servers/install` makes, at
//! `$ROTAD_TEST_SERVERS` or `target/test-servers`; the first test that needs it installs it.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// How long a server may take to answer first, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The binary, installed first where it is missing; one process installs, the others wait.
pub fn binary() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = std::env::var_os("ROTAD_TEST_SERVERS").map_or_else(|| root.join("target/test-servers"), PathBuf::from);
    std::fs::create_dir_all(venv.parent().unwrap()).unwrap();
    let lock = std::fs::File::create(venv.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let output = Command::new(root.join("tests/servers/install")).output().expect("tests/servers/install can't be run");
    assert!(output.status.success(), "tests/servers/install failed: {}", String::from_utf8_lossy(&output.stderr));
    venv.join("bin/bao")
}

/// Certificate and key files for a server that speaks TLS.
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

/// A running server, initialised and unsealed.
pub struct Bao {
    child: Child,
    http: reqwest::Client,
    /// Without a slash at the end.
    pub address: String,
    /// May do everything.
    pub root_token: String,
    unseal_key: Option<String>,
    directory: tempfile::TempDir,
}

impl Bao {
    /// Development mode: in memory, unsealed, KV v2 at `secret`.
    pub async fn dev() -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let listen = format!("-dev-listen-address=127.0.0.1:{port}");
        let child = spawn(&directory, &["-dev", "-dev-no-store-token", "-dev-root-token-id=root", &listen]);
        let bao = Self {
            child,
            http: client(None),
            address: format!("http://127.0.0.1:{port}"),
            root_token: "root".to_owned(),
            unseal_key: None,
            directory,
        };
        bao.until_ready(&[200]).await;
        // The engine at `secret` upgrades itself for a moment after the start.
        bao.until("GET", "secret/config", |status| status == 200).await;
        bao
    }

    /// A full server with storage on disk, sealable; KV v2 at `secret`. With `tls` it speaks only that.
    pub async fn full(tls: Option<&Tls>) -> Self {
        let (directory, port, cluster_port) = (tempfile::tempdir().unwrap(), free_port(), free_port());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = match tls {
            Some(tls) => {
                format!("tls_cert_file = \"{}\"\n  tls_key_file = \"{}\"", tls.cert.display(), tls.key.display())
            }
            None => "tls_disable = true".to_owned(),
        };
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let config = format!(
            "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"one\"\n}}\n\
             listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  cluster_address = \"127.0.0.1:{cluster_port}\"\n  {listener}\n}}\n\
             api_addr = \"{scheme}://127.0.0.1:{port}\"\ncluster_addr = \"https://127.0.0.1:{cluster_port}\"\n",
            data.display()
        );
        let file = directory.path().join("server.hcl");
        std::fs::write(&file, config).unwrap();
        let child = spawn(&directory, &[&format!("-config={}", file.display())]);
        let http = client(tls.map(|tls| tls.ca.as_path()));
        let address = format!("{scheme}://127.0.0.1:{port}");
        let mut bao = Self { child, http, address, root_token: String::new(), unseal_key: None, directory };
        bao.until_ready(&[501]).await;
        let (status, keys) = bao.call("PUT", "sys/init", Some(json!({ "secret_shares": 1, "secret_threshold": 1 }))).await;
        assert_eq!(status, 200, "{keys}");
        bao.root_token = keys["root_token"].as_str().unwrap().to_owned();
        bao.unseal_key = Some(keys["keys"][0].as_str().unwrap().to_owned());
        bao.unseal().await;
        bao.ok("POST", "sys/mounts/secret", json!({ "type": "kv", "options": { "version": "2" } })).await;
        bao.until("GET", "secret/config", |status| status == 200).await;
        bao
    }

    pub async fn seal(&self) {
        self.ok("PUT", "sys/seal", json!({})).await;
    }

    pub async fn unseal(&self) {
        let key = self.unseal_key.as_ref().expect("a full server");
        self.ok("PUT", "sys/unseal", json!({ "key": key })).await;
        self.until_ready(&[200]).await;
    }

    /// A directory that lives as long as the server.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// One request with the root token: its status and body.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_as(&self.root_token, None, method, path, body).await
    }

    pub async fn call_as(
        &self,
        token: &str,
        namespace: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let method: reqwest::Method = method.parse().unwrap();
        let content_type = if method == reqwest::Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.address)).header("X-Vault-Token", token);
        if let Some(namespace) = namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(body) = body {
            request = request.header("Content-Type", content_type).body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// One request that must succeed, and its body.
    pub async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, (!body.is_null()).then_some(body)).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Repeats a request until its status is as wanted: an engine that was just mounted needs a second.
    pub async fn until(&self, method: &str, path: &str, wanted: impl Fn(u16) -> bool) {
        let waiting = async {
            while !wanted(self.call(method, path, None).await.0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(READY_LIMIT, waiting).await.unwrap_or_else(|_| panic!("{method} {path} never answered as wanted"));
    }

    async fn until_ready(&self, wanted: &[u16]) {
        let url = format!("{}/v1/sys/health", self.address);
        let waiting = async {
            loop {
                if let Ok(response) = self.http.get(&url).send().await
                    && wanted.contains(&response.status().as_u16())
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        };
        let log = self.directory.path().join("log");
        if tokio::time::timeout(READY_LIMIT, waiting).await.is_err() {
            panic!("the server is not ready: {}", std::fs::read_to_string(log).unwrap_or_default());
        }
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &tempfile::TempDir, arguments: &[&str]) -> Child {
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    Command::new(binary())
        .arg("server")
        .args(arguments)
        // Nothing of the caller's environment: VAULT_… variables would change what the server does.
        .env_clear()
        .env("HOME", directory.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("the server can't be started")
}

fn client(ca: Option<&Path>) -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
    let roots = ca.map(|path| reqwest::Certificate::from_pem(&std::fs::read(path).unwrap()).unwrap());
    builder.tls_certs_only(roots).build().unwrap()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
