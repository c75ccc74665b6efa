//! Writing, on the condition of what was read.
//!
//! Every call can be sent again: a version that exists with the same content is left as it is, and a
//! label moves only away from the version that is named. So a call of unknown outcome is repeated
//! here; what stays unknown after that is looked up, and told as unknown if that gives no proof.

use std::future::Future;
use std::time::Duration;

use aws_sdk_secretsmanager::types::Tag;

use super::super::{Payload, Version};
use super::client::{ATTEMPTS, Store};
use super::failure::{Call, Code, Failure};
use super::read::{self, CURRENT, Expected, OWNER_TAG};
use super::{Secret, marker};
use crate::fail_point::{self, Point};
use crate::rotation::{Failed, Reason, WriteOutcome};
use crate::secret;

/// Our own label: on the version that was written last, whether it came to be current or not.
const PENDING: &str = "ROTAD_PENDING";
/// The size that AWS takes (documented: 65,536 bytes).
const BODY_MAX: usize = 65_536;
/// Before a call is sent again, times the attempts so far.
const PAUSE: Duration = Duration::from_millis(250);

/// A version that is about to be written.
struct Draft {
    id: String,
    body: secret::Secret,
    /// The version to take `AWSCURRENT` from; `None` where there is none.
    replaces: Option<String>,
}

pub(super) async fn write(place: &Secret, expected: &Version, payload: &Payload<'_>) -> WriteOutcome {
    let Some(expected) = Expected::parse(expected) else {
        return WriteOutcome::Refused(Failed::new(
            Reason::Rejected,
            "the condition of the write is not one that an AWS read gave",
        ));
    };
    let limit = place.store.limits().step;
    let late = || Failed::new(Reason::TimedOut, format!("`{}` could not be written within {} s", place.name, limit.as_secs()));

    // Up to here nothing has been sent that a consumer could come to see.
    let draft = match tokio::time::timeout(limit, prepare(place, &expected, payload)).await {
        Ok(Ok(draft)) => draft,
        Ok(Err(outcome)) => return outcome,
        Err(_) => return WriteOutcome::Refused(late()),
    };
    tokio::time::timeout(limit, commit(place, &expected, payload, &draft)).await.unwrap_or_else(|_| WriteOutcome::Unknown(late()))
}

/// Everything that no consumer sees: body, tag, and the version under our own label.
async fn prepare(place: &Secret, expected: &Expected, payload: &Payload<'_>) -> Result<Draft, WriteOutcome> {
    let existing = match expected {
        Expected::Current { id, .. } => existing(place, id).await?,
        Expected::Absent if !place.store.config().create => return Err(WriteOutcome::Refused(missing(&place.name))),
        Expected::Absent if place.name.starts_with("arn:") => {
            let detail =
                format!("`{}` does not exist, and AWS creates secrets by name only: name it, or create it yourself", place.name);
            return Err(WriteOutcome::Refused(Failed::new(Reason::Missing, detail)));
        }
        Expected::Absent | Expected::Empty { .. } => None,
    };
    let existing = existing.as_ref().map(secret::Secret::expose);
    let body = place.format.render(payload, existing).map_err(WriteOutcome::Refused)?;
    if body.expose().len() > BODY_MAX {
        let detail = format!("the content for `{}` has {} bytes, and AWS takes {BODY_MAX}", place.name, body.expose().len());
        return Err(WriteOutcome::Refused(Failed::new(Reason::Full, detail)));
    }
    let id = marker::version_id(&place.format, payload.rotation, body.expose());

    let (Expected::Current { owner, .. } | Expected::Empty { owner }) = expected else {
        return Ok(Draft { id, body, replaces: None });
    };
    if *owner != Some(payload.owner.to_string()) {
        tag(place, payload).await.map_err(|failure| before_the_write(failure, place))?;
    }
    let replaces = match expected {
        Expected::Current { id: current, .. } => Some(current.clone()),
        Expected::Empty { .. } | Expected::Absent => None,
    };
    let draft = Draft { id, body, replaces };
    if draft.replaces.is_some() {
        put(place, &draft, false).await.map_err(|failure| before_the_write(failure, place))?;
        fail_point::pass(Point::AwsPut);
    }
    Ok(draft)
}

/// The keys to keep, from exactly the version that was read.
async fn existing(place: &Secret, id: &str) -> Result<Option<secret::Secret>, WriteOutcome> {
    if !place.format.keeps_existing() {
        return Ok(None);
    }
    let body = read::get(place, Some(id)).await.map_err(|failure| before_the_write(failure, place))?;
    let Some(text) = body.text else { return Err(WriteOutcome::Refused(read::binary(&place.name))) };
    Ok((!read::was_raw(&place.format, id, text.expose())).then_some(text))
}

/// What consumers see: the move of `AWSCURRENT`, or a first version.
async fn commit(place: &Secret, expected: &Expected, payload: &Payload<'_>, draft: &Draft) -> WriteOutcome {
    let result = match expected {
        Expected::Absent => repeat(|| create(place, payload, draft)).await,
        Expected::Current { id, .. } if *id == draft.id => return WriteOutcome::Written,
        Expected::Current { .. } => repeat(|| move_current(place, draft)).await,
        Expected::Empty { .. } => match repeat(|| put(place, draft, true)).await {
            // AWS makes a first version current by itself; a later one is moved.
            Ok(false) => repeat(|| move_current(place, draft)).await,
            outcome => outcome.map(|_| ()),
        },
    };
    match result {
        Ok(()) => WriteOutcome::Written,
        Err(failure) => settle(place, expected, draft, failure).await,
    }
}

/// Sends a call until it is answered, at most `ATTEMPTS` times. The failure remembers whether *any* of
/// the attempts may have been carried out.
async fn repeat<T, F: Future<Output = Result<T, Failure>>>(mut call: impl FnMut() -> F) -> Result<T, Failure> {
    let mut may_have_landed = false;
    let mut attempt = 1;
    loop {
        let mut failure = match call().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        may_have_landed |= failure.may_have_landed;
        if attempt == ATTEMPTS || !failure.is_transient() {
            failure.may_have_landed = may_have_landed;
            return Err(failure);
        }
        tokio::time::sleep(PAUSE * attempt).await;
        attempt += 1;
    }
}

/// What became of a write that failed: a refusal, or an outcome that has to be looked up.
async fn settle(place: &Secret, expected: &Expected, draft: &Draft, failure: Failure) -> WriteOutcome {
    let condition_may_be_gone = matches!(failure.code, Code::InvalidParameter | Code::Exists | Code::NotFound);
    if !failure.may_have_landed && !condition_may_be_gone {
        return WriteOutcome::Refused(failure.failed);
    }
    let described = read::describe(place).await;
    let current = described.as_ref().ok().and_then(read::current);
    if current == Some(draft.id.as_str()) {
        return WriteOutcome::Written;
    }
    if failure.may_have_landed {
        return WriteOutcome::Unknown(failure.failed);
    }
    let unchanged = match expected {
        Expected::Current { id, .. } => current == Some(id.as_str()),
        Expected::Empty { .. } => described.is_ok() && current.is_none(),
        Expected::Absent => false,
    };
    if unchanged { WriteOutcome::Refused(failure.failed) } else { WriteOutcome::Conflict }
}

/// The outcome of a failure before anything was written that a consumer could see.
fn before_the_write(failure: Failure, place: &Secret) -> WriteOutcome {
    match failure.code {
        // The secret or the version that was read is gone.
        Code::NotFound => WriteOutcome::Conflict,
        Code::Exists => {
            let detail = format!(
                "`{}` has a version with this rotation's id and another value, which AWS never changes: the next rotation gets past it \
                 (`rotad rotate`)",
                place.name
            );
            WriteOutcome::Refused(Failed::new(Reason::NameTaken, detail))
        }
        Code::InvalidParameter | Code::InvalidRequest | Code::Other => WriteOutcome::Refused(failure.failed),
    }
}

fn missing(name: &str) -> Failed {
    Failed::new(
        Reason::Missing,
        format!("`{name}` does not exist, and the sink has `create = false`: create it, or let rotad do so"),
    )
}

async fn tag(place: &Secret, payload: &Payload<'_>) -> Result<(), Failure> {
    let client = place.store.client().await.map_err(|failed| Failure::definite(Code::Other, failed))?;
    let answer = client.tag_resource().secret_id(&*place.name).tags(owner_tag(payload)).send().await;
    answer.map(|_| ()).map_err(|error| {
        let mut failure = Failure::new(Call::Tag, &place.name, &error);
        if failure.failed.reason == Reason::Forbidden {
            let detail = format!(
                "rotad's AWS identity lacks `secretsmanager:TagResource` on `{}`: allow it, or set the tag `{OWNER_TAG}` = `{}` yourself; \
                 it keeps other deployments from writing there",
                place.name, payload.owner
            );
            failure.failed = Failed::new(Reason::Forbidden, detail);
        }
        failure
    })
}

fn owner_tag(payload: &Payload<'_>) -> Tag {
    Tag::builder().key(OWNER_TAG).value(payload.owner.to_string()).build()
}

/// Puts the version under our own label; says whether it is current already. `once` is for a caller
/// that counts what may have landed.
async fn put(place: &Secret, draft: &Draft, once: bool) -> Result<bool, Failure> {
    let client = place.store.client().await.map_err(|failed| Failure::definite(Code::Other, failed))?;
    let request = client
        .put_secret_value()
        .secret_id(&*place.name)
        .client_request_token(&draft.id)
        .secret_string(draft.body.expose())
        .version_stages(PENDING);
    let answer = if once { request.customize().config_override(Store::once()).send().await } else { request.send().await };
    let answer = answer.map_err(|error| Failure::new(Call::Put, &place.name, &error))?;
    Ok(answer.version_stages().iter().any(|label| label == CURRENT))
}

async fn move_current(place: &Secret, draft: &Draft) -> Result<(), Failure> {
    let client = place.store.client().await.map_err(|failed| Failure::definite(Code::Other, failed))?;
    let request = client
        .update_secret_version_stage()
        .secret_id(&*place.name)
        .version_stage(CURRENT)
        .move_to_version_id(&draft.id)
        .set_remove_from_version_id(draft.replaces.clone());
    let answer = request.customize().config_override(Store::once()).send().await;
    answer.map(|_| ()).map_err(|error| Failure::new(Call::Move, &place.name, &error))
}

async fn create(place: &Secret, payload: &Payload<'_>, draft: &Draft) -> Result<(), Failure> {
    let config = place.store.config();
    let client = place.store.client().await.map_err(|failed| Failure::definite(Code::Other, failed))?;
    let tags = config.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    let request = client
        .create_secret()
        .name(&*place.name)
        .client_request_token(&draft.id)
        .secret_string(draft.body.expose())
        .set_kms_key_id(config.kms_key_id.clone())
        .set_tags(Some(tags.chain([owner_tag(payload)]).collect()));
    let answer = request.customize().config_override(Store::once()).send().await;
    answer.map(|_| ()).map_err(|error| Failure::new(Call::Create, &place.name, &error))
}
