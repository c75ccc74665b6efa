//! What the journal knows of one credential, for its page and its JSON.

use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;

use super::Shared;
use crate::engine::{Concern, Detail, Member, STEPS, StepLine, concerns, summarize};
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

/// A disk that hangs must not keep whoever looks waiting: the rest of the page is wanted most then.
const READ_MAX: Duration = Duration::from_secs(2);

async fn in_time<T>(name: &CredentialName, reading: impl Future<Output = Result<T, JournalError>>) -> Result<T, RecordError> {
    match tokio::time::timeout(READ_MAX, reading).await {
        Ok(read) => read.map_err(|error| RecordError::logged(name, &error)),
        Err(late) => Err(RecordError::logged(name, &late)),
    }
}

/// A credential as it is configured, its state, and when its next turn is; of one that has not begun, the state is blank.
async fn recorded(shared: &Shared, name: &CredentialName) -> Result<(Member, Credential, Option<Timestamp>), RecordError> {
    let member = (shared.watched.roster)().member(name).ok_or(RecordError::NotConfigured)?;
    let row = in_time(name, shared.watched.journal.load(name)).await?;
    let Some(row) = row else { return Ok((member, Credential::default(), None)) };
    let state = row.read_state().map_err(|error| RecordError::logged(name, &error))?;
    Ok((member, state, Some(row.wake_at)))
}

/// Everything that is known of a credential.
pub async fn detail(shared: &Shared, name: &CredentialName) -> Result<Detail, RecordError> {
    let (member, state, wake_at) = recorded(shared, name).await?;
    let history = in_time(name, shared.watched.journal.history(Some(name), STEPS)).await?;
    Ok(Detail::new(name.clone(), &member, &state, history, wake_at, shared.now().wall))
}

/// What of a credential needs a person.
pub async fn needs(shared: &Shared, name: &CredentialName) -> Result<Vec<Concern>, RecordError> {
    let (member, state, wake_at) = recorded(shared, name).await?;
    let now = shared.now().wall;
    let summary = summarize(&state, &member.policy, member.organization, now);
    Ok(concerns(&state, &member.policy, &summary, wake_at, now))
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
    let lines = in_time(name, shared.watched.journal.history_page(page)).await?;
    if !known && lines.is_empty() {
        return Err(RecordError::NotConfigured);
    }
    let before = lines.last().map(|(number, _)| *number).filter(|_| lines.len() == limit);
    Ok(Steps { lines: lines.into_iter().map(|(number, line)| (number, line.entry.into())).collect(), before })
}
