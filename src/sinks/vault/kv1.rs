//! KV version 1: the marker in a sibling key of the same secret. There is no check-and-set, so that
//! a write reads, compares and writes; whoever writes in between is overwritten.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use vaultrs::api::kv1::requests::{GetSecretRequest, SetSecretRequest};

use super::kv2::Piece;
use super::place::{SEND_MIN, VaultPlace, digest, text_of};
use super::wire::Answer;
use crate::rotation::{Failed, Reason, Shows, WriteOutcome};
use crate::secret::Secret;
use crate::sinks::marker::Marker;
use crate::sinks::{Payload, Reading, Version};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<BTreeMap<String, &'a RawValue>>,
}

struct Look {
    marker: Option<String>,
    value: Option<Secret>,
    answer: Answer,
}

impl Look {
    /// By value and marker: the other keys of the secret are read again before each write.
    fn version(&self) -> Version {
        let value = self.value.as_ref().map_or_else(|| "-".to_owned(), |value| value.fingerprint().to_string());
        Version(format!("{value} {}", digest(self.marker.as_deref())))
    }

    fn keys(&self) -> Result<BTreeMap<String, &RawValue>, Failed> {
        if self.answer.is_absent() {
            return Ok(BTreeMap::new());
        }
        Ok(self.answer.parse::<Envelope<'_>>()?.data.unwrap_or_default())
    }
}

/// The key beside the value that holds its marker.
fn marker_key(place: &VaultPlace) -> String {
    format!("{}.rotad", place.target.key)
}

pub(super) async fn read(place: &VaultPlace, deadline: Instant) -> Result<Reading, Failed> {
    let look = look(place, deadline).await?;
    let version = look.version();
    let marker = look.marker.as_deref().and_then(Marker::parse);
    let shows = match look.value.as_ref().map(Secret::fingerprint) {
        Some(fingerprint) => Shows::Value {
            fingerprint,
            rotation: marker.as_ref().and_then(|marker| marker.rotation(fingerprint)),
            owner: marker.map(|marker| marker.owner),
        },
        None => Shows::Nothing { owner: marker.map(|marker| marker.owner) },
    };
    Ok(Reading { shows, value: look.value, version })
}

async fn look(place: &VaultPlace, deadline: Instant) -> Result<Look, Failed> {
    let request = GetSecretRequest { mount: place.store.config.mount.clone(), path: place.target.path.clone() };
    let sent = place.store.send(&request, place.index().as_ref(), deadline).await;
    let answer = sent.map_err(|trouble| trouble.into_failed())?;
    if answer.is_absent() {
        return Ok(Look { marker: None, value: None, answer });
    }
    if !answer.is_success() {
        return Err(place.failure(&answer, &place.path(""), "read"));
    }
    let keys = answer.parse::<Envelope<'_>>()?.data.unwrap_or_default();
    let value = keys.get(&place.target.key).map(|raw| text_of(place, raw)).transpose()?;
    let value = value.filter(|value| !value.expose().is_empty());
    // A marker that is no text is mangled: it explains nothing.
    let marker = keys.get(&marker_key(place)).and_then(|raw| serde_json::from_str(raw.get()).ok());
    Ok(Look { marker, value, answer })
}

pub(super) async fn write(place: &VaultPlace, expected: &Version, payload: &Payload<'_>, deadline: Instant) -> WriteOutcome {
    let look = match look(place, deadline).await {
        Ok(look) => look,
        Err(failed) => return WriteOutcome::Refused(failed),
    };
    if look.version() != *expected {
        return WriteOutcome::Conflict;
    }
    let keys = match look.keys() {
        Ok(keys) => keys,
        Err(failed) => return WriteOutcome::Refused(failed),
    };
    if deadline.saturating_duration_since(Instant::now()) < SEND_MIN {
        let detail = format!("`{}` is too slow to be written to within the time limit", place.store.config.address);
        return WriteOutcome::Refused(Failed::new(Reason::TimedOut, detail));
    }
    let before = look.marker.as_deref().and_then(Marker::parse);
    let new = (payload.value.fingerprint(), payload.rotation);
    let in_place = look.value.as_ref().map(Secret::fingerprint);
    let marker = Marker::next(before.as_ref(), payload.owner, new, in_place).to_string();
    let marker_key = marker_key(place);
    let mut data: BTreeMap<&str, Piece<'_>> = keys.iter().map(|(key, raw)| (key.as_str(), Piece::Theirs(raw))).collect();
    data.insert(&place.target.key, Piece::Ours(payload.value.expose()));
    data.insert(&marker_key, Piece::Ours(&marker));
    let Ok(data) = serde_json::to_vec(&data) else {
        return WriteOutcome::Refused(Failed::new(Reason::Unsuitable, "the secret can't be written as JSON"));
    };
    let mut request = SetSecretRequest { mount: place.store.config.mount.clone(), path: place.target.path.clone(), data };
    let sent = place.store.send(&request, None, deadline).await;
    zeroize::Zeroize::zeroize(&mut request.data);
    let capability = if look.answer.is_absent() { "create" } else { "update" };
    place.outcome(sent, &place.path(""), capability)
}
