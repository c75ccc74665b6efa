//! Revoking what is no longer served: under S1, S2 and S3, or not at all.

use jiff::{SignedDuration, Timestamp};

use super::answers::may_still_land;
use super::breakage::{Breakage, broken};
use super::credential::{Blocked, Credential, Rotation, Settled, Stage};
use super::entry::Happened;
use super::judge::{Judged, judge};
use super::order::EvenIfServed;
use super::turn::{Action, Conditions, Limits, Turn};
use super::words::{DeliveryId, Moment, RotationId};

/// How old a read-back may be when a revocation relies on it (S1).
const READ_BACK_AGE_MAX: SignedDuration = SignedDuration::from_secs(10);
/// A write to a place that is no longer configured: longer than any sink's limit.
const FORMER_WRITE_LIMIT: SignedDuration = SignedDuration::from_mins(1);

/// How soon to ask again whether rotad's own new token was used for a whole sweep; later while a person is needed.
pub(super) fn use_recheck(conditions: &Conditions) -> SignedDuration {
    SignedDuration::from_secs(if conditions.others_blocked { 60 } else { 10 })
}

/// Whether a token may be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Free,
    /// Its value never left the process that asked for it: nothing can serve it.
    Exempt,
    /// A person ordered it, whatever serves it.
    Ordered,
    Until(Timestamp),
    /// Until something else changes.
    Held,
}

/// What becomes of a recorded token, by the state alone. What its deliveries show when the time has come, a freeze or a
/// block may still hold a revocation up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing has superseded it, or there is no record of it to revoke it by.
    Stays,
    /// Nobody revokes it: it lives until it expires.
    LeftToExpire(LeftToExpire),
    /// It is revoked, no earlier than then; `None` while no grace period runs.
    Revoked(Option<Timestamp>),
}

/// Why nobody revokes a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftToExpire {
    /// S3: a rebuild found it, this journal did not record it.
    NotRecorded,
    /// A place that is no longer configured, and so no longer read, may serve it.
    FormerPlace,
}

impl Credential {
    /// What becomes of the token of one of its rotations.
    pub fn fate(&self, id: RotationId, rotation: &Rotation) -> Fate {
        let Some(token) = &rotation.token else { return Fate::Stays };
        if rotation.set_up {
            return Fate::Revoked(Some(token.created_at));
        }
        if let Some(why) = self.left_to_expire(id, rotation) {
            return Fate::LeftToExpire(why);
        }
        let superseded = match rotation.stage {
            Stage::Issued { .. } => self.current.is_some_and(|current| id < current),
            Stage::Orphaned | Stage::Unfit | Stage::ByHand | Stage::SetUp => true,
            Stage::Requested | Stage::Lost => false,
        };
        if !superseded {
            return Fate::Stays;
        }
        let ordered = self.orders.revokes(rotation).is_some();
        let grace = |settled: &Settled| if ordered { SignedDuration::ZERO } else { settled.grace };
        let due = self.settled_after(id).and_then(|settled| settled.since.wall.checked_add(grace(&settled)).ok());
        Fate::Revoked(due)
    }

    /// Why nobody revokes this token, whatever the time. A person's order overrules S3, and `forget` the former place.
    fn left_to_expire(&self, id: RotationId, rotation: &Rotation) -> Option<LeftToExpire> {
        let ordered = self.orders.revokes(rotation);
        if ordered == Some(EvenIfServed(true)) {
            return None;
        }
        if rotation.adopted && ordered.is_none() && !broken(Breakage::AdoptedRevoked) {
            return Some(LeftToExpire::NotRecorded);
        }
        let former = self.former.values().any(|newest| id <= *newest);
        former.then_some(LeftToExpire::FormerPlace)
    }

    /// S2: since when every delivery shows one rotation, where that is later than `id`.
    fn settled_after(&self, id: RotationId) -> Option<Settled> {
        self.settled.filter(|settled| settled.rotation > id)
    }
}

impl Turn<'_> {
    /// The next revocation, or the look that it still needs.
    pub(super) fn revoke(&mut self, now: Moment, conditions: &Conditions, limits: &mut dyn Limits) -> Option<Action> {
        let ids: Vec<RotationId> = self.credential.rotations.keys().copied().collect();
        for id in ids {
            let rotation = self.credential.rotations.get(&id)?;
            let hold = self.hold(id, rotation, now, conditions);
            match hold {
                Hold::Held => continue,
                Hold::Until(at) => {
                    self.wake_at(at);
                    continue;
                }
                Hold::Free | Hold::Exempt | Hold::Ordered => {}
            }
            if broken(Breakage::RevocationGivenUp) && rotation.backoff.failures > 0 {
                continue;
            }
            if let Some(until) = rotation.backoff.wait(now.wall) {
                self.wake_at(until);
                continue;
            }
            if hold == Hold::Free {
                match self.look_before_revoking(now) {
                    Some(Action::Wait { .. }) => return None,
                    Some(look) => return Some(look),
                    None => {}
                }
            }
            match limits.revocation(now.wall) {
                Ok(()) => return self.begin_revocation(id, now),
                Err(until) => {
                    self.wake_at(until);
                    return None;
                }
            }
        }
        None
    }

    fn begin_revocation(&mut self, id: RotationId, now: Moment) -> Option<Action> {
        let ordered =
            self.credential.rotations.get(&id).is_some_and(|rotation| self.credential.orders.revokes(rotation).is_some());
        let rotation = self.credential.rotations.get_mut(&id)?;
        rotation.revocation_sent = true;
        let token = rotation.token.as_ref()?.id.clone();
        let action = Action::Revoke {
            rotation: id,
            organization: rotation.organization.clone(),
            account: rotation.account.clone(),
            token: token.clone(),
        };
        self.entry(now, Happened::RevocationIntended, |entry| {
            entry.rotation = Some(id);
            entry.token = Some(token);
            entry.detail = ordered.then(|| "ordered, so without its grace period".to_owned());
        });
        Some(action)
    }

    /// The promises, one after the other.
    fn hold(&self, id: RotationId, rotation: &Rotation, now: Moment, conditions: &Conditions) -> Hold {
        match rotation.stage {
            Stage::Requested | Stage::Lost => return Hold::Held,
            Stage::SetUp if broken(Breakage::SetUpTokenKept) => return Hold::Held,
            Stage::Unfit | Stage::SetUp if self.never_left(rotation) => return Hold::Exempt,
            Stage::Unfit | Stage::Orphaned | Stage::Issued { .. } | Stage::ByHand | Stage::SetUp => {}
        }
        // A person's order: the grace period of S2 and S3's record are not needed, S1 may yield too.
        let ordered = self.credential.orders.revokes(rotation);
        if ordered == Some(EvenIfServed(true)) {
            return Hold::Ordered;
        }
        if broken(Breakage::LostRevokedAtOnce) && rotation.stage == Stage::Orphaned && !conditions.frozen {
            return Hold::Free;
        }
        // S3: only what this journal recorded; and nothing that a place may serve which is not read any more.
        if self.credential.left_to_expire(id, rotation).is_some() {
            return Hold::Held;
        }
        if conditions.frozen && !broken(Breakage::FreezeIgnored) {
            return Hold::Held;
        }
        let stop = [Blocked::SecondInstallation, Blocked::AnotherOrganization, Blocked::RolledBack, Blocked::NoSuchAccount];
        if stop.iter().any(|reason| self.obstacles.contains_key(reason)) {
            return Hold::Held;
        }
        // S2: every delivery has shown one later rotation for the whole grace period.
        let Some(settled) = self.credential.settled_after(id) else { return Hold::Held };
        // Where it is rotad's own: every call was made with the later one for a whole sweep before the period began, is
        // made with it now, and nothing of the organization is blocked.
        if self.policy.used_by_rotad
            && !broken(Breakage::UnusedAdminToken)
            && (conditions.others_blocked || !settled.used || !self.is_in_use(settled.rotation, conditions))
        {
            return Hold::Until(now.wall + use_recheck(conditions));
        }
        let grace = if broken(Breakage::GraceShortened) { self.policy.grace } else { settled.grace.max(self.policy.grace) };
        let left = grace - now.steady.since(settled.since.steady);
        if left.is_positive() && ordered.is_none() && !broken(Breakage::GraceIgnored) {
            return Hold::Until(now.wall + left);
        }
        // S1: no write of it may still land, and every delivery shows that later rotation now.
        let limit =
            |place: &DeliveryId| self.policy.deliveries.get(place).map_or(FORMER_WRITE_LIMIT, |wanted| wanted.write_limit);
        if let Some((place, _)) = rotation.attempts.iter().find(|(place, attempt)| may_still_land(attempt, limit(place), now)) {
            return Hold::Until(now.wall + limit(place));
        }
        let shows =
            |place: &DeliveryId| judge(&self.credential, self.policy, &self.sight, place) == Judged::Serves(settled.rotation);
        let shown = match broken(Breakage::PromotedAfterFirst) {
            true => self.policy.deliveries.keys().any(shows),
            false => self.policy.deliveries.keys().all(shows) || broken(Breakage::ReadBackSkipped),
        };
        if shown { Hold::Free } else { Hold::Held }
    }

    /// A list under the same claim, and read-backs that are fresh. `Wait` when the list can't be had.
    fn look_before_revoking(&mut self, now: Moment) -> Option<Action> {
        if broken(Breakage::RevokedUnlisted) {
            return None;
        }
        if let Some(list) = self.list(now) {
            return Some(list);
        }
        if self.sight.complete_list(&self.policy.account).is_none() {
            return Some(Action::Wait { until: now.wall });
        }
        self.stale_read_back(now).map(|delivery| Action::Read { delivery })
    }

    /// A delivery that was read too long ago for a revocation to rely on it.
    fn stale_read_back(&self, now: Moment) -> Option<DeliveryId> {
        let stale = self.sight.reads.iter().find(|(_, seen)| {
            let age = now.steady.since(seen.at.steady).max(now.wall.duration_since(seen.at.wall).abs());
            age > READ_BACK_AGE_MAX && !broken(Breakage::StaleReadBack)
        });
        stale.map(|(delivery, _)| delivery.clone())
    }

    /// Whether the value never left the process that asked for it. Of a set-up token that holds by its purpose, whichever
    /// process that was; of an unfit one only that process itself knows.
    fn never_left(&self, rotation: &Rotation) -> bool {
        let unfit_here = rotation.stage == Stage::Unfit && rotation.by == self.facts.process;
        (rotation.set_up || unfit_here) && !rotation.was_attempted()
    }

    /// Whether `Action::Revoke` may still be sent. It is saved before, which takes as long as the disk
    /// does, and the process may have been suspended meanwhile: what was read back before that is stale.
    /// `oldest_read` is how long ago the first of the deliveries was last read, by a clock that counts no less than
    /// what truly passed: a wall clock that was set back during a suspend makes both of `now` too early.
    pub fn may_still_revoke(&self, rotation: RotationId, oldest_read: SignedDuration, now: Moment) -> bool {
        let exempt = self.credential.rotations.get(&rotation).is_some_and(|rotation| {
            self.never_left(rotation) || self.credential.orders.revokes(rotation) == Some(EvenIfServed(true))
        });
        exempt || (oldest_read <= READ_BACK_AGE_MAX && self.stale_read_back(now).is_none())
    }
}
