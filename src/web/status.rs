//! The status as one JSON document, made while it is sent: totals first, then the credentials by name.

use std::sync::Arc;

use serde::Serialize;

use crate::rotation::{CredentialName, Moment};
use crate::snapshot::{Board, Snapshot, Summary};

/// A credential is some 800 bytes of JSON, so a portion is about 64 KiB.
const CREDENTIALS_PER_PORTION: usize = 80;

#[derive(Serialize)]
struct Credential<'a> {
    name: &'a CredentialName,
    organization: Option<&'a str>,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// The document `{"snapshot": …, "credentials": […]}` in portions.
///
/// # Errors
/// Only if the snapshot can't be serialised, which nothing in it brings about.
pub fn document(board: Arc<Board>, now: Moment) -> serde_json::Result<impl Iterator<Item = String> + Send> {
    let snapshot: Snapshot = board.snapshot(now);
    let start = format!("{{\"snapshot\":{},\"credentials\":[", serde_json::to_string(&snapshot)?);
    let mut after = None;
    let credentials = std::iter::from_fn(move || {
        let portion = board.portion(after.as_ref(), CREDENTIALS_PER_PORTION);
        let first = after.is_none();
        after = Some(portion.last()?.0.clone());
        Some(listed(&board, &portion, first))
    });
    Ok(std::iter::once(start).chain(credentials).chain(std::iter::once("]}\n".to_owned())))
}

/// The elements of the list, each after a comma but the very first.
fn listed(board: &Board, portion: &[(CredentialName, Summary)], first: bool) -> String {
    let mut text = String::new();
    for (index, (name, summary)) in portion.iter().enumerate() {
        let organization = board.organization_name(summary.organization);
        let credential = Credential { name, organization: organization.as_deref(), summary };
        // A summary is numbers, moments and closed enums: it always can be serialised.
        let Ok(json) = serde_json::to_string(&credential) else { continue };
        if !(first && index == 0) {
            text.push(',');
        }
        text.push_str(&json);
    }
    text
}
