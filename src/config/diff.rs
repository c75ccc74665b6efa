//! What a new configuration changes, and whether a reload that nobody watches may do so.

use std::collections::BTreeSet;

use serde::Serialize;
use thiserror::Error;

use super::Config;
use super::credential::Credential;
use crate::rotation::CredentialName;

/// From one configuration to another. Names and places are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Diff {
    pub added: Vec<CredentialName>,
    /// No longer configured, and not renamed: let go.
    pub removed: Vec<CredentialName>,
    /// From, to.
    pub renamed: Vec<(CredentialName, CredentialName)>,
    pub changed: Vec<Change>,
    /// Sections beside the credentials that differ.
    pub sections: Vec<&'static str>,
    /// How many credentials there were.
    pub before: usize,
}

/// What changed of one credential; a renamed one is compared with what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its new name.
    pub name: CredentialName,
    /// Anything beside its places: account, schedule, periods, format, mode.
    pub terms: bool,
    pub places_added: Vec<String>,
    /// Tokens issued before are not revoked early: a moved place still holds one.
    pub places_removed: Vec<String>,
}

/// A reload that only a person may confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the new configuration lets go of {let_go} of {before} credentials, more than {allowed}; it is not taken until confirmed, since a broken template looks the same"
)]
pub struct LetsGoOfTooMany {
    pub let_go: usize,
    pub before: usize,
    /// `max(3, 10 %)`.
    pub allowed: usize,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        let Self { added, removed, renamed, changed, sections, before: _ } = self;
        added.is_empty() && removed.is_empty() && renamed.is_empty() && changed.is_empty() && sections.is_empty()
    }

    /// Whether a reload that nobody asked for may take the new configuration.
    ///
    /// # Errors
    /// `LetsGoOfTooMany` above `max(3, 10 %)` of the credentials there were.
    pub fn check_automatic(&self) -> Result<(), LetsGoOfTooMany> {
        let allowed = (self.before / 10).max(3);
        if self.removed.len() > allowed {
            return Err(LetsGoOfTooMany { let_go: self.removed.len(), before: self.before, allowed });
        }
        Ok(())
    }
}

/// What is opened once, at the start.
const LASTING: [&str; 3] = ["deployment", "journal", "server"];

impl Diff {
    /// Whether a running rotad can take it.
    ///
    /// # Errors
    /// Which section needs a restart.
    pub fn check_lasting(&self) -> Result<(), String> {
        match self.sections.iter().find(|section| LASTING.contains(section)) {
            Some(section) => {
                Err(format!("`[{section}]` changed: that needs a restart, and nothing of the new configuration is taken before"))
            }
            None => Ok(()),
        }
    }
}

impl Config {
    /// What `new` changes.
    pub fn diff(&self, new: &Self) -> Diff {
        let mut diff = Diff { before: self.credentials.len(), sections: self.changed_sections(new), ..Diff::default() };
        let mut renamed = BTreeSet::new();
        for (name, credential) in &new.credentials {
            let from = credential
                .renamed_from
                .as_ref()
                .filter(|from| !self.credentials.contains_key(name) && self.credentials.contains_key(*from));
            let before = match from {
                Some(from) => {
                    diff.renamed.push((from.clone(), name.clone()));
                    renamed.insert(from);
                    self.credentials.get(from)
                }
                None => self.credentials.get(name),
            };
            match before {
                None => diff.added.push(name.clone()),
                Some(before) => diff.changed.extend(self.change(name, before, new, credential)),
            }
        }
        let gone = self.credentials.keys().filter(|name| !new.credentials.contains_key(*name) && !renamed.contains(name));
        diff.removed = gone.cloned().collect();
        diff
    }

    fn change(&self, name: &CredentialName, before: &Credential, new: &Self, after: &Credential) -> Option<Change> {
        // `renamed_from` stays in the file for as long as its writer likes, and changes nothing by itself.
        let unchanged = before.account == after.account && before.terms == after.terms && before.adopt == after.adopt;
        if unchanged && before.deliveries == after.deliveries && self.sinks == new.sinks {
            return None;
        }
        let places = |config: &Self, credential: &Credential| -> BTreeSet<String> {
            credential.deliveries.iter().map(|delivery| delivery.identity(&config.sinks)).collect()
        };
        let (old_places, new_places) = (places(self, before), places(new, after));
        let change = Change {
            name: name.clone(),
            terms: !unchanged || (before.deliveries != after.deliveries && old_places == new_places),
            places_added: new_places.difference(&old_places).cloned().collect(),
            places_removed: old_places.difference(&new_places).cloned().collect(),
        };
        (change.terms || !change.places_added.is_empty() || !change.places_removed.is_empty()).then_some(change)
    }

    fn changed_sections(&self, new: &Self) -> Vec<&'static str> {
        let sections = [
            ("deployment", self.deployment != new.deployment),
            ("organization", self.organizations != new.organizations),
            ("journal", self.journal != new.journal || self.standby != new.standby),
            ("server", self.server != new.server),
            ("limits", self.limits != new.limits),
            ("webhook", self.webhook != new.webhook),
            ("sink", self.sinks != new.sinks),
            ("fleet", self.fleets != new.fleets),
            ("account", self.accounts != new.accounts),
        ];
        sections.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }
}
