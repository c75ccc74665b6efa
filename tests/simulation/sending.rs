//! What is sent when the core asks for an action, and which fault it meets on its way.

use std::collections::BTreeSet;

use rotad::rotation::{
    Account, Action, Conditions, DeliveryId, Failed, InstallationId, IssueOutcome, IssueRequest, Reason, RevokeOutcome,
    RotationId, Shows, TokenType, VerifyOutcome, WriteOutcome,
};

use super::coverage::{During, Fault};
use super::oracle::Memo;
use super::setup::account_index;
use super::sim::{Effect, Event, Outcome, PATIENCE, Sim, brief};
use super::world::{Author, Ended, MINUTE, Ms, SECOND, ms_of, span, token_index};

impl Sim<'_> {
    pub fn dispatch(&mut self, credential: usize, action: Action, during: During, conditions: &Conditions) {
        self.tell(|| format!("c{credential} {}", brief(&action)));
        let process = self.process.as_ref().unwrap().id;
        let quick = self.rng.between(2, 400);
        let half = self.now + quick / 2;
        let generation = self.actors[credential].generation;
        if self.chance(self.faults.crash) {
            self.coverage.meet(Fault::CrashUnderWay, during);
            let at = self.rng.between(self.now, self.now + quick);
            self.at(at, Event::Crash(process));
        }
        let rare = if matches!(during, During::Read | During::List) { 2 } else { 40 };
        if self.faults.persons > 0 && self.chance(rare) {
            let at = self.rng.between(self.now, self.now + quick);
            self.at(at, Event::Meddle(credential));
        }
        match action {
            Action::List { account, .. } => {
                self.at(half, Event::Midway(credential, generation, Effect::List(account_index(&account))))
            }
            Action::Read { delivery } => self.at(half, Event::Midway(credential, generation, Effect::Read(delivery))),
            Action::Issue { rotation, request } => {
                let mut scene = self.scene(credential);
                scene.permitted = self.limits.passed_rotation;
                let memo = Memo { recorded: &scene.memo.recorded - &BTreeSet::from([rotation]), ..scene.memo.clone() };
                scene.memo = &memo;
                let verdict = scene.mint(rotation);
                self.judge(verdict);
                let policy = self.actors[credential].policy;
                if request.token_type == TokenType::ReadWrite && policy.token_type == TokenType::ReadScaling {
                    self.set_ups.insert(rotation);
                    if request.ttl != span(5 * MINUTE) {
                        self.violate("scaling", format!("{rotation} is to live {}, the shortest life is 5 minutes", request.ttl));
                    }
                }
                if self.tokens.iter().any(|token| token.name.rotation == rotation) {
                    self.violate("S5", format!("{rotation} is asked for again"));
                }
                let fault = self.issue_fault(&request);
                self.coverage.meet(fault, during);
                self.send_issue(credential, generation, rotation, request, fault, half);
            }
            Action::Verify { rotation } => {
                let disproved = self.chance(self.faults.provider / 4);
                let failed = !disproved && (self.api_down_until > self.now || self.chance(self.faults.provider));
                self.coverage.meet(
                    if disproved {
                        Fault::Disproved
                    } else if failed {
                        Fault::Unavailable
                    } else {
                        Fault::None
                    },
                    during,
                );
                let outcome = match (disproved, failed) {
                    (true, _) => VerifyOutcome::Disproved(Failed::new(Reason::BadAnswer, "another account")),
                    (_, true) => VerifyOutcome::Failed(Failed::new(Reason::Unavailable, "503")),
                    _ => VerifyOutcome::Verified,
                };
                self.at(self.now + quick, Event::Told(credential, generation, Outcome::Verify(rotation, outcome)));
            }
            Action::Connect { rotation, account, .. } => self.send_connect(credential, generation, rotation, &account, half),
            Action::Write { delivery, rotation } => self.send_write(credential, generation, &delivery, rotation, half),
            Action::Revoke { rotation, token, account, .. } => {
                let index = token_index(&token);
                let never_left = self.never_left.get(&index) == Some(&process)
                    && !self.journal.rows[credential].as_ref().unwrap().memo.attempted.contains(&rotation);
                // That none is ever written is judged at each write.
                let never_left = never_left || self.is_set_up(index);
                let mut scene = self.scene(credential);
                scene.permitted = self.limits.passed_revocation;
                let verdict = scene.revocation(rotation, index, never_left && !conditions.another_organization);
                self.judge(verdict);
                let fault = self.revoke_fault(account_index(&account));
                self.coverage.meet(fault, during);
                if self.actors[credential].policy.used_by_rotad {
                    self.coverage.meet(Fault::OwnToken, during);
                }
                if self.tokens[index].by_hand {
                    self.coverage.meet(Fault::MadeByHand, during);
                    if self.tokens[index].account != account_index(&account) {
                        self.violate("S3", format!("t{index} is revoked at {account}, which it does not belong to"));
                    }
                }
                let at = if fault == Fault::DoneLate { self.now + PATIENCE + self.rng.between(0, 2 * MINUTE) } else { half };
                let sent = self.now;
                self.at(at, Event::Midway(credential, generation, Effect::Revoke { rotation, index, fault, sent }));
                if fault == Fault::DoneLate {
                    let failed = RevokeOutcome::Failed(Failed::new(Reason::TimedOut, "no answer"));
                    self.at(self.now + PATIENCE, Event::Told(credential, generation, Outcome::Revoke(rotation, failed)));
                }
            }
            Action::Wait { .. } => {}
        }
    }

    fn send_connect(&mut self, credential: usize, generation: u64, rotation: RotationId, account: &Account, half: Ms) {
        let Some((_, index)) = self.actors[credential].set_up.take().filter(|(held, _)| *held == rotation) else {
            return self.violate("S4", format!("{rotation} is to be connected with, and its value is not in memory"));
        };
        let of_account = account_index(account);
        if self.tokens[index].account != of_account {
            self.violate("scaling", format!("t{index} is used at account {of_account}, which it does not belong to"));
        }
        let memo = &self.journal.rows[credential].as_ref().unwrap().memo;
        if memo.connected == Some(of_account) {
            self.violate("scaling", format!("account {of_account} is connected to for the first time once more"));
        }
        // So few connections are made that rarer faults would hardly ever meet one.
        let fails = self.faults.provider > 0 && self.chance(300);
        let fault = match (self.api_down_until > self.now, fails) {
            (true, _) => Fault::Unavailable,
            (_, true) => *self.rng.pick(&[Fault::Unavailable, Fault::LostDone]),
            _ => Fault::None,
        };
        self.coverage.meet(fault, During::Connect);
        self.at(half, Event::Midway(credential, generation, Effect::Connect { rotation, index, fault }));
    }

    pub fn is_set_up(&self, index: usize) -> bool {
        self.set_ups.contains(&self.tokens[index].name.rotation)
    }

    pub fn issue_fault(&mut self, request: &IssueRequest) -> Fault {
        if self.faults.accounts && self.chance(100) {
            self.delete_account(account_index(&request.account));
        }
        if self.accounts_gone.contains(&account_index(&request.account)) {
            return Fault::NoSuchAccount;
        }
        if self.api_down_until > self.now {
            return *self.rng.pick(&[Fault::Unavailable, Fault::LostNotDone]);
        }
        if !self.chance(self.faults.provider) {
            return Fault::None;
        }
        if self.chance(self.faults.late) {
            return Fault::DoneLate;
        }
        use Fault as F;
        *self.rng.pick(&[
            F::Throttled,
            F::Unavailable,
            F::Rejected,
            F::NameTaken,
            F::LostNotDone,
            F::LostDone,
            F::LostDone,
            F::TtlDropped,
            F::TypeDropped,
        ])
    }

    pub fn send_issue(
        &mut self,
        credential: usize,
        generation: u64,
        rotation: RotationId,
        request: IssueRequest,
        fault: Fault,
        half: Ms,
    ) {
        let told = |outcome| Event::Told(credential, generation, Outcome::Issue(rotation, outcome, None));
        let refused = |reason, detail: &str| IssueOutcome::Refused(Failed::new(reason, detail));
        let lost = || IssueOutcome::Unknown(Failed::new(Reason::TimedOut, "no answer"));
        match fault {
            Fault::Throttled => {
                let failed = Failed::new(Reason::Throttled, "429").retry_after(Some(span(30 * SECOND)));
                self.at(half, told(IssueOutcome::Refused(failed)));
            }
            Fault::Unavailable => self.at(half, told(refused(Reason::Unreachable, "no connection"))),
            Fault::Rejected => self.at(half, told(refused(Reason::Rejected, "400"))),
            Fault::NameTaken => self.at(half, told(refused(Reason::NameTaken, "409"))),
            Fault::NoSuchAccount => self.at(half, told(refused(Reason::NoSuchAccount, "404"))),
            Fault::LostNotDone => self.at(self.now + PATIENCE, told(lost())),
            Fault::DoneLate => {
                let until = if self.rng.permille(200) { 50 * MINUTE } else { 2 * MINUTE };
                let at = self.now + PATIENCE + self.rng.between(0, until);
                self.at(self.now + PATIENCE, told(lost()));
                self.at(at, Event::Midway(credential, generation, Effect::Issue { rotation, request, fault }));
            }
            _ => self.at(half, Event::Midway(credential, generation, Effect::Issue { rotation, request, fault })),
        }
    }

    pub fn revoke_fault(&mut self, account: usize) -> Fault {
        if self.faults.accounts && self.chance(100) {
            self.delete_account(account);
        }
        if self.accounts_gone.contains(&account) {
            return Fault::NoSuchAccount;
        }
        if self.api_down_until > self.now {
            return Fault::LostNotDone;
        }
        if !self.chance(self.faults.provider) {
            return Fault::None;
        }
        if self.chance(self.faults.late) {
            return Fault::DoneLate;
        }
        *self.rng.pick(&[Fault::Throttled, Fault::Unavailable, Fault::LostNotDone, Fault::LostDone])
    }

    pub fn send_write(&mut self, credential: usize, generation: u64, delivery: &DeliveryId, rotation: RotationId, half: Ms) {
        let process = self.process.as_ref().unwrap();
        let (writer, held) = (process.id, process.hands[credential].get(&rotation).copied());
        let Some(value) = held else {
            return self.violate("S4", format!("{rotation} is to be written, and its value is not in memory"));
        };
        let index = self.places.iter().position(|place| place.id == *delivery).unwrap();
        let place = &self.places[index];
        let (limit, down) = (place.write_limit, place.unwritable_until > self.now);
        let expected = self.actors[credential].read_versions.get(delivery).copied();
        if expected.is_none() {
            return self.violate("S1", format!("`{delivery}` is written without having been read in this turn"));
        }
        let expected = expected.filter(|_| place.conditional);
        let memo = &self.journal.rows[credential].as_ref().unwrap().memo;
        let look = self.actors[credential].looks.get(delivery).and_then(|look| look.value);
        let explained = matches!(place.now().content.shows(), Shows::Value { rotation: Some(_), .. });
        let shown = look
            .filter(|_| explained && look == place.value())
            .and_then(|value| self.tokens.get(value))
            .map(|token| token.name.rotation);
        let back = shown.filter(|shown| memo.reached.get(delivery).is_some_and(|reached| shown < reached));
        let minted = ms_of(rotation.minted_at());
        // Where it never arrived, an earlier one may as well mean that our write failed.
        let back = back.filter(|shown| memo.resumed.get(delivery) != Some(shown));
        let back = back.filter(|_| memo.reached.get(delivery).is_some_and(|reached| *reached >= rotation));
        let theirs = look
            .and_then(|value| self.tokens.get(value))
            .is_some_and(|token| token.name.rotation.installation() == InstallationId(0x0bad_cafe));
        if back.is_some()
            && !theirs
            && place.now().author == Author::Person
            && place.now().at > minted + MINUTE
            && memo.recorded.contains(&rotation)
        {
            self.violate(
                "roll-back",
                format!("{rotation} overwrites what a person put back into `{delivery}`, and is not later than that"),
            );
        }
        if self.tokens[value].ended.is_some_and(|(_, by)| by == Ended::ByUs) {
            self.violate("S1", format!("t{value} is written to `{delivery}`, and we have revoked it"));
        }
        let token = &self.tokens[value];
        if self.is_set_up(value) || (token.token_type == TokenType::ReadScaling && !self.connected.contains(&token.account)) {
            let detail = format!(
                "t{value} is written to `{delivery}`, and it does not work: account {} was never connected to",
                token.account
            );
            self.violate("scaling", detail);
        }
        let fault = if down {
            *self.rng.pick(&[Fault::Refused, Fault::LostNotDone])
        } else if self.chance(self.faults.sink) {
            if self.chance(self.faults.late) {
                Fault::DoneLate
            } else {
                *self.rng.pick(&[Fault::Refused, Fault::LostNotDone, Fault::LostDone])
            }
        } else {
            Fault::None
        };
        self.never_left.remove(&value);
        self.coverage.meet(fault, During::Write);
        let told = |outcome| Event::Told(credential, generation, Outcome::Write(delivery.clone(), rotation, outcome));
        let unknown = || WriteOutcome::Unknown(Failed::new(Reason::TimedOut, "no answer"));
        let latest = self.now + 3 * limit;
        let effect = Effect::Write { place: index, rotation, value, expected, fault, writer, latest };
        match fault {
            Fault::Refused => self.at(half, told(WriteOutcome::Refused(Failed::new(Reason::Forbidden, "403")))),
            Fault::LostNotDone => self.at(self.now + limit, told(unknown())),
            Fault::LostDone => {
                self.at(half, Event::Midway(credential, generation, effect));
                self.at(self.now + limit, told(unknown()));
            }
            Fault::DoneLate => {
                let ended = self.now + self.rng.between(0, limit);
                let lands = ended + self.rng.between(0, 2 * limit - 1);
                self.at(ended, told(unknown()));
                self.at(lands, Event::Midway(credential, generation, effect));
            }
            _ => self.at(half, Event::Midway(credential, generation, effect)),
        }
    }
}
