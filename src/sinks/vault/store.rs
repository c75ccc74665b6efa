//! One configured Vault: the connection, our own token and what all its places share.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use reqwest::header::HeaderValue;
use rustify::Endpoint;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::{info, warn};

use super::session::{Session, Unwrapping, log_in};
use super::wire::{Answer, Attempt, Call, Trouble, Wire, failure};
use super::{Auth, Config, KvVersion, Target, VaultPlace, files};
use crate::rotation::{Failed, Reason};
use crate::secret::SecretSource;

/// How often the files that our secrets come from are looked at.
const FILES_EVERY: Duration = Duration::from_secs(10);
/// For how long a failed login answers for everybody who waits for one.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// One configured Vault sink, shared by all its places.
pub struct Store {
    pub(super) config: Config,
    /// For logs: `Config::id`.
    id: String,
    wire: RwLock<Arc<Wire>>,
    session: RwLock<Option<Arc<Session>>>,
    unwrapping: Unwrapping,
    /// Held while logging in or renewing: one at a time.
    entering: tokio::sync::Mutex<Option<(Instant, Failed)>>,
    /// Cleared when a token turns out to be good but not allowed to look itself up.
    may_look_up: AtomicBool,
    /// Set when the mount was seen to have the configured KV version.
    version_seen: AtomicBool,
    files: Mutex<Files>,
}

struct Files {
    looked_at: Instant,
    certificates: Option<[u8; 32]>,
}

/// What `sys/internal/ui/mounts` tells of a mount.
#[derive(Deserialize)]
struct Mount {
    data: MountData,
}

#[derive(Deserialize)]
struct MountData {
    #[serde(rename = "type")]
    kind: String,
    options: Option<MountOptions>,
}

#[derive(Deserialize)]
struct MountOptions {
    version: Option<String>,
}

/// An attempt outside of the secrets engine, such as a login.
pub(super) fn plain_attempt<'a>(path: &'a str, capability: &'a str) -> Attempt<'a> {
    Attempt { path, capability, namespace: None, mount: "" }
}

impl Store {
    /// Reads the certificate files; connects to nothing yet.
    ///
    /// # Errors
    /// A certificate file that can't be read or used.
    pub async fn open(config: Config) -> Result<Arc<Self>, Failed> {
        let wire = Wire::open(&config).await?;
        let certificates = files::digest(&certificate_files(&config)).await;
        Ok(Arc::new(Self {
            id: config.id(),
            wire: RwLock::new(Arc::new(wire)),
            session: RwLock::new(None),
            unwrapping: Unwrapping::default(),
            entering: tokio::sync::Mutex::new(None),
            may_look_up: AtomicBool::new(true),
            version_seen: AtomicBool::new(false),
            files: Mutex::new(Files { looked_at: Instant::now(), certificates }),
            config,
        }))
    }

    /// One key of one secret here.
    ///
    /// # Errors
    /// `Unsuitable` for a path or key that no request can name.
    pub fn place(self: &Arc<Self>, target: Target) -> Result<Arc<VaultPlace>, Failed> {
        VaultPlace::new(self.clone(), target).map(Arc::new)
    }

    /// What was tried, for a failure's sentence.
    pub(super) fn attempt<'a>(&'a self, path: &'a str, capability: &'a str) -> Attempt<'a> {
        Attempt { path, capability, namespace: self.config.namespace.as_deref(), mount: &self.config.mount }
    }

    /// Sends one request with our token. If the server refuses a token that it no longer knows, logs
    /// in again and sends it once more: a refusal for the token means that nothing was done.
    pub(super) async fn send<E: Endpoint>(
        &self,
        endpoint: &E,
        index: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Answer, Trouble> {
        let (wire, session) = self.enter(deadline).await?;
        let answer = wire.send(endpoint, Some(&session.token), index, deadline).await?;
        if answer.status != 403 || !self.may_look_up.load(Ordering::Relaxed) || session.is_known(&wire, deadline).await? {
            return Ok(answer);
        }
        self.forget(&session);
        let (wire, session) = self.enter(deadline).await?;
        let answer = wire.send(endpoint, Some(&session.token), index, deadline).await?;
        if answer.status == 403 && !session.is_known(&wire, deadline).await? {
            // Even a fresh token can't look itself up, so that says nothing: don't log in each time.
            self.may_look_up.store(false, Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// Makes sure, once, that the mount is a KV engine of the configured version. On the wrong one a
    /// read would find nothing and a write would succeed beside the place.
    pub(super) async fn check_version(&self, deadline: Instant) -> Result<(), Failed> {
        if self.version_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = format!("sys/internal/ui/mounts/{}", self.config.mount);
        let answer = self.send(&Call::get(path.as_str()), None, deadline).await.map_err(Trouble::into_failed)?;
        match answer.status {
            200 => {}
            // Nothing is allowed at this mount: the request to come says what is lacking.
            403 | 404 => return Ok(()),
            _ => return Err(failure(&answer, self.attempt(&path, "read"))),
        }
        let mount = answer.parse::<Mount>()?.data;
        let found = match (mount.kind.as_str(), mount.options.and_then(|options| options.version).as_deref()) {
            ("kv", Some("2")) => KvVersion::V2,
            ("kv" | "generic", _) => KvVersion::V1,
            (other, _) => {
                let detail = format!("the engine at `{}` is of type `{other}`; rotad writes to `kv`", self.config.mount);
                return Err(Failed::new(Reason::Unsuitable, detail));
            }
        };
        if found != self.config.kv_version {
            let number = if found == KvVersion::V1 { 1 } else { 2 };
            let detail = format!("the engine at `{}` is KV version {number}; set `kv_version = {number}`", self.config.mount);
            return Err(Failed::new(Reason::Unsuitable, detail));
        }
        self.version_seen.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The connection, and a session that is good as far as can be known.
    async fn enter(&self, deadline: Instant) -> Result<(Arc<Wire>, Arc<Session>), Failed> {
        self.notice_changed_files().await;
        let wire = self.wire.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(session) = self.current() {
            if !session.wants_renewal(Instant::now()) {
                return Ok((wire, session));
            }
            // One renews; the others go on with the token while it lasts.
            let entering = self.entering.try_lock();
            match entering {
                Ok(_guard) => return Ok((wire.clone(), self.renew(&wire, session, deadline).await?)),
                Err(_) if !session.is_over(Instant::now()) => return Ok((wire, session)),
                Err(_) => {}
            }
        }
        let waiting = tokio::time::timeout_at(deadline, self.entering.lock()).await;
        let Ok(mut last_failure) = waiting else {
            return Err(Failed::new(Reason::TimedOut, format!("the login at `{}` takes too long", self.config.address)));
        };
        if let Some(session) = self.current().filter(|session| !session.is_over(Instant::now())) {
            return Ok((wire, session));
        }
        if let Some((at, failed)) = last_failure.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_HOLDS) {
            tracing::debug!(seconds = at.elapsed().as_secs(), "the login failed just now, it is not tried again yet");
            return Err(failed.clone());
        }
        match self.log_in(&wire, deadline).await {
            Ok(session) => Ok((wire, session)),
            Err(failed) => {
                *last_failure = Some((Instant::now(), failed.clone()));
                Err(failed)
            }
        }
    }

    async fn renew(&self, wire: &Wire, session: Arc<Session>, deadline: Instant) -> Result<Arc<Session>, Failed> {
        let renewed = match session.renew(wire, deadline).await {
            Ok(Some(renewed)) => Ok(self.keep(renewed)),
            Ok(None) => self.log_in(wire, deadline).await,
            Err(failed) => Err(failed),
        };
        match renewed {
            Ok(renewed) => Ok(renewed),
            Err(failed) if session.is_over(Instant::now()) => Err(failed),
            Err(failed) => {
                warn!(sink = %self.id, reason = failed.reason.as_str(), "our token was not renewed and is used while it lasts: {failed}");
                Ok(self.keep(session.later(Instant::now())))
            }
        }
    }

    async fn log_in(&self, wire: &Wire, deadline: Instant) -> Result<Arc<Session>, Failed> {
        let session = log_in(wire, &self.config.auth, &self.unwrapping, deadline).await?;
        info!(sink = %self.id, "logged in");
        Ok(self.keep(session))
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        session
    }

    /// Drops this session, unless somebody has logged in since.
    fn forget(&self, session: &Arc<Session>) {
        let mut current = self.session.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.token, &session.token)) {
            *current = None;
        }
    }

    /// Takes changed certificates and a changed token into use. A file that can't be read just now
    /// changes nothing: it is being replaced.
    async fn notice_changed_files(&self) {
        let before = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            if files.looked_at.elapsed() < FILES_EVERY {
                return;
            }
            files.looked_at = Instant::now();
            files.certificates
        };
        if let Auth::Token(source @ SecretSource::File(_)) = &self.config.auth
            && let (Some(session), Ok(token)) = (self.current(), source.read_word().await)
            && session.from_token != Some(token.fingerprint())
        {
            self.forget(&session);
        }
        let now = files::digest(&certificate_files(&self.config)).await;
        if now.is_none() || now == before {
            return;
        }
        match Wire::open(&self.config).await {
            Ok(wire) => {
                info!(sink = %self.id, "certificates changed and are in use");
                *self.wire.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(wire);
                self.files.lock().unwrap_or_else(PoisonError::into_inner).certificates = now;
                if let (Auth::Cert { .. }, Some(session)) = (&self.config.auth, self.current()) {
                    self.forget(&session);
                }
            }
            Err(failed) => warn!(sink = %self.id, "changed certificates are not used: {failed}"),
        }
    }
}

fn certificate_files(config: &Config) -> Vec<&Path> {
    let mut paths: Vec<&Path> = config.ca_cert.as_deref().into_iter().collect();
    if let Auth::Cert { cert_file, key_file, .. } = &config.auth {
        paths.extend([cert_file.as_path(), key_file.as_path()]);
    }
    paths
}
