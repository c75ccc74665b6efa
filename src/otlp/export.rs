//! Brings spans to a collector, in batches. What it does not take in time is lost and counted: nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::span::{attribute, of_rotation, of_step};
use super::{ENDPOINT, TRACES_ENDPOINT, variable};
use crate::engine::{Acted, Witness, kernel_random};
use crate::http;
use crate::metrics::{Metrics, SpanOutcome};
use crate::rotation::{CredentialName, Deployment, Entry, Failed, Reason};

/// Spans that wait while a collector hangs: at 1 KiB each, 2 MiB. As the SDKs have it by default.
const WAITING_MAX: usize = 2048;
/// Spans of one request, and how long the first of them waits for others. As the SDKs have it by default.
const BATCH_MAX: usize = 512;
const BATCH_WAIT: Duration = Duration::from_secs(5);

/// Where the environment says that traces go.
pub struct Export {
    url: Url,
    /// May hold secrets.
    headers: HeaderMap,
    /// Of the process: the same for every span.
    resource: Value,
    http: reqwest::Client,
    metrics: Arc<Metrics>,
}

impl Export {
    /// # Errors
    /// What is wrong with the variables; never what a header's is.
    pub fn from_environment(deployment: &Deployment, metrics: Arc<Metrics>) -> Result<Self, String> {
        let (name, text) = match (variable(TRACES_ENDPOINT), variable(ENDPOINT)) {
            (Some(whole), _) => (TRACES_ENDPOINT, whole),
            (None, Some(base)) => (ENDPOINT, format!("{}/v1/traces", base.trim_end_matches('/'))),
            (None, None) => return Err(format!("neither `{ENDPOINT}` nor `{TRACES_ENDPOINT}` is set")),
        };
        let protocols = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        if let Some((name, other)) = protocols.into_iter().find_map(|name| Some((name, variable(name)?)))
            && other != "http/json"
        {
            return Err(format!("`{name}` asks for another form than `http/json`, the only one that rotad speaks"));
        }
        let url = http::address(text.trim()).map_err(|wrong| format!("the address in `{name}` {wrong}"))?;
        let service = variable("OTEL_SERVICE_NAME").unwrap_or_else(|| "rotad".to_owned());
        let resource = json!({ "attributes": [
            attribute("service.name", &service),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("rotad.deployment", deployment.as_str()),
        ] });
        let http = http::client().map_err(|failed| failed.to_string())?;
        Ok(Self { url, headers: headers()?, resource, http, metrics })
    }

    /// Exports what `witness` is told of. Ends with the process: the last batch may be lost with it.
    pub fn beside(self, witness: Arc<dyn Witness>) -> Traced {
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let metrics = self.metrics.clone();
        tokio::spawn(self.run(waiting));
        Traced { witness, sender, metrics }
    }

    async fn run(self, mut waiting: mpsc::Receiver<Value>) {
        let mut failing = false;
        loop {
            let mut batch = Vec::new();
            if waiting.recv_many(&mut batch, BATCH_MAX).await == 0 {
                return;
            }
            let fill = async {
                let mut room = BATCH_MAX - batch.len();
                while room > 0 && waiting.recv_many(&mut batch, room).await > 0 {
                    room = BATCH_MAX - batch.len();
                }
            };
            let _ = tokio::time::timeout(BATCH_WAIT, fill).await;
            let spans = batch.len();
            match self.send(batch).await {
                Ok(()) => {
                    self.metrics.trace_spans(SpanOutcome::Sent, spans);
                    if std::mem::take(&mut failing) {
                        info!("the collector takes traces again");
                    }
                }
                Err(failed) => {
                    self.metrics.trace_spans(SpanOutcome::Lost, spans);
                    if !std::mem::replace(&mut failing, true) {
                        warn!(reason = failed.reason.as_str(), "traces are lost: {failed}");
                    }
                }
            }
        }
    }

    async fn send(&self, spans: Vec<Value>) -> Result<(), Failed> {
        let scope = json!({ "name": "rotad", "version": env!("CARGO_PKG_VERSION") });
        let body = json!({ "resourceSpans": [
            { "resource": self.resource, "scopeSpans": [{ "scope": scope, "spans": spans }] },
        ] });
        let call = self.http.post(self.url.clone()).headers(self.headers.clone()).header(CONTENT_TYPE, "application/json");
        let answer = call.body(body.to_string()).send().await.map_err(|error| http::unanswered(&error))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(Failed::new(Reason::Rejected, format!("the collector answered {}", status.as_u16()))),
        }
    }
}

/// `OTEL_EXPORTER_OTLP_HEADERS`, and that of traces alone: `name=value`, with commas between.
fn headers() -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
        let Some(text) = variable(name) else { continue };
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let parsed = pair.split_once('=').and_then(|(key, value)| {
                let mut value = HeaderValue::from_str(&decoded(value.trim())?).ok()?;
                value.set_sensitive(true);
                Some((HeaderName::from_bytes(key.trim().as_bytes()).ok()?, value))
            });
            let (key, value) = parsed.ok_or_else(|| format!("`{name}` is not made of `name=value` with commas between"))?;
            headers.insert(key, value);
        }
    }
    Ok(headers)
}

/// A value with its `%20` and the like as what they stand for.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// A witness whose rotations are exported as traces.
pub struct Traced {
    witness: Arc<dyn Witness>,
    sender: mpsc::Sender<Value>,
    metrics: Arc<Metrics>,
}

impl Traced {
    fn export(&self, span: Value) {
        if self.sender.try_send(span).is_err() {
            self.metrics.trace_spans(SpanOutcome::Lost, 1);
        }
    }
}

impl Witness for Traced {
    fn happened(&self, credential: &CredentialName, entry: &Entry) {
        self.witness.happened(credential, entry);
        if let Some(span) = of_rotation(credential, entry) {
            self.export(span);
        }
    }

    fn acted(&self, credential: &CredentialName, acted: &Acted<'_>) {
        self.witness.acted(credential, acted);
        self.export(of_step(credential, acted, kernel_random()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_s_value_is_decoded() {
        assert_eq!(decoded("Bearer%20abc%3D").as_deref(), Some("Bearer abc="));
        assert_eq!([decoded("%2"), decoded("%zz"), decoded("%ff")], [None, None, None]);
    }
}
