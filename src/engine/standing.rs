//! Whether an organization is still the one that the journal knows: too many tokens that vanish at
//! once, or a new admin token that sees none of the known ones, mean that it is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::rotation::CredentialName;

/// Tokens that vanish within this time vanish at once: a sweep's usual interval.
const AT_ONCE: SignedDuration = SignedDuration::from_hours(1);
/// `max(3, 5 %)` may vanish at once (design: the sweep).
const VANISHED_MIN: usize = 3;

/// What the lists said of one organization.
#[derive(Debug, Default)]
struct Standing {
    vanished: BTreeMap<CredentialName, Timestamp>,
    credentials: usize,
    /// The admin token is new, and no list has shown a known token since.
    unproven: bool,
    /// A list that should have shown a known token under it did not.
    unseen: bool,
}

impl Standing {
    fn is_suspect(&self) -> bool {
        let most = VANISHED_MIN.max(self.credentials / 20);
        self.vanished.len() > most || (self.unproven && self.unseen)
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

    /// The organization's admin token is another one than before.
    pub fn has_new_admin_token(&mut self, organization: &Arc<str>) {
        let standing = self.organizations.entry(organization.clone()).or_default();
        standing.unproven = true;
        standing.unseen = false;
    }

    /// A complete list came in: `known` tokens should have been on it, `seen` of them were.
    pub fn listed(&mut self, organization: &Arc<str>, known: usize, seen: usize) {
        let Some(standing) = self.organizations.get_mut(organization) else { return };
        if seen > 0 {
            standing.unproven = false;
            standing.unseen = false;
        } else if known > 0 && standing.unproven {
            standing.unseen = true;
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

    #[test]
    fn a_new_admin_token_must_see_a_known_token() {
        let mut standings = Standings::default();
        standings.set_size(&organization(), 10);
        standings.listed(&organization(), 1, 0);
        assert!(!standings.is_suspect("main"), "an old admin token proves nothing by one account");
        standings.has_new_admin_token(&organization());
        assert!(!standings.is_suspect("main"));
        standings.listed(&organization(), 0, 0);
        assert!(!standings.is_suspect("main"), "nothing was to be seen");
        standings.listed(&organization(), 1, 0);
        assert!(standings.is_suspect("main"));
        standings.listed(&organization(), 2, 1);
        assert!(!standings.is_suspect("main"));
    }
}
