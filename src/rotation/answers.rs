//! What an outcome means: the transitions.

use jiff::SignedDuration;

use super::backoff::{Backoff, LONGEST};
use super::breakage::{Breakage, broken};
use super::connect::SET_UP_LIFE;
use super::credential::{Attempt, Blocked, Oddity, RolledBack, Rotation, Settled, Stage, Token, Trouble};
use super::entry::Happened;
use super::judge::{Judged, Listed, Names, Seen, judge};
use super::outcome::{
    Failed, IssueOutcome, IssuedToken, ListOutcome, ListedToken, ReadOutcome, Reason, RevokeOutcome, VerifyOutcome, WriteOutcome,
};
use super::turn::Turn;
use super::words::{Account, DeliveryId, Moment, RotationId, TokenType};

/// How long a store may go on showing what it held before our write (design: the table of read-backs).
pub(super) const LAG: SignedDuration = SignedDuration::from_secs(60);
/// How far apart two complete lists must be to prove that a token is gone, and how long a new
/// token may be missing from a list.
pub(super) const LISTS_APART: SignedDuration = SignedDuration::from_secs(60);
/// The longest wait between two tries at a delivery that needs a write.
const DELIVERY_RETRY: SignedDuration = SignedDuration::from_secs(60);
/// The longest wait between two tries at a delivery that is only looked at.
const LOOK_RETRY: SignedDuration = SignedDuration::from_mins(5);
/// How far `expire_at - created_ts` may be from the ttl (design, step 2).
const TTL_TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

impl Turn<'_> {
    /// Tells the outcome of `Action::List`.
    pub fn listed(&mut self, account: &Account, outcome: ListOutcome, now: Moment) {
        match outcome {
            ListOutcome::Failed(failed) => {
                self.credential.listing.push(now.wall, LOOK_RETRY, failed.retry_after);
                // An account that the credential has left may be gone.
                if self.policy.lacks_account(&failed) && *account == self.policy.account {
                    self.sight.no_such_account = Some(failed.detail.clone());
                }
                self.forget_connection(account, failed.reason);
                self.failed_entry(now, Happened::ListFailed, None, &failed);
                self.sight.lists.push((account.clone(), Listed::Failed));
            }
            ListOutcome::Complete(tokens) => {
                self.credential.listing.reset();
                self.match_adoptions(account, &tokens, now);
                if *account == self.policy.account {
                    self.count(&tokens);
                }
                self.match_ordered(account, &tokens, now);
                self.match_list(account, &tokens, now);
                self.match_connected(account, &tokens, now);
                let unknown_to_us = |token: &ListedToken| {
                    self.names().rotation(token).is_some_and(|id| !self.credential.rotations.contains_key(&id))
                };
                let news = tokens.iter().any(unknown_to_us);
                self.sight.lists.push((account.clone(), Listed::Complete(tokens)));
                if news {
                    // A marker that can only be checked against a rotation is checked again.
                    let unexplained = |id: &DeliveryId| {
                        judge(&self.credential, self.policy, &self.sight, id) == Judged::Unexplained
                            && !self.sight.reread.contains(id)
                    };
                    let again: Vec<DeliveryId> = self.sight.reads.keys().filter(|id| unexplained(id)).cloned().collect();
                    for id in again {
                        self.sight.reads.remove(&id);
                        self.sight.reread.insert(id);
                    }
                }
            }
        }
    }

    fn count(&mut self, tokens: &[ListedToken]) {
        let mut seen = super::credential::Seen::default();
        for token in tokens {
            match self.names().rotation(token) {
                Some(id) => {
                    seen.live += 1;
                    let recorded = self.credential.rotations.get(&id).is_some_and(|rotation| rotation.stage != Stage::Requested);
                    seen.unknown += u32::from(!recorded);
                }
                // One that is adopted is nobody else's any more.
                None => seen.foreign += u32::from(self.credential.rotation_of(&token.id).is_none()),
            }
        }
        self.credential.seen = seen;
    }

    /// Finds the lost, and notes what a complete list lacks.
    fn match_list(&mut self, account: &Account, tokens: &[ListedToken], now: Moment) {
        let names = Names::of(self.policy, &self.credential.renamed);
        let listed = |id: RotationId| tokens.iter().find(|token| names.rotation(token) == Some(id));
        let mut found = Vec::new();
        let mut vanished = Vec::new();
        for (id, rotation) in &mut self.credential.rotations {
            if rotation.account != *account {
                continue;
            }
            let by_id = rotation.token.as_ref().and_then(|token| tokens.iter().find(|listed| listed.id == token.id));
            if let Some(token) = by_id.or_else(|| listed(*id)) {
                rotation.missing_since = None;
                rotation.vanished = false;
                if rotation.stage == Stage::Lost {
                    let expires_at = token.expires_at.unwrap_or(jiff::Timestamp::MAX);
                    rotation.token =
                        Some(Token { id: token.id.clone(), created_at: token.created_at, expires_at, fingerprint: None });
                    rotation.stage = if rotation.set_up { Stage::SetUp } else { Stage::Orphaned };
                    rotation.backoff.reset();
                    found.push((*id, token.id.clone()));
                }
                continue;
            }
            // A new token may be late in the list.
            let young = now.steady.since(rotation.intended_at.steady) < LISTS_APART;
            let young = young && !broken(Breakage::AbsenceAsProof);
            if young || self.frozen {
                // Without a clock, a minute between two lists can't be told.
                continue;
            }
            let since = *rotation.missing_since.get_or_insert(now.wall);
            let apart = now.wall.duration_since(since) >= LISTS_APART || broken(Breakage::AbsenceAsProof);
            if apart && !rotation.vanished {
                rotation.vanished = true;
                vanished.push(*id);
            }
        }
        let latest = self.credential.latest().map(|(id, _)| id);
        let newest =
            self.credential.latest().filter(|(_, rotation)| rotation.account == *account && rotation.missing_since.is_none());
        if let Some(id) = newest.map(|(id, _)| id).filter(|id| listed(*id).is_some()) {
            self.credential.seen_live = Some((id, self.facts.process));
        }
        for (id, token) in found {
            self.entry(now, Happened::Found, |entry| {
                entry.rotation = Some(id);
                entry.token = Some(token);
            });
        }
        for id in vanished.into_iter().filter(|id| Some(*id) == latest) {
            // Perhaps with the account, which was made again: a second connection is harmless.
            self.credential.connected = None;
            self.entry(now, Happened::Vanished, |entry| {
                entry.rotation = Some(id);
                entry.detail =
                    Some("two complete lists lack the token that the deliveries serve: it was revoked by someone".to_owned());
            });
        }
    }

    /// Tells the outcome of `Action::Read`. The driver kept the value if `wants` said so.
    pub fn read(&mut self, delivery: &DeliveryId, outcome: ReadOutcome, now: Moment) {
        let at = self.sight.begun.unwrap_or(now);
        match outcome {
            ReadOutcome::Failed(failed) => {
                self.trouble(delivery, Happened::ReadFailed, &failed, now);
                self.sight.reads.insert(delivery.clone(), Seen { at, what: Err(failed) });
            }
            ReadOutcome::Shows(shows) => {
                if let super::outcome::Shows::Value { fingerprint, .. } = &shows
                    && let Some(held) = self.wants(fingerprint)
                {
                    self.in_hand.insert(held);
                }
                if let Some(known) = self.credential.deliveries.get_mut(delivery)
                    && known.trouble.as_ref().is_some_and(|trouble| !trouble.writing)
                {
                    known.trouble = None;
                }
                self.sight.reads.insert(delivery.clone(), Seen { at, what: Ok(shows) });
                self.conclude(delivery, now);
            }
        }
        self.settle(now);
    }

    /// What a readable look at one delivery says of it.
    pub(super) fn conclude(&mut self, delivery: &DeliveryId, now: Moment) {
        let judged = judge(&self.credential, self.policy, &self.sight, delivery);
        match judged {
            Judged::Serves(id) => self.conclude_serves(delivery, id, now),
            Judged::Past(id) => self.conclude_earlier(delivery, id, now),
            Judged::Unexplained => self.conclude_odd(delivery, Oddity::ChangedByHand, now),
            Judged::Nothing => self.conclude_odd(delivery, Oddity::Emptied, now),
            // The rebuild, or a person, has the next word.
            Judged::Stranger(_) => {}
            Judged::OwnedBy(_) | Judged::ScheduledForDeletion => {
                // Whatever was put back before is gone; what comes next is told anew.
                if let Some(known) = self.credential.deliveries.get_mut(delivery) {
                    known.rolled_back = None;
                }
            }
            Judged::Unreadable | Judged::Unread => {}
        }
    }

    fn conclude_serves(&mut self, delivery: &DeliveryId, id: RotationId, now: Moment) {
        self.revive(id);
        let newest = self.credential.latest().is_some_and(|(latest, _)| latest == id);
        let known = self.credential.deliveries.entry(delivery.clone()).or_default();
        known.oddity = None;
        if known.confirmed > Some(id) {
            self.conclude_earlier(delivery, id, now);
            return;
        }
        known.rolled_back = None;
        known.lag.reset();
        if newest {
            // An earlier rotation is no sign that the newest one can be written now.
            known.trouble = None;
        }
        let first = known.confirmed != Some(id);
        known.confirmed = Some(id);
        let token = self.credential.rotations.get_mut(&id).map(|rotation| {
            let attempt = rotation.attempts.entry(delivery.clone()).or_default();
            attempt.landed = true;
            if first && attempt.unsettled.is_some() {
                // A write without an answer has landed, not long ago: other reads may lag behind this one.
                known.written_at = Some(now);
            }
            rotation.token.as_ref().map(|token| token.id.clone())
        });
        if first {
            self.entry(now, Happened::Confirmed, |entry| {
                entry.rotation = Some(id);
                entry.token = token.flatten();
                entry.delivery = Some(delivery.clone());
            });
        }
    }

    /// What a delivery serves was verified before it was written, whatever a journal restored from before says of it. And a
    /// token whose value was thought gone (a stalled write landed) can be copied from there.
    fn revive(&mut self, id: RotationId) {
        let newest = self.credential.latest().is_none_or(|(latest, _)| id > latest);
        let Some(rotation) = self.credential.rotations.get_mut(&id) else { return };
        let revived = rotation.stage == Stage::Orphaned && newest && !rotation.revocation_sent;
        if revived || rotation.stage == (Stage::Issued { verified: false }) {
            rotation.stage = Stage::Issued { verified: true };
        }
    }

    /// The delivery shows a rotation earlier than the one last confirmed there.
    fn conclude_earlier(&mut self, delivery: &DeliveryId, shows: RotationId, now: Moment) {
        let Some((latest, _)) = self.credential.latest() else { return };
        let known = self.credential.deliveries.entry(delivery.clone()).or_default();
        let lagging = known.written_at.is_some_and(|at| now.steady.since(at.steady) < LAG);
        if lagging || known.rolled_back.is_some_and(|rolled| rolled.shows == shows) {
            return;
        }
        known.rolled_back = Some(RolledBack { shows, under: latest });
        self.entry(now, Happened::RolledBack, |entry| {
            entry.rotation = Some(shows);
            entry.delivery = Some(delivery.clone());
            entry.detail =
                Some("someone put an earlier token back: no token is revoked until the next rotation overwrites it".to_owned());
        });
    }

    /// Tells once that a delivery holds what it should not, unless our own write may be on its way.
    fn conclude_odd(&mut self, delivery: &DeliveryId, oddity: Oddity, now: Moment) {
        let known = self.credential.deliveries.entry(delivery.clone()).or_default();
        let lagging = known.written_at.is_some_and(|at| now.steady.since(at.steady) < LAG) && known.oddity.is_none();
        known.rolled_back = None;
        if lagging || known.confirmed.is_none() || known.oddity == Some(oddity) {
            return;
        }
        known.oddity = Some(oddity);
        let (what, detail) = match oddity {
            Oddity::ChangedByHand => (
                Happened::ChangedByHand,
                "it holds a value that is not from rotad: it is mended by a copy, at most hourly, or when next due",
            ),
            Oddity::Emptied => (Happened::Emptied, "it holds no value any more: it is filled again"),
        };
        self.entry(now, what, |entry| {
            entry.delivery = Some(delivery.clone());
            entry.detail = Some(detail.to_owned());
        });
    }

    /// Begins, keeps or ends the time for which every delivery shows one rotation (S2).
    pub(super) fn settle(&mut self, now: Moment) {
        let judged: Vec<Judged> =
            self.policy.deliveries.keys().map(|id| judge(&self.credential, self.policy, &self.sight, id)).collect();
        if let Some(settled) = self.credential.settled {
            let elsewhere = |judged: &Judged| !matches!(judged, Judged::Unreadable | Judged::Unread);
            let changed = judged.iter().any(|judged| elsewhere(judged) && *judged != Judged::Serves(settled.rotation));
            if changed && !broken(Breakage::GraceNotRestarted) {
                self.credential.settled = None;
            }
        }
        let Some(Judged::Serves(shown)) = judged.first().cloned() else { return };
        let everywhere = judged.iter().all(|judged| *judged == Judged::Serves(shown)) || broken(Breakage::PromotedAfterFirst);
        let known =
            self.credential.settled.is_some_and(|settled| !broken(Breakage::GraceNotRestarted) || settled.rotation == shown);
        if known || !everywhere {
            return;
        }
        let intended = self.credential.rotations.get(&shown).map(|rotation| rotation.intended_at);
        let since = intended.filter(|_| broken(Breakage::GraceFromIntent)).unwrap_or(now);
        self.credential.settled =
            Some(Settled { rotation: shown, since, grace: self.policy.grace, uncompared: self.frozen, used: false });
        if self.credential.current < Some(shown) {
            self.promote(shown, now);
        }
    }

    fn promote(&mut self, id: RotationId, now: Moment) {
        self.credential.current = Some(id);
        self.credential.issuing.reset();
        self.credential.unfit = 0;
        let rotation = self.credential.rotations.get(&id);
        let adopted = rotation.is_some_and(|rotation| rotation.adopted);
        let token = rotation.and_then(|rotation| rotation.token.as_ref()).map(|token| token.id.clone());
        if !adopted {
            self.credential.last_success_at = Some(now.wall);
        }
        self.entry(now, Happened::Promoted, |entry| {
            entry.rotation = Some(id);
            entry.token = token;
        });
    }

    /// Tells the outcome of `Action::Issue`.
    pub fn issued(&mut self, id: RotationId, outcome: IssueOutcome, now: Moment) {
        let Some(rotation) = self.credential.rotations.get_mut(&id) else { return };
        assert!(rotation.stage == Stage::Requested, "an issue was answered twice for {id}: {rotation:?}");
        match outcome {
            IssueOutcome::Refused(failed) => {
                self.credential.rotations.remove(&id);
                self.credential.issuing.failures = self.credential.issuing.failures.saturating_sub(1);
                self.credential.issuing.push(now.wall, LONGEST, failed.retry_after);
                if self.policy.lacks_account(&failed) {
                    self.sight.no_such_account = Some(failed.detail.clone());
                }
                self.forget_connection(&self.policy.account, failed.reason);
                self.failed_entry(now, Happened::IssueRefused, Some(id), &failed);
            }
            IssueOutcome::Unknown(_) if broken(Breakage::LostForgotten) => {
                self.credential.rotations.remove(&id);
            }
            IssueOutcome::Unknown(failed) => {
                rotation.stage = Stage::Lost;
                rotation.backoff = Backoff::default();
                rotation.backoff.push(now.wall, LONGEST, None);
                // The next list looks for it.
                self.sight.lists.clear();
                self.failed_entry(now, Happened::Lost, Some(id), &failed);
            }
            IssueOutcome::Issued(issued) => self.record(id, issued, now),
        }
    }

    fn record(&mut self, id: RotationId, issued: IssuedToken, now: Moment) {
        let misfit = self.misfit(id, &issued.token);
        let IssuedToken { token, fingerprint } = issued;
        let Some(rotation) = self.credential.rotations.get_mut(&id) else { return };
        let expires_at = token.expires_at.unwrap_or(jiff::Timestamp::MAX);
        rotation.token =
            Some(Token { id: token.id.clone(), created_at: token.created_at, expires_at, fingerprint: Some(fingerprint) });
        rotation.backoff = Backoff::default();
        if let Some(misfit) = misfit {
            rotation.stage = Stage::Unfit;
            self.unfit(id, &misfit, now);
            return;
        }
        let verified = self.policy.verify == super::outcome::Verify::None;
        rotation.stage = if rotation.set_up { Stage::SetUp } else { Stage::Issued { verified } };
        self.in_hand.insert(id);
        self.entry(now, Happened::Issued, |entry| {
            entry.rotation = Some(id);
            entry.token = Some(token.id);
        });
    }

    /// What is wrong with the token that was issued: unknown fields are dropped silently by this API.
    fn misfit(&self, id: RotationId, token: &ListedToken) -> Option<Failed> {
        let policy = self.policy;
        let set_up = self.credential.rotations.get(&id).is_some_and(|rotation| rotation.set_up);
        let (ttl, token_type) = if set_up { (SET_UP_LIFE, TokenType::ReadWrite) } else { (policy.ttl, policy.token_type) };
        let detail = match token.expires_at {
            None => format!("a ttl of {} s was asked for, and the token never expires", ttl.as_secs()),
            Some(expires_at) if (expires_at.duration_since(token.created_at) - ttl).abs() > TTL_TOLERANCE => {
                let got = expires_at.duration_since(token.created_at).as_secs();
                format!("a ttl of {} s was asked for, and the token lives {got} s", ttl.as_secs())
            }
            Some(_) if token.token_type != token_type => {
                format!("a token of type `{token_type}` was asked for, and one of type `{}` came", token.token_type)
            }
            Some(_) => {
                let named = token.name.as_deref().is_none_or(|name| {
                    super::words::TokenName::parse(name).is_some_and(|name| name.rotation == id && name.owner == policy.owner)
                });
                if named {
                    return None;
                }
                "the token came back under another name than asked for".to_owned()
            }
        };
        Some(Failed::new(Reason::BadAnswer, detail))
    }

    fn unfit(&mut self, id: RotationId, failed: &Failed, now: Moment) {
        self.credential.unfit = self.credential.unfit.saturating_add(1);
        self.in_hand.remove(&id);
        self.failed_entry(now, Happened::Unfit, Some(id), failed);
    }

    /// Tells the outcome of `Action::Verify`.
    pub fn verified(&mut self, id: RotationId, outcome: VerifyOutcome, now: Moment) {
        let Some(rotation) = self.credential.rotations.get_mut(&id) else { return };
        assert!(rotation.stage == Stage::Issued { verified: false }, "a verified token was verified again: {id}: {rotation:?}");
        match outcome {
            VerifyOutcome::Verified => {
                rotation.stage = Stage::Issued { verified: true };
                rotation.backoff = Backoff::default();
                self.entry(now, Happened::Verified, |entry| entry.rotation = Some(id));
            }
            VerifyOutcome::Disproved(failed) => {
                rotation.stage = Stage::Unfit;
                rotation.backoff = Backoff::default();
                self.unfit(id, &failed, now);
            }
            VerifyOutcome::Failed(failed) => {
                rotation.backoff.push(now.wall, DELIVERY_RETRY, failed.retry_after);
                self.failed_entry(now, Happened::VerifyFailed, Some(id), &failed);
            }
        }
    }

    /// Tells the outcome of `Action::Write`.
    pub fn written(&mut self, delivery: &DeliveryId, id: RotationId, outcome: WriteOutcome, now: Moment) {
        // Whatever the answer, the place must be read again before anything is concluded.
        self.sight.reads.remove(delivery);
        let Some(rotation) = self.credential.rotations.get_mut(&id) else { return };
        let attempt = rotation.attempts.entry(delivery.clone()).or_default();
        attempt.writing = None;
        match &outcome {
            WriteOutcome::Written => attempt.landed = true,
            WriteOutcome::Unknown(_) => {
                attempt.unsettled = Some(now);
                self.credential.unsettled_while_frozen |= self.frozen;
            }
            WriteOutcome::Conflict | WriteOutcome::Refused(_) => {
                if attempt.is_void() {
                    rotation.attempts.remove(delivery);
                }
            }
        }
        let known = self.credential.deliveries.entry(delivery.clone()).or_default();
        match outcome {
            WriteOutcome::Written => {
                known.written_at = Some(now);
                known.lag.reset();
                known.trouble = None;
            }
            // Not called lag: a write that may have failed is tried again, which is harmless, since
            // it is the same token under the same condition.
            WriteOutcome::Unknown(failed) => {
                self.write_failed(delivery, id, Happened::WriteUnknown, &failed, now);
            }
            WriteOutcome::Conflict => {
                let failed = Failed::new(Reason::Busy, "the place changed between read and write: it is read again");
                self.write_failed(delivery, id, Happened::WriteConflict, &failed, now);
            }
            WriteOutcome::Refused(failed) => self.write_failed(delivery, id, Happened::WriteRefused, &failed, now),
        }
    }

    fn write_failed(&mut self, delivery: &DeliveryId, id: RotationId, what: Happened, failed: &Failed, now: Moment) {
        self.trouble(delivery, Happened::WriteRefused, failed, now);
        let (reason, detail) = (failed.reason, failed.detail.clone());
        self.entry(now, what, |entry| {
            entry.rotation = Some(id);
            entry.delivery = Some(delivery.clone());
            entry.reason = Some(reason);
            entry.detail = Some(detail);
        });
    }

    fn trouble(&mut self, delivery: &DeliveryId, what: Happened, failed: &Failed, now: Moment) {
        let writing = what != Happened::ReadFailed;
        let pending = self.credential.latest().map(|(id, _)| id);
        let known = self.credential.deliveries.entry(delivery.clone()).or_default();
        let longest = if writing || known.confirmed != pending { DELIVERY_RETRY } else { LOOK_RETRY };
        let before = known.trouble.take();
        // A read that fails does not end the trouble with writing, nor its backoff.
        let writing = writing || before.as_ref().is_some_and(|trouble| trouble.writing);
        let told = before.as_ref().is_some_and(|trouble| trouble.failed.reason == failed.reason && trouble.writing == writing);
        let (since, mut backoff) = before.map_or((now.wall, Backoff::default()), |trouble| (trouble.since, trouble.backoff));
        backoff.push(now.wall, longest, failed.retry_after);
        known.trouble = Some(Trouble { since, writing, failed: failed.clone(), backoff });
        if what == Happened::ReadFailed && !told {
            let (reason, detail) = (failed.reason, failed.detail.clone());
            self.entry(now, Happened::ReadFailed, |entry| {
                entry.delivery = Some(delivery.clone());
                entry.reason = Some(reason);
                entry.detail = Some(detail);
            });
        }
    }

    /// Tells the outcome of `Action::Revoke`.
    pub fn revoked(&mut self, id: RotationId, outcome: RevokeOutcome, now: Moment) {
        match outcome {
            RevokeOutcome::Gone => {
                let Some(rotation) = self.credential.rotations.get_mut(&id) else { return };
                let token = rotation.token.as_ref().map(|token| token.id.clone());
                // A person had it revoked although it is served: as if someone else had. It is replaced at once.
                rotation.vanished = true;
                let served = self.credential.deliveries.values().any(|known| known.confirmed == Some(id));
                if !served && self.credential.latest().is_none_or(|(latest, _)| latest != id) {
                    self.credential.rotations.remove(&id);
                }
                if let Some(token) = &token {
                    self.credential.orders.revoke.remove(token);
                }
                self.entry(now, Happened::Revoked, |entry| {
                    entry.rotation = Some(id);
                    entry.token = token;
                });
            }
            RevokeOutcome::Failed(failed) => {
                let ours = self.credential.rotations.get(&id).is_some_and(|rotation| rotation.account == self.policy.account);
                if self.policy.lacks_account(&failed) && ours {
                    self.obstacle(Blocked::NoSuchAccount, failed.detail.clone());
                }
                if let Some(rotation) = self.credential.rotations.get_mut(&id) {
                    rotation.backoff.push(now.wall, LONGEST, failed.retry_after);
                }
                self.failed_entry(now, Happened::RevokeFailed, Some(id), &failed);
            }
        }
    }
}

/// Whether a write may still land: its writer is under way, or gone for less than twice its limit.
pub(super) fn may_still_land(attempt: &Attempt, write_limit: SignedDuration, now: Moment) -> bool {
    if broken(Breakage::UnsettledWritesIgnored) {
        return attempt.writing.is_some();
    }
    let unsettled = attempt.unsettled.is_some_and(|since| now.steady.since(since.steady) < write_limit * 2);
    attempt.writing.is_some() || unsettled
}

impl Rotation {
    /// A rotation that was just intended.
    pub(super) fn requested(policy: &super::policy::Policy, by: super::credential::ProcessId, now: Moment) -> Self {
        Self {
            intended_at: now,
            by,
            organization: policy.organization.clone(),
            account: policy.account.clone(),
            ttl: policy.ttl,
            token_type: Some(policy.token_type),
            stage: Stage::Requested,
            token: None,
            adopted: false,
            set_up: false,
            missing_since: None,
            vanished: false,
            attempts: std::collections::BTreeMap::new(),
            revocation_sent: false,
            backoff: Backoff::default(),
        }
    }
}
