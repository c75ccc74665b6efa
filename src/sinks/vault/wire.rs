//! One request to Vault and its answer: the HTTP client, what became of the request, and what a status means.

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use rustify::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Auth, Config};
use crate::cause::innermost;
use crate::json::Object;
use crate::rotation::{Failed, Reason};
use crate::secret::{Secret, presentable, read_file};

/// For the connection alone, TLS included: a store that is up answers in well under a second.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// Above the largest secret that a server takes (1 MiB with raft storage, documented).
const BODY_MAX: usize = 4 << 20;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
const INDEX: HeaderName = HeaderName::from_static("x-vault-index");

/// A request that vaultrs has no type for.
pub(super) struct Call {
    pub method: RequestMethod,
    pub path: String,
    /// JSON, or nothing. It may hold a secret.
    pub body: Option<Zeroizing<Vec<u8>>>,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: RequestMethod::GET, path: path.into(), body: None }
    }

    pub fn post(path: impl Into<String>, body: &impl serde::Serialize) -> Self {
        Self::with_body(RequestMethod::POST, path, body)
    }

    pub fn patch(path: impl Into<String>, body: &impl serde::Serialize) -> Self {
        Self::with_body(RequestMethod::PATCH, path, body)
    }

    fn with_body(method: RequestMethod, path: impl Into<String>, body: &impl serde::Serialize) -> Self {
        // What we send are maps with string keys, which always have a JSON form.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { method, path: path.into(), body: Some(Zeroizing::new(body)) }
    }
}

impl Endpoint for Call {
    type Response = serde_json::Value;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        self.method.clone()
    }

    fn body(&self) -> Result<Option<Vec<u8>>, rustify::errors::ClientError> {
        Ok(self.body.as_ref().map(|body| body.to_vec()))
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing of it reached the server.
    NotSent(Failed),
    /// It was sent, as far as one can know, and the server may have done it.
    NoAnswer(Failed),
}

impl Trouble {
    pub fn into_failed(self) -> Failed {
        match self {
            Self::NotSent(failed) | Self::NoAnswer(failed) => failed,
        }
    }
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Self {
        Self::NotSent(failed)
    }
}

/// A complete answer. The body may hold secrets, so there is no `Debug`.
pub(super) struct Answer {
    pub status: u16,
    pub body: Zeroizing<Vec<u8>>,
    /// The state that this answer stands for, where the server says so (Vault Enterprise).
    pub index: Option<HeaderValue>,
    retry_after: Option<SignedDuration>,
    /// The token that the request was made with: a text of the server's may repeat it, whatever its form.
    asked_with: Option<Secret>,
}

/// The parts of an error's body that matter.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Complaint {
    errors: Option<Vec<String>>,
    warnings: Option<Vec<String>>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as `T`, borrowed from it.
    ///
    /// # Errors
    /// `BadAnswer`, with the place of the fault and nothing of the body.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failed> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            Failed::new(Reason::BadAnswer, format!("the server's answer is not what Vault's documentation says ({place})"))
        })
    }

    fn complaint(&self) -> Complaint {
        serde_json::from_slice(&self.body).map(|Object(complaint)| complaint).unwrap_or_default()
    }

    /// The server's own error messages in one line, not to be shown as they are; empty where it gave none.
    pub fn errors(&self) -> String {
        self.complaint().errors.unwrap_or_default().join("; ").replace(['\n', '\t'], " ")
    }

    /// The same to be shown, without the request's token and the other `secrets` that went with it.
    pub fn said(&self, characters: usize, secrets: &[&Secret]) -> String {
        let sent: Vec<&Secret> = self.asked_with.iter().chain(secrets.iter().copied()).collect();
        presentable(&self.errors(), characters, &sent)
    }

    /// Whether this is Vault's way to say that there is nothing at a path: 404 with an empty list of errors.
    pub fn is_absent(&self) -> bool {
        self.status == 404 && self.complaint().errors.is_some_and(|errors| errors.is_empty())
    }

    /// Whether the engine at the mount has another KV version than the path was made for.
    fn is_other_version(&self) -> bool {
        let warnings = self.complaint().warnings.unwrap_or_default();
        self.status == 404 && warnings.iter().any(|warning| warning.contains("Invalid path for a versioned K/V"))
    }

    /// Whether the status proves that the server did nothing: a refusal, a redirect that was not
    /// followed, a seal. Any other 5xx may come from a proxy while the server is still at it.
    pub fn proves_nothing_was_done(&self) -> bool {
        match self.status {
            300..500 => true,
            503 => self.is_sealed(),
            _ => false,
        }
    }

    fn is_sealed(&self) -> bool {
        self.status == 503 && self.errors().contains("sealed")
    }
}

/// What was tried, for the sentence that says what went wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    /// As policies name it: `secret/data/etl/motherduck`.
    pub path: &'a str,
    /// What a policy must allow there: `read`, or `update` …
    pub capability: &'a str,
    pub namespace: Option<&'a str>,
    pub mount: &'a str,
}

/// What an answer that is no success means.
pub(super) fn failure(answer: &Answer, attempt: Attempt<'_>) -> Failed {
    let Attempt { path, capability, namespace, mount } = attempt;
    let inside = namespace.map_or_else(String::new, |namespace| format!(" in the namespace `{namespace}`"));
    let said = match answer.said(120, &[]) {
        nothing if nothing.is_empty() => nothing,
        said => format!(": {said}"),
    };
    let (reason, detail) = match answer.status {
        401 => (Reason::Unauthorized, format!("the server wants another login for `{path}`{inside}{said}")),
        403 => (Reason::Forbidden, format!("the token lacks `{capability}` on `{path}`{inside}; add it to its policy")),
        404 if answer.is_other_version() => {
            (Reason::Unsuitable, format!("the engine at `{mount}`{inside} is KV version 2; set `kv_version = 2`"))
        }
        404 if answer.errors().contains("no handler for route") => {
            (Reason::Missing, format!("no secrets engine is mounted at `{mount}`{inside}; mount one or correct `mount`"))
        }
        404 => (Reason::NoRoute, format!("the server has no `{path}`{inside}{said}; is `address` that of Vault?")),
        400 if answer.errors().contains("pgrading") => {
            (Reason::Unavailable, format!("the engine at `{mount}` is being upgraded to KV version 2; this passes"))
        }
        413 => (Reason::Full, format!("the server finds the secret at `{path}` too large{said}")),
        429 => (Reason::Throttled, format!("the server limits requests to `{path}`{said}")),
        412 => (Reason::Unavailable, "the standby that answered has not caught up with our last write yet".to_owned()),
        472 | 473 | 300..400 => (
            Reason::Unavailable,
            format!(
                "a standby that does not serve requests answered ({}); `address` must lead to the active node",
                answer.status
            ),
        ),
        503 if answer.is_sealed() => (Reason::Unavailable, "the server is sealed; unseal it".to_owned()),
        400..500 => {
            (Reason::Rejected, format!("the server refused `{capability}` on `{path}`{inside} ({}){said}", answer.status))
        }
        500..600 => (Reason::Unavailable, format!("the server failed at `{path}` ({}){said}", answer.status)),
        status => (Reason::BadAnswer, format!("the server answered `{path}` with status {status}{said}")),
    };
    Failed::new(reason, detail).retry_after(answer.retry_after)
}

/// The HTTP client for one server. Made anew when a certificate file changes.
pub(super) struct Wire {
    http: reqwest::Client,
    /// `https://vault.internal:8200/v1`
    base: String,
    address: String,
    namespace: Option<HeaderValue>,
}

impl Wire {
    /// # Errors
    /// A certificate file that can't be read or holds none.
    pub async fn open(config: &Config) -> Result<Self, Failed> {
        let address = config.address.trim_end_matches('/').to_owned();
        let secure = address.starts_with("https://");
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("rotad/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry our token to wherever it points, a proxy to whoever set a variable.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .retry(reqwest::retry::never())
            .referer(false)
            .https_only(secure)
            .connect_timeout(CONNECT_LIMIT)
            .pool_idle_timeout(Duration::from_secs(60));
        if !secure {
            // Plain HTTP needs no roots, and looking for the system's fails where there are none.
            builder = builder.tls_certs_only([]);
        } else if let Some(path) = &config.ca_cert {
            builder = builder.tls_certs_only(certificates(path).await?);
        }
        if let Auth::Cert { cert_file, key_file, .. } = &config.auth {
            builder = builder.identity(identity(cert_file, key_file).await?);
        }
        let http = builder.build().map_err(|error| {
            Failed::new(Reason::Unsuitable, format!("no HTTPS client can be made for `{address}`: {}", innermost(&error)))
        })?;
        let namespace = config
            .namespace
            .as_deref()
            .map(HeaderValue::from_str)
            .transpose()
            .map_err(|_| Failed::new(Reason::Unsuitable, "the `namespace` holds characters that no HTTP header can carry"))?;
        Ok(Self { http, base: format!("{address}/v1"), address, namespace })
    }

    /// Sends one request, once, and gives the complete answer whatever its status.
    pub async fn send<E: Endpoint>(
        &self,
        endpoint: &E,
        token: Option<&Secret>,
        index: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Answer, Trouble> {
        let request = self.request(endpoint, token, index)?;
        let exchange = async {
            let response = self.http.execute(request).await.map_err(|error| self.trouble(error))?;
            Ok(Answer { asked_with: token.map(Secret::duplicate), ..self.answer(response).await? })
        };
        // The connection has its own, shorter limit, so that a request cut off here was under way.
        let late = || Trouble::NoAnswer(Failed::new(Reason::TimedOut, format!("`{}` did not answer in time", self.address)));
        tokio::time::timeout_at(deadline, exchange).await.unwrap_or_else(|_| Err(late()))
    }

    fn request<E: Endpoint>(
        &self,
        endpoint: &E,
        token: Option<&Secret>,
        index: Option<&HeaderValue>,
    ) -> Result<reqwest::Request, Trouble> {
        let unfit = || Failed::new(Reason::Rejected, format!("no request can be made for the path `{}`", endpoint.path()));
        let request = endpoint.request(&self.base).map_err(|_| unfit())?;
        let mut request = reqwest::Request::try_from(request).map_err(|_| unfit())?;
        let content_type = match endpoint.method() {
            RequestMethod::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let headers = request.headers_mut();
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| unfit())?;
            value.set_sensitive(true);
            headers.insert(TOKEN, value);
        }
        if let Some(namespace) = &self.namespace {
            headers.insert(NAMESPACE, namespace.clone());
        }
        if let Some(index) = index {
            headers.insert(INDEX, index.clone());
        }
        Ok(request)
    }

    async fn answer(&self, mut response: reqwest::Response) -> Result<Answer, Trouble> {
        let status = response.status().as_u16();
        let index = response.headers().get(INDEX).cloned();
        let retry_after = retry_after(response.headers());
        let room = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0).min(BODY_MAX);
        // Room for all of it at once: a buffer that grows leaves copies of its content behind.
        let mut body = Zeroizing::new(Vec::with_capacity(room.max(4096)));
        while let Some(chunk) = response.chunk().await.map_err(|error| self.trouble(error))? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err(Trouble::NoAnswer(Failed::new(Reason::BadAnswer, "the server's answer is larger than 4 MiB")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body, index, retry_after, asked_with: None })
    }

    fn trouble(&self, error: reqwest::Error) -> Trouble {
        let cause = innermost(&error).to_string();
        let address = &self.address;
        if error.is_connect() || error.is_builder() {
            let remedy =
                if cause.contains("certificate") { "; is `ca_cert` the authority that signed its certificate?" } else { "" };
            return Trouble::NotSent(Failed::new(Reason::Unreachable, format!("no connection to `{address}`: {cause}{remedy}")));
        }
        let (reason, what) = match error.is_timeout() {
            true => (Reason::TimedOut, "did not answer in time"),
            false => (Reason::BadAnswer, "broke the connection off"),
        };
        Trouble::NoAnswer(Failed::new(reason, format!("`{address}` {what}: {cause}")))
    }
}

/// `Retry-After` in seconds, the only form that Vault sends (documented); at most a day.
fn retry_after(headers: &HeaderMap) -> Option<SignedDuration> {
    let seconds: i64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    (0..=86_400).contains(&seconds).then(|| SignedDuration::from_secs(seconds))
}

async fn certificates(path: &std::path::Path) -> Result<Vec<reqwest::Certificate>, Failed> {
    let pem = read_file(path).await?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Failed::new(Reason::Unsuitable, format!("`{}` holds no certificate in PEM form", path.display()))),
    }
}

async fn identity(cert_file: &std::path::Path, key_file: &std::path::Path) -> Result<reqwest::Identity, Failed> {
    let (cert, key) = (read_file(cert_file).await?, read_file(key_file).await?);
    let mut pem = Zeroizing::new(Vec::with_capacity(cert.len() + key.len() + 1));
    pem.extend_from_slice(&cert);
    pem.push(b'\n');
    pem.extend_from_slice(&key);
    reqwest::Identity::from_pem(&pem).map_err(|_| {
        let (cert, key) = (cert_file.display(), key_file.display());
        Failed::new(Reason::Unsuitable, format!("`{cert}` and `{key}` are not a certificate and its key in PEM form"))
    })
}
