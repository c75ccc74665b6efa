//! The whole status as one JSON document, made while it is sent: totals first, then the credentials by name.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::select::Listed;
use crate::rotation::Moment;
use crate::snapshot::{Board, Snapshot};

/// A credential is some 900 bytes of JSON, so a portion is about 64 KiB.
const CREDENTIALS_PER_PORTION: usize = 70;

/// What the document is, for whoever reads it as a whole.
#[derive(Serialize, JsonSchema)]
pub struct Status {
    snapshot: Snapshot,
    /// Every credential, by name.
    credentials: Vec<Listed>,
}

/// A `Status` in portions.
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
        let listed = portion.into_iter().map(|(name, summary)| Listed::new(&board, name, summary, now.wall));
        Some(joined(listed, first))
    });
    Ok(std::iter::once(start).chain(credentials).chain(std::iter::once("]}\n".to_owned())))
}

/// The elements of the list, each after a comma but the very first.
fn joined(portion: impl Iterator<Item = Listed>, first: bool) -> String {
    let mut text = String::new();
    for (index, credential) in portion.enumerate() {
        // A summary is numbers, moments and closed enums: it always can be serialised.
        let Ok(json) = serde_json::to_string(&credential) else { continue };
        if !(first && index == 0) {
            text.push(',');
        }
        text.push_str(&json);
    }
    text
}
