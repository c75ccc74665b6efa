//! What is judged as time passes, and when the faults have ended.

use std::collections::BTreeSet;

use super::setup::{Faults, account_index, is_of};
use super::sim::{Event, NEVER, Sim, patience, policy_every};
use super::world::{Author, HOUR, MINUTE, Ms, Place, ms_of, stamp, token_id};

impl Sim<'_> {
    pub fn expires(&mut self, index: usize) {
        if self.tokens[index].ended.is_some() {
            return;
        }
        self.set_up_expires(index);
        if !self.recovered {
            return self.expires_among_outages(index);
        }
        let serving = self.configured().find(|place| place.value() == Some(index)).map(|place| place.id.clone());
        if let Some(place) = serving {
            self.violate("L1", format!("t{index} expired while `{place}` served it, long after the last fault"));
        }
    }

    /// While nothing goes wrong a set-up token is revoked long before it expires.
    fn set_up_expires(&mut self, index: usize) {
        let Faults { crash, save, provider, sink, persons, .. } = self.setup.faults;
        let faults = self.setup.faults;
        let quiet = crash + save + provider + sink + persons == 0 && !faults.clocks && !faults.accounts;
        if self.is_set_up(index) && (quiet || self.recovered) {
            self.violate("L2", format!("t{index}, with which an account was to be connected to, was left to expire"));
        }
    }

    /// Where outages are all that goes wrong, a broken delivery keeps no other from its deadline.
    pub fn expires_among_outages(&mut self, index: usize) {
        let faults = self.setup.faults;
        let chances = faults.crash + faults.save + faults.provider + faults.sink;
        let strikes = faults.hand_revocations || faults.journal || faults.clocks || faults.configuration || faults.accounts;
        if chances > 0 || strikes || faults.second_installation {
            return;
        }
        let Some(place) = self.configured().find(|place| place.value() == Some(index) && place.now().author == Author::Us) else {
            return;
        };
        let policy = self.actors[place.credential].policy;
        let deadline = self.tokens[index].expires - ms_of(stamp(0) + policy.grace + policy.margin());
        let down = place.unreadable_until.max(place.unwritable_until).max(self.api_down_until + HOUR + 5 * MINUTE);
        if down < deadline.max(self.tokens[index].expires - MINUTE) - 5 * MINUTE && place.now().at < deadline {
            let detail = format!("t{index} expired while `{}` served it, and only other places were out of order", place.id);
            self.violate("L1", detail);
        }
    }

    pub fn configured(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| self.actors[place.credential].policy.deliveries.contains_key(&place.id))
    }

    /// Every configured place serves a live token of its credential.
    pub fn check_served(&mut self, when: &str) {
        let wrong = self.configured().find(|place| {
            let token = place.value().and_then(|value| self.tokens.get(value));
            !token.is_some_and(|token| token.is_live(self.now) && is_of(&token.name.owner, place.credential))
        });
        if let Some(place) = wrong {
            let (id, value) = (place.id.clone(), place.value());
            self.violate("L1", format!("`{id}` serves no live token {when}: {value:?}"));
        }
    }

    pub fn end(&mut self) {
        self.check_served("at the end");
        for credential in 0..self.actors.len() {
            self.end_of(credential);
        }
    }

    pub fn end_of(&mut self, credential: usize) {
        let policy = self.actors[credential].policy;
        let Some(row) = self.journal.rows[credential].clone() else {
            return self.violate("L1", format!("c{credential} has no row at the end"));
        };
        if let Some(block) = &row.credential.blocked {
            self.violate("L3", format!("c{credential} is blocked at the end: {} {}", block.reason.as_str(), block.detail));
        }
        let served: BTreeSet<Option<usize>> =
            self.configured().filter(|place| place.credential == credential).map(Place::value).collect();
        if served.len() > 1 {
            // The end may fall into a rotation.
            let young = served.iter().flatten().any(|index| self.now - self.tokens[*index].created < 10 * MINUTE);
            if !young {
                self.violate("L2", format!("c{credential}'s deliveries serve different tokens at the end: {served:?}"));
            }
        }
        let newest_served = served.iter().flatten().max().copied();
        self.check_leaks(credential);
        let patience = patience(policy);
        let every = policy_every(policy);
        let newest = newest_served.map(|index| self.tokens[index].created).unwrap_or_default();
        if self.now - newest > 2 * every + patience && self.violation.is_none() {
            self.violate(
                "L1",
                format!("c{credential}'s newest token is {} h old, due every {} h", (self.now - newest) / HOUR, every / HOUR),
            );
        }
    }

    /// Every recorded token that was superseded for long enough is gone. One that a place may still
    /// serve which is no longer configured is left to expire, and so is one that a rebuild found.
    pub fn check_leaks(&mut self, credential: usize) {
        let policy = self.actors[credential].policy;
        let Some(row) = &self.journal.rows[credential] else { return };
        let served = self.configured().filter(|place| place.credential == credential).filter_map(Place::value);
        let Some(newest) = served.filter(|value| *value < self.tokens.len()).max() else { return };
        if self.setup.faults.configuration || self.now - self.tokens[newest].created <= patience(policy) {
            return;
        }
        let leaked = self.tokens[..newest].iter().enumerate().find(|(index, token)| {
            if token.by_hand {
                let account = account_index(&policy.account) == token.account;
                return account && policy.adopt.contains(&token_id(*index)) && token.is_live(self.now);
            }
            let ours = is_of(&token.name.owner, credential) && token.is_live(self.now) && token.expires < NEVER;
            ours && row.memo.recorded.contains(&token.name.rotation) && !self.adopted.contains(index)
        });
        if let Some((index, token)) = leaked {
            let detail = format!("t{index} of {} lives on, superseded for longer than the grace period", token.name.rotation);
            self.violate("L2", detail);
        }
    }

    pub fn grow_calm(&mut self) {
        self.calm = true;
        self.faults = Faults::NONE;
        self.tell(|| "all faults end, and a person mends what only a person can".to_owned());
        self.mend_as_a_person();
        if self.process.is_none() {
            self.start();
        }
        let longest = self.actors.iter().map(|actor| {
            let policy = actor.policy;
            let ttl = policy.ttl.as_millis() as Ms;
            2 * policy_every(policy).min(ttl) + policy.window.map_or(0, |window| window.as_millis() as Ms)
        });
        let longest = longest.max().unwrap() + 3 * HOUR;
        self.at(self.now + longest, Event::Recovered);
        let patience = self.actors.iter().map(|actor| patience(actor.policy)).max().unwrap();
        self.at(self.now + longest + patience, Event::Swept);
    }
}
