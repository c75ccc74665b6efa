//! What the journal knows of one credential, for its page and its JSON.

use jiff::Timestamp;
use thiserror::Error;

use super::Shared;
use crate::engine::{Detail, STEPS, StepLine};
use crate::journal::{From, JournalError, Page};
use crate::rotation::{Credential, CredentialName};

/// Why a credential can't be shown.
#[derive(Debug, Error)]
pub enum RecordError {
    #[error("no credential has this name")]
    NotConfigured,
    /// The log has the reason.
    #[error("the journal's record can't be read; the log says why")]
    Unreadable,
}

impl RecordError {
    fn logged(name: &CredentialName, error: &dyn std::fmt::Display) -> Self {
        tracing::warn!(credential = %name, %error, "the journal's record can't be shown");
        Self::Unreadable
    }
}

/// Everything that is known of a credential; of one that has not begun, what its configuration says.
pub async fn detail(shared: &Shared, name: &CredentialName) -> Result<Detail, RecordError> {
    let member = (shared.watched.roster)().member(name).ok_or(RecordError::NotConfigured)?;
    let journal = &shared.watched.journal;
    let unreadable = |error: JournalError| RecordError::logged(name, &error);
    let row = journal.load(name).await.map_err(unreadable)?;
    let history = journal.history(Some(name), STEPS).await.map_err(unreadable)?;
    let (state, wake_at) = match &row {
        Some(row) => (row.read_state().map_err(|error| RecordError::logged(name, &error))?, Some(row.wake_at)),
        None => (Credential::default(), None),
    };
    Ok(Detail::new(name.clone(), &member, &state, history, wake_at, shared.now().wall))
}

/// A portion of a credential's history.
pub struct Steps {
    /// Newest first.
    pub lines: Vec<(u64, StepLine)>,
    /// The number that the next portion is asked for with; `None` after the last.
    pub before: Option<u64>,
}

/// The newest `limit` steps before line `before`.
pub async fn steps(shared: &Shared, name: &CredentialName, before: u64, limit: usize) -> Result<Steps, RecordError> {
    let known = (shared.watched.roster)().member(name).is_some();
    let from = From::Before(before);
    let page = Page { credential: Some(name.clone()), since: Timestamp::MIN, until: Timestamp::MAX, from, limit };
    let lines = shared.watched.journal.history_page(page).await.map_err(|error| RecordError::logged(name, &error))?;
    if !known && lines.is_empty() {
        return Err(RecordError::NotConfigured);
    }
    let before = lines.last().map(|(number, _)| *number).filter(|_| lines.len() == limit);
    Ok(Steps { lines: lines.into_iter().map(|(number, line)| (number, line.entry.into())).collect(), before })
}
