//! The Vault sink against the real OpenBao.
#![allow(clippy::unwrap_used, clippy::expect_used)] // test code, also outside of `#[test]` functions

#[path = "support/log.rs"]
mod log;
#[path = "support/openbao.rs"]
mod openbao;
#[path = "support/sink_contract.rs"]
mod sink_contract;
#[path = "support/vault_gate.rs"]
mod vault_gate;

#[path = "sink_vault/auth.rs"]
mod auth;
#[path = "sink_vault/faults.rs"]
mod faults;
#[path = "sink_vault/keys.rs"]
mod keys;

use std::sync::Arc;

use async_trait::async_trait;
use log::Log;
use openbao::{Bao, Tls};
use rotad::rotation::{Reason, RotationId, Shows, WriteOutcome};
use rotad::secret::SecretSource;
use rotad::sinks::vault::{Auth, Config, KvVersion, Store, Target};
use rotad::sinks::{Finding, Place};
use serde_json::{Value, json};
use sink_contract::{Delivery, World, assert_serves, deliver, question, read};
use vault_gate::{Fault, Gate};

/// Everything in the engine at `secret`.
const ALL: &str = r#"path "secret/*" { capabilities = ["create", "read", "update", "patch"] }"#;

/// A file with a secret, in the server's directory.
fn secret_file(bao: &Bao, name: &str, content: &str) -> SecretSource {
    let path = bao.directory().join(name);
    std::fs::write(&path, format!("{content}\n")).unwrap();
    SecretSource::File(path)
}

fn config(bao: &Bao, auth: Auth) -> Config {
    Config {
        address: bao.address.clone(),
        namespace: None,
        ca_cert: None,
        mount: "secret".to_owned(),
        kv_version: KvVersion::V2,
        auth,
    }
}

fn target(path: &str, key: &str) -> Target {
    Target { path: path.to_owned(), key: key.to_owned() }
}

fn root_auth(bao: &Bao) -> Auth {
    Auth::Token(secret_file(bao, "root-token", &bao.root_token))
}

async fn root_store(bao: &Bao) -> Arc<Store> {
    Store::open(config(bao, root_auth(bao))).await.unwrap()
}

async fn store_at(bao: &Bao, address: &str, auth: Auth) -> Arc<Store> {
    Store::open(Config { address: address.to_owned(), ..config(bao, auth) }).await.unwrap()
}

async fn put_policy(bao: &Bao, name: &str, policy: &str) {
    bao.ok("PUT", &format!("sys/policies/acl/{name}"), json!({ "policy": policy })).await;
}

/// A token that may do what the policy says, and `default`; in a file that is the same each time.
async fn limited_token(bao: &Bao, policy: &str) -> Auth {
    put_policy(bao, "limited", policy).await;
    let made = bao.ok("POST", "auth/token/create", json!({ "policies": ["limited"], "ttl": "1h" })).await;
    Auth::Token(secret_file(bao, "limited-token", made["auth"]["client_token"].as_str().unwrap()))
}

async fn limited_store(bao: &Bao, policy: &str) -> Arc<Store> {
    Store::open(config(bao, limited_token(bao, policy).await)).await.unwrap()
}

/// An AppRole named `rotad` with these settings; policies `all` and `none` stand ready. Also the secret id.
async fn approle(bao: &Bao, role: Value) -> (Auth, String) {
    put_policy(bao, "all", ALL).await;
    put_policy(bao, "none", r#"path "secret/data/elsewhere" { capabilities = ["read"] }"#).await;
    bao.call("POST", "sys/auth/approle", Some(json!({ "type": "approle" }))).await;
    bao.ok("POST", "auth/approle/role/rotad", role).await;
    let role_id = bao.ok("GET", "auth/approle/role/rotad/role-id", Value::Null).await["data"]["role_id"].clone();
    let secret_id = bao.ok("POST", "auth/approle/role/rotad/secret-id", json!({})).await["data"]["secret_id"].clone();
    let secret_id = secret_id.as_str().unwrap().to_owned();
    let auth = Auth::AppRole {
        mount: "approle".to_owned(),
        role_id: role_id.as_str().unwrap().to_owned(),
        secret_id: secret_file(bao, "secret-id", &secret_id),
    };
    (auth, secret_id)
}

async fn root_place(bao: &Bao, path: &str, key: &str) -> Arc<dyn Place> {
    root_store(bao).await.place(target(path, key)).unwrap()
}

/// A store as the contract's suite sees it; secrets carry a key of somebody else's beside ours.
struct VaultWorld {
    bao: Bao,
    version: KvVersion,
    store: Arc<Store>,
}

impl VaultWorld {
    async fn with(bao: Bao, version: KvVersion) -> Self {
        let mut config = config(&bao, root_auth(&bao));
        if version == KvVersion::V1 {
            bao.ok("POST", "sys/mounts/old", json!({ "type": "kv", "options": { "version": "1" } })).await;
            config.mount = "old".to_owned();
            config.kv_version = KvVersion::V1;
        }
        let store = Store::open(config).await.unwrap();
        Self { bao, version, store }
    }

    /// The secret's keys as they stand.
    async fn keys(&self, name: &str) -> Value {
        let (path, at) = match self.version {
            KvVersion::V1 => (format!("old/contract/{name}"), "/data"),
            KvVersion::V2 => (format!("secret/data/contract/{name}"), "/data/data"),
        };
        let (_, answer) = self.bao.call("GET", &path, None).await;
        answer.pointer(at).cloned().unwrap_or_else(|| json!({}))
    }
}

#[async_trait]
impl World for VaultWorld {
    async fn place(&self, name: &str) -> Arc<dyn Place> {
        self.store.place(target(&format!("contract/{name}"), "token")).unwrap()
    }

    async fn change_by_hand(&self, name: &str, token: &str) {
        let mut keys = self.keys(name).await;
        keys["token"] = json!(token);
        match self.version {
            KvVersion::V1 => self.bao.ok("POST", &format!("old/contract/{name}"), keys).await,
            KvVersion::V2 => self.bao.ok("POST", &format!("secret/data/contract/{name}"), json!({ "data": keys })).await,
        };
    }

    async fn roll_back(&self, name: &str, token: &str, _rotation: RotationId) {
        // `bao kv rollback` writes the old version's keys as a new version.
        self.change_by_hand(name, token).await;
    }

    async fn wipe(&self, name: &str) {
        let path = match self.version {
            KvVersion::V1 => format!("old/contract/{name}"),
            KvVersion::V2 => format!("secret/data/contract/{name}"),
        };
        self.bao.ok("DELETE", &path, Value::Null).await;
    }

    async fn left_over(&self, name: &str) -> Vec<String> {
        let ours: &[&str] = match self.version {
            KvVersion::V1 => &["token", "token.rotad"],
            KvVersion::V2 => &["token"],
        };
        let keys = self.keys(name).await;
        let mut found: Vec<String> = keys
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .filter(|key| !ours.contains(&key.as_str()))
            .collect();
        if self.version == KvVersion::V2 {
            let (_, answer) = self.bao.call("GET", &format!("secret/metadata/contract/{name}"), None).await;
            let custom = answer.pointer("/data/custom_metadata").and_then(Value::as_object).cloned().unwrap_or_default();
            found.extend(custom.into_iter().map(|(key, _)| key).filter(|key| key != "rotad.token"));
        }
        found
    }
}

#[tokio::test]
async fn kv_v2_keeps_the_sink_contract() {
    sink_contract::holds(&VaultWorld::with(Bao::dev().await, KvVersion::V2).await).await;
}

#[tokio::test]
async fn kv_v1_keeps_the_sink_contract() {
    sink_contract::holds(&VaultWorld::with(Bao::dev().await, KvVersion::V1).await).await;
}
