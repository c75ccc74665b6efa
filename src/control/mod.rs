//! Commands and looks over a Unix socket: a small JSON API that a person's command line speaks to the running daemon.
//!
//! | request | does |
//! |---|---|
//! | `POST /v1/orders` with `{"selection": …, "order": …}` | gives an order to each selected credential; answers once they are recorded |
//! | `POST /v1/reload` | reads the configuration again, as SIGHUP does |
//! | `POST /v1/fleets` with `{"fleet": …, "allow_gone": …}` | lists a fleet's accounts now; answers with the credentials that came and went |
//! | `POST /v1/look` with what to look at (`look::Look`) | shows a part of the journal, or what concerns rotad as a whole; changes nothing |
//!
//! A refusal has status 422 and `{"error": "…", "misused": …}`. Whoever may open the socket may give every order, so its mode
//! is 0600, or 0660 for `control_group`; who did is taken from the kernel and stands in the history.

mod client;
mod look;
mod server;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use wildmatch::WildMatch;

use crate::config::Config;
use crate::rotation::{Account, CredentialName, Order, Refusal};

pub use client::{Client, Unanswered};
pub use look::{GeneralConcern, RemoteJournal, Shown};
pub use server::Server;

/// Which credentials a command is for. What is named is narrowed down by labels and account; without names
/// these select among all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Names, or patterns with `*` and `?`.
    #[serde(default)]
    pub names: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub account: Option<String>,
    #[serde(default)]
    pub all: bool,
}

impl Selection {
    /// Whether it says which credentials are meant, whatever the configuration.
    ///
    /// # Errors
    /// That nothing is named, or twice.
    pub fn check(&self) -> Result<(), String> {
        if !self.all && self.names.is_empty() && self.labels.is_empty() && self.account.is_none() {
            return Err("no credential is named: give names, patterns, `--label`, `--account` or `--all`".to_owned());
        }
        if self.all && !self.names.is_empty() {
            return Err("names beside `--all`: give the one or the other".to_owned());
        }
        Ok(())
    }

    /// The configured credentials that are meant, by name.
    ///
    /// # Errors
    /// What is named and not there, or that nothing is named.
    pub fn resolve(&self, config: &Config) -> Result<Vec<CredentialName>, String> {
        self.check()?;
        let patterns: Vec<WildMatch> = self.names.iter().map(|name| WildMatch::new(name)).collect();
        for (pattern, name) in patterns.iter().zip(&self.names) {
            if !config.credentials.keys().any(|credential| pattern.matches(credential.as_str())) {
                return Err(format!("no credential of the running configuration is named `{name}`: `rotad status` lists them"));
            }
        }
        let account = self.account.as_deref().map(Account::new);
        let fits = |name: &CredentialName, credential: &crate::config::Credential| {
            (patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name.as_str())))
                && self.labels.iter().all(|(key, value)| credential.terms.labels.get(key) == Some(value))
                && account.as_ref().is_none_or(|account| credential.account == *account)
        };
        let selected: Vec<CredentialName> =
            config.credentials.iter().filter(|(name, credential)| fits(name, credential)).map(|(name, _)| name.clone()).collect();
        if selected.is_empty() {
            Err("no credential has these labels and this account: see `labels` and `account` in the configuration".to_owned())
        } else {
            Ok(selected)
        }
    }
}

/// An order to each of some credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    pub selection: Selection,
    pub order: Order,
}

/// What became of an order at one credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub credential: CredentialName,
    /// Why it was not taken; `None` once it is recorded.
    pub refusal: Option<String>,
}

/// The accounts of a fleet are to be listed now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetRequest {
    pub fleet: String,
    /// Those that are missing are gone, however many they are.
    #[serde(default)]
    pub allow_gone: bool,
}

/// A command on its way to the daemon.
pub struct Asked {
    pub what: What,
    /// Who asks: the name and number of the process's user, from the kernel.
    pub by: String,
    pub answer: Answer,
}

/// What is asked for.
#[derive(Debug)]
pub enum What {
    Order(OrderRequest),
    Reload,
    Fleet(FleetRequest),
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {
    /// What became of an order at each credential.
    pub credentials: Vec<Taken>,
    /// What a list of a fleet's accounts changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetChange>,
}

/// What a list of a fleet's accounts changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetChange {
    /// How many it covers now.
    pub accounts: usize,
    pub come: Vec<Account>,
    pub gone: Vec<Account>,
    /// Those that the list lacks and that are not let go, yet.
    pub missing: Vec<Account>,
    /// Too many are missing for any to be let go.
    pub refusal: Option<Refusal>,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What was found, and what to do.
    pub error: String,
    /// The call or the configuration is wrong, so the same again is refused again.
    pub misused: bool,
}

impl Refused {
    pub fn misused(error: impl Into<String>) -> Self {
        Self { error: error.into(), misused: true }
    }

    pub fn failed(error: impl Into<String>) -> Self {
        Self { error: error.into(), misused: false }
    }
}

/// Where the answer goes: what came of it, or why nothing was done.
pub type Answer = oneshot::Sender<Result<Done, Refused>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(selection: &Selection) -> Result<Vec<String>, String> {
        let text = r#"
            deployment = "prod"
            [organization.main]
            admin_token = { env = "ROTAD_TEST" }
            [sink.disk.file]
            [credential.etl]
            account = "etl_prod"
            labels = { team = "data" }
            deliver = [{ sink = "disk", path = "/run/etl" }]
            [credential.etl-2]
            account = "ETL_Prod"
            labels = { team = "web" }
            deliver = [{ sink = "disk", path = "/run/etl-2" }]
            [credential.web]
            account = "web"
            deliver = [{ sink = "disk", path = "/run/web" }]
        "#;
        let world = crate::config::Unlooked { now: jiff::Timestamp::UNIX_EPOCH };
        let config = crate::config::parse(text, "rotad.toml", &world).unwrap();
        selection.resolve(&config).map(|names| names.iter().map(ToString::to_string).collect())
    }

    fn named(names: &[&str]) -> Selection {
        Selection { names: names.iter().map(ToString::to_string).collect(), ..Selection::default() }
    }

    #[test]
    fn credentials_are_selected_by_name_pattern_label_account_or_all() {
        assert_eq!(names(&named(&["web"])).unwrap(), ["web"]);
        assert_eq!(names(&named(&["etl*", "web"])).unwrap(), ["etl", "etl-2", "web"]);
        let labelled = Selection { labels: [("team".to_owned(), "data".to_owned())].into(), ..Selection::default() };
        assert_eq!(names(&labelled).unwrap(), ["etl"]);
        assert_eq!(
            names(&Selection { names: vec!["etl-2".to_owned()], ..labelled }).unwrap_err(),
            "no credential has these labels and this account: see `labels` and `account` in the configuration"
        );
        let account = Selection { account: Some("etl_prod".to_owned()), ..Selection::default() };
        assert_eq!(names(&account).unwrap(), ["etl", "etl-2"], "accounts are compared without case");
        assert_eq!(names(&Selection { all: true, ..Selection::default() }).unwrap().len(), 3);
    }

    #[test]
    fn a_selection_that_names_nothing_or_what_is_not_there_is_refused() {
        assert!(names(&Selection::default()).unwrap_err().contains("--all"));
        assert!(names(&named(&["etl", "wbe"])).unwrap_err().contains("`wbe`"));
        assert!(names(&Selection { all: true, ..named(&["etl"]) }).is_err());
    }
}
