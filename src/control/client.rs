//! The command line's end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::look::Look;
use super::{Done, FleetChange, FleetRequest, OrderRequest, Refused, Taken};
use crate::cause::innermost;

/// A credential's turn under way is waited for, which may hang on each of its places for their limits.
const ANSWER_MAX: Duration = Duration::from_secs(110);
/// A look waits for nothing but the journal. A daemon that is suspended takes connections and never answers.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Why a command had no effect that is known of.
#[derive(Debug, Error)]
pub enum Unanswered {
    #[error("no daemon answers at `{path}` ({problem}): start it, or run this as a user who may open the socket")]
    NoDaemon { path: String, problem: String },
    /// The daemon's own words.
    #[error("{}", .0.error)]
    Refused(Refused),
    #[error("the daemon's answer is not known ({0}): look with `rotad status` and `rotad history` before you repeat the command")]
    Unknown(String),
}

/// Speaks to the daemon that serves a socket.
pub struct Client {
    http: reqwest::Client,
    path: PathBuf,
}

impl Client {
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().unix_socket(path).no_proxy().timeout(ANSWER_MAX).build()?;
        Ok(Self { http, path: path.to_owned() })
    }

    /// Gives an order; tells what became of it at each credential.
    ///
    /// # Errors
    /// Why no order was taken, or that the answer is not known.
    pub async fn order(&self, request: &OrderRequest) -> Result<Vec<Taken>, Unanswered> {
        let done: Done = self.ask(self.http.post("http://rotad/v1/orders").json(request)).await?;
        Ok(done.credentials)
    }

    /// Has the accounts of a fleet listed; tells what that changed.
    ///
    /// # Errors
    /// Why they can't be listed, or that the answer is not known.
    pub async fn sweep_fleet(&self, request: &FleetRequest) -> Result<FleetChange, Unanswered> {
        let done: Done = self.ask(self.http.post("http://rotad/v1/fleets").json(request)).await?;
        done.fleet.ok_or_else(|| Unanswered::Unknown("it says nothing of the fleet".to_owned()))
    }

    /// Has the configuration read again.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn reload(&self) -> Result<(), Unanswered> {
        self.ask::<Done>(self.http.post("http://rotad/v1/reload")).await.map(drop)
    }

    /// Looks at what the daemon shows.
    pub(super) async fn look<T: DeserializeOwned>(&self, look: &Look) -> Result<T, Unanswered> {
        self.ask(self.http.post("http://rotad/v1/look").json(look).timeout(LOOK_MAX)).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, Unanswered> {
        let response = request.send().await.map_err(|error| match error.is_connect() {
            true => Unanswered::NoDaemon { path: self.path.display().to_string(), problem: innermost(&error).to_string() },
            false => Unanswered::Unknown(innermost(&error).to_string()),
        })?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| Unanswered::Unknown(innermost(&error).to_string()))?;
        let unknown = |_| Unanswered::Unknown(format!("HTTP status {status}"));
        match status {
            StatusCode::UNPROCESSABLE_ENTITY => Err(serde_json::from_slice(&body).map_or_else(unknown, Unanswered::Refused)),
            _ => serde_json::from_slice(&body).map_err(unknown),
        }
    }
}
