//! Whether a new token is due, and whether it may be asked for now.

use jiff::{SignedDuration, Timestamp};

use super::answers::may_still_land;
use super::backoff::LONGEST;
use super::breakage::{Breakage, broken};
use super::credential::{Blocked, Credential, Delivery, Rotation, Stage};
use super::entry::Happened;
use super::judge::{Judged, judge};
use super::outcome::IssueRequest;
use super::policy::Policy;
use super::reason::{Due, PutOff, Why};
use super::revoke::use_recheck;
use super::turn::{Action, Conditions, Limits, Turn};
use super::words::{DeliveryId, Moment, RotationId, TokenName};

/// How soon to ask again while the clocks disagree, which may take days until a person sets them.
const FROZEN_RECHECK: SignedDuration = SignedDuration::from_secs(60);
/// By how much our clock and the API's may differ without a freeze (design: Clocks).
const SKEW_TOLERATED: SignedDuration = SignedDuration::from_secs(60);
/// The second unfit token in a row blocks: the API drops what we ask for.
const UNFIT_MAX: u32 = 2;

/// `expiry - grace - margin` of a token: the last safe moment to have rotated.
pub fn deadline(expires_at: Timestamp, policy: &Policy) -> Timestamp {
    expires_at.checked_sub(policy.grace + policy.margin()).unwrap_or(Timestamp::MIN)
}

/// When the newest token is due to be replaced by schedule, window, deadline and orders alone.
pub fn due_by_time(credential: &Credential, policy: &Policy, now: Timestamp) -> Option<Due> {
    let (latest, rotation) = credential.latest()?;
    let mut deadline = deadline(rotation.token.as_ref()?.expires_at, policy);
    if broken(Breakage::DeadlineIgnored) {
        deadline = Timestamp::MAX;
    }
    let pause = credential.orders.pause(now);
    if let Some(pause) = pause.filter(|pause| pause.let_expire) {
        deadline = deadline.max(pause.until);
    }
    if deadline <= now {
        let why = if is_undelivered(credential, policy, latest) { Why::Undelivered } else { Why::Deadline };
        return Some(Due { urgent: true, ..Due::new(why, deadline) });
    }
    if credential.orders.rotate_after.is_some_and(|after| after >= latest) {
        return Some(Due::new(Why::Ordered, now));
    }
    if is_undelivered(credential, policy, latest) {
        return Some(Due::new(Why::Undelivered, deadline));
    }
    // Ours may have been wrong when the rotation was intended: then the API's holds. Within what is tolerated
    // ours does: by one that is slower than ours the token would be from before the time that it was due at.
    let created_at = rotation.token.as_ref()?.created_at;
    let by_the_api = created_at.checked_add(SKEW_TOLERATED).unwrap_or(created_at);
    let basis = rotation.intended_at.wall.min(by_the_api).max(credential.scheduled_from.unwrap_or(Timestamp::MIN));
    let scheduled = Due::scheduled(policy, basis, pause.map(|pause| pause.until), now);
    Some(scheduled.filter(|due| due.at < deadline).unwrap_or(Due::new(Why::Deadline, deadline)))
}

/// Whether a delivery lacks the newest token, so that no newer one is asked for before the deadline.
fn is_undelivered(credential: &Credential, policy: &Policy, latest: RotationId) -> bool {
    let undelivered = policy.deliveries.keys().any(|id| {
        let Some(known) = credential.deliveries.get(id) else { return true };
        let unwritable = known.trouble.as_ref().is_some_and(|trouble| trouble.writing);
        // A delivery that was rolled back under the newest token waits for a later one: it does not put
        // the schedule off. One that was rolled back before is being brought the newest.
        let waits = known.rolled_back.is_some_and(|rolled| rolled.under >= latest);
        !waits && (known.confirmed != Some(latest) || unwritable)
    });
    // A value that was delivered and that no delivery holds any more can't be brought to the others:
    // that is no delivery that can't be written, so the schedule holds.
    let confirmed = |known: &&Delivery| known.confirmed == Some(latest);
    let holds = |known: &Delivery| known.oddity.is_none() && known.rolled_back.is_none();
    let homeless = credential.deliveries.values().any(|known| confirmed(&known))
        && !credential.deliveries.values().filter(confirmed).any(holds);
    undelivered && !homeless
}

impl Turn<'_> {
    /// Asks for a new token, if one is due and nothing speaks against it.
    pub(super) fn issue(&mut self, now: Moment, random: u64, conditions: &Conditions, limits: &mut dyn Limits) -> Option<Action> {
        let due = self.due(now);
        if due.at > now.wall {
            self.wake_at(due.at);
            return None;
        }
        if self.is_blocked_from_issuing(due, now, conditions) {
            return None;
        }
        // S7: under the same claim the account is listed, and what can be read was read.
        if !broken(Breakage::IssuedUnlisted) {
            if let Some(list) = self.list(now) {
                return Some(list);
            }
            self.sight.complete_list(&self.policy.account)?;
        }
        if self.has_too_many_tokens(due) {
            return None;
        }
        if let Some(until) = self.credential.issuing.wait(now.wall) {
            self.wake_at(until);
            return None;
        }
        // While the clocks disagree, the deadline of every token may seem to have passed: then the limit
        // holds, so that a clock that is wrong does not replace them all at once.
        if let Err(until) = limits.rotation(now.wall, due.urgent && !conditions.frozen) {
            self.wake_at(until);
            self.limited = Some(until);
            // The deadline goes before the limit.
            if let Some((_, rotation)) = self.credential.latest()
                && let Some(token) = &rotation.token
            {
                let at = deadline(token.expires_at, self.policy);
                self.wake_at(at);
            }
            return None;
        }
        if self.needs_connection() {
            return Some(self.begin_set_up(now, random, due));
        }
        Some(self.begin_issue(now, random, due))
    }

    /// An id later than every known one.
    pub(super) fn mint(&self, now: Moment, random: u64, again: Breakage) -> RotationId {
        let named = self.sight.named_rotations(self.names()).max();
        let minted = RotationId::mint(now.wall, self.credential.newest.max(named), self.facts.installation, random);
        let lost = self.credential.rotations.iter().find(|(_, rotation)| rotation.stage == Stage::Lost);
        lost.filter(|_| broken(again)).map_or(minted, |(id, _)| *id)
    }

    /// Counted at the intent, so that a crash in a loop waits longer each time as well.
    pub(super) fn intend(&mut self, id: RotationId, rotation: Rotation, due: Due, now: Moment) {
        if due.urgent {
            self.entry(now, Happened::DeadlineForced, |entry| {
                entry.rotation = Some(id);
                entry.detail =
                    Some("the token's deadline has passed: it is replaced whatever schedule, window and limits say".to_owned());
            });
        }
        self.credential.note_newest(id);
        self.credential.rotations.insert(id, rotation);
        self.credential.issuing.push(now.wall, LONGEST, None);
    }

    fn begin_issue(&mut self, now: Moment, random: u64, due: Due) -> Action {
        let rotation = self.mint(now, random, Breakage::RequestSentAgain);
        self.intend(rotation, Rotation::requested(self.policy, self.facts.process, now), due, now);
        self.entry(now, Happened::Intended, |entry| entry.rotation = Some(rotation));
        let request = IssueRequest {
            organization: self.policy.organization.clone(),
            account: self.policy.account.clone(),
            name: TokenName { owner: self.policy.owner.clone(), rotation },
            token_type: self.policy.token_type,
            ttl: self.policy.ttl,
        };
        Action::Issue { rotation, request }
    }

    /// When a new token is due, by what is known and was seen in this turn.
    pub fn due(&self, now: Moment) -> Due {
        // A pause that lets tokens expire puts off even what a consumer can't do without.
        let put_off = self.credential.orders.pause(now.wall).filter(|pause| pause.let_expire).map(|pause| pause.until);
        let at_once = |why| Due {
            at: put_off.unwrap_or(now.wall),
            put_off: [put_off.map(|until| PutOff::Pause { until }), None],
            ..Due::new(why, now.wall)
        };
        let Some((latest, rotation)) = self.credential.latest() else { return at_once(Why::First) };
        let unwritable = |known: &Delivery| known.trouble.as_ref().is_some_and(|trouble| trouble.writing);
        if broken(Breakage::FailedDeliveryMints) && self.credential.deliveries.values().any(unwritable) {
            return at_once(Why::Schedule);
        }
        if broken(Breakage::DueAtStart) && now.steady.since(self.facts.process_since.steady) < SignedDuration::from_secs(60) {
            return at_once(Why::Schedule);
        }
        let by_time = due_by_time(&self.credential, self.policy, now.wall).unwrap_or_else(|| at_once(Why::First));
        if by_time.urgent
            && self.frozen
            && let Some(due) = self.due_by_its_age(rotation, now)
        {
            return due;
        }
        if !by_time.urgent && (rotation.vanished || self.is_gone(latest, rotation, now)) {
            return at_once(Why::Gone);
        }
        by_time
    }

    /// While the clocks disagree, the one that is believed may be wrong. A token that the same clock saw
    /// asked for lately is not past its deadline, whatever its expiry says: without this, each new token
    /// would be replaced as soon as it is there. `None` where its age says nothing against it.
    fn due_by_its_age(&self, rotation: &Rotation, now: Moment) -> Option<Due> {
        let asked_at = rotation.intended_at.wall;
        let at = deadline(asked_at.checked_add(self.policy.ttl).ok()?, self.policy);
        (asked_at <= now.wall && now.wall < at).then_some(Due::new(Why::Deadline, at))
    }

    /// S7's exception: a delivery holds nothing, and no other place can supply the value.
    fn is_gone(&self, latest: RotationId, rotation: &Rotation, now: Moment) -> bool {
        let judged = |id: &DeliveryId| judge(&self.credential, self.policy, &self.sight, id);
        let mut empty = false;
        for id in self.policy.deliveries.keys() {
            match judged(id) {
                Judged::Serves(shown) if shown == latest => return false,
                Judged::Unreadable | Judged::Unread => return false,
                Judged::Nothing => empty = true,
                _ => {}
            }
        }
        let landing = rotation.attempts.iter().any(|(id, attempt)| {
            let limit = self.policy.deliveries.get(id).map(|wanted| wanted.write_limit);
            limit.is_some_and(|limit| may_still_land(attempt, limit, now))
        });
        // One read that showed our write does not keep the next one from lagging behind it.
        let just_written =
            |known: &Delivery| known.written_at.is_some_and(|at| now.steady.since(at.steady) < super::answers::LAG);
        let lagging = self.credential.deliveries.values().any(just_written);
        empty && !self.in_hand.contains(&latest) && !landing && !lagging
    }

    fn is_blocked_from_issuing(&mut self, due: Due, now: Moment, conditions: &Conditions) -> bool {
        if self.obstacles.contains_key(&Blocked::NoSuchAccount) {
            return true;
        }
        if conditions.frozen && !due.urgent && !broken(Breakage::FreezeIgnored) {
            self.wake_at(now.wall + FROZEN_RECHECK);
            return true;
        }
        if self.waits_for_a_person_to_connect() {
            return true;
        }
        if self.waits_for_use(due, conditions) {
            self.wake_at(now.wall + use_recheck(conditions));
            return true;
        }
        if self.credential.unfit >= UNFIT_MAX {
            let detail =
                "twice in a row the API issued a token that is not what was asked for: see the history; tried again hourly";
            self.obstacle(Blocked::UnfitToken, detail);
            let hourly = now.wall + LONGEST;
            let until = self.credential.issuing.until.get_or_insert(hourly);
            if self.credential.issuing.failures < 12 {
                // As slow as the backoff gets, once.
                self.credential.issuing.failures = 12;
                *until = hourly;
            }
        }
        let person = [Blocked::SecondInstallation, Blocked::OwnedByOther, Blocked::ScheduledForDeletion, Blocked::TakeOverNeeded];
        if !due.urgent && person.iter().any(|reason| self.obstacles.contains_key(reason)) {
            return true;
        }
        // With nothing readable, a new token could not be delivered either.
        let readable = |id: &DeliveryId| {
            !matches!(
                judge(&self.credential, self.policy, &self.sight, id),
                Judged::Unreadable | Judged::Unread | Judged::OwnedBy(_)
            )
        };
        !self.policy.deliveries.keys().any(readable) && !broken(Breakage::IssuedUnread)
    }

    /// What rotad itself calls with is replaced while all is well, unless it is gone or would expire.
    fn waits_for_use(&self, due: Due, conditions: &Conditions) -> bool {
        if !self.policy.used_by_rotad || due.urgent || due.why == Why::Gone {
            return false;
        }
        let judged: Vec<Judged> =
            self.policy.deliveries.keys().map(|id| judge(&self.credential, self.policy, &self.sight, id)).collect();
        if judged.iter().all(|judged| *judged == Judged::Nothing) {
            return false;
        }
        // One that was put there by a person has to be in use as well, and can't be told by its fingerprint.
        let latest = self.credential.latest().map(|(latest, _)| latest).filter(|id| judged.contains(&Judged::Serves(*id)));
        let used = latest.map_or(conditions.in_use.is_some(), |latest| self.is_in_use(latest, conditions));
        !used || conditions.others_blocked
    }

    /// L2: so many live tokens, and lost ones that may live, and no more.
    fn has_too_many_tokens(&mut self, due: Due) -> bool {
        let lost =
            self.credential.rotations.values().filter(|rotation| rotation.stage == Stage::Lost && !rotation.vanished).count();
        let live = self.credential.seen.live as usize + lost;
        if live < self.policy.tokens_max {
            return false;
        }
        let detail = format!(
            "{live} tokens of this credential are live or lost, {} are the most: revoke what is not needed",
            self.policy.tokens_max
        );
        self.obstacle(Blocked::TooManyTokens, detail);
        !due.urgent || live >= 2 * self.policy.tokens_max
    }
}
