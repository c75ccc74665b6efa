//! Taking what the deliveries serve as the truth, where the journal does not know it: a first
//! start, a lost journal and a restored one are the same.

use std::collections::{BTreeMap, BTreeSet};

use super::answers::LISTS_APART;
use super::breakage::{Breakage, broken};
use super::credential::{Blocked, Rotation, Stage, Token};
use super::entry::Happened;
use super::issue::deadline;
use super::judge::{Judged, judge};
use super::look::PREDECESSOR;
use super::outcome::{ListedToken, Shows};
use super::turn::{Rebuilt, Turn};
use super::words::{DeliveryId, Fingerprint, Moment, RotationId};

impl Turn<'_> {
    pub(super) fn must_rebuild(&self) -> bool {
        !self.credential.known || (!self.strangers().is_empty() && !broken(Breakage::RebuildSkipped))
    }

    /// Rotations that deliveries show and the journal does not know, with the value's fingerprint.
    fn strangers(&self) -> BTreeMap<RotationId, (DeliveryId, Fingerprint)> {
        let mut strangers = BTreeMap::new();
        for id in self.policy.deliveries.keys() {
            let Judged::Stranger(rotation) = judge(&self.credential, self.policy, &self.sight, id) else { continue };
            if let Some(Ok(Shows::Value { fingerprint, .. })) = self.sight.reads.get(id).map(|seen| &seen.what) {
                strangers.entry(rotation).or_insert_with(|| (id.clone(), *fingerprint));
            }
        }
        strangers
    }

    pub(super) fn rebuild(&mut self, now: Moment) -> Rebuilt {
        if let Some(list) = self.list(now) {
            return Rebuilt::Do(list);
        }
        let Some(tokens) = self.sight.complete_list(&self.policy.account).map(<[ListedToken]>::to_vec) else {
            self.note_obstacles();
            return Rebuilt::Wait;
        };
        let strangers = self.strangers();
        if let Some(id) = strangers.keys().find(|id| self.is_anothers(**id, &tokens)) {
            let detail = format!(
                "a delivery shows rotation {id} of another installation under our deployment's name: stop one of the two, or name them apart"
            );
            self.obstacle(Blocked::SecondInstallation, detail);
            return Rebuilt::Wait;
        }
        let unread = self
            .policy
            .deliveries
            .keys()
            .any(|id| matches!(judge(&self.credential, self.policy, &self.sight, id), Judged::Unreadable | Judged::Unread));
        // Waiting for a delivery must not let the token that others serve expire (L1).
        let of = |id: RotationId| tokens.iter().find(|token| self.names().rotation(token) == Some(id));
        let pressing =
            strangers.keys().filter_map(|id| of(*id)?.expires_at).any(|expiry| deadline(expiry, self.policy) <= now.wall);
        if unread && !pressing {
            return Rebuilt::Wait;
        }
        let live: BTreeMap<RotationId, ListedToken> = strangers.keys().filter_map(|id| Some((*id, of(*id)?.clone()))).collect();
        let gone: BTreeSet<RotationId> = strangers.keys().copied().filter(|id| !live.contains_key(id)).collect();
        if !self.are_surely_gone(&gone, now) {
            return Rebuilt::Wait;
        }
        self.sight.dead.extend(gone);
        // Dead tokens alone teach nothing: what the journal knows of the deliveries stays.
        let teaches = !self.credential.known || !live.is_empty();
        for (id, token) in live {
            if let Some((_, fingerprint)) = strangers.get(&id) {
                self.adopt(id, token, *fingerprint, now);
            }
        }
        self.finish_rebuild(teaches, now);
        Rebuilt::Done
    }

    /// Live, and made by another installation after the one that this journal replaced can have
    /// lived. What is left of a dead token proves nothing: it is judged as changed by hand.
    fn is_anothers(&self, id: RotationId, tokens: &[ListedToken]) -> bool {
        let listed = tokens.iter().find(|token| self.names().rotation(token) == Some(id));
        let end = self.facts.journal_created_at.checked_add(PREDECESSOR);
        let late = listed.is_some_and(|token| end.is_ok_and(|end| token.created_at > end));
        late && id.installation() != self.facts.installation
    }

    /// Whether two complete lists, a minute apart, lacked every one of `gone`; notes when to ask again.
    fn are_surely_gone(&mut self, gone: &BTreeSet<RotationId>, now: Moment) -> bool {
        self.credential.strangers_missing.retain(|id, _| gone.contains(id));
        let mut sure = true;
        for id in gone {
            let since = *self.credential.strangers_missing.entry(*id).or_insert(now.wall);
            let asked_again = since.checked_add(LISTS_APART).unwrap_or(since);
            if asked_again > now.wall {
                self.wake_at(asked_again);
                sure = false;
            }
        }
        sure
    }

    fn adopt(&mut self, id: RotationId, token: ListedToken, fingerprint: Fingerprint, now: Moment) {
        let expires_at = token.expires_at.unwrap_or(jiff::Timestamp::MAX);
        let recorded = Token { id: token.id.clone(), created_at: token.created_at, expires_at, fingerprint: Some(fingerprint) };
        let intended_at = Moment { wall: token.created_at, steady: now.steady };
        let rotation = self
            .credential
            .rotations
            .entry(id)
            .or_insert_with(|| Rotation { adopted: true, ..Rotation::requested(self.policy, self.facts.process, intended_at) });
        rotation.stage = Stage::Issued { verified: true };
        rotation.token_type = Some(token.token_type);
        rotation.token = Some(recorded);
        rotation.missing_since = None;
        rotation.vanished = false;
        self.credential.note_newest(id);
        self.entry(now, Happened::Rebuilt, |entry| {
            entry.rotation = Some(id);
            entry.token = Some(token.id);
            entry.detail = Some(
                "a delivery serves it and the journal did not know it: taken over, and left to expire once replaced".to_owned(),
            );
        });
    }

    fn finish_rebuild(&mut self, teaches: bool, now: Moment) {
        self.credential.known = true;
        if teaches {
            self.credential.settled = None;
        }
        let ids: Vec<DeliveryId> = self.policy.deliveries.keys().cloned().collect();
        for id in ids {
            let served = matches!(judge(&self.credential, self.policy, &self.sight, &id), Judged::Serves(_));
            if let Some(known) = self.credential.deliveries.get_mut(&id)
                && served
                && teaches
            {
                // What it shows is the truth now, whatever the journal had confirmed there.
                known.rolled_back = None;
                known.confirmed = None;
                // Nor is known when it was written: other reads may lag behind this one.
                known.written_at = Some(now);
            }
            self.conclude(&id, now);
        }
        self.settle(now);
    }
}
