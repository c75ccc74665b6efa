//! The promises, judged from what truly is: by true time, the tokens at the API and what places hold.
//! Nothing here asks the core what it thinks.

use std::collections::{BTreeMap, BTreeSet};

use rotad::rotation::{Credential, DeliveryId, Order, Policy, RotationId, Schedule};

use super::setup::is_of;
use super::world::{MINUTE, Ms, Place, SECOND, Token, ms_of, stamp};

/// How old a read-back may be when the DELETE is sent (S1), and what a corrected clock may add.
const READ_BACK_AGE: Ms = 10 * SECOND;

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Violation {
    pub promise: &'static str,
    pub detail: String,
    pub at: Ms,
}

/// What one journal row can know, by true time. It is saved and restored with the row, so that a
/// restored journal is not blamed for what only the lost one knew.
#[derive(Debug, Clone, Default)]
pub struct Memo {
    /// Rotations intended under this row.
    pub recorded: BTreeSet<RotationId>,
    /// The newest rotation that was issued as asked.
    pub newest: Option<RotationId>,
    /// What each delivery showed when it was last read, and since when without a break.
    pub shown: BTreeMap<DeliveryId, (Option<RotationId>, Ms)>,
    /// The newest rotation that each delivery ever showed.
    pub reached: BTreeMap<DeliveryId, RotationId>,
    pub period: Option<Period>,
    /// Rotations of which a write was begun.
    pub attempted: BTreeSet<RotationId>,
    /// Deliveries whose last look failed.
    pub unreadable: BTreeSet<DeliveryId>,
    /// When each schedule began to hold.
    pub scheduled_from: Ms,
    /// A person wants a rotation later than this one.
    pub rotate_after: Option<RotationId>,
    /// Rotations whose tokens a person wants gone without a grace period.
    pub revoke_now: BTreeSet<RotationId>,
    /// What was put back into a place and may be overwritten, since a person said so.
    pub resumed: BTreeMap<DeliveryId, RotationId>,
    /// The rotation that rotad's calls were last made with for a whole sweep, and when that was over.
    pub used: Option<(RotationId, Ms)>,
    /// The account that it was last told to have connected to.
    pub connected: Option<usize>,
}

/// All deliveries have shown one rotation since `since`.
#[derive(Debug, Clone, Copy)]
pub struct Period {
    pub rotation: RotationId,
    pub since: Ms,
    pub grace: Ms,
}

/// One look of this turn.
#[derive(Debug, Clone)]
pub struct Look {
    /// When the place was truly looked at.
    pub at: Ms,
    pub readable: bool,
    pub value: Option<usize>,
}

impl Memo {
    /// An order was taken: what it allows from now on.
    pub fn ordered(&mut self, order: &Order, credential: &Credential) {
        match order {
            Order::Rotate { revoke_now } => {
                self.rotate_after = credential.latest().map(|(latest, _)| latest);
                if *revoke_now {
                    let issued = credential.rotations.iter().filter(|(_, rotation)| rotation.token.is_some());
                    self.revoke_now.extend(issued.map(|(id, _)| *id));
                }
            }
            // Where nobody holds the newest value, only a later one overwrites what was put back.
            Order::Resume => {
                let put_back =
                    credential.deliveries.iter().filter_map(|(place, known)| Some((place.clone(), known.rolled_back?.shows)));
                self.resumed.extend(put_back);
                let put_back = credential.deliveries.values().any(|known| known.rolled_back.is_some());
                self.rotate_after = credential.latest().map(|(latest, _)| latest).filter(|_| put_back).or(self.rotate_after);
            }
            _ => {}
        }
    }

    /// A look was told: places that show something else begin their time anew.
    pub fn looked(&mut self, place: &DeliveryId, shown: Option<RotationId>, at: Ms) {
        if let Some(shown) = shown {
            let reached = self.reached.entry(place.clone()).or_insert(shown);
            *reached = (*reached).max(shown);
        }
        match self.shown.get(place) {
            Some((known, _)) if *known == shown => {}
            _ => {
                self.shown.insert(place.clone(), (shown, at));
            }
        }
    }

    pub fn settle(&mut self, policy: &Policy) {
        self.shown.retain(|place, _| policy.deliveries.contains_key(place));
        let mut all = policy.deliveries.keys().map(|place| self.shown.get(place).copied());
        let Some(Some((Some(rotation), mut since))) = all.next() else {
            self.period = None;
            return;
        };
        for other in all {
            match other {
                Some((Some(shown), at)) if shown == rotation => since = since.max(at),
                _ => {
                    self.period = None;
                    return;
                }
            }
        }
        let grace = policy.grace.as_millis() as Ms;
        self.period = match self.period {
            Some(period) if period.rotation == rotation && period.since == since => {
                Some(Period { grace: period.grace.max(grace), ..period })
            }
            _ => Some(Period { rotation, since, grace }),
        };
    }
}

/// What the judges look at.
pub struct Scene<'s> {
    pub now: Ms,
    pub credential: usize,
    pub policy: &'s Policy,
    pub memo: &'s Memo,
    pub tokens: &'s [Token],
    pub places: &'s [Place],
    pub looks: &'s BTreeMap<DeliveryId, Look>,
    pub listed: bool,
    pub frozen: bool,
    pub in_hand: &'s BTreeMap<RotationId, usize>,
    /// The lists are another one's.
    pub another_organization: bool,
    /// They are, and nothing tells it from ours: what lives in ours is not to be seen.
    pub unseen: bool,
    pub permitted: bool,
    /// The value that rotad's calls are made with, and since when a sweep with it was over.
    pub own: Option<(usize, Option<Ms>)>,
}

impl Scene<'_> {
    fn rotation_of(&self, value: Option<usize>) -> Option<RotationId> {
        let token = self.tokens.get(value?)?;
        is_of(&token.name.owner, self.credential).then_some(token.name.rotation)
    }

    fn wall_slack(&self) -> Ms {
        // A wall clock that is believed may be a minute off.
        MINUTE + SECOND
    }

    /// May a DELETE of token `index` be sent now?
    pub fn revocation(&self, rotation: RotationId, index: usize, never_left: bool) -> Result<(), (&'static str, String)> {
        if self.another_organization || (self.frozen && !never_left) {
            return Err(("S7", format!("t{index} is revoked while revocations are frozen")));
        }
        if !self.permitted {
            return Err(("S7", format!("t{index} is revoked without a permit")));
        }
        let token = &self.tokens[index];
        let ordered = self.memo.revoke_now.contains(&rotation);
        let listed = self.policy.adopt.contains(&super::world::token_id(index));
        let recorded = (self.memo.recorded.contains(&rotation) || ordered)
            && token.name.rotation == rotation
            && is_of(&token.name.owner, self.credential);
        if !(if token.by_hand { listed } else { recorded }) {
            return Err(("S3", format!("t{index} is revoked, and this journal did not record it")));
        }
        if never_left {
            return Ok(());
        }
        if !self.listed {
            return Err(("S7", format!("t{index} is revoked without a list under the same claim")));
        }
        let mut shown = None;
        for place in self.policy.deliveries.keys() {
            let Some(look) = self.looks.get(place) else {
                return Err(("S1", format!("t{index} is revoked, and `{place}` was not read back")));
            };
            if look.at < self.now - READ_BACK_AGE - SECOND {
                let age = (self.now - look.at) / SECOND;
                return Err(("S1", format!("t{index} is revoked, and `{place}` was read {age} s ago")));
            }
            let Some(shows) = self.rotation_of(look.value).filter(|_| look.readable) else {
                return Err(("S1", format!("t{index} is revoked, and `{place}` did not positively show a rotation of ours")));
            };
            if shows <= rotation || shown.is_some_and(|other| other != shows) {
                return Err((
                    "S1",
                    format!("t{index} is revoked, and `{place}` showed {shows}, not one later rotation everywhere"),
                ));
            }
            shown = Some(shows);
        }
        if self.policy.used_by_rotad {
            let used = self.own.is_some_and(|(value, since)| since.is_some() && self.rotation_of(Some(value)) == shown);
            if !used {
                return Err((
                    "admin",
                    format!("t{index} is revoked, and the calls are not made with its successor: {:?}", self.own),
                ));
            }
            let grace = self.policy.grace.as_millis() as Ms;
            let since = self.memo.used.filter(|(used, _)| Some(*used) == shown).map(|(_, since)| since);
            if !ordered && since.is_none_or(|since| self.now - since < grace) {
                let detail = format!("t{index} is revoked within {} s of the use of its successor: {since:?}", grace / SECOND);
                return Err(("admin", detail));
            }
        }
        match self.memo.period {
            Some(period) if period.rotation > rotation => {
                let grace = period.grace.max(self.policy.grace.as_millis() as Ms);
                if self.now - period.since < grace && !ordered {
                    let confirmed = (self.now - period.since) / SECOND;
                    let detail = format!(
                        "t{index} is revoked {confirmed} s after every delivery showed {}; the grace period is {} s",
                        period.rotation,
                        grace / SECOND
                    );
                    return Err(("S2", detail));
                }
                Ok(())
            }
            other => Err(("S2", format!("t{index} is revoked, and no later rotation is confirmed everywhere: {other:?}"))),
        }
    }

    /// May a token be asked for now?
    pub fn mint(&self, rotation: RotationId) -> Result<(), (&'static str, String)> {
        if self.memo.recorded.contains(&rotation) {
            return Err(("S5", format!("{rotation} is asked for a second time")));
        }
        if self.another_organization {
            return Err(("S7", format!("{rotation} is asked for, and the organization may be another one")));
        }
        if !self.permitted {
            return Err(("S7", format!("{rotation} is asked for without a permit")));
        }
        if !self.listed {
            return Err(("S7", format!("{rotation} is asked for without a list under the same claim")));
        }
        let unseen = |place: &&DeliveryId| !self.looks.contains_key(*place) && !self.memo.unreadable.contains(*place);
        if let Some(place) = self.policy.deliveries.keys().find(unseen) {
            return Err(("S7", format!("{rotation} is asked for, and `{place}` was not looked at")));
        }
        let Some((newest, index)) = self.newest_usable().filter(|_| !self.unseen) else {
            return Ok(());
        };
        let token = &self.tokens[index];
        let (ttl, grace) = (self.policy.ttl.as_millis() as Ms, self.policy.grace.as_millis() as Ms);
        let deadline = token.expires - grace - (ttl / 10).min(60 * MINUTE);
        if deadline <= self.now + self.wall_slack() {
            return Ok(());
        }
        if self.frozen {
            return Err(("S7", format!("{rotation} is asked for while frozen, and t{index} is not at its deadline")));
        }
        if self.memo.rotate_after.is_some_and(|after| newest <= after) {
            return Ok(());
        }
        let minted_at = ms_of(newest.minted_at()).min(token.created);
        let due = next_due(&self.policy.schedule, minted_at.max(self.memo.scheduled_from) - self.wall_slack());
        if due > self.now + self.wall_slack() {
            let hours = (due - self.now) / (60 * MINUTE);
            return Err(("S7", format!("{rotation} is asked for, and t{index} is served, live and not due for {hours} h")));
        }
        let missing = self.policy.deliveries.keys().find(|place| {
            let never = self.memo.reached.get(*place).is_none_or(|reached| *reached < newest);
            never && self.looks.get(*place).is_some_and(|look| self.rotation_of(look.value).is_none_or(|shows| shows < newest))
        });
        match missing {
            Some(place) if !self.was_rolled_back() => {
                Err(("S6", format!("{rotation} is asked for before the deadline, and t{index} was never brought to `{place}`")))
            }
            _ => Ok(()),
        }
    }

    fn was_rolled_back(&self) -> bool {
        self.policy.deliveries.keys().any(|id| {
            let place = self.places.iter().find(|place| place.id == *id);
            place.is_some_and(|place| {
                place.versions.iter().rev().take(6).any(|version| version.author == super::world::Author::Person)
            })
        })
    }

    /// The newest live token of this credential that a readable delivery serves or memory holds.
    fn newest_usable(&self) -> Option<(RotationId, usize)> {
        let served = self.looks.values().filter(|look| look.readable).filter_map(|look| look.value);
        let held = self.in_hand.values().copied();
        let ours = |index: &usize| self.tokens.get(*index).is_some_and(|token| is_of(&token.name.owner, self.credential));
        let newest = served.chain(held).filter(ours).max_by_key(|index| self.tokens[*index].name.rotation)?;
        let token = &self.tokens[newest];
        let fit = self.memo.newest.is_some_and(|known| known == token.name.rotation)
            || !self.in_hand.contains_key(&token.name.rotation);
        let later_known = self.memo.newest.is_some_and(|known| known > token.name.rotation);
        // A later token that was issued and is nowhere: its value is gone, so another is due.
        (token.is_live(self.now) && fit && !later_known && token.account == super::setup::account_index(&self.policy.account))
            .then_some((token.name.rotation, newest))
    }

    /// Was it right that token `index` ended by our DELETE, which was sent at `sent`?
    pub fn revoked(places: &[Place], index: usize, sent: Ms) -> Result<(), (&'static str, String)> {
        for place in places {
            let version = place.now();
            // A place whose reads lag may have shown, for so long, what was there before.
            if place.value() == Some(index) && version.since < sent - READ_BACK_AGE - place.lag {
                return Err((
                    "S1",
                    format!("t{index} was revoked while `{}` served it since {}", place.id, stamp(version.since)),
                ));
            }
        }
        Ok(())
    }
}

/// The least due time after `after`, from the design's words: `phase + n × every`.
fn next_due(schedule: &Schedule, after: Ms) -> Ms {
    match schedule.next_after(stamp(after)) {
        Some(due) => ms_of(due),
        None => Ms::MAX,
    }
}
