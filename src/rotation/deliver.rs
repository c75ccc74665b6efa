//! Bringing the newest token to every delivery, and back to one that lost it.

use jiff::{SignedDuration, Timestamp};

use super::answers::{LAG, may_still_land};
use super::backoff::Backoff;
use super::breakage::{Breakage, broken};
use super::credential::{Blocked, Rotation, Stage};
use super::entry::Happened;
use super::judge::{Judged, judge};
use super::turn::{Action, Turn};
use super::words::{DeliveryId, Moment, RotationId};

/// How often a value changed by hand is overwritten by a copy (design: the table of read-backs).
const MEND_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// The longest wait between two looks at a place that does not show our write yet.
const LAG_POLL: SignedDuration = SignedDuration::from_secs(8);

/// What one delivery needs of the newest rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Write,
    Until(Timestamp),
}

impl Turn<'_> {
    /// The next step that brings the newest token to where it is missing.
    pub(super) fn deliver(&mut self, now: Moment) -> Option<Action> {
        let (latest, rotation) = self.credential.latest()?;
        if rotation.vanished {
            // It is dead: no more copies of it; a new one is due.
            return None;
        }
        if rotation.stage == (Stage::Issued { verified: false }) {
            return self.verify(latest, now);
        }
        if self.obstacles.contains_key(&Blocked::SecondInstallation) {
            return None;
        }
        let mut needy = Vec::new();
        let ids: Vec<DeliveryId> = self.policy.deliveries.keys().cloned().collect();
        for id in ids {
            match self.need(&id, latest, now) {
                Need::Nothing => {}
                Need::Write => needy.push(id),
                Need::Until(at) => self.wake_at(at),
            }
        }
        let delivery = needy.into_iter().next()?;
        if !self.in_hand.contains(&latest) {
            return self.mourn(latest, now);
        }
        if !self.is_known_to_live(latest) {
            return self.list(now);
        }
        Some(self.begin_write(delivery, latest, now))
    }

    /// Whether this process issued the token or saw it in a list. A journal restored from before may
    /// hold for current what was revoked since, and a person may have put that back somewhere (S1).
    fn is_known_to_live(&self, latest: RotationId) -> bool {
        let process = self.facts.process;
        let issued_here =
            self.credential.rotations.get(&latest).is_some_and(|rotation| rotation.by == process && !rotation.adopted);
        issued_here || self.credential.seen_live == Some((latest, process))
    }

    fn verify(&mut self, latest: RotationId, now: Moment) -> Option<Action> {
        if !self.in_hand.contains(&latest) {
            return self.mourn(latest, now);
        }
        let until = self.credential.rotations.get(&latest).and_then(|rotation| rotation.backoff.wait(now.wall));
        match until {
            Some(until) => {
                self.wake_at(until);
                None
            }
            None => Some(Action::Verify { rotation: latest }),
        }
    }

    fn need(&mut self, id: &DeliveryId, latest: RotationId, now: Moment) -> Need {
        let judged = judge(&self.credential, self.policy, &self.sight, id);
        let takes_over = self.may_take_over(id);
        let Some(known) = self.credential.deliveries.get_mut(id) else { return Need::Nothing };
        let attempted = self.credential.rotations.get(&latest).is_some_and(|rotation| rotation.attempts.contains_key(id));
        let lag_ends = known.written_at.map(|at| LAG - now.steady.since(at.steady)).filter(|left| left.is_positive());
        let want = match judged {
            Judged::Serves(shown) if shown == latest => Need::Nothing,
            Judged::Unreadable | Judged::Unread | Judged::OwnedBy(_) | Judged::ScheduledForDeletion | Judged::Stranger(_) => {
                Need::Nothing
            }
            Judged::Unexplained if !takes_over => Need::Nothing,
            // Our write may not show yet: look again, write nothing.
            _ if attempted && lag_ends.is_some() => {
                if known.lag.wait(now.wall).is_none() {
                    known.lag.push(now.wall, LAG_POLL, None);
                }
                Need::Until(known.lag.until.unwrap_or(now.wall))
            }
            Judged::Serves(shown) | Judged::Past(shown) if known.confirmed > Some(shown) && known.rolled_back.is_none() => {
                // It was read while our write might not show yet, and that time is over: only a new
                // look tells lag from a person's roll-back.
                Need::Until(now.wall + SignedDuration::from_secs(1))
            }
            Judged::Serves(_) | Judged::Past(_) => match known.rolled_back {
                // What a person put back stays until a later rotation.
                Some(rolled) if rolled.under >= latest && !broken(Breakage::RolledBackOverwritten) => Need::Nothing,
                _ => Need::Write,
            },
            Judged::Unexplained if known.confirmed == Some(latest) => {
                match known.mended_at.map(|at| at.checked_add(MEND_EVERY)) {
                    Some(Ok(next)) if next > now.wall => Need::Until(next),
                    _ => Need::Write,
                }
            }
            Judged::Unexplained | Judged::Nothing => Need::Write,
        };
        match (want, known.trouble.as_ref().and_then(|trouble| trouble.backoff.wait(now.wall))) {
            (Need::Write, Some(until)) => Need::Until(until),
            (want, _) => want,
        }
    }

    fn begin_write(&mut self, delivery: DeliveryId, latest: RotationId, now: Moment) -> Action {
        let mends = judge(&self.credential, self.policy, &self.sight, &delivery) == Judged::Unexplained;
        if let Some(known) = self.credential.deliveries.get_mut(&delivery)
            && mends
        {
            known.mended_at = Some(now.wall);
        }
        if let Some(rotation) = self.credential.rotations.get_mut(&latest) {
            rotation.attempts.entry(delivery.clone()).or_default().writing = Some(self.facts.process);
        }
        self.entry(now, Happened::Attempted, |entry| {
            entry.rotation = Some(latest);
            entry.delivery = Some(delivery.clone());
        });
        Action::Write { delivery, rotation: latest }
    }

    /// The newest value is not in memory. It is an orphan once it is certain that no delivery has it
    /// or ever had it; what follows is judged again without it.
    fn mourn(&mut self, latest: RotationId, now: Moment) -> Option<Action> {
        let rotation = self.credential.rotations.get(&latest)?;
        let waits = self.possible_homes(rotation, now);
        if let Some(until) = waits {
            self.wake_at(until);
            return None;
        }
        let had = self.credential.deliveries.values().any(|known| known.confirmed == Some(latest));
        if had {
            return None;
        }
        let token = rotation.token.as_ref().map(|token| token.id.clone());
        if let Some(rotation) = self.credential.rotations.get_mut(&latest) {
            rotation.stage = Stage::Orphaned;
            rotation.backoff = Backoff::default();
        }
        self.entry(now, Happened::Orphaned, |entry| {
            entry.rotation = Some(latest);
            entry.token = token;
            entry.detail = Some(
                "its value was in memory only and no delivery has it: a new token is issued, this one is revoked after it"
                    .to_owned(),
            );
        });
        self.deliver(now)
    }

    /// When to look again whether a delivery has the rotation's value; `None` if none has or can get it.
    pub(super) fn possible_homes(&self, rotation: &Rotation, now: Moment) -> Option<Timestamp> {
        let soon = now.wall + SignedDuration::from_secs(1);
        rotation.attempts.iter().find_map(|(id, attempt)| {
            let wanted = self.policy.deliveries.get(id)?;
            if may_still_land(attempt, wanted.write_limit, now) {
                return Some(soon);
            }
            match judge(&self.credential, self.policy, &self.sight, id) {
                Judged::Unreadable | Judged::Unread => {
                    let trouble = self.credential.deliveries.get(id).and_then(|known| known.trouble.as_ref());
                    Some(trouble.and_then(|trouble| trouble.backoff.wait(now.wall)).unwrap_or(soon))
                }
                _ => None,
            }
        })
    }
}
