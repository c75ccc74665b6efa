//! What of a rotation becomes a span. Pure: from what happened to OTLP's JSON.

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::engine::Acted;
use crate::rotation::{CredentialName, Entry, Happened, RotationId, TokenId};
use crate::snapshot::Label;

/// Of OTLP's kinds of spans: within the process, and a request to another.
const INTERNAL: u8 = 1;
const CLIENT: u8 = 3;
/// Of OTLP's codes of a status.
const OK: u8 = 1;
const ERROR: u8 = 2;

/// The trace of a rotation: its id's 128 bits.
fn trace_id(rotation: RotationId) -> String {
    format!("{:032x}", rotation.as_uuid().as_u128())
}

/// The span of the whole rotation, the same for every process that works on it.
fn root_id(rotation: RotationId) -> String {
    let digest = Sha256::digest(rotation.as_uuid().as_bytes());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A step that was carried out. `id` are fresh random bits.
pub fn of_step(credential: &CredentialName, acted: &Acted<'_>, id: u64) -> Value {
    let failed = acted.entries.iter().find(|entry| entry.reason.is_some() || entry.what == Happened::WriteConflict);
    let told = failed.or(acted.entries.last());
    let mut attributes = subject(credential, acted.rotation, acted.token);
    attributes.extend(acted.place.map(|place| attribute("rotad.place", place.as_str())));
    attributes.extend(told.map(|entry| attribute("rotad.outcome", entry.what.as_str())));
    attributes.extend(failed.and_then(|entry| entry.reason).map(|reason| attribute("error.type", reason.as_str())));
    json!({
        "traceId": trace_id(acted.rotation),
        // All zeros would be no id.
        "spanId": format!("{:016x}", id.max(1)),
        "parentSpanId": root_id(acted.rotation),
        "name": acted.step.as_str(),
        "kind": CLIENT,
        "startTimeUnixNano": nanoseconds(acted.began),
        "endTimeUnixNano": nanoseconds(acted.ended.max(acted.began)),
        "attributes": attributes,
        "status": { "code": if failed.is_some() { ERROR } else { OK } },
    })
}

/// The whole rotation, from its id's minting, once an entry tells how it ended. Its revocation comes later, as a step.
pub fn of_rotation(credential: &CredentialName, entry: &Entry) -> Option<Value> {
    let rotation = entry.rotation?;
    let status = match entry.what {
        Happened::Promoted => OK,
        Happened::IssueRefused | Happened::Unfit | Happened::Orphaned | Happened::GivenUp => ERROR,
        _ => return None,
    };
    let mut attributes = subject(credential, rotation, entry.token.as_ref());
    attributes.push(attribute("rotad.outcome", entry.what.as_str()));
    attributes.extend(entry.reason.map(|reason| attribute("error.type", reason.as_str())));
    let began = rotation.minted_at();
    Some(json!({
        "traceId": trace_id(rotation),
        "spanId": root_id(rotation),
        "name": "rotation",
        "kind": INTERNAL,
        "startTimeUnixNano": nanoseconds(began),
        "endTimeUnixNano": nanoseconds(entry.at.max(began)),
        "attributes": attributes,
        "status": { "code": status },
    }))
}

fn subject(credential: &CredentialName, rotation: RotationId, token: Option<&TokenId>) -> Vec<Value> {
    let mut attributes =
        vec![attribute("rotad.credential", credential.as_str()), attribute("rotad.rotation", &rotation.to_string())];
    attributes.extend(token.map(|token| attribute("rotad.token_id", &token.to_string())));
    attributes
}

pub fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// As JSON has 64 bits: in quotes.
fn nanoseconds(at: Timestamp) -> String {
    at.as_nanosecond().max(0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Step;
    use crate::rotation::{DeliveryId, InstallationId, Reason};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn rotation() -> RotationId {
        RotationId::mint(at(0), None, InstallationId(0xaaaa_0001), 7)
    }

    fn entry(what: Happened, reason: Option<Reason>) -> Entry {
        let detail = Some("(what a store answered, perhaps with a value)".to_owned());
        Entry { at: at(9), what, rotation: Some(rotation()), token: None, delivery: None, reason, detail, by: None }
    }

    fn found(span: &Value, key: &str) -> Option<String> {
        let attributes = span["attributes"].as_array().unwrap();
        let attribute = attributes.iter().find(|attribute| attribute["key"] == key)?;
        Some(attribute["value"]["stringValue"].as_str().unwrap().to_owned())
    }

    #[test]
    fn the_steps_of_a_rotation_and_the_whole_are_one_trace() {
        let (name, place, token) = ("etl".parse().unwrap(), DeliveryId::new("file:/run/etl"), TokenId("t1".to_owned()));
        let refused = [entry(Happened::WriteRefused, Some(Reason::Forbidden))];
        let acted = Acted {
            step: Step::Write,
            rotation: rotation(),
            token: Some(&token),
            place: Some(&place),
            began: at(1),
            ended: at(2),
            entries: &refused,
        };
        let step = of_step(&name, &acted, 0xfeed);
        let whole = of_rotation(&name, &entry(Happened::Promoted, None)).unwrap();
        assert_eq!(step["traceId"], rotation().to_string().replace('-', ""));
        assert_eq!(step["traceId"], whole["traceId"]);
        assert_eq!(step["parentSpanId"], whole["spanId"]);
        assert_eq!((step["spanId"].as_str(), whole["spanId"].as_str().unwrap().len()), (Some("000000000000feed"), 16));
        assert_eq!((&step["name"], &step["status"]["code"]), (&"write".into(), &2.into()));
        assert_eq!((&whole["name"], &whole["status"]["code"]), (&"rotation".into(), &1.into()));
        assert_eq!(step["startTimeUnixNano"], "1790000001000000000");
        assert_eq!(whole["startTimeUnixNano"], "1790000000000000000");
        for (key, value) in [
            ("rotad.credential", "etl"),
            ("rotad.place", "file:/run/etl"),
            ("rotad.token_id", "t1"),
            ("rotad.outcome", "write_refused"),
            ("error.type", "forbidden"),
        ] {
            assert_eq!(found(&step, key).as_deref(), Some(value), "{key}");
        }
        assert!(!step.to_string().contains("perhaps with a value"), "what a store says is not told");
        assert_eq!(of_step(&name, &Acted { entries: &[], ..acted }, 0)["spanId"], "0000000000000001");
    }

    #[test]
    fn a_rotation_s_span_comes_when_it_ends_well_or_badly() {
        let name = "etl".parse().unwrap();
        for what in Happened::ALL {
            let span = of_rotation(&name, &entry(what, None));
            let ends = matches!(
                what,
                Happened::Promoted | Happened::IssueRefused | Happened::Unfit | Happened::Orphaned | Happened::GivenUp
            );
            assert_eq!(span.is_some(), ends, "{what:?}");
        }
    }
}
