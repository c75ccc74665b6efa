//! Before anything is judged: tidying what time has settled, and looking at deliveries and lists.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::answers::LISTS_APART;
use super::breakage::{Breakage, broken};
use super::credential::{Block, Blocked, Delivery, Stage};
use super::entry::Happened;
use super::judge::{Judged, judge};
use super::turn::{Action, Turn};
use super::words::{Account, DeliveryId, Moment, RotationId};

/// How long after its expiry a token is surely dead, whatever the skew that is tolerated.
const EXPIRY_SURE: SignedDuration = SignedDuration::from_secs(60);
/// How long a lost token is looked for beyond its life, since a stalled request may be late.
const LOST_BEYOND_TTL: SignedDuration = SignedDuration::from_hours(1);
/// How long after our journal another installation of the same deployment may have lived on: the
/// one that this journal replaced.
pub(super) const PREDECESSOR: SignedDuration = SignedDuration::from_mins(15);

impl Turn<'_> {
    /// What a crash, or a time between turns, left open: the same as an unknown outcome.
    pub(super) fn resume(&mut self, now: Moment) {
        let mut lost = Vec::new();
        for (id, rotation) in &mut self.credential.rotations {
            if rotation.stage == Stage::Requested {
                rotation.stage = Stage::Lost;
                rotation.backoff.reset();
                lost.push(*id);
            }
            for attempt in rotation.attempts.values_mut() {
                if let Some(writer) = attempt.writing.take() {
                    if broken(Breakage::CutOffWriteRefused) {
                        continue;
                    }
                    // A writer of our own ended with its turn; any other, before we had the journal's lock.
                    let gone = if writer == self.facts.process { now } else { self.facts.process_since };
                    attempt.unsettled = Some(gone);
                    self.credential.unsettled_while_frozen = true;
                }
            }
        }
        for id in lost {
            self.entry(now, Happened::Lost, |entry| {
                entry.rotation = Some(id);
                entry.detail = Some("the answer to the request was not recorded: the token is looked for by its name".to_owned());
            });
        }
    }

    /// Takes over what the configuration and the time changed.
    pub(super) fn tidy(&mut self, now: Moment) {
        self.take_name(now);
        self.take_deliveries(now);
        self.tidy_orders(now);
        self.tidy_adoptions(now);
        self.tidy_connection();
        let tag = self.policy.schedule.tag();
        // The moment of a change is noted by clocks that were compared; till then only deadlines count.
        if self.credential.schedule_tag != tag && !self.frozen {
            let changed = self.credential.schedule_tag != 0;
            self.credential.schedule_tag = tag;
            if changed {
                self.credential.scheduled_from = Some(now.wall);
            }
        }
        if let Some(settled) = &mut self.credential.settled {
            // A grace period in progress may be lengthened, never shortened.
            settled.grace = settled.grace.max(self.policy.grace);
        }
        if !self.frozen {
            self.trust_the_clocks(now);
            self.drop_expired(now);
        }
        if !self.expects_adoption() {
            let rotations = &self.credential.rotations;
            self.credential.former.retain(|_, newest| rotations.keys().any(|id| id <= newest));
        }
    }

    /// The clocks were compared. What was noted before that may lie in the future, or be younger than
    /// it seems: a wall clock may have been years ahead, and the steady one counts the time between
    /// two processes only now.
    fn trust_the_clocks(&mut self, now: Moment) {
        let credential = &mut self.credential;
        let past = |at: &mut Timestamp| *at = (*at).min(now.wall);
        for rotation in credential.rotations.values_mut() {
            past(&mut rotation.intended_at.wall);
            rotation.missing_since.iter_mut().for_each(past);
            if credential.unsettled_while_frozen {
                rotation.attempts.values_mut().filter_map(|attempt| attempt.unsettled.as_mut()).for_each(|since| *since = now);
            }
        }
        credential.unsettled_while_frozen = false;
        if let Some(settled) = credential.settled.as_mut().filter(|settled| settled.uncompared) {
            settled.since = now;
            settled.uncompared = false;
        }
        credential.deliveries.values_mut().filter_map(|known| known.mended_at.as_mut()).for_each(past);
        credential.strangers_missing.values_mut().for_each(past);
        credential.scheduled_from.iter_mut().for_each(past);
    }

    /// Carries on the history of an earlier name.
    fn take_name(&mut self, now: Moment) {
        let name = &self.policy.owner.credential;
        if self.credential.name.as_ref() == Some(name) {
            return;
        }
        let before = self.credential.name.replace(name.clone()).or_else(|| self.policy.renamed_from.clone());
        let (Some(before), Some(newest)) = (before, self.credential.newest) else { return };
        let detail = format!("was `{before}`: its tokens and places are carried on under the new name");
        self.credential.renamed.insert(before, newest);
        self.entry(now, Happened::Renamed, |entry| entry.detail = Some(detail));
    }

    /// Deliveries that were added or removed since the state was saved.
    fn take_deliveries(&mut self, now: Moment) {
        let added: Vec<DeliveryId> =
            self.policy.deliveries.keys().filter(|id| !self.credential.deliveries.contains_key(*id)).cloned().collect();
        let removed: Vec<DeliveryId> =
            self.credential.deliveries.keys().filter(|id| !self.policy.deliveries.contains_key(*id)).cloned().collect();
        for id in added {
            self.credential.former.remove(&id);
            self.credential.deliveries.insert(id.clone(), Delivery::default());
            if self.credential.known {
                self.credential.settled = None;
                self.entry(now, Happened::DeliveryAdded, |entry| entry.delivery = Some(id));
            }
        }
        for id in removed {
            // A journal that was restored from before the first write there knows of none, and can't be told from one that
            // rightly does not: whatever was asked for may be served there. So may a token made by hand.
            let may_hold = self.credential.newest.is_some() || self.expects_adoption();
            self.credential.deliveries.remove(&id);
            if may_hold && !broken(Breakage::FormerDeliveryForgotten) {
                let of_now = || RotationId::mint(now.wall, None, self.facts.installation, u64::MAX);
                let newest = self.credential.newest.unwrap_or_else(of_now);
                self.credential.former.insert(id.clone(), newest);
            }
            self.entry(now, Happened::DeliveryRemoved, |entry| {
                entry.delivery = Some(id);
                let told = "tokens that it may still hold are left to expire";
                entry.detail = may_hold.then(|| told.to_owned());
            });
        }
    }

    fn drop_expired(&mut self, now: Moment) {
        let over = |until: Timestamp, beyond: SignedDuration| until.checked_add(beyond).is_ok_and(|end| end <= now.wall);
        let mut ended = Vec::new();
        for (id, rotation) in &self.credential.rotations {
            let what = match (&rotation.token, rotation.stage) {
                (Some(token), _) if over(token.expires_at, EXPIRY_SURE) => Happened::Expired,
                (None, Stage::Lost) if over(rotation.intended_at.wall, rotation.ttl + LOST_BEYOND_TTL) => Happened::GivenUp,
                _ => continue,
            };
            ended.push((*id, what));
        }
        for (id, what) in ended {
            let Some(rotation) = self.credential.rotations.remove(&id) else { continue };
            self.in_hand.remove(&id);
            if let Some(token) = &rotation.token {
                self.credential.orders.revoke.remove(&token.id);
            }
            if self.credential.settled.is_some_and(|settled| settled.rotation == id) {
                self.credential.settled = None;
            }
            self.entry(now, what, |entry| {
                entry.rotation = Some(id);
                entry.token = rotation.token.map(|token| token.id);
            });
        }
    }

    /// The next look that this turn still owes: lists where they are due, then every delivery.
    pub(super) fn look(&mut self, now: Moment) -> Option<Action> {
        let first = self.credential.swept_by != Some(self.facts.process);
        let sweep_due = first
            || self.credential.swept_at.is_none_or(|at| {
                // A clock that went back makes it due too, rather than never.
                at > now.wall || at.checked_add(self.policy.sweep_every).is_ok_and(|due| due <= now.wall)
            });
        let seeking = self.seeks_lost(now);
        let watching =
            self.credential.latest().is_some_and(|(_, rotation)| rotation.missing_since.is_some() && !rotation.vanished);
        // What only a list shows is not over because this turn did not look.
        let stopped = self.stopped_by_a_list().is_some();
        // Its own list is a part of the sweep that a new token of rotad's own is used for.
        let unused = self.policy.used_by_rotad && self.credential.settled.is_some_and(|settled| !settled.used);
        if (sweep_due || seeking || watching || stopped || unused || !self.credential.known)
            && let Some(list) = self.list(now)
        {
            return Some(list);
        }
        let unread = self.policy.deliveries.keys().find(|id| {
            let waits = self.credential.deliveries.get(*id).and_then(|known| known.trouble.as_ref());
            let waits = waits.filter(|trouble| !trouble.writing).and_then(|trouble| trouble.backoff.wait(now.wall));
            !self.sight.reads.contains_key(*id) && waits.is_none()
        });
        let unread = unread.filter(|_| !broken(Breakage::IssuedUnread) || !self.credential.known || self.due(now).at > now.wall);
        if let Some(delivery) = unread.cloned() {
            return Some(Action::Read { delivery });
        }
        // One that is over was taken in this turn already: waking for it again would only spin.
        let retries: Vec<Timestamp> =
            self.credential.deliveries.values().filter_map(|known| known.trouble.as_ref()?.backoff.wait(now.wall)).collect();
        retries.into_iter().for_each(|at| self.wake_at(at));
        if let Some(until) = self.credential.listing.wait(now.wall) {
            self.wake_at(until);
        }
        if let Some(since) =
            self.credential.latest().and_then(|(_, rotation)| rotation.missing_since.filter(|_| !rotation.vanished))
        {
            let again = since.checked_add(LISTS_APART).unwrap_or(since);
            if again > now.wall {
                self.wake_at(again);
            }
        }
        None
    }

    /// The block that stands and that only a list can lift.
    fn stopped_by_a_list(&self) -> Option<&Block> {
        let lists = |block: &&Block| matches!(block.reason, Blocked::SecondInstallation | Blocked::NoSuchAccount);
        self.credential.blocked.as_ref().filter(lists)
    }

    /// Whether a lost token is due to be looked for; otherwise notes when.
    fn seeks_lost(&mut self, now: Moment) -> bool {
        let mut seeking = false;
        let mut waits = Vec::new();
        for rotation in self.credential.rotations.values_mut().filter(|rotation| rotation.stage == Stage::Lost) {
            match rotation.backoff.wait(now.wall) {
                Some(until) => waits.push(until),
                None => {
                    rotation.backoff.push(now.wall, super::backoff::LONGEST, None);
                    waits.extend(rotation.backoff.until);
                    seeking = true;
                }
            }
        }
        waits.into_iter().for_each(|at| self.wake_at(at));
        seeking
            || (self.credential.rotations.values().any(|rotation| rotation.stage == Stage::Lost) && !self.sight.lists.is_empty())
    }

    /// The next account to list, of those that this credential's tokens belong to. `None` when all
    /// were tried in this turn, or the failures ask to wait.
    pub(super) fn list(&mut self, now: Moment) -> Option<Action> {
        let mut accounts: Vec<(Arc<str>, Account)> = vec![(self.policy.organization.clone(), self.policy.account.clone())];
        for rotation in self.credential.rotations.values() {
            if !accounts.iter().any(|(_, account)| *account == rotation.account) {
                accounts.push((rotation.organization.clone(), rotation.account.clone()));
            }
        }
        let (organization, account) = accounts.into_iter().find(|(_, account)| self.sight.list(account).is_none())?;
        if let Some(until) = self.credential.listing.wait(now.wall) {
            self.wake_at(until);
            return None;
        }
        Some(Action::List { organization, account })
    }

    /// Notes everything seen in this turn that needs a person.
    pub(super) fn note_obstacles(&mut self) {
        let unlisted = self.sight.complete_list(&self.policy.account).is_none();
        if let Some(Block { reason, detail, .. }) = self.stopped_by_a_list().filter(|_| unlisted).cloned() {
            self.obstacle(reason, detail);
        }
        if let Some(detail) = self.sight.no_such_account.clone() {
            self.obstacle(Blocked::NoSuchAccount, detail);
        }
        if let Some(other) = self.other_installation() {
            self.obstacle(
                Blocked::SecondInstallation,
                format!("the token of rotation {other} was made by another installation under our deployment's name: stop one of the two, or name them apart"),
            );
        }
        for id in self.policy.deliveries.keys() {
            let found = match judge(&self.credential, self.policy, &self.sight, id) {
                Judged::OwnedBy(owner) => (
                    Blocked::OwnedByOther,
                    format!(
                        "`{id}` belongs to `{owner}` by its marker: deliver elsewhere, remove the marker, or, if that was this credential's name, set `renamed_from`"
                    ),
                ),
                Judged::ScheduledForDeletion => {
                    (Blocked::ScheduledForDeletion, format!("`{id}` is scheduled for deletion: restore it, or deliver elsewhere"))
                }
                Judged::Unexplained if !self.may_take_over(id) => (
                    Blocked::TakeOverNeeded,
                    format!(
                        "`{id}` holds a value that is not from rotad: set `take_over = true` at this delivery to overwrite it"
                    ),
                ),
                _ => continue,
            };
            self.obstacles.entry(found.0).or_insert(found.1);
        }
        let rolled_back = self.credential.deliveries.iter().find(|(_, known)| known.rolled_back.is_some());
        if let Some((id, _)) = rolled_back {
            let detail = format!(
                "`{id}` shows an earlier token that someone put back: nothing is revoked until the next rotation overwrites it"
            );
            self.obstacle(Blocked::RolledBack, detail);
        }
    }

    /// Whether an unexplained value at the delivery may be overwritten.
    pub(super) fn may_take_over(&self, delivery: &DeliveryId) -> bool {
        self.credential.was_ours(delivery) || self.policy.deliveries.get(delivery).is_some_and(|wanted| wanted.take_over)
    }

    /// A live token that another installation made under our name, after its time was over.
    fn other_installation(&self) -> Option<RotationId> {
        let tokens = self.sight.complete_list(&self.policy.account)?;
        let late = self.facts.journal_created_at.checked_add(PREDECESSOR).ok()?;
        tokens.iter().filter(|token| token.created_at > late).find_map(|token| {
            let id = self.names().rotation(token)?;
            let theirs = id.installation() != self.facts.installation && !self.credential.rotations.contains_key(&id);
            theirs.then_some(id)
        })
    }
}
