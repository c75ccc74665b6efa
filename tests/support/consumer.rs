//! A consumer of all three places that knows nothing of rotad, and the judgement on what it read.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)] // test code outside of `#[test]` functions

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::process::{StandIn, effects_of, fingerprint};

/// The grace period that every bench's configuration has.
pub const GRACE: Duration = Duration::from_secs(2);

/// Nanoseconds since 1970, as the stand-in's log counts them.
#[allow(clippy::disallowed_methods)] // a test measures from outside of rotad
pub fn now_ns() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// Where a consumer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    Aws,
    Vault,
    File,
}

impl Location {
    pub const ALL: [Self; 3] = [Self::Aws, Self::Vault, Self::File];
}

/// A consumer: plain HTTP to the stores, and the file.
#[derive(Clone)]
pub struct Reader {
    pub credential: String,
    pub http: reqwest::Client,
    /// The address of the secret's data.
    pub vault: String,
    pub vault_token: String,
    pub aws: String,
    pub secret: String,
    pub file: PathBuf,
}

/// One read by the consumer.
#[derive(Debug, Clone)]
pub struct Look {
    pub credential: String,
    pub place: Location,
    /// SHA-256 of the value, as hexadecimal text; `None` when there was none, or the read failed.
    pub fingerprint: Option<String>,
    pub began_ns: i64,
    pub ended_ns: i64,
}

impl Reader {
    /// The value at the place; `None` where there is none.
    pub async fn fetch(&self, place: Location) -> Result<Option<String>, String> {
        match place {
            Location::File => match std::fs::read_to_string(&self.file) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.to_string()),
            },
            Location::Vault => {
                let request = self.http.get(&self.vault).header("X-Vault-Token", &self.vault_token);
                let (status, body) = answer(request).await?;
                match status {
                    200 => Ok(body["data"]["data"]["token"].as_str().map(str::to_owned)),
                    404 => Ok(None),
                    other => Err(format!("vault answered {other}")),
                }
            }
            Location::Aws => {
                let request = self
                    .http
                    .post(&self.aws)
                    .header("X-Amz-Target", "secretsmanager.GetSecretValue")
                    .header("Content-Type", "application/x-amz-json-1.1")
                    .header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=0")
                    .body(json!({ "SecretId": self.secret, "VersionStage": "AWSCURRENT" }).to_string());
                let (status, body) = answer(request).await?;
                if body["__type"].as_str().is_some_and(|kind| kind.contains("ResourceNotFound")) {
                    return Ok(None);
                }
                if status != 200 {
                    return Err(format!("aws answered {status}"));
                }
                let secret: Value =
                    serde_json::from_str(body["SecretString"].as_str().unwrap_or("{}")).map_err(|error| error.to_string())?;
                Ok(secret["token"].as_str().map(str::to_owned))
            }
        }
    }

    /// Reads one place until the task is aborted.
    async fn read_on(self, place: Location, every: Duration, looks: Arc<Mutex<Vec<Look>>>) {
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            let began_ns = now_ns();
            let value = self.fetch(place).await;
            let fingerprint = value.ok().flatten().map(|value| fingerprint(&value));
            let credential = self.credential.clone();
            looks.lock().unwrap().push(Look { credential, place, fingerprint, began_ns, ended_ns: now_ns() });
        }
    }
}

/// Consumers at every place, as long as it lives.
pub struct Watch {
    looks: Arc<Mutex<Vec<Look>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Each of `readers` reads each of its places `every` so often.
    pub fn begin(readers: impl Iterator<Item = Reader>, every: Duration) -> Self {
        let looks = Arc::new(Mutex::new(Vec::new()));
        let readers = readers.flat_map(|reader| Location::ALL.map(|place| (reader.clone(), place)));
        let readers = readers.map(|(reader, place)| tokio::spawn(reader.read_on(place, every, looks.clone()))).collect();
        Self { looks, readers }
    }

    /// No consumer was harmed so far, by the stand-in's log.
    pub fn judge(&self, stand_in: &StandIn) -> Verdict {
        // The looks first: what they saw is in the log by then.
        let looks = self.looks.lock().unwrap().clone();
        let log = stand_in.records();
        let mut by_credential: BTreeMap<String, Vec<Look>> = BTreeMap::new();
        looks.into_iter().for_each(|look| by_credential.entry(look.credential.clone()).or_default().push(look));
        let mut all = Verdict::default();
        for (credential, looks) in &by_credential {
            let verdict = judge(credential, looks, &log);
            assert!(verdict.revoked >= 2 && verdict.looks > 200, "`{credential}`: {verdict:?}");
            all.looks += verdict.looks;
            all.issued += verdict.issued;
            all.revoked += verdict.revoked;
        }
        assert!(all.looks > 1000, "{all:?}");
        all
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, Value), String> {
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(|error| error.to_string())?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

/// What the judgement counted.
#[derive(Debug, Default)]
pub struct Verdict {
    pub looks: usize,
    pub issued: usize,
    pub revoked: usize,
}

/// Holds the consumer's reads against the stand-in's log: each value was live during the whole
/// read, no read failed after the first delivery, and each revocation came at least the grace
/// period after the last place first showed a successor.
fn judge(credential: &str, looks: &[Look], log: &[Value]) -> Verdict {
    let (issued, revoked) = (effects_of(log, "create_token", credential), effects_of(log, "revoke_token", credential));
    let order = |fingerprint: &str| issued.iter().position(|(issued, _)| issued == fingerprint);
    for place in Location::ALL {
        let mut delivered = false;
        for look in looks.iter().filter(|look| look.place == place) {
            let Some(fingerprint) = &look.fingerprint else {
                assert!(!delivered, "a read of {place:?} failed after the first delivery: {look:?}");
                continue;
            };
            delivered = true;
            let (_, issued_at) = issued
                .iter()
                .find(|(issued, _)| issued == fingerprint)
                .unwrap_or_else(|| panic!("{place:?} served what was never issued: {look:?}"));
            // The stand-in logs an issue when it takes effect, before the answer goes out.
            assert!(*issued_at <= look.ended_ns, "{place:?} served a token before it was issued: {look:?}");
            if let Some((_, revoked_at)) = revoked.iter().find(|(revoked, _)| revoked == fingerprint) {
                assert!(*revoked_at > look.ended_ns, "{place:?} served a revoked token: {look:?}, revoked at {revoked_at}");
            }
        }
        assert!(delivered, "{place:?} never served a token");
    }
    for (fingerprint, revoked_at) in &revoked {
        let place_of = order(fingerprint).expect("a revoked token was issued");
        let is_later = |look: &Look| look.fingerprint.as_deref().and_then(order).is_some_and(|at| at > place_of);
        // Between the last read that did not show a successor and the first that did, the place came to
        // show it: no earlier than the former began. However late a busy machine lets the reader look,
        // a revocation that came too early by this is one that came too early.
        let shown_from = |place: Location| {
            let here = || looks.iter().filter(|look| look.place == place);
            assert!(here().any(is_later), "{place:?} never showed a successor of a revoked token");
            here().take_while(|look| !is_later(look)).last().map_or(0, |look| look.began_ns)
        };
        let last_shown_from = Location::ALL.map(shown_from).into_iter().max().unwrap_or_default();
        let waited = revoked_at - last_shown_from;
        let grace = i64::try_from(GRACE.as_nanos()).unwrap();
        assert!(waited >= grace, "a token was revoked {} ms after the last place first showed a successor", waited / 1_000_000);
    }
    Verdict { looks: looks.len(), issued: issued.len(), revoked: revoked.len() }
}
