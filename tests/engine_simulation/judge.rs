//! Where the promises are judged: at every request, at every landing, and as time passes. What is
//! judged by is what truly is; the rules themselves are the oracle's.

use std::collections::{BTreeMap, BTreeSet};

use rotad::rotation::{DeliveryId, RotationId, TokenType};
use rotad::secret::Secret;
use rotad::sinks::{Payload, Version};

use super::api::namesake;
use super::claim::{Claim, Seen};
use super::setup::organization_of;
use super::world::{Actor, PLANTED, World};
use crate::simulator::oracle::{Look, Memo, Scene};
use crate::simulator::setup::account_index;
use crate::simulator::sim::{NEVER, patience};
use crate::simulator::world::{Author, HOUR, MINUTE, Ms, Place, SECOND, Token};

/// Twice the most tokens, at the deadline, and one on its way (L2).
const LIVE_MAX: usize = 33;

/// A token that is younger when an admin token is replaced may seem to have been made with the new one:
/// the clocks may be a minute off.
const UNNOTICED: Ms = MINUTE + 15 * SECOND;

impl World {
    /// A token is asked for.
    pub fn judge_mint(&mut self, claim: &Claim, rotation: RotationId) {
        let credential = claim.credential;
        if self.tokens.iter().rev().take(400).any(|token| token.name.rotation == rotation) {
            self.violate("S5", Some(credential), format!("{rotation} is asked for again"));
        }
        let seen = claim.seen.lock().unwrap();
        let stored = self.record.memo(&claim.policy.owner.credential);
        let memo = Memo { recorded: &stored.recorded - &BTreeSet::from([rotation]), ..stored };
        // One that has no token there yet can't be told from one of a new organization.
        let wrong = seen.wrongly_listed && self.knows_a_live_token(claim, &memo);
        let mut hands = self.actors[credential].hands.clone();
        hands.extend(&seen.held);
        // What another organization's list lacks is gone for whoever can't know that it is another's.
        let unseen = seen.unnoticed || (seen.wrongly_listed && !wrong);
        let verdict = Scene { unseen, ..self.scene(claim, &seen, &memo, &hands, wrong) }.mint(rotation);
        drop(seen);
        self.tell(Some(credential), || format!("asks for a token: {rotation}"));
        self.judge(credential, verdict);
    }

    /// What the core's judges look at. `wrong`: the lists are another organization's, and that can be told.
    fn scene<'s>(
        &'s self,
        claim: &'s Claim,
        seen: &'s Seen,
        memo: &'s Memo,
        in_hand: &'s BTreeMap<RotationId, usize>,
        wrong: bool,
    ) -> Scene<'s> {
        Scene {
            credential: claim.credential,
            now: self.now,
            policy: &claim.policy,
            memo,
            tokens: &self.tokens,
            places: &self.places,
            looks: &seen.looks,
            listed: seen.listed,
            frozen: self.actors[claim.credential].frozen,
            in_hand,
            another_organization: wrong,
            unseen: false,
            own: None,
            permitted: true,
        }
    }

    /// Whether the other organization could have been told from ours: by a token of the credential that
    /// lives in ours, and by none that was ever made in the other, as where a first token was asked for there.
    fn knows_a_live_token(&self, claim: &Claim, memo: &Memo) -> bool {
        let account = account_index(&claim.policy.account);
        let organization = organization_of(account);
        let strayed = |token: &Token| namesake(token.account).is_some_and(|account| organization_of(account) == organization);
        if self.tokens.iter().any(strayed) {
            return false;
        }
        // A token whose answer was lost has no id that a list could lack.
        let known = |(index, token): &(usize, &Token)| {
            token.account == account
                && token.created < self.wrong_since - UNNOTICED
                && memo.recorded.contains(&token.name.rotation)
                && self.never_left.contains_key(index)
        };
        self.tokens.iter().enumerate().filter(known).any(|(_, token)| token.is_live(self.now))
    }

    /// A token was issued, and its sender heard so.
    pub fn issued(&mut self, claim: &Claim, rotation: RotationId, index: usize) {
        let (policy, token) = (&claim.policy, &self.tokens[index]);
        let fits = token.expires - token.created == policy.ttl.as_millis() as Ms && token.token_type == policy.token_type;
        let actor = &mut self.actors[claim.credential];
        if fits {
            actor.memo.newest = Some(rotation);
        }
        self.never_left.insert(index, claim.life.id);
        if !self.set_ups.contains(&rotation) {
            actor.hands.insert(rotation, index);
            claim.seen.lock().unwrap().unverified = true;
        }
    }

    /// A DELETE is sent.
    pub fn judge_revocation(&mut self, claim: &Claim, index: usize) {
        let credential = claim.credential;
        let seen = claim.seen.lock().unwrap();
        let memo = self.record.memo(&claim.policy.owner.credential);
        let rotation = self.tokens[index].name.rotation;
        let never_left = self.never_left.get(&index) == Some(&claim.life.id) && !memo.attempted.contains(&rotation);
        // That none is ever written is judged at each write.
        let never_left = never_left || self.set_ups.contains(&rotation);
        let wrong = seen.wrongly_listed && self.knows_a_live_token(claim, &memo);
        let scene = self.scene(claim, &seen, &memo, &seen.held, wrong);
        let verdict = scene.revocation(rotation, index, never_left && !wrong);
        drop(seen);
        self.tell(Some(credential), || format!("asks to revoke t{index} of {rotation}"));
        self.judge(credential, verdict);
    }

    /// A token ended by our DELETE.
    pub fn judge_revoked(&mut self, credential: usize, index: usize, sent: Ms) {
        // A place that was configured once is judged as far as the journal can know of it. One that was added
        // after a backup and removed before that was restored is known to nobody, and nobody reads it.
        let (actor, rotation) = (&self.actors[credential], self.tokens[index].name.rotation);
        let is_configured = |place: &Place| actor.policy.deliveries.contains_key(&place.id);
        let known = |place: &&Place| is_configured(place) || self.record.knows_of(rotation, &place.id);
        let places: Vec<Place> = actor.places.iter().map(|place| &self.places[*place]).filter(known).cloned().collect();
        let verdict = Scene::revoked(&places, index, sent);
        self.judge(credential, verdict);
        if self.recovered {
            self.check_served("after a revocation");
        }
    }

    /// A value is about to be written.
    pub fn judge_write(&mut self, claim: &Claim, place: &DeliveryId, expected: &Version, payload: &Payload<'_>) {
        let credential = claim.credential;
        let read = claim.seen.lock().unwrap().numbers.get(place).copied();
        if read.map(|number| number.to_string()).as_ref() != Some(&expected.0) {
            let detail = format!("`{place}` is written upon `{}`, and the turn read {read:?}", expected.0);
            self.violate("S1", Some(credential), detail);
        }
        let index = self.index_of_value(payload.value);
        let token = &self.tokens[index];
        // What another organization's account of that name needs, nobody here can know.
        let account = namesake(token.account).unwrap_or(token.account);
        let unconnected = token.token_type == TokenType::ReadScaling && !self.connected.contains(&account);
        let unusable = unconnected || self.set_ups.contains(&token.name.rotation);
        if token.name.rotation != payload.rotation || token.name.owner != *payload.owner || *payload.owner != claim.policy.owner {
            let detail = format!("`{place}` is to get t{index}, which is not of {}", payload.rotation);
            self.violate("S1", Some(credential), detail);
        }
        if unusable {
            let detail = format!("`{place}` is to get t{index}, and account {account} was never connected to");
            self.violate("scaling", Some(credential), detail);
        }
        if !self.record.memo(&claim.policy.owner.credential).attempted.contains(&payload.rotation) {
            let detail = format!("t{index} is written to `{place}`, and that it was attempted is not recorded");
            self.violate("S6", Some(credential), detail);
        }
        let place = place.clone();
        self.tell(Some(credential), || format!("writes t{index} to `{place}`"));
    }

    pub fn index_of_value(&self, value: &Secret) -> usize {
        let text = value.expose();
        let index = text.strip_prefix(PLANTED).and_then(|rest| rest.strip_prefix('-')?.parse().ok());
        index.expect("rotad writes tokens that the API issued, and nothing else")
    }

    /// A look at a place is told.
    pub fn looked(&mut self, claim: &Claim, place: &DeliveryId, look: Look, number: u64) {
        let actor = &mut self.actors[claim.credential];
        actor.memo.unreadable.remove(place);
        let token = look.value.and_then(|value| self.tokens.get(value));
        let shown = token.filter(|token| token.name.owner == claim.policy.owner).map(|token| token.name.rotation);
        actor.memo.looked(place, shown, look.at);
        actor.memo.settle(&claim.policy);
        let mut seen = claim.seen.lock().unwrap();
        if let (Some(rotation), Some(value)) = (shown, look.value) {
            seen.held.insert(rotation, value);
        }
        seen.numbers.insert(place.clone(), number);
        seen.looks.insert(place.clone(), look);
    }

    /// How many tokens of a credential live at once.
    pub fn count_live(&mut self, credential: usize, account: usize) {
        let owner = self.setup.plans[credential].policy.owner.clone();
        let installation = self.record.identity.installation;
        let live = self.live_of(account);
        let ours = |index: &&usize| {
            let name = &self.tokens[**index].name;
            name.owner == owner && name.rotation.installation() == installation
        };
        let count = live.iter().filter(ours).count();
        self.most_live = self.most_live.max(count);
        if count > LIVE_MAX {
            self.violate("L2", Some(credential), format!("{count} tokens of c{credential} live at once"));
        }
    }

    // As time passes.

    pub fn configured(&self) -> impl Iterator<Item = (usize, &Place)> {
        self.actors.iter().enumerate().filter(|(_, actor)| actor.configured).flat_map(|(credential, actor)| {
            let places = actor.places.iter().map(|place| &self.places[*place]);
            places.filter(|place| actor.policy.deliveries.contains_key(&place.id)).map(move |place| (credential, place))
        })
    }

    pub fn expires(&mut self, index: usize) {
        if self.tokens[index].ended.is_some() || !self.recovered {
            return;
        }
        // A journal that was lost since knows nothing of it.
        let known =
            |actor: &Actor| self.record.memo(&actor.policy.owner.credential).recorded.contains(&self.tokens[index].name.rotation);
        if !self.setup.strict && self.set_ups.contains(&self.tokens[index].name.rotation) && self.actors.iter().any(known) {
            return self.violate("L2", None, format!("t{index}, with which an account was connected to, was left to expire"));
        }
        let serving = self.configured().find(|(_, place)| place.value() == Some(index) && place.now().author == Author::Us);
        if let Some((credential, place)) = serving {
            let detail = format!("t{index} expired while `{}` served it", place.id);
            self.violate("L1", Some(credential), detail);
        }
    }

    /// Every configured place serves a live token of its credential.
    pub fn check_served(&mut self, when: &str) {
        let wrong = self.configured().find(|(credential, place)| {
            // What a person put there is not rotad's, until long after.
            let excused = place.now().author == Author::Person || self.actors[*credential].memo.newest.is_none();
            if self.setup.strict && excused {
                return false;
            }
            let token = place.value().and_then(|value| self.tokens.get(value));
            let owner = &self.setup.plans[*credential].policy.owner;
            !token.is_some_and(|token| token.is_live(self.now) && token.name.owner == *owner)
        });
        if let Some((credential, place)) = wrong {
            let detail = format!("`{}` serves no live token {when}: {:?}", place.id, place.value());
            self.violate("L1", Some(credential), detail);
        }
    }

    pub fn end(&mut self) {
        self.check_served("at the end");
        for credential in 0..self.actors.len() {
            if self.actors[credential].configured {
                self.end_of(credential);
            }
        }
    }

    fn end_of(&mut self, credential: usize) {
        let policy = self.actors[credential].policy.clone();
        let name = &policy.owner.credential;
        let state = self.record.row(name).map(|row| row.state.clone());
        let Some(state) = state else {
            return self.violate("L1", Some(credential), format!("c{credential} has no row at the end"));
        };
        let state: rotad::rotation::Credential = serde_json::from_str(&state).unwrap();
        if let Some(block) = &state.blocked {
            let detail = format!("c{credential} is blocked at the end: {} {}", block.reason.as_str(), block.detail);
            self.violate("L3", Some(credential), detail);
        }
        let served: BTreeSet<Option<usize>> =
            self.configured().filter(|(of, _)| *of == credential).map(|(_, place)| place.value()).collect();
        if served.len() > 1 && !served.iter().flatten().any(|index| self.now - self.tokens[*index].created < 10 * MINUTE) {
            self.violate("L2", Some(credential), format!("c{credential}'s places serve different tokens at the end: {served:?}"));
        }
        self.check_leaks(credential);
        let gap = self.actors[credential].gap;
        let newest = served.iter().flatten().max().map(|index| self.tokens[*index].created).unwrap_or_default();
        if self.now - newest > 2 * gap + patience(&policy) && self.violation.is_none() {
            let detail =
                format!("c{credential}'s newest token is {} h old, due every {} h", (self.now - newest) / HOUR, gap / HOUR);
            self.violate("L1", Some(credential), detail);
        }
        let quiet = self.now - self.actors[credential].turned_at;
        let longest = policy.sweep_every.as_millis() as Ms + 2 * MINUTE;
        if quiet > longest.max(12 * MINUTE) {
            self.violate("L3", Some(credential), format!("c{credential} had no turn for {} min", quiet / MINUTE));
        }
    }

    /// Every recorded token that was superseded for long enough is gone. One that a place may still
    /// serve which is no longer configured is left to expire, and so is one that a rebuild found.
    pub fn check_leaks(&mut self, credential: usize) {
        let actor = &self.actors[credential];
        let policy = actor.policy.clone();
        if actor.changed || !actor.configured {
            return;
        }
        let memo = self.record.memo(&policy.owner.credential);
        let served = self.configured().filter(|(of, _)| *of == credential).filter_map(|(_, place)| place.value());
        let Some(newest) = served.filter(|value| *value < self.tokens.len()).max() else { return };
        if self.now - self.tokens[newest].created <= patience(&policy) {
            return;
        }
        let (account, now) = (account_index(&policy.account), self.now);
        let live = self.live_of(account);
        let leaked = live.into_iter().filter(|index| *index < newest).find(|index| {
            let token = &self.tokens[*index];
            let ours = token.name.owner == policy.owner && token.is_live(now) && token.expires < NEVER;
            ours && memo.recorded.contains(&token.name.rotation) && !self.adopted.contains(index)
        });
        if let Some(index) = leaked {
            let detail = format!("t{index} lives on, superseded for longer than the grace period");
            self.violate("L2", Some(credential), detail);
        }
    }
}
