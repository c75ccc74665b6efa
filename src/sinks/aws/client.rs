//! One sink's client: credentials, time limits, retries. Built once, at the first call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::retry::RetryConfig;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Builder, Region, SharedCredentialsProvider};
use jiff::SignedDuration;
use tokio::sync::OnceCell;

use super::super::format::Format;
use super::Config;
use crate::rotation::{Failed, Reason};

/// How often one call is sent. Every call of ours can be repeated without harm (see `write`).
pub(super) const ATTEMPTS: u32 = 3;

/// Time limits; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connect: Duration,
    /// Of one attempt of one call. AWS answers within tens of milliseconds.
    pub attempt: Duration,
    /// Of one call with all of its attempts and the pauses between them.
    pub operation: Duration,
    /// Of all calls of one read, and of each half of a write: what leads up to it, and the write itself.
    pub step: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            attempt: Duration::from_secs(8),
            operation: Duration::from_secs(20),
            step: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The longest that one write takes.
    pub(super) fn write(&self) -> SignedDuration {
        SignedDuration::try_from(self.step * 2).unwrap_or(SignedDuration::MAX)
    }
}

/// One sink of the configuration, shared by its places.
pub struct Store {
    config: Config,
    limits: Limits,
    /// `None` for the default chain.
    credentials: Option<SharedCredentialsProvider>,
    client: OnceCell<Client>,
    /// The few formats that the places use, each kept once.
    formats: Mutex<Vec<Arc<Format>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("config", &self.config).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Store {
    /// A sink; asks nobody yet.
    ///
    /// # Errors
    /// `Missing` where the machine has no CA certificates: the SDK's HTTP client would panic.
    pub fn new(config: Config) -> Result<Arc<Self>, Failed> {
        Self::with(config, Limits::default(), None)
    }

    /// A sink with time limits of its own, and with credentials in the place of the default chain's.
    ///
    /// # Errors
    /// As `new`.
    pub fn with(config: Config, limits: Limits, credentials: Option<SharedCredentialsProvider>) -> Result<Arc<Self>, Failed> {
        if rustls_native_certs::load_native_certs().certs.is_empty() {
            let detail = "no CA certificates were found, and without them no connection to AWS can be trusted: install the package \
                          `ca-certificates`, or point `SSL_CERT_FILE` to a bundle";
            return Err(Failed::new(Reason::Missing, detail));
        }
        Ok(Arc::new(Self { config, limits, credentials, client: OnceCell::new(), formats: Mutex::new(Vec::new()) }))
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The one copy of `format` that all places of this sink share.
    pub(super) fn shared_format(&self, format: &Format) -> Arc<Format> {
        let mut formats = self.formats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = formats.iter().find(|known| ***known == *format) {
            return known.clone();
        }
        let shared = Arc::new(format.clone());
        formats.push(shared.clone());
        shared
    }

    /// The client, built at the first call.
    pub(super) async fn client(&self) -> Result<&Client, Failed> {
        self.client.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Client, Failed> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.limits.connect)
            .operation_attempt_timeout(self.limits.attempt)
            .operation_timeout(self.limits.operation)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(Duration::from_millis(200))
            .with_max_backoff(Duration::from_secs(2));
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts).retry_config(retries);
        if let Some(region) = &self.config.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.config.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(credentials) = &self.credentials {
            loader = loader.credentials_provider(credentials.clone());
        }
        let base = loader.load().await;
        if base.region().is_none() {
            let detail = "no AWS region is known: set `region` in the sink's section, or `AWS_REGION`";
            return Err(Failed::new(Reason::Missing, detail));
        }

        let mut service = Builder::from(&base);
        if let Some(role) = &self.config.role_arn {
            let mut provider = AssumeRoleProvider::builder(role).session_name("rotad").configure(&base);
            if let Some(external_id) = &self.config.external_id {
                provider = provider.external_id(external_id);
            }
            service = service.credentials_provider(provider.build().await);
        }
        // Here and not in `base`: STS is somewhere else, and has `AWS_ENDPOINT_URL_STS`.
        if let Some(endpoint) = &self.config.endpoint_url {
            service = service.endpoint_url(endpoint);
        }
        Ok(Client::from_conf(service.build()))
    }

    /// Settings for one call that the SDK must not repeat, since the caller counts what may have landed.
    pub(super) fn once() -> Builder {
        Builder::new().retry_config(RetryConfig::disabled())
    }
}
