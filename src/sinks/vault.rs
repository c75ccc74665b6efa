//! The Vault sink: HashiCorp Vault or OpenBao, KV version 2 or 1.
//!
//! One `Store` per configured sink holds connections and our own token; a `Place` is one key of one
//! secret in it, and small. Requests are vaultrs's, sent over an HTTP client of our own: no
//! environment, no proxy, no redirects, a time limit on each. What a token of ours must be
//! allowed to do stands in `docs/vault.md`.

mod files;
mod kv1;
mod kv2;
mod place;
mod session;
mod store;
mod wire;

use std::path::PathBuf;

use crate::rotation::DeliveryId;
use crate::secret::SecretSource;

pub use place::VaultPlace;
pub use store::Store;

/// How rotad logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `token = { file = … }` or `{ env = … }`
    Token(SecretSource),
    /// `approle = { role_id, secret_id, mount = "approle" }`
    AppRole { mount: String, role_id: String, secret_id: SecretSource },
    /// `kubernetes = { role, jwt_file = "/var/run/secrets/kubernetes.io/serviceaccount/token", mount = "kubernetes" }`
    Kubernetes { mount: String, role: String, jwt: PathBuf },
    /// `jwt = { role, token = { file = … }, mount = "jwt" }`
    Jwt { mount: String, role: Option<String>, token: SecretSource },
    /// `cert = { cert_file, key_file, role, mount = "cert" }`
    Cert { mount: String, role: Option<String>, cert_file: PathBuf, key_file: PathBuf },
}

/// The version of the KV engine at the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvVersion {
    V1,
    V2,
}

/// `[sink.<name>.vault]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `https://…`, or `http://` on loopback; checked by the configuration to be a URL without path, query or user.
    pub address: String,
    pub namespace: Option<String>,
    pub ca_cert: Option<PathBuf>,
    /// `secret` by default.
    pub mount: String,
    pub kv_version: KvVersion,
    pub auth: Auth,
}

impl Config {
    /// Where it is, as ids of places begin: `vault:https://vault.internal:8200/ns/team/secret`
    pub(super) fn id(&self) -> String {
        let address = self.address.trim_end_matches('/');
        let namespace = self.namespace.as_deref().map(|namespace| format!("/ns/{}", namespace.trim_matches('/')));
        format!("vault:{address}{}/{}", namespace.unwrap_or_default(), self.mount)
    }
}

/// What a delivery to Vault says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Below the mount, placeholders filled in, without a slash at either end.
    pub path: String,
    /// The key of the secret that holds the token; `token` by default. Other keys are kept.
    pub key: String,
}

impl Target {
    /// Equal for two targets that would overwrite each other: KV version 2 has a token's key beside
    /// others in one secret, version 1 is written whole.
    pub fn delivery_id(&self, config: &Config) -> DeliveryId {
        let secret = format!("{}/{}", config.id(), self.path);
        match config.kv_version {
            KvVersion::V1 => DeliveryId::new(&secret),
            KvVersion::V2 => DeliveryId::new(&format!("{secret}#{}", self.key)),
        }
    }
}
