//! KV version 2: the marker in custom metadata, the value under check-and-set.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use vaultrs::api::kv2::requests::{ReadSecretMetadataRequest, ReadSecretRequest};

use super::place::{SEND_MIN, VaultPlace, digest, is_conflict, text_of};
use super::wire::{Answer, Call};
use crate::fail_point::{self, Point};
use crate::rotation::{Failed, Fingerprint, Reason, Shows, WriteOutcome};
use crate::secret::Secret;
use crate::sinks::marker::Marker;
use crate::sinks::{Finding, Payload, Reading, Version};

/// The longest key that stands in a marker's name as it is: Vault takes 128 bytes (documented).
const KEY_MAX: usize = 100;

type Texts = BTreeMap<String, String>;

/// The answer to a read of data. Soft-deleted and destroyed versions answer 404 with the same body.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<Found<'a>>,
}

#[derive(Deserialize)]
struct Found<'a> {
    #[serde(borrow)]
    data: Option<BTreeMap<String, &'a RawValue>>,
    metadata: VersionMetadata,
}

#[derive(Deserialize)]
struct VersionMetadata {
    version: u64,
    #[serde(default)]
    custom_metadata: Option<Texts>,
}

#[derive(Deserialize)]
struct MetadataEnvelope {
    data: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    current_version: u64,
    /// Counts the changes of the metadata: OpenBao has it, Vault has not.
    #[serde(default)]
    current_metadata_version: Option<u64>,
    #[serde(default)]
    custom_metadata: Option<Texts>,
    #[serde(default)]
    delete_version_after: Option<String>,
}

#[derive(Serialize)]
struct MetadataWrite<'a> {
    custom_metadata: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_cas: Option<u64>,
}

#[derive(Serialize)]
struct DataWrite<'a> {
    options: Options,
    data: BTreeMap<&'a str, Piece<'a>>,
}

#[derive(Serialize)]
struct Options {
    cas: u64,
}

/// One key of a secret: somebody else's as it stood, or ours.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Piece<'a> {
    Theirs(&'a RawValue),
    Ours(&'a str),
}

/// The current version of a secret, as far as it concerns one key.
struct Look {
    /// What check-and-set compares: 0 for a secret without any version.
    version: u64,
    marker: Option<String>,
    value: Option<Secret>,
    /// The answer itself, which holds the other keys.
    answer: Answer,
}

impl Look {
    /// A soft delete leaves the number as it is, so the state stands beside it.
    fn version(&self) -> Version {
        let state = if self.value.is_some() { "value" } else { "empty" };
        Version(format!("{} {state} {}", self.version, digest(self.marker.as_deref())))
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.value.as_ref().map(Secret::fingerprint)
    }

    /// The keys of the current version, none where it is deleted.
    fn keys(&self) -> Result<BTreeMap<String, &RawValue>, Failed> {
        if self.answer.is_absent() {
            return Ok(BTreeMap::new());
        }
        Ok(self.answer.parse::<Envelope<'_>>()?.data.and_then(|found| found.data).unwrap_or_default())
    }
}

/// The name of our marker for a key in the custom metadata: one entry each, since there are only 64.
/// A key that is long or unusual goes by its hash; `#` keeps hashes and keys apart.
fn marker_name(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if key.len() <= KEY_MAX && key.bytes().all(plain) {
        return format!("rotad.{key}");
    }
    Sha256::digest(key).iter().fold("rotad.#".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}"); // writing to a String can't fail
        name
    })
}

pub(super) async fn read(place: &VaultPlace, deadline: Instant) -> Result<Reading, Failed> {
    let look = look(place, deadline).await?;
    let version = look.version();
    let marker = look.marker.as_deref().and_then(Marker::parse);
    let shows = match look.fingerprint() {
        Some(fingerprint) => Shows::Value {
            fingerprint,
            rotation: marker.as_ref().and_then(|marker| marker.rotation(fingerprint)),
            owner: marker.map(|marker| marker.owner),
        },
        None => Shows::Nothing { owner: marker.map(|marker| marker.owner) },
    };
    Ok(Reading { shows, value: look.value, version })
}

/// Reads value, marker and version together. Only a secret without any version needs a second
/// request: the marker of a write that ended before its value may be there.
async fn look(place: &VaultPlace, deadline: Instant) -> Result<Look, Failed> {
    let store = &place.store;
    let request = ReadSecretRequest { mount: store.config.mount.clone(), path: place.target.path.clone(), version: None };
    let answer = store.send(&request, place.index().as_ref(), deadline).await.map_err(|trouble| trouble.into_failed())?;
    if answer.is_absent() {
        let metadata = metadata(place, deadline).await?;
        let (version, custom) = metadata.map_or((0, None), |metadata| (metadata.current_version, metadata.custom_metadata));
        let marker = custom.and_then(|mut custom| custom.remove(&marker_name(&place.target.key)));
        return Ok(Look { version, marker, value: None, answer });
    }
    if !answer.is_success() && answer.status != 404 {
        return Err(place.failure(&answer, &place.path("data"), "read"));
    }
    let Ok(Envelope { data: Some(found) }) = answer.parse() else {
        let path = place.path("data");
        return Err(match answer.status {
            404 => place.failure(&answer, &path, "read"),
            _ => Failed::new(Reason::BadAnswer, format!("the answer for `{path}` is not that of a KV engine of version 2")),
        });
    };
    let raw = found.data.as_ref().and_then(|keys| keys.get(&place.target.key));
    let value = raw.map(|raw| text_of(place, raw)).transpose()?.filter(|value| !value.expose().is_empty());
    let marker = found.metadata.custom_metadata.and_then(|mut custom| custom.remove(&marker_name(&place.target.key)));
    Ok(Look { version: found.metadata.version, marker, value, answer })
}

/// The secret's metadata; `None` where there is no secret.
async fn metadata(place: &VaultPlace, deadline: Instant) -> Result<Option<Metadata>, Failed> {
    let store = &place.store;
    let request = ReadSecretMetadataRequest { mount: store.config.mount.clone(), path: place.target.path.clone() };
    let answer = store.send(&request, place.index().as_ref(), deadline).await.map_err(|trouble| trouble.into_failed())?;
    if answer.is_absent() {
        return Ok(None);
    }
    if !answer.is_success() {
        return Err(place.failure(&answer, &place.path("metadata"), "read"));
    }
    answer.parse::<MetadataEnvelope>().map(|envelope| Some(envelope.data))
}

pub(super) async fn write(place: &VaultPlace, expected: &Version, payload: &Payload<'_>, deadline: Instant) -> WriteOutcome {
    let look = match look(place, deadline).await {
        Ok(look) => look,
        Err(failed) => return WriteOutcome::Refused(failed),
    };
    if look.version() != *expected {
        return WriteOutcome::Conflict;
    }
    match write_marker(place, &look, payload, deadline).await {
        Ok(()) => fail_point::pass(Point::VaultMarked),
        Err(NoMarker::Conflict) => return WriteOutcome::Conflict,
        // Whatever became of the marker: the value was not sent.
        Err(NoMarker::Failed(failed)) => return WriteOutcome::Refused(failed),
    }
    if deadline.saturating_duration_since(Instant::now()) < SEND_MIN {
        let detail = format!("`{}` is too slow to be written to within the time limit", place.store.config.address);
        return WriteOutcome::Refused(Failed::new(Reason::TimedOut, detail));
    }
    write_value(place, &look, payload.value, deadline).await
}

enum NoMarker {
    Conflict,
    Failed(Failed),
}

impl From<Failed> for NoMarker {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// Writes the marker before the value, so that no value of ours is ever without one. Where the
/// server compares the metadata's version (OpenBao), nobody else's change is lost; where the policy
/// allows `patch`, only our own entry is written; otherwise all entries are, as they were just read.
async fn write_marker(place: &VaultPlace, look: &Look, payload: &Payload<'_>, deadline: Instant) -> Result<(), NoMarker> {
    let name = marker_name(&place.target.key);
    let before = look.marker.as_deref().and_then(Marker::parse);
    let new = (payload.value.fingerprint(), payload.rotation);
    let text = Marker::next(before.as_ref(), payload.owner, new, look.fingerprint()).to_string();
    if look.marker.as_deref() == Some(text.as_str()) {
        return Ok(());
    }
    let metadata = metadata(place, deadline).await?;
    let exists = metadata.is_some();
    // For a secret that does not exist yet the comparison is with 0.
    let metadata_cas = metadata.as_ref().map_or(Some(0), |metadata| metadata.current_metadata_version);
    let (version, custom) =
        metadata.map_or((0, Texts::new()), |metadata| (metadata.current_version, metadata.custom_metadata.unwrap_or_default()));
    if version != look.version || custom.get(&name) != look.marker.as_ref() {
        return Err(NoMarker::Conflict);
    }
    let path = place.path("metadata");
    if exists {
        let body = MetadataWrite { custom_metadata: [(name.as_str(), text.as_str())].into(), metadata_cas };
        let answer = send(place, &Call::patch(path.as_str(), &body), deadline).await?;
        // 403: the policy does not allow it; 404 and 405: a server older than that (Vault 1.10, documented).
        if !matches!(answer.status, 403..=405) {
            return judge(place, &answer, &path, "patch");
        }
    }
    let mut all: BTreeMap<&str, &str> = custom.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.insert(&name, &text);
    let answer = send(place, &Call::post(path.as_str(), &MetadataWrite { custom_metadata: all, metadata_cas }), deadline).await?;
    judge(place, &answer, &path, if exists { "update" } else { "create" })
}

async fn send(place: &VaultPlace, call: &Call, deadline: Instant) -> Result<Answer, NoMarker> {
    Ok(place.store.send(call, None, deadline).await.map_err(|trouble| trouble.into_failed())?)
}

fn judge(place: &VaultPlace, answer: &Answer, path: &str, capability: &str) -> Result<(), NoMarker> {
    if answer.is_success() {
        place.remember_index(answer);
        return Ok(());
    }
    if is_conflict(answer) {
        return Err(NoMarker::Conflict);
    }
    Err(place.failure(answer, path, capability).into())
}

async fn write_value(place: &VaultPlace, look: &Look, value: &Secret, deadline: Instant) -> WriteOutcome {
    let keys = match look.keys() {
        Ok(keys) => keys,
        Err(failed) => return WriteOutcome::Refused(failed),
    };
    let mut data: BTreeMap<&str, Piece<'_>> = keys.iter().map(|(key, raw)| (key.as_str(), Piece::Theirs(raw))).collect();
    data.insert(&place.target.key, Piece::Ours(value.expose()));
    let path = place.path("data");
    let call = Call::post(path.as_str(), &DataWrite { options: Options { cas: look.version }, data });
    let sent = place.store.send(&call, None, deadline).await;
    // The marker made the secret exist, so that writing its first value is an update as well.
    place.outcome(sent, &path, "update")
}

/// Warns of versions that the store deletes by itself: a token could vanish before its successor comes.
pub(super) async fn check_expiry(place: &VaultPlace, deadline: Instant) -> Option<Finding> {
    match metadata(place, deadline).await {
        Ok(metadata) => {
            let after = metadata?.delete_version_after.filter(|after| after != "0s" && !after.is_empty())?;
            let path = &place.target.path;
            Some(Finding::Unknowable(format!(
                "whether a token is replaced in time: versions of `{path}` are deleted {after} after they were written \
                 (`delete_version_after`)"
            )))
        }
        Err(failed) => Some(Finding::Wrong(failed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_marker_name_of_its_own_that_fits() {
        let long = "k".repeat(KEY_MAX + 1);
        let keys = ["token", "token.1", "Token", "a b", "a/b", "ä", "#", &long, &"k".repeat(KEY_MAX)];
        let names: std::collections::BTreeSet<String> = keys.iter().map(|key| marker_name(key)).collect();
        assert_eq!(names.len(), keys.len());
        assert!(names.iter().all(|name| name.len() <= 128 && name.is_ascii()), "{names:?}");
        assert_eq!(marker_name("token"), "rotad.token");
    }
}
