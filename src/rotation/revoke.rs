//! Revoking what is no longer served: under S1, S2 and S3, or not at all.

use jiff::{SignedDuration, Timestamp};

use super::answers::may_still_land;
use super::breakage::{Breakage, broken};
use super::credential::{Blocked, Rotation, Stage};
use super::entry::Happened;
use super::judge::{Judged, judge};
use super::order::EvenIfServed;
use super::turn::{Action, Conditions, Limits, Turn};
use super::words::{DeliveryId, Moment, RotationId};

/// How old a read-back may be when a revocation relies on it (S1).
const READ_BACK_AGE_MAX: SignedDuration = SignedDuration::from_secs(10);
/// A write to a place that is no longer configured: longer than any sink's limit.
const FORMER_WRITE_LIMIT: SignedDuration = SignedDuration::from_mins(1);

/// Whether a token may be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Free,
    /// Its value never left this process: nothing can serve it.
    Exempt,
    /// A person ordered it, whatever serves it.
    Ordered,
    Until(Timestamp),
    /// Until something else changes.
    Held,
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
        });
        Some(action)
    }

    /// The promises, one after the other.
    fn hold(&self, id: RotationId, rotation: &Rotation, now: Moment, conditions: &Conditions) -> Hold {
        match rotation.stage {
            Stage::Requested | Stage::Lost => return Hold::Held,
            Stage::Unfit if self.never_left(rotation) => return Hold::Exempt,
            Stage::Unfit | Stage::Orphaned | Stage::Issued { .. } => {}
        }
        // A person's order: the grace period of S2 and S3's record are not needed, S1 may yield too.
        let ordered = self.credential.orders.revokes(rotation);
        if ordered == Some(EvenIfServed(true)) {
            return Hold::Ordered;
        }
        // S3: only what this journal recorded.
        if rotation.adopted && ordered.is_none() && !broken(Breakage::AdoptedRevoked) {
            return Hold::Held;
        }
        if conditions.frozen && !broken(Breakage::FreezeIgnored) {
            return Hold::Held;
        }
        if broken(Breakage::LostRevokedAtOnce) && rotation.stage == Stage::Orphaned {
            return Hold::Free;
        }
        // A place that is no longer configured, and so no longer read, may serve it.
        if self.credential.former.values().any(|newest| id <= *newest) {
            return Hold::Held;
        }
        let stop = [Blocked::SecondInstallation, Blocked::AnotherOrganization, Blocked::RolledBack, Blocked::NoSuchAccount];
        if stop.iter().any(|reason| self.obstacles.contains_key(reason)) {
            return Hold::Held;
        }
        // S2: every delivery has shown one later rotation for the whole grace period.
        let Some(settled) = self.credential.settled.filter(|settled| settled.rotation > id) else { return Hold::Held };
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

    /// Whether the value never left this process.
    fn never_left(&self, rotation: &Rotation) -> bool {
        rotation.stage == Stage::Unfit && rotation.by == self.facts.process && !rotation.was_attempted()
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
