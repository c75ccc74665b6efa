//! The Vault sink against the real OpenBao.
#![allow(clippy::unwrap_used, clippy::expect_used)] // test code, also outside of `#[test]` functions

mod support {
    pub mod openbao;
    pub mod sink_contract;
}

use std::sync::Arc;

use async_trait::async_trait;
use rotad::rotation::RotationId;
use rotad::sinks::Place;
use rotad::sinks::vault::{Auth, Config, KvVersion, SecretSource, Store, Target};
use serde_json::{Value, json};
use support::openbao::Bao;
use support::sink_contract::{self, World};

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

async fn root_store(bao: &Bao) -> Arc<Store> {
    let token = secret_file(bao, "root-token", &bao.root_token);
    Store::open(config(bao, Auth::Token(token))).await.unwrap()
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
    async fn new(version: KvVersion) -> Self {
        let bao = Bao::dev().await;
        let token = secret_file(&bao, "root-token", &bao.root_token);
        let mut config = config(&bao, Auth::Token(token));
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
    sink_contract::holds(&VaultWorld::new(KvVersion::V2).await).await;
}

#[tokio::test]
async fn kv_v1_keeps_the_sink_contract() {
    sink_contract::holds(&VaultWorld::new(KvVersion::V1).await).await;
}
