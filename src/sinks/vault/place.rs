//! One key of one secret, as the `Place` that the engine uses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::wire::{Answer, Call, Trouble, failure};
use super::{KvVersion, Store, Target, kv1, kv2};
use crate::rotation::{DeliveryId, Failed, Reason, Shows, WriteOutcome};
use crate::secret::Secret;
use crate::sinks::{Finding, Payload, Place, Question, Reading, Version};

/// For one read, a login included.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// For one write: the reads before it, marker and value.
const WRITE_LIMIT: Duration = Duration::from_secs(15);
/// The value is not sent with less than this left: it could only end in an unknown outcome.
pub(super) const SEND_MIN: Duration = Duration::from_secs(2);

/// One key of one secret. There may be 100,000, so that it holds little beyond its names.
pub struct VaultPlace {
    pub(super) store: Arc<Store>,
    pub(super) target: Target,
    id: DeliveryId,
    /// The state that our last write here made, for reads that a standby answers.
    index: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Capabilities {
    data: std::collections::BTreeMap<String, Vec<String>>,
}

impl VaultPlace {
    pub(super) fn new(store: Arc<Store>, target: Target) -> Result<Self, Failed> {
        // A URL drops empty and dotted segments, and the request would go to another secret.
        if target.path.split('/').any(|segment| matches!(segment, "" | "." | "..")) || target.key.is_empty() {
            let detail = format!("`{}#{}` is no path and key: no segment may be empty, `.` or `..`", target.path, target.key);
            return Err(Failed::new(Reason::Unsuitable, detail));
        }
        Ok(Self { id: target.delivery_id(&store.config), store, target, index: Mutex::new(None) })
    }

    /// The path of this secret as requests and policies name it.
    pub(super) fn path(&self, part: &str) -> String {
        let mount = &self.store.config.mount;
        match self.store.config.kv_version {
            KvVersion::V1 => format!("{mount}/{}", self.target.path),
            KvVersion::V2 => format!("{mount}/{part}/{}", self.target.path),
        }
    }

    /// The index to read with, so that a standby that lags behind our own write says so.
    pub(super) fn index(&self) -> Option<HeaderValue> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn remember_index(&self, answer: &Answer) {
        if let Some(index) = &answer.index {
            *self.index.lock().unwrap_or_else(PoisonError::into_inner) = Some(index.clone());
        }
    }

    pub(super) fn failure(&self, answer: &Answer, path: &str, capability: &str) -> Failed {
        failure(answer, self.store.attempt(path, capability))
    }

    /// What became of the request that carried the value.
    pub(super) fn outcome(&self, sent: Result<Answer, Trouble>, path: &str, capability: &str) -> WriteOutcome {
        match sent {
            Ok(answer) if answer.is_success() => {
                self.remember_index(&answer);
                WriteOutcome::Written
            }
            Ok(answer) if is_conflict(&answer) => WriteOutcome::Conflict,
            Ok(answer) if answer.proves_nothing_was_done() => WriteOutcome::Refused(self.failure(&answer, path, capability)),
            Ok(answer) => WriteOutcome::Unknown(self.failure(&answer, path, capability)),
            Err(Trouble::NotSent(failed)) => WriteOutcome::Refused(failed),
            Err(Trouble::NoAnswer(failed)) => WriteOutcome::Unknown(failed),
        }
    }

    /// What a delivery here needs: paths, and for each the capabilities, any one of a list.
    fn needs(&self) -> Vec<(String, &'static [&'static [&'static str]])> {
        match self.store.config.kv_version {
            KvVersion::V1 => vec![(self.path(""), &[&["create"], &["read"], &["update"]])],
            // The marker makes the secret exist before its first value comes: that is an update.
            KvVersion::V2 => vec![
                (self.path("data"), &[&["read"], &["update"]]),
                (self.path("metadata"), &[&["create"], &["read"], &["patch", "update"]]),
            ],
        }
    }

    /// Asks what our token may do here, and compares it with what a delivery needs.
    async fn check_capabilities(&self, deadline: Instant) -> Finding {
        let needs = self.needs();
        let paths: Vec<&str> = needs.iter().map(|(path, _)| path.as_str()).collect();
        let call = Call::post("sys/capabilities-self", &json!({ "paths": paths }));
        let answer = match self.store.send(&call, None, deadline).await {
            Ok(answer) if answer.is_success() => answer,
            Ok(answer) if answer.status == 403 => {
                return Finding::Unknowable("what the token may do: it lacks `update` on `sys/capabilities-self`".to_owned());
            }
            Ok(answer) => return Finding::Wrong(self.failure(&answer, "sys/capabilities-self", "update")),
            Err(trouble) => return Finding::Wrong(trouble.into_failed()),
        };
        let found = match answer.parse::<Capabilities>() {
            Ok(found) => found.data,
            Err(failed) => return Finding::Wrong(failed),
        };
        for (path, needed) in &needs {
            let has = found.get(path).map(Vec::as_slice).unwrap_or_default();
            let lacks = |any: &&&[&str]| !has.iter().any(|one| one == "root" || any.contains(&one.as_str()));
            let lacking: Vec<String> = needed.iter().filter(lacks).map(|any| format!("`{}`", any.join("` or `"))).collect();
            if !lacking.is_empty() {
                let detail = format!("the token lacks {} on `{path}`; add it to its policy", lacking.join(" and "));
                return Finding::Wrong(Failed::new(Reason::Forbidden, detail));
            }
        }
        Finding::Fine(format!("the token may read and write `{}`", paths.join("` and `")))
    }
}

#[async_trait]
impl Place for VaultPlace {
    fn id(&self) -> &DeliveryId {
        &self.id
    }

    fn write_limit(&self) -> SignedDuration {
        SignedDuration::try_from(WRITE_LIMIT).unwrap_or(SignedDuration::MAX)
    }

    async fn read(&self, _question: &Question) -> Result<Reading, Failed> {
        let deadline = Instant::now() + READ_LIMIT;
        self.store.check_version(deadline).await?;
        match self.store.config.kv_version {
            KvVersion::V1 => kv1::read(self, deadline).await,
            KvVersion::V2 => kv2::read(self, deadline).await,
        }
    }

    async fn write(&self, expected: &Version, payload: &Payload<'_>) -> WriteOutcome {
        let deadline = Instant::now() + WRITE_LIMIT;
        if let Err(failed) = self.store.check_version(deadline).await {
            return WriteOutcome::Refused(failed);
        }
        match self.store.config.kv_version {
            KvVersion::V1 => kv1::write(self, expected, payload, deadline).await,
            KvVersion::V2 => kv2::write(self, expected, payload, deadline).await,
        }
    }

    async fn check(&self) -> Vec<Finding> {
        let deadline = Instant::now() + WRITE_LIMIT;
        if let Err(failed) = self.store.check_version(deadline).await {
            return vec![Finding::Wrong(failed)];
        }
        let mut findings = vec![self.check_capabilities(deadline).await];
        let read = match self.store.config.kv_version {
            KvVersion::V1 => kv1::read(self, deadline).await,
            KvVersion::V2 => kv2::read(self, deadline).await,
        };
        findings.push(match read {
            Ok(Reading { shows: Shows::Nothing { .. }, .. }) => Finding::Fine(format!("`{}` can be read, and is empty", self.id)),
            Ok(_) => Finding::Fine(format!("`{}` can be read, and holds a value", self.id)),
            Err(failed) => Finding::Wrong(failed),
        });
        if self.store.config.kv_version == KvVersion::V2 {
            findings.extend(kv2::check_expiry(self, deadline).await);
        }
        findings
    }
}

/// Whether the server refused because somebody else wrote in between.
pub(super) fn is_conflict(answer: &Answer) -> bool {
    let errors = answer.errors();
    // For data and (OpenBao) for metadata: "… parameter did not match …", "… parameter does not match …".
    answer.status == 400 && errors.contains("check-and-set parameter") && errors.contains("not match")
}

/// A short name for a marker's text, for the condition of a write.
pub(super) fn digest(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| format!("{:x}", HexDigest(Sha256::digest(text).into())))
}

struct HexDigest([u8; 32]);

impl std::fmt::LowerHex for HexDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..12].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text in a JSON string.
///
/// # Errors
/// `Unsuitable` for any other kind of value.
pub(super) fn text_of(place: &VaultPlace, raw: &serde_json::value::RawValue) -> Result<Secret, Failed> {
    serde_json::from_str::<String>(raw.get()).map(Secret::new).map_err(|_| {
        let detail = format!("the key `{}` of `{}` holds something else than a text", place.target.key, place.target.path);
        Failed::new(Reason::Unsuitable, detail)
    })
}
