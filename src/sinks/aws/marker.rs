//! The marker: a version's id, chosen by us through `ClientRequestToken`, tells its rotation.
//!
//! For `raw` it is the rotation id itself. For `json` it is a UUID made of rotation id and body: a
//! retry after somebody changed other keys is another version, where the rotation id alone would be
//! refused for ever as used with another body. Such a marker can't be read, only checked.

use sha2::{Digest, Sha256};
use uuid::Builder;

use super::super::Question;
use super::super::format::{Field, Format};
use crate::rotation::RotationId;

/// The version id for `rotation` delivered as `body`.
pub fn version_id(format: &Format, rotation: RotationId, body: &str) -> String {
    match format {
        Format::Raw | Format::Env { .. } => rotation.to_string(),
        Format::Json { .. } => derived(rotation, body),
    }
}

/// A UUID of version 8, so that it never reads as a rotation id, which is of version 7.
fn derived(rotation: RotationId, body: &str) -> String {
    let digest = Sha256::new().chain_update(rotation.as_uuid().as_bytes()).chain_update(body.as_bytes()).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// The rotation that wrote the version `id` with this `body`; `None` where nothing proves one.
pub fn rotation(format: &Format, id: &str, body: &str, question: &Question) -> Option<RotationId> {
    if let Ok(rotation) = id.parse() {
        return Some(rotation);
    }
    let told = format.field(body, Field::RotationId).ok().flatten().and_then(|text| text.expose().parse().ok());
    told.into_iter().chain(question.candidates.iter().copied()).find(|candidate| derived(*candidate, body) == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "0197f6c0-0000-7000-8000-0000deadbeef";
    const SECOND: &str = "0197f6c0-0001-7000-8000-0000deadbeef";

    fn id(text: &str) -> RotationId {
        text.parse().unwrap()
    }

    fn asking(candidates: &[&str]) -> Question {
        Question { owner: "prod/etl".parse().unwrap(), candidates: candidates.iter().map(|text| id(text)).collect() }
    }

    fn token_only() -> Format {
        Format::Json { fields: vec![("token".to_owned(), Field::Token)] }
    }

    #[test]
    fn a_raw_version_is_the_rotation_id() {
        assert_eq!(version_id(&Format::Raw, id(FIRST), "any"), FIRST);
        assert_eq!(rotation(&Format::Raw, FIRST, "any", &asking(&[])), Some(id(FIRST)));
    }

    #[test]
    fn a_json_version_is_made_of_rotation_and_body_and_never_reads_as_a_rotation_id() {
        let marker = version_id(&Format::json(), id(FIRST), "{}");
        assert_ne!(marker, version_id(&Format::json(), id(FIRST), "{ }"));
        assert_ne!(marker, version_id(&Format::json(), id(SECOND), "{}"));
        assert!(marker.parse::<RotationId>().is_err(), "{marker}");
        // AWS wants 32 to 64 characters; and the form is fixed, since old versions must still be found.
        assert_eq!(marker, "9cb393a9-a6f9-87e6-85ca-05314dfd1780");
    }

    #[test]
    fn a_json_marker_is_checked_against_the_body_and_against_candidates() {
        let told = format!(r#"{{"token":"t","rotation_id":"{FIRST}"}}"#);
        let marker = version_id(&Format::json(), id(FIRST), &told);
        assert_eq!(rotation(&Format::json(), &marker, &told, &asking(&[])), Some(id(FIRST)));

        let silent = r#"{"token":"t"}"#;
        let marker = version_id(&token_only(), id(FIRST), silent);
        assert_eq!(rotation(&token_only(), &marker, silent, &asking(&[SECOND, FIRST])), Some(id(FIRST)));
        assert_eq!(rotation(&token_only(), &marker, silent, &asking(&[SECOND])), None);
    }

    #[test]
    fn a_body_that_was_changed_by_hand_proves_nothing() {
        let body = format!(r#"{{"token":"pasted","rotation_id":"{FIRST}"}}"#);
        let by_console = "3b1c4e1c-54b5-4f05-9c6f-b3a3dbd9f0aa";
        assert_eq!(rotation(&Format::json(), by_console, &body, &asking(&[FIRST])), None);
    }
}
