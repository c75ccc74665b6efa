//! What truly happens at the API and in the places, and what is answered.

use rotad::rotation::{
    DeliveryId, Failed, IssueOutcome, IssueRequest, IssuedToken, ListOutcome, ReadOutcome, Reason, RevokeOutcome, RotationId,
    TokenType, VerifyOutcome, WriteOutcome,
};

use super::coverage::{During, Fault};
use super::oracle::{Look, Scene};
use super::setup::account_index;
use super::sim::{Effect, Event, NEVER, Outcome, Sim, listed};
use super::world::{Ended, Ms, SECOND, Token, fingerprint, span};

impl Sim<'_> {
    pub fn midway(&mut self, credential: usize, generation: u64, effect: Effect) {
        let told_at = self.now + self.rng.between(1, 300);
        let outcome = match effect {
            Effect::List(account) => Some(Outcome::List(account, self.list(account))),
            Effect::Read(delivery) => Some(self.look(credential, delivery)),
            Effect::Issue { rotation, request, fault } => self.create(rotation, request, fault),
            Effect::Write { place, rotation, value, expected, fault, writer, latest } => {
                let limit = self.places[place].write_limit;
                let latest = self.died.get(&writer.0).map_or(latest, |died| latest.min(died + 2 * limit));
                self.land(credential, place, rotation, value, expected, fault, latest)
            }
            Effect::Revoke { rotation, index, fault, sent } => self.delete(rotation, index, fault, sent),
            Effect::Connect { rotation, index, fault } => Some(Outcome::Connect(rotation, self.connect(index, fault))),
        };
        if let Some(outcome) = outcome {
            self.at(told_at, Event::Told(credential, generation, outcome));
        }
    }

    pub fn list(&mut self, account: usize) -> ListOutcome {
        let failed = |reason, detail: &str| ListOutcome::Failed(Failed::new(reason, detail));
        if self.accounts_gone.contains(&account) {
            self.coverage.meet(Fault::NoSuchAccount, During::List);
            return failed(Reason::NoSuchAccount, "404 NOT_FOUND");
        }
        if self.api_down_until > self.now || self.chance(self.faults.provider) {
            let fault = *self.rng.pick(&[Fault::Throttled, Fault::Unavailable, Fault::Incomplete]);
            self.coverage.meet(fault, During::List);
            return match fault {
                Fault::Throttled => {
                    ListOutcome::Failed(Failed::new(Reason::Throttled, "429").retry_after(Some(span(20 * SECOND))))
                }
                Fault::Unavailable => failed(Reason::Unavailable, "503"),
                _ => failed(Reason::BadAnswer, "a page is missing"),
            };
        }
        let of_account = self.tokens.iter().enumerate().filter(|(_, token)| token.account == account && token.is_live(self.now));
        let (shown, lagging): (Vec<_>, Vec<_>) = of_account.partition(|(_, token)| token.listed_from <= self.now);
        let listed = shown.into_iter().map(|(index, token)| listed(index, token)).collect();
        let fault = if lagging.is_empty() { Fault::None } else { Fault::Lagging };
        self.coverage.meet(fault, During::List);
        ListOutcome::Complete(listed)
    }

    pub fn look(&mut self, credential: usize, delivery: DeliveryId) -> Outcome {
        let fails = self.chance(self.faults.sink);
        let index = self.places.iter().position(|place| place.id == delivery).unwrap();
        if fails || self.places[index].unreadable_until > self.now {
            self.coverage.meet(Fault::Unreadable, During::Read);
            let failed = ReadOutcome::Failed(Failed::new(Reason::Unavailable, "sealed"));
            return Outcome::Read(delivery, failed, Look { at: self.now, readable: false, value: None }, 0);
        }
        let behind = if self.places[index].lag > 0 { self.rng.between(0, self.places[index].lag) } else { 0 };
        let place = &self.places[index];
        let seen =
            place.versions.iter().rev().find(|version| version.at <= self.now - behind).unwrap_or(&place.versions[0]).clone();
        let lags = seen.number != place.now().number;
        self.coverage.meet(if lags { Fault::Lagging } else { Fault::None }, During::Read);
        let value = if seen.content.scheduled_for_deletion { None } else { seen.content.value };
        self.tell(|| {
            format!(
                "c{credential} `{delivery}` holds {:?}{}",
                value.map(|v| format!("t{v}")),
                if lags { " (as it was)" } else { "" }
            )
        });
        let look = Look { at: self.now, readable: true, value };
        Outcome::Read(delivery, ReadOutcome::Shows(seen.content.shows()), look, seen.number)
    }

    pub fn create(&mut self, rotation: RotationId, request: IssueRequest, fault: Fault) -> Option<Outcome> {
        let ttl = request.ttl.as_millis() as Ms;
        let expires = if fault == Fault::TtlDropped { NEVER } else { self.now + ttl };
        let token_type = match (fault, request.token_type) {
            (Fault::TypeDropped, TokenType::ReadScaling) => TokenType::ReadWrite,
            (Fault::TypeDropped, TokenType::ReadWrite) => TokenType::ReadScaling,
            (_, asked) => asked,
        };
        let late = if self.chance(100) { self.rng.between(0, 30 * SECOND) } else { 0 };
        let account = account_index(&request.account);
        if self.accounts_gone.contains(&account) {
            return None;
        }
        let index = self.tokens.len();
        self.tokens.push(Token {
            name: request.name,
            account,
            created: self.now,
            expires,
            token_type,
            ended: None,
            listed_from: self.now + late,
            by_hand: false,
        });
        self.tell(|| format!("the API makes t{index} for {rotation} ({fault:?})"));
        if expires < NEVER {
            self.at(expires, Event::Expires(index));
        }
        match fault {
            Fault::DoneLate => None,
            Fault::LostDone => {
                let lost = IssueOutcome::Unknown(Failed::new(Reason::BadAnswer, "the connection broke"));
                Some(Outcome::Issue(rotation, lost, None))
            }
            _ => {
                let issued = IssuedToken { token: listed(index, &self.tokens[index]), fingerprint: fingerprint(index) };
                Some(Outcome::Issue(rotation, IssueOutcome::Issued(issued), Some(index)))
            }
        }
    }

    /// A read/write token of the account that lives is let in, and from then on its read-scaling tokens work.
    fn connect(&mut self, index: usize, fault: Fault) -> VerifyOutcome {
        let Token { account, token_type, .. } = self.tokens[index];
        if !self.tokens[index].is_live(self.now) || token_type != TokenType::ReadWrite {
            return VerifyOutcome::Disproved(Failed::new(Reason::Revoked, "refused"));
        }
        if fault != Fault::Unavailable {
            self.connected.insert(account);
            self.tell(|| format!("account {account} is connected to with t{index} ({fault:?})"));
        }
        match fault {
            Fault::None => VerifyOutcome::Verified,
            _ => VerifyOutcome::Failed(Failed::new(Reason::Unreachable, "the connection broke")),
        }
    }

    #[allow(clippy::too_many_arguments)] // one write, as it was sent
    pub fn land(
        &mut self,
        credential: usize,
        place: usize,
        rotation: RotationId,
        value: usize,
        expected: Option<u64>,
        fault: Fault,
        latest: Ms,
    ) -> Option<Outcome> {
        if self.now > latest {
            return None;
        }
        let owner = self.actors[credential].policy.owner.clone();
        let delivery = self.places[place].id.clone();
        let told = |outcome| (fault == Fault::None).then(|| Outcome::Write(delivery.clone(), rotation, outcome));
        let held = &mut self.places[place];
        if expected.is_some_and(|expected| expected != held.now().number) {
            self.coverage.meet(Fault::Conflict, During::Write);
            return told(WriteOutcome::Conflict);
        }
        if held.now().content.scheduled_for_deletion {
            return told(WriteOutcome::Refused(Failed::new(Reason::Unsuitable, "scheduled for deletion")));
        }
        held.write(self.now, &owner, value, rotation);
        let id = held.id.clone();
        self.tell(|| format!("t{value} lands at `{id}` ({fault:?})"));
        if self.tokens[value].ended.is_some_and(|(_, by)| by == Ended::ByUs) {
            self.violate("S1", format!("t{value} landed at place {place}, and we had revoked it"));
        }
        told(WriteOutcome::Written)
    }

    pub fn delete(&mut self, rotation: RotationId, index: usize, fault: Fault, sent: Ms) -> Option<Outcome> {
        let failed = |reason, detail: &str| Outcome::Revoke(rotation, RevokeOutcome::Failed(Failed::new(reason, detail)));
        match fault {
            Fault::Throttled => return Some(failed(Reason::Throttled, "429")),
            Fault::Unavailable => return Some(failed(Reason::Unavailable, "503")),
            Fault::NoSuchAccount => return Some(failed(Reason::NoSuchAccount, "404")),
            Fault::LostNotDone => return Some(failed(Reason::TimedOut, "no answer")),
            _ => {}
        }
        if self.tokens[index].is_live(self.now) {
            self.tokens[index].ended = Some((self.now, Ended::ByUs));
            self.tell(|| format!("the API revokes t{index}, as we asked ({fault:?})"));
            // Of a place that is not configured any more a new journal knows nothing, and the operator still lists the id.
            let forgotten = self.journal_struck && self.tokens[index].by_hand;
            let judged: Vec<_> = match forgotten {
                true => self.configured().cloned().collect(),
                false => self.places.clone(),
            };
            let verdict = Scene::revoked(&judged, index, sent);
            self.judge(verdict);
            if self.recovered {
                self.check_served("after a revocation");
            }
        }
        match fault {
            Fault::DoneLate => None,
            Fault::LostDone => Some(failed(Reason::BadAnswer, "the connection broke")),
            _ => Some(Outcome::Revoke(rotation, RevokeOutcome::Gone)),
        }
    }
}
