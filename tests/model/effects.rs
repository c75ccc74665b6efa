//! What truly happens when the core asks for an action, what is answered, and what the oracle says.

use rotad::rotation::{
    Action, Conditions, DeliveryId, Failed, IssueOutcome, IssueRequest, IssuedToken, ListOutcome, ReadOutcome, Reason,
    RevokeOutcome, RotationId, Shows, TokenId, Turn, VerifyOutcome, WriteOutcome,
};

use super::faults::Kind;
use super::run::{Ended, Run, Turning};
use super::state::{Call, Flight, PATIENCE};
use crate::simulator::oracle::{Look, Scene};
use crate::simulator::sim::listed;
use crate::simulator::world::{self, Author, MINUTE, Ms, Token, fingerprint, token_index};

impl<'m> Run<'m, '_> {
    pub fn carry_out(
        &mut self,
        turning: &mut Turning<'m>,
        turn: &mut Turn<'_>,
        action: &Action,
        conditions: &Conditions,
        strike: Option<Kind>,
    ) -> Ended {
        self.tell(|| super::run::brief(action));
        match action {
            Action::List { account, .. } => {
                let outcome = self.list(strike);
                let complete = matches!(outcome, ListOutcome::Complete(_));
                turning.listed |= complete;
                let process = self.state.sites[turning.site].process.as_mut().unwrap();
                if complete && process.clock.frozen {
                    process.clock.compare();
                }
                turn.listed(account, outcome, self.moment(turning));
                Ended::Not
            }
            Action::Read { delivery } => {
                self.read(turning, turn, delivery, strike);
                Ended::Not
            }
            Action::Issue { rotation, request } => self.issue(turning, turn, *rotation, request, strike),
            Action::Verify { rotation } => {
                turn.verified(*rotation, VerifyOutcome::Verified, self.moment(turning));
                Ended::Not
            }
            Action::Connect { .. } => unreachable!("the model's tokens are read/write ones"),
            Action::Write { delivery, rotation } => self.write(turning, turn, delivery, *rotation, strike),
            Action::Revoke { rotation, token, .. } => self.revoke(turning, turn, *rotation, token, conditions, strike),
            Action::Wait { .. } => Ended::Over,
        }
    }

    fn moment(&self, turning: &Turning<'_>) -> rotad::rotation::Moment {
        self.state.sites[turning.site].process.as_ref().unwrap().clock.moment(self.state.now)
    }

    fn list(&mut self, strike: Option<Kind>) -> ListOutcome {
        if strike == Some(Kind::ListLacksPage) {
            return ListOutcome::Failed(Failed::new(Reason::BadAnswer, ""));
        }
        let hidden = self.newest_young().filter(|_| strike == Some(Kind::ListLags));
        let now = self.state.now;
        let shown = self.state.tokens.iter().enumerate().filter(|(index, token)| token.is_live(now) && Some(*index) != hidden);
        ListOutcome::Complete(shown.map(|(index, token)| listed(index, token)).collect())
    }

    fn read(&mut self, turning: &mut Turning<'m>, turn: &mut Turn<'_>, delivery: &DeliveryId, strike: Option<Kind>) {
        let now = self.state.now;
        let moment = self.moment(turning);
        if strike == Some(Kind::ReadFails) {
            turning.memo.unreadable.insert(delivery.clone());
            turning.looks.insert(delivery.clone(), Look { at: now, readable: false, value: None });
            return turn.read(delivery, ReadOutcome::Failed(Failed::new(Reason::Unavailable, "")), moment);
        }
        let place = self.state.places.iter().find(|place| place.id == *delivery).unwrap();
        let behind = usize::from(strike == Some(Kind::ReadLags));
        let seen = place.versions[place.versions.len() - 1 - behind].clone();
        let value = seen.content.value;
        turning.memo.unreadable.remove(delivery);
        turning.versions.insert(delivery.clone(), seen.number);
        let shown = value.and_then(|value| self.state.tokens.get(value)).map(|token| token.name.rotation);
        turning.memo.looked(delivery, shown, now);
        turning.memo.settle(turning.policy);
        turning.looks.insert(delivery.clone(), Look { at: now, readable: true, value });
        if let Some(value) = value
            && let Some(rotation) = turn.wants(&fingerprint(value))
        {
            self.state.sites[turning.site].process.as_mut().unwrap().hands.insert(rotation, value);
        }
        turn.read(delivery, ReadOutcome::Shows(seen.content.shows()), moment);
    }

    fn issue(
        &mut self,
        turning: &mut Turning<'m>,
        turn: &mut Turn<'_>,
        rotation: RotationId,
        request: &IssueRequest,
        strike: Option<Kind>,
    ) -> Ended {
        if self.state.tokens.iter().any(|token| token.name.rotation == rotation) {
            self.violate("S5", format!("{rotation} is asked for again"));
        }
        let ttl = request.ttl.as_millis() as Ms;
        let call = Call::Issue { name: request.name.clone(), ttl, token_type: request.token_type };
        match strike {
            Some(Kind::IssueRefused) => {
                let refused = IssueOutcome::Refused(Failed::new(Reason::Unavailable, ""));
                turn.issued(rotation, refused, self.moment(turning));
                return Ended::Not;
            }
            Some(Kind::CrashAfterSave | Kind::CrashInFlight | Kind::CrashThenAway) => {
                return self.die_sending(turning.site, call, strike);
            }
            Some(Kind::IssueLostNotDone | Kind::IssueLostDone | Kind::IssueLate) => {
                if strike == Some(Kind::IssueLostDone) {
                    self.make(turning.site, &call);
                }
                self.lose(turning.site, call, strike == Some(Kind::IssueLate));
                let lost = IssueOutcome::Unknown(Failed::new(Reason::TimedOut, ""));
                turn.issued(rotation, lost, self.moment(turning));
                return Ended::Not;
            }
            _ => {}
        }
        let index = self.make(turning.site, &call);
        let process = self.state.sites[turning.site].process.as_mut().unwrap();
        process.hands.insert(rotation, index);
        process.unsent.insert(rotation);
        turning.memo.newest = Some(rotation);
        let issued = IssuedToken { token: listed(index, &self.state.tokens[index]), fingerprint: fingerprint(index) };
        turn.issued(rotation, IssueOutcome::Issued(issued), self.moment(turning));
        Ended::Not
    }

    fn write(
        &mut self,
        turning: &mut Turning<'m>,
        turn: &mut Turn<'_>,
        delivery: &DeliveryId,
        rotation: RotationId,
        strike: Option<Kind>,
    ) -> Ended {
        let site = turning.site;
        let index = self.state.places.iter().position(|place| place.id == *delivery).unwrap();
        let limit = self.state.places[index].write_limit;
        self.judge_write(turning, index, rotation);
        let process = self.state.sites[site].process.as_mut().unwrap();
        process.unsent.remove(&rotation);
        let (Some(value), None) = (process.hands.get(&rotation).copied(), &self.violation) else { return Ended::Over };
        let expected = turning.versions.get(delivery).copied();
        let call = Call::Write { place: index, rotation, value, expected };
        turning.looks.remove(delivery);
        turning.versions.remove(delivery);
        let outcome = match strike {
            Some(Kind::WriteRefused) => WriteOutcome::Refused(Failed::new(Reason::Forbidden, "")),
            Some(Kind::CrashAfterSave | Kind::CrashInFlight | Kind::CrashThenAway) => {
                return self.die_sending(site, call, strike);
            }
            Some(Kind::WriteLostNotDone | Kind::WriteLostDone | Kind::WriteLate) => {
                if strike == Some(Kind::WriteLostDone) {
                    self.store(&call);
                }
                let late = strike == Some(Kind::WriteLate);
                let until = self.state.now + 3 * limit - 1;
                if late {
                    self.send(Flight { call, site, until });
                }
                self.advance(self.state.now + limit);
                WriteOutcome::Unknown(Failed::new(Reason::TimedOut, ""))
            }
            _ => match self.store(&call) {
                true => WriteOutcome::Written,
                false => WriteOutcome::Conflict,
            },
        };
        turn.written(delivery, rotation, outcome, self.moment(turning));
        Ended::Not
    }

    /// What may never be written: a value that is not held, a place that was not read, a token that
    /// we revoked, and over what a person put back.
    fn judge_write(&mut self, turning: &Turning<'m>, index: usize, rotation: RotationId) {
        let place = &self.state.places[index];
        let id = place.id.clone();
        let process = self.state.sites[turning.site].process.as_ref().unwrap();
        let Some(value) = process.hands.get(&rotation).copied() else {
            return self.violate("S4", format!("{rotation} is to be written, and its value is not in memory"));
        };
        if !turning.versions.contains_key(&id) {
            return self.violate("S1", format!("`{id}` is written without having been read in this turn"));
        }
        if self.state.tokens[value].ended.is_some_and(|(_, by)| by == world::Ended::ByUs) {
            return self.violate("S1", format!("t{value} is written to `{id}`, and we have revoked it"));
        }
        // It showed this when it was read, and still does.
        let look = turning.looks.get(&id).and_then(|look| look.value).filter(|value| place.value() == Some(*value));
        let explained = matches!(place.now().content.shows(), Shows::Value { rotation: Some(_), .. });
        let shown = look.filter(|_| explained).and_then(|value| self.state.tokens.get(value)).map(|token| token.name.rotation);
        let reached = turning.memo.reached.get(&id).copied();
        let back = shown.is_some_and(|shown| reached.is_some_and(|reached| shown < reached && reached >= rotation));
        let minted = world::ms_of(rotation.minted_at());
        let by_person = place.now().author == Author::Person && place.now().at > minted + MINUTE;
        if back && by_person && turning.memo.recorded.contains(&rotation) {
            self.violate(
                "roll-back",
                format!("{rotation} overwrites what a person put back into `{id}`, and is not later than that"),
            );
        }
    }

    fn revoke(
        &mut self,
        turning: &mut Turning<'m>,
        turn: &mut Turn<'_>,
        rotation: RotationId,
        token: &TokenId,
        conditions: &Conditions,
        strike: Option<Kind>,
    ) -> Ended {
        let index = token_index(token);
        let unsent = self.state.sites[turning.site].process.as_ref().unwrap().unsent.contains(&rotation);
        let never_left = unsent && !turning.memo.attempted.contains(&rotation) && !conditions.another_organization;
        let verdict = self.scene(turning).revocation(rotation, index, never_left);
        self.judge(verdict);
        let call = Call::Revoke { index, sent: self.state.now };
        let outcome = match strike {
            Some(Kind::RevokeRefused) => RevokeOutcome::Failed(Failed::new(Reason::Unavailable, "")),
            Some(Kind::CrashAfterSave | Kind::CrashInFlight | Kind::CrashThenAway) => {
                return self.die_sending(turning.site, call, strike);
            }
            Some(Kind::RevokeLostNotDone | Kind::RevokeLostDone | Kind::RevokeLate) => {
                if strike == Some(Kind::RevokeLostDone) {
                    self.delete(&call);
                }
                self.lose(turning.site, call, strike == Some(Kind::RevokeLate));
                RevokeOutcome::Failed(Failed::new(Reason::TimedOut, ""))
            }
            _ => {
                self.delete(&call);
                RevokeOutcome::Gone
            }
        };
        turn.revoked(rotation, outcome, self.moment(turning));
        Ended::Not
    }

    /// The answer does not come in time; a late call lands after that.
    fn lose(&mut self, site: usize, call: Call, late: bool) {
        self.advance(self.state.now + PATIENCE);
        if late {
            let until = self.state.now + Self::late_by(&call, &self.state.places);
            self.send(Flight { call, site, until });
        }
    }

    fn die_sending(&mut self, site: usize, call: Call, strike: Option<Kind>) -> Ended {
        let kind = strike.unwrap_or(Kind::CrashAfterSave);
        if kind != Kind::CrashAfterSave {
            let until = self.state.now + Self::late_by(&call, &self.state.places);
            self.send(Flight { call, site, until });
        }
        self.die(site, Self::absence(kind));
        Ended::Over
    }

    /// The call at this index of the flights lands.
    pub fn land(&mut self, index: usize) {
        self.landed = true;
        let flight = self.state.flights.remove(index);
        self.tell(|| format!("LANDS {:?}", flight.call));
        match &flight.call {
            Call::Issue { .. } => drop(self.make(flight.site, &flight.call)),
            Call::Write { .. } => drop(self.store(&flight.call)),
            Call::Revoke { .. } => self.delete(&flight.call),
        }
    }

    /// The API makes a token.
    fn make(&mut self, _site: usize, call: &Call) -> usize {
        let Call::Issue { name, ttl, token_type } = call else { unreachable!() };
        let index = self.state.tokens.len();
        let created = self.state.now;
        self.state.tokens.push(Token {
            name: name.clone(),
            account: 0,
            created,
            expires: created + ttl,
            token_type: *token_type,
            ended: None,
            listed_from: 0,
            by_hand: false,
        });
        self.tell(|| format!("  the API makes t{index} for {}", name.rotation));
        index
    }

    /// The place takes the value, if it holds what was read.
    fn store(&mut self, call: &Call) -> bool {
        let Call::Write { place, rotation, value, expected } = call else { unreachable!() };
        let now = self.state.now;
        let held = &mut self.state.places[*place];
        if !self.model.unconditional && *expected != Some(held.now().number) {
            return false;
        }
        held.write(now, &self.model.policies[0].owner, *value, *rotation);
        let id = held.id.clone();
        self.tell(|| format!("  t{value} lands at `{id}`"));
        if self.state.tokens[*value].ended.is_some_and(|(_, by)| by == world::Ended::ByUs) {
            self.violate("S1", format!("t{value} landed at `{id}`, and we had revoked it"));
        }
        true
    }

    /// The API revokes a token.
    fn delete(&mut self, call: &Call) {
        let Call::Revoke { index, sent } = call else { unreachable!() };
        if self.state.tokens[*index].is_live(self.state.now) {
            self.state.tokens[*index].ended = Some((self.state.now, world::Ended::ByUs));
            self.tell(|| format!("  the API revokes t{index}"));
            let verdict = Scene::revoked(&self.state.places, *index, *sent);
            self.judge(verdict);
        }
    }
}
