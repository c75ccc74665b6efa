//! Whether an organization is still the one that the journal knows: too many tokens that vanish at
//! once, or a new admin token that sees none of the known ones, mean that it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::rotation::{CredentialName, Fingerprint};

/// Tokens that vanish within this time vanish at once: a sweep's usual interval.
const AT_ONCE: SignedDuration = SignedDuration::from_hours(1);
/// `max(3, 5 %)` may vanish at once (design: the sweep).
const VANISHED_MIN: usize = 3;

/// How long a new admin token may be in use before it is noticed, and by how much clocks may differ.
const UNNOTICED: SignedDuration = SignedDuration::from_secs(60);

/// What the lists said of one organization.
#[derive(Debug, Default)]
struct Standing {
    vanished: BTreeMap<CredentialName, Timestamp>,
    credentials: usize,
    /// How often the admin token in use was found to be another one than before.
    changes: u64,
    /// When the admin token that is in use was noticed to be new.
    new_since: Option<Timestamp>,
    /// The same, while no list has shown a token that was known before.
    unproven: Option<Timestamp>,
    /// Credentials whose list should have shown a known token under it and did not. One whose known
    /// tokens have expired proves nothing any more.
    unseen: BTreeSet<CredentialName>,
    /// The admin token that calls are made with, and the credentials whose account was listed with it.
    in_use: Option<InUse>,
    /// Credentials that need a person.
    blocked: BTreeSet<CredentialName>,
}

/// How far the organization was swept with one admin token, in this process.
#[derive(Debug)]
struct InUse {
    token: Fingerprint,
    listed: BTreeSet<CredentialName>,
    /// Every credential's account was listed with it.
    swept: bool,
}

impl Standing {
    fn is_suspect(&self) -> bool {
        let most = VANISHED_MIN.max(self.credentials / 20);
        self.vanished.len() > most || (self.unproven.is_some() && !self.unseen.is_empty())
    }
}

/// The standing of every organization.
#[derive(Debug, Default)]
pub struct Standings {
    organizations: BTreeMap<Arc<str>, Standing>,
}

impl Standings {
    pub fn set_size(&mut self, organization: &Arc<str>, credentials: usize) {
        self.organizations.entry(organization.clone()).or_default().credentials = credentials;
    }

    /// The organization's admin token is another one than was proven, as was noticed at `since`. Gives
    /// whether it has seen a known token meanwhile, and so is proven to belong there.
    pub fn has_new_admin_token(&mut self, organization: &Arc<str>, since: Timestamp) -> bool {
        let standing = self.organizations.entry(organization.clone()).or_default();
        if standing.new_since != Some(since) {
            standing.new_since = Some(since);
            standing.changes += 1;
            // What was missed under it so far is missed still, when it is dated anew.
            if standing.unproven.replace(since).is_none() {
                standing.unseen.clear();
            }
        }
        standing.unproven.is_none()
    }

    /// The organization's admin token is the one that was proven before.
    pub fn has_proven_admin_token(&mut self, organization: &Arc<str>) {
        let standing = self.organizations.entry(organization.clone()).or_default();
        standing.changes += u64::from(standing.new_since.is_some());
        (standing.new_since, standing.unproven) = (None, None);
        standing.unseen.clear();
    }

    /// The organization's calls are made with this admin token from now on. Lists that were asked for with another one
    /// say nothing of it.
    pub fn uses(&mut self, organization: &Arc<str>, token: Fingerprint) {
        let standing = self.organizations.entry(organization.clone()).or_default();
        if standing.in_use.as_ref().is_none_or(|in_use| in_use.token != token) {
            standing.changes += u64::from(standing.in_use.is_some());
            standing.in_use = Some(InUse { token, listed: BTreeSet::new(), swept: false });
        }
    }

    /// Whether the organization's calls are known to be made with this admin token.
    pub fn is_in_use(&self, organization: &str, token: Fingerprint) -> bool {
        let in_use = self.organizations.get(organization).and_then(|standing| standing.in_use.as_ref());
        in_use.is_some_and(|in_use| in_use.token == token)
    }

    /// The admin token that every credential's account was listed with, in this process.
    pub fn swept_with(&self, organization: &str) -> Option<Fingerprint> {
        let in_use = self.organizations.get(organization)?.in_use.as_ref()?;
        in_use.swept.then_some(in_use.token)
    }

    /// Whether the credential needs a person, as its last turn found.
    pub fn blocked(&mut self, organization: &Arc<str>, credential: &CredentialName, blocked: bool) {
        let Some(standing) = self.organizations.get_mut(organization) else { return };
        match blocked {
            true => standing.blocked.insert(credential.clone()),
            false => standing.blocked.remove(credential),
        };
    }

    /// Whether any other credential of the organization needs a person.
    pub fn others_blocked(&self, organization: &str, credential: &CredentialName) -> bool {
        let standing = self.organizations.get(organization);
        standing.is_some_and(|standing| standing.blocked.iter().any(|blocked| blocked != credential))
    }

    /// How often an admin token was found to be another one: lists of before such a change say nothing after it. Of all
    /// organizations, since a credential may have tokens in several; changes are rare.
    pub fn changes(&self) -> u64 {
        self.organizations.values().map(|standing| standing.changes).sum()
    }

    /// A complete list came in. `known`: when each token of the credential that should be on it was
    /// created, and whether it is. A token that was made with the new admin token proves nothing: it is
    /// where that admin token belongs to.
    pub fn listed(&mut self, organization: &Arc<str>, credential: &CredentialName, known: &[(Timestamp, bool)]) {
        let Some(standing) = self.organizations.get_mut(organization) else { return };
        if let Some(in_use) = standing.in_use.as_mut().filter(|in_use| !in_use.swept) {
            in_use.listed.insert(credential.clone());
            if in_use.listed.len() >= standing.credentials {
                (in_use.swept, in_use.listed) = (true, BTreeSet::new());
            }
        }
        let Some(since) = standing.unproven else { return };
        let before = |created_at: Timestamp| since.duration_since(created_at);
        // One that was made just before the change may have been made with either admin token: to see it
        // proves nothing, to miss it speaks against the new one.
        if known.iter().any(|(created_at, seen)| *seen && before(*created_at) > UNNOTICED) {
            standing.unproven = None;
            standing.unseen.clear();
        } else if known.iter().any(|(created_at, seen)| !seen && before(*created_at).is_positive()) {
            standing.unseen.insert(credential.clone());
        } else {
            standing.unseen.remove(credential);
        }
    }

    /// The credential is no longer configured: it says nothing of its organization any more.
    pub fn let_go(&mut self, credential: &CredentialName) {
        for standing in self.organizations.values_mut() {
            standing.unseen.remove(credential);
            standing.blocked.remove(credential);
            if let Some(in_use) = &mut standing.in_use {
                in_use.listed.remove(credential);
            }
        }
    }

    /// Whether the credential's newest token has vanished, as its last turn found.
    pub fn vanished(&mut self, organization: &Arc<str>, credential: &CredentialName, vanished: bool, now: Timestamp) {
        let Some(standing) = self.organizations.get_mut(organization) else { return };
        if vanished {
            // Told anew at every look, so that a block lasts as long as its cause.
            standing.vanished.insert(credential.clone(), now);
        }
        // A replaced token leaves its mark for the rest of the hour: it counts how many vanished, not how many are left.
        standing.vanished.retain(|_, at| now.duration_since(*at).abs() < AT_ONCE);
    }

    /// Whether nothing may be issued or revoked there, since it may be another organization.
    pub fn is_suspect(&self, organization: &str) -> bool {
        self.organizations.get(organization).is_some_and(Standing::is_suspect)
    }

    pub fn any_suspect(&self) -> bool {
        self.organizations.values().any(Standing::is_suspect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organization() -> Arc<str> {
        "main".into()
    }

    fn name(number: usize) -> CredentialName {
        format!("c{number}").parse().unwrap()
    }

    #[test]
    fn more_than_three_or_five_percent_vanishing_at_once_is_suspect() {
        for (credentials, most) in [(10, 3), (100, 5), (1000, 50)] {
            let mut standings = Standings::default();
            standings.set_size(&organization(), credentials);
            for number in 0..=most {
                assert!(!standings.is_suspect("main"), "{number} of {credentials}");
                standings.vanished(&organization(), &name(number), true, Timestamp::UNIX_EPOCH);
            }
            assert!(standings.is_suspect("main"), "{credentials}");
        }
    }

    #[test]
    fn one_that_vanished_again_and_again_counts_once_and_is_forgotten_after_an_hour() {
        let mut standings = Standings::default();
        standings.set_size(&organization(), 10);
        for _ in 0..10 {
            standings.vanished(&organization(), &name(1), true, Timestamp::UNIX_EPOCH);
        }
        (2..5).for_each(|number| standings.vanished(&organization(), &name(number), true, Timestamp::UNIX_EPOCH));
        assert!(standings.is_suspect("main"));
        standings.vanished(&organization(), &name(1), false, Timestamp::UNIX_EPOCH + SignedDuration::from_hours(2));
        assert!(!standings.is_suspect("main"));
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn a_new_admin_token_must_see_a_known_token() {
        let mut standings = Standings::default();
        standings.set_size(&organization(), 10);
        standings.listed(&organization(), &name(1), &[(at(0), false)]);
        assert!(!standings.is_suspect("main"), "an old admin token proves nothing by one account");
        standings.has_new_admin_token(&organization(), at(1000));
        assert!(!standings.is_suspect("main"));
        standings.listed(&organization(), &name(1), &[]);
        assert!(!standings.is_suspect("main"), "nothing was to be seen");
        standings.listed(&organization(), &name(1), &[(at(0), false)]);
        assert!(standings.is_suspect("main"));
        assert!(!standings.has_new_admin_token(&organization(), at(1000)), "looked at again, it is as unproven as before");
        assert!(standings.is_suspect("main"));
        standings.listed(&organization(), &name(1), &[(at(0), true), (at(1), false)]);
        assert!(!standings.is_suspect("main"));
        assert!(standings.has_new_admin_token(&organization(), at(1000)), "it is proven");
    }

    #[test]
    fn the_proven_admin_token_put_back_ends_the_suspicion() {
        let mut standings = Standings::default();
        standings.set_size(&organization(), 10);
        standings.has_new_admin_token(&organization(), at(1000));
        standings.listed(&organization(), &name(1), &[(at(0), false)]);
        let changes = standings.changes();
        standings.has_proven_admin_token(&organization());
        assert!(!standings.is_suspect("main"));
        assert_eq!(standings.changes(), changes + 1);
        standings.has_proven_admin_token(&organization());
        assert_eq!(standings.changes(), changes + 1, "it is the one of before");
    }

    #[test]
    fn what_was_made_with_the_new_admin_token_proves_nothing() {
        let mut standings = Standings::default();
        standings.set_size(&organization(), 10);
        standings.has_new_admin_token(&organization(), at(1000));
        standings.listed(&organization(), &name(1), &[(at(0), false)]);
        // A credential that had no token yet was issued one, perhaps in another organization.
        standings.listed(&organization(), &name(2), &[(at(995), true)]);
        standings.listed(&organization(), &name(2), &[(at(995), true), (at(2000), true)]);
        assert!(standings.is_suspect("main"));
        standings.listed(&organization(), &name(1), &[(at(995), false)]);
        assert!(standings.is_suspect("main"), "one from just before is missing");
        standings.listed(&organization(), &name(1), &[(at(2000), false)]);
        assert!(!standings.is_suspect("main"), "nor does one that is gone again speak against it");
    }

    #[test]
    fn what_was_known_and_has_expired_or_was_let_go_proves_nothing_any_more() {
        let mut standings = Standings::default();
        standings.set_size(&organization(), 10);
        standings.has_new_admin_token(&organization(), at(1000));
        standings.listed(&organization(), &name(1), &[(at(0), false)]);
        standings.listed(&organization(), &name(2), &[(at(0), false)]);
        standings.listed(&organization(), &name(1), &[]);
        assert!(standings.is_suspect("main"), "the other one's tokens are still missing");
        standings.let_go(&name(2));
        assert!(!standings.is_suspect("main"), "it would be for ever: nothing known is left that could be seen");
    }
}
