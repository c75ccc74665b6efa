//! Reading: what consumers get, and whose and which it is.

use std::time::Duration;

use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_sdk_secretsmanager::types::StatusType;

use super::super::format::Format;
use super::super::{Question, Reading, Version};
use super::failure::{Call, Code, Failure};
use super::{Arn, Secret, marker};
use crate::rotation::{Failed, Owner, Reason, RotationId, Shows};
use crate::secret;

pub(super) const CURRENT: &str = "AWSCURRENT";
/// The tag that says whose a secret is: `deployment/credential`.
pub(super) const OWNER_TAG: &str = "rotad:owner";

/// How often description and value are read before rotad gives up waiting for the two to agree:
/// they disagree when somebody writes in between, or when AWS's reads lag.
const AGREEMENT_ATTEMPTS: u32 = 3;
const AGREEMENT_PAUSE: Duration = Duration::from_millis(300);

/// What a read found, as the condition of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// No such secret.
    Absent,
    /// A secret without a current version.
    Empty {
        owner: Option<String>,
    },
    Current {
        id: String,
        owner: Option<String>,
    },
}

impl Expected {
    const ABSENT: &str = "absent";
    const EMPTY: &str = "empty";
    const NOBODY: &str = "-";

    pub(super) fn to_version(&self) -> Version {
        let (owner, state) = match self {
            Self::Absent => (&None, Self::ABSENT),
            Self::Empty { owner } => (owner, Self::EMPTY),
            Self::Current { id, owner } => (owner, id.as_str()),
        };
        Version(format!("{} {state}", owner.as_deref().unwrap_or(Self::NOBODY)))
    }

    /// What `to_version` wrote; `None` for anything else.
    pub(super) fn parse(version: &Version) -> Option<Self> {
        let (owner, state) = version.0.split_once(' ')?;
        let owner = (owner != Self::NOBODY).then(|| owner.to_owned());
        Some(match state {
            Self::ABSENT => Self::Absent,
            Self::EMPTY => Self::Empty { owner },
            id => Self::Current { id: id.to_owned(), owner },
        })
    }
}

/// The content of one version.
pub(super) struct Body {
    pub id: String,
    /// `None` for a binary secret.
    pub text: Option<secret::Secret>,
}

pub(super) async fn read(place: &Secret, question: &Question) -> Result<Reading, Failed> {
    let limit = place.store.limits().step;
    let timed_out = || Failed::new(Reason::TimedOut, format!("`{}` could not be read within {} s", place.name, limit.as_secs()));
    tokio::time::timeout(limit, read_unbounded(place, question)).await.unwrap_or_else(|_| Err(timed_out()))
}

async fn read_unbounded(place: &Secret, question: &Question) -> Result<Reading, Failed> {
    let mut refused = None;
    for attempt in 0..AGREEMENT_ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(AGREEMENT_PAUSE).await;
        }
        let description = match describe(place).await {
            Ok(description) => description,
            Err(failure) if failure.code == Code::NotFound => return Ok(nothing(None, &Expected::Absent)),
            Err(failure) => return Err(failure.failed),
        };
        if description.deleted_date().is_some() {
            let version = Expected::Empty { owner: None }.to_version();
            return Ok(Reading { shows: Shows::ScheduledForDeletion, value: None, version });
        }
        suitable(&place.name, &description)?;
        let owner = owner(&place.name, &description)?;
        let tag = owner.as_ref().map(ToString::to_string);
        let Some(current) = current(&description) else {
            return Ok(nothing(owner, &Expected::Empty { owner: tag }));
        };
        match get(place, None).await {
            Ok(body) if body.id == current => {
                let version = Expected::Current { id: body.id.clone(), owner: tag }.to_version();
                return show(place, question, &description, owner, body, version);
            }
            // Somebody wrote in between, or deleted it, or one of the two reads lags.
            Ok(_) => refused = None,
            Err(failure) if failure.code == Code::NotFound => refused = None,
            Err(failure) if failure.code == Code::InvalidRequest => refused = Some(failure.failed),
            Err(failure) => return Err(failure.failed),
        }
    }
    if let Some(failed) = refused {
        return Err(failed);
    }
    let detail =
        format!("`{}` was changed while it was read, or AWS's reads lag behind a write: it is read again later", place.name);
    Err(Failed::new(Reason::Unavailable, detail))
}

fn show(
    place: &Secret,
    question: &Question,
    description: &DescribeSecretOutput,
    owner: Option<Owner>,
    body: Body,
    version: Version,
) -> Result<Reading, Failed> {
    let Some(text) = body.text else { return Err(binary(&place.name)) };
    let token = token(place, &body.id, text.expose())?;
    let Some(token) = token else {
        if owner.is_none()
            && let Some(key) = place.format.clash(text.expose())
        {
            let detail = format!(
                "`{}` holds no token but a key `{key}`, which a delivery would overwrite: rename ours with `fields`, or remove that key",
                place.name
            );
            return Err(Failed::new(Reason::Unsuitable, detail));
        }
        return Ok(Reading { shows: Shows::Nothing { owner }, value: None, version });
    };
    let rotation = marker::rotation(&place.format, &body.id, text.expose(), question);
    // Replicas count: what a reader elsewhere gets is a consumer's token too. What is not in all of them
    // must not be taken for confirmed, so it is not shown; and what is not shown is not written over.
    if let Some(failed) = lagging_replica(&place.name, description) {
        return Err(failed);
    }
    let shows = Shows::Value { fingerprint: token.fingerprint(), owner, rotation };
    Ok(Reading { shows, value: Some(token), version })
}

/// The token in the content of the version `id`.
fn token(place: &Secret, id: &str, text: &str) -> Result<Option<secret::Secret>, Failed> {
    if was_raw(&place.format, id, text) {
        return Format::Raw.extract(text);
    }
    place.format.extract(text).map_err(|failed| Failed::new(failed.reason, format!("`{}`: {}", place.name, failed.detail)))
}

/// Whether the version `id` with this `text` is ours from when this JSON delivery was still `raw`: then
/// its content is the token alone, and nothing of it is to be kept.
pub(super) fn was_raw(format: &Format, id: &str, text: &str) -> bool {
    matches!(format, Format::Json { .. }) && id.parse::<RotationId>().is_ok() && format.extract(text).is_err()
}

/// The first replica that does not show what the primary shows.
pub(super) fn lagging_replica(name: &str, description: &DescribeSecretOutput) -> Option<Failed> {
    let replica = description.replication_status().iter().find(|replica| replica.status() != Some(&StatusType::InSync))?;
    let region = replica.region().unwrap_or("an unnamed region");
    let status = replica.status().map_or("without a status", StatusType::as_str);
    let why =
        replica.status_message().map(|message| format!(" ({})", secret::presentable(message, 120, &[]))).unwrap_or_default();
    Some(Failed::new(
        Reason::Unavailable,
        format!("the replica of `{name}` in {region} is {status}{why}: deliveries wait for `InSync`"),
    ))
}

/// # Errors
/// `Unsuitable` for a secret that rotad must not write, with what to do about it.
pub(super) fn suitable(name: &str, description: &DescribeSecretOutput) -> Result<(), Failed> {
    let unsuitable = |detail: String| Err(Failed::new(Reason::Unsuitable, detail));
    if description.rotation_enabled() == Some(true) {
        return unsuitable(format!(
            "`{name}` is rotated by AWS itself (`RotationEnabled`): switch that off with `aws secretsmanager cancel-rotate-secret`, \
             or deliver to another secret"
        ));
    }
    if let Some(service) = description.owning_service() {
        return unsuitable(format!("`{name}` is managed by the AWS service `{service}`: deliver to another secret"));
    }
    let region = description.arn().and_then(Arn::parse).map(|arn| arn.region);
    if let (Some(primary), Some(region)) = (description.primary_region(), region)
        && primary != region
    {
        return unsuitable(format!("`{name}` in {region} is a replica: deliver to its primary, with `region = \"{primary}\"`"));
    }
    Ok(())
}

/// Whose the secret is, by its tag.
pub(super) fn owner(name: &str, description: &DescribeSecretOutput) -> Result<Option<Owner>, Failed> {
    let Some(tag) = description.tags().iter().find(|tag| tag.key() == Some(OWNER_TAG)) else { return Ok(None) };
    let text = tag.value().unwrap_or("");
    text.parse().map(Some).map_err(|_| {
        let detail =
            format!("the tag `{OWNER_TAG}` of `{name}` says `{text}`, not `deployment/credential`: correct or remove it");
        Failed::new(Reason::Unsuitable, detail)
    })
}

/// The id of the version that consumers read.
pub(super) fn current(description: &DescribeSecretOutput) -> Option<&str> {
    let versions = description.version_ids_to_stages()?;
    versions.iter().find(|(_, labels)| labels.iter().any(|label| label == CURRENT)).map(|(id, _)| id.as_str())
}

pub(super) fn binary(name: &str) -> Failed {
    let detail =
        format!("`{name}` holds a binary value, and rotad writes text: deliver to another secret, or put text there first");
    Failed::new(Reason::Unsuitable, detail)
}

fn nothing(owner: Option<Owner>, expected: &Expected) -> Reading {
    Reading { shows: Shows::Nothing { owner }, value: None, version: expected.to_version() }
}

pub(super) async fn describe(place: &Secret) -> Result<DescribeSecretOutput, Failure> {
    let client = place.store.client().await.map_err(|failed| Failure::definite(Code::Other, failed))?;
    let answer = client.describe_secret().secret_id(&*place.name).send().await;
    answer.map_err(|error| Failure::new(Call::Describe, &place.name, &error))
}

/// The version `id`, or the one that consumers read. The label is always named, where it is what is
/// asked for: what comes without one is not `AWSCURRENT` everywhere.
pub(super) async fn get(place: &Secret, id: Option<&str>) -> Result<Body, Failure> {
    let client = place.store.client().await.map_err(|failed| Failure::definite(Code::Other, failed))?;
    let request = client.get_secret_value().secret_id(&*place.name);
    let request = match id {
        Some(id) => request.version_id(id),
        None => request.version_stage(CURRENT),
    };
    let mut answer = request.send().await.map_err(|error| Failure::new(Call::Get, &place.name, &error))?;
    let text = answer.secret_string.take().map(secret::Secret::new);
    Ok(Body { id: answer.version_id.take().unwrap_or_default(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_comes_back_as_it_was() {
        let owner = Some("prod/etl".to_owned());
        for expected in [
            Expected::Absent,
            Expected::Empty { owner: None },
            Expected::Empty { owner: owner.clone() },
            Expected::Current { id: "an id with spaces".to_owned(), owner },
        ] {
            assert_eq!(Expected::parse(&expected.to_version()), Some(expected));
        }
        assert_eq!(Expected::parse(&Version("nonsense".to_owned())), None);
    }
}
