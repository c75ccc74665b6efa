//! What the daemon shows of its journal and of itself to whoever may open the socket: so a command needs neither the
//! journal's file nor the right to read it, and sees what the daemon sees.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::client::{Client, Unanswered};
use super::{Refused, server};
use crate::engine::Concern;
use crate::journal::{HistoryLine, Identity, Journal, JournalError, Page, Row, Save};
use crate::rotation::{CredentialName, Moment};

/// The most rows or lines of one answer, whatever is asked for: some megabytes.
const PORTION_MAX: usize = 1_000;

/// What is asked for. The answer is the JSON of what [`Journal`]'s function of that name gives.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Look {
    Identity,
    Load {
        credential: CredentialName,
    },
    LoadAfter {
        after: Option<CredentialName>,
        limit: usize,
    },
    Fact {
        name: String,
    },
    HistoryPage(Page),
    /// What concerns rotad as a whole and needs a person.
    Concerns,
}

/// What of rotad as a whole needs a person, as the page has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneralConcern {
    pub happened: String,
    pub next: String,
    pub remedy: String,
}

impl From<Concern> for GeneralConcern {
    fn from(Concern { happened, next, remedy, .. }: Concern) -> Self {
        Self { happened, next, remedy }
    }
}

/// Where the daemon's end looks.
pub struct Shown {
    pub journal: Arc<dyn Journal>,
    pub concerns: Box<dyn Fn() -> Vec<Concern> + Send + Sync>,
}

/// The daemon's end.
pub(super) async fn answer(State(shown): State<Arc<Shown>>, Json(look): Json<Look>) -> Response {
    let journal = &shown.journal;
    let answer = match look {
        Look::Identity => Ok(Json(journal.identity()).into_response()),
        Look::Load { credential } => journal.load(&credential).await.map(|row| Json(row).into_response()),
        Look::LoadAfter { after, limit } => {
            journal.load_after(after.as_ref(), limit.min(PORTION_MAX)).await.map(|rows| Json(rows).into_response())
        }
        Look::Fact { name } => journal.fact(&name).await.map(|fact| Json(fact).into_response()),
        Look::HistoryPage(page) => {
            let page = Page { limit: page.limit.min(PORTION_MAX), ..page };
            journal.history_page(page).await.map(|lines| Json(lines).into_response())
        }
        Look::Concerns => {
            let concerns: Vec<GeneralConcern> = (shown.concerns)().into_iter().map(Into::into).collect();
            Ok(Json(concerns).into_response())
        }
    };
    answer.unwrap_or_else(|error| server::refused(&Refused::failed(error.to_string())))
}

/// The journal through the daemon that has it open. It only reads.
pub struct RemoteJournal {
    client: Client,
    identity: Identity,
}

impl RemoteJournal {
    /// Asks the daemon that serves the socket.
    ///
    /// # Errors
    /// `NoDaemon` where none answers; otherwise why it shows nothing.
    pub async fn connect(path: &Path) -> Result<Self, Unanswered> {
        let client = Client::new(path).map_err(|error| Unanswered::Unknown(error.to_string()))?;
        let identity = client.look(&Look::Identity).await?;
        Ok(Self { client, identity })
    }

    /// What of rotad as a whole needs a person.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn concerns(&self) -> Result<Vec<GeneralConcern>, Unanswered> {
        self.client.look(&Look::Concerns).await
    }

    async fn see<T: serde::de::DeserializeOwned>(&self, look: Look) -> Result<T, JournalError> {
        self.client.look(&look).await.map_err(|unanswered| {
            JournalError::Unusable(match unanswered {
                Unanswered::Unknown(problem) => {
                    format!("the daemon shows nothing ({problem}): does it hang, or is it an older one?")
                }
                other => other.to_string(),
            })
        })
    }
}

fn read_only() -> JournalError {
    JournalError::Unwritable("the daemon's journal is only looked at through its socket".to_owned())
}

#[async_trait]
impl Journal for RemoteJournal {
    fn identity(&self) -> Identity {
        self.identity
    }

    async fn load(&self, credential: &CredentialName) -> Result<Option<Row>, JournalError> {
        self.see(Look::Load { credential: credential.clone() }).await
    }

    async fn load_after(&self, after: Option<&CredentialName>, limit: usize) -> Result<Vec<(CredentialName, Row)>, JournalError> {
        self.see(Look::LoadAfter { after: after.cloned(), limit }).await
    }

    async fn fact(&self, name: &str) -> Result<Option<String>, JournalError> {
        self.see(Look::Fact { name: name.to_owned() }).await
    }

    async fn history_page(&self, page: Page) -> Result<Vec<(u64, HistoryLine)>, JournalError> {
        self.see(Look::HistoryPage(page)).await
    }

    async fn save(&self, _: Save) -> Result<u64, JournalError> {
        Err(read_only())
    }

    async fn set_fact(&self, _: &str, _: String) -> Result<(), JournalError> {
        Err(read_only())
    }

    async fn prune_history(&self, _: Timestamp) -> Result<u64, JournalError> {
        Err(read_only())
    }

    async fn probe(&self) -> Result<(), JournalError> {
        Err(read_only())
    }

    async fn mark_clock(&self, _: Moment) -> Result<(), JournalError> {
        Err(read_only())
    }
}
