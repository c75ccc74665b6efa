//! MotherDuck's API, simulated: what it keeps, what it answers, and what it does without answering.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use rotad::motherduck::Provider;
use rotad::rotation::{
    Account, Failed, IssueOutcome, IssueRequest, IssuedToken, ListOutcome, Reason, RevokeOutcome, TokenId, TokenType, Verify,
    VerifyOutcome,
};
use rotad::secret::Secret;
use tokio::sync::oneshot;

use super::claim::{Claim, wait};
use super::matrix::{Fault, Step};
use super::setup::organization_of;
use super::world::{Met, World, value};
use crate::simulator::setup::account_index;
use crate::simulator::sim::{NEVER, listed};
use crate::simulator::world::{Ended, MINUTE, Ms, SECOND, Token, stamp, token_index};

/// How long the client waits for an answer, as the real one does.
pub const PATIENCE: Ms = 30 * SECOND;
/// Accounts of other organizations are counted from here on, as many for each of those.
const ELSEWHERE: usize = 1 << 32;

/// The account of the same name in the other organization of this number, from 1 on.
fn elsewhere(account: usize, number: usize) -> usize {
    account + number * ELSEWHERE
}

/// The account in our organization that has the name of one that is elsewhere.
pub fn namesake(account: usize) -> Option<usize> {
    (account >= ELSEWHERE).then_some(account % ELSEWHERE)
}

pub struct SimProvider {
    pub claim: Arc<Claim>,
    /// Of `ORGANIZATIONS`.
    pub organization: usize,
}

/// The failure that a fault shows as.
pub fn failure(fault: Fault) -> Option<Failed> {
    let failed = |reason, detail: &str| Some(Failed::new(reason, detail));
    match fault {
        Fault::Throttled => failed(Reason::Throttled, "429"),
        Fault::ThrottledUntil => Some(Failed::new(Reason::Throttled, "429").retry_after(Some(SignedDuration::from_secs(45)))),
        Fault::Unavailable => failed(Reason::Unavailable, "503"),
        Fault::Unauthorized => failed(Reason::Unauthorized, "401"),
        Fault::Unreachable => failed(Reason::Unreachable, "no connection"),
        Fault::Rejected => failed(Reason::Rejected, "400"),
        Fault::NameTaken => failed(Reason::NameTaken, "409"),
        Fault::PageMissing => failed(Reason::BadAnswer, "a page is missing"),
        _ => None,
    }
}

fn no_answer() -> Failed {
    Failed::new(Reason::TimedOut, "no answer within the time limit")
}

fn no_such_account() -> Failed {
    Failed::new(Reason::NoSuchAccount, "404 NOT_FOUND")
}

impl World {
    /// The account as the admin token of its organization sees it.
    fn seen_account(&self, account: usize) -> usize {
        if self.is_wrong(account) { elsewhere(account, self.others) } else { account }
    }

    pub fn is_wrong(&self, account: usize) -> bool {
        self.wrong_organization == Some(organization_of(account))
    }

    fn list(&mut self, account: usize) -> ListOutcome {
        if self.accounts_gone.contains(&account) {
            return ListOutcome::Failed(no_such_account());
        }
        let account = self.seen_account(account);
        let live = self.live_of(account);
        let now = self.now;
        let (shown, lagging): (Vec<usize>, Vec<usize>) =
            live.into_iter().partition(|index| self.tokens[*index].listed_from <= now);
        self.lagged = !lagging.is_empty();
        ListOutcome::Complete(shown.into_iter().map(|index| listed(index, &self.tokens[index])).collect())
    }

    /// The request reaches the API.
    fn create(&mut self, credential: usize, request: IssueRequest, fault: Option<Fault>) -> Result<usize, Failed> {
        let account = account_index(&request.account);
        if self.accounts_gone.contains(&account) {
            return Err(no_such_account());
        }
        let account = self.seen_account(account);
        let expires = if fault == Some(Fault::TtlDropped) { NEVER } else { self.now + request.ttl.as_millis() as Ms };
        let token_type = match (fault, request.token_type) {
            (Some(Fault::TypeDropped), TokenType::ReadScaling) => TokenType::ReadWrite,
            (Some(Fault::TypeDropped), TokenType::ReadWrite) => TokenType::ReadScaling,
            (_, asked) => asked,
        };
        let late = self.setup.list_lag;
        let late = if late > 0 { self.latency_rng().between(0, late) } else { 0 };
        let (now, rotation) = (self.now, request.name.rotation);
        let token = Token {
            name: request.name,
            account,
            created: now,
            expires,
            token_type,
            ended: None,
            listed_from: now + late,
            by_hand: false,
        };
        let index = self.add_token(token);
        self.rotations += 1;
        self.tell(Some(credential), || format!("the API makes t{index} for {rotation}"));
        if expires < NEVER {
            self.signal(super::world::Signal::Expires(expires, index));
        }
        self.count_live(credential, account);
        Ok(index)
    }

    /// A DELETE reaches the API.
    fn delete(&mut self, credential: usize, account: usize, index: usize, sent: Ms) -> Result<(), Failed> {
        if self.accounts_gone.contains(&account) {
            return Err(no_such_account());
        }
        let seen = self.seen_account(account);
        if self.tokens.get(index).is_some_and(|token| token.account == seen && token.is_live(self.now)) {
            self.tokens[index].ended = Some((self.now, Ended::ByUs));
            self.tell(Some(credential), || format!("the API revokes t{index}"));
            self.judge_revoked(credential, index, sent);
        }
        Ok(())
    }
}

fn in_words(outcome: &ListOutcome) -> String {
    match outcome {
        ListOutcome::Complete(tokens) => tokens.iter().map(|token| token.id.0.as_str()).collect::<Vec<_>>().join(" "),
        ListOutcome::Failed(failed) => failed.to_string(),
    }
}

impl SimProvider {
    /// An answer of the API carries its `Date`.
    fn saw_date(&self, sent_back: Ms) {
        let now = self.claim.sim.time.now() - sent_back;
        self.claim.clock.saw_api_date(stamp(now - now.rem_euclid(SECOND)));
    }

    /// Sends a request that is carried out whatever becomes of its sender: `lands` from now, if at all.
    /// Gives what came of it, if it was carried out by the time that the sender stops to wait.
    async fn send<T: Send + 'static>(
        &self,
        met: &Met,
        lands: Option<Ms>,
        waits: Ms,
        effect: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> Option<T> {
        send(&self.claim, met, lands, waits, effect).await
    }

    /// When a request lands and how long its sender waits, by its fault. `late` is how much later than
    /// the sender's patience a late one lands.
    fn course(met: &Met, late: Ms) -> (Option<Ms>, Ms) {
        match met.fault {
            Some(Fault::TimedOutNotDone) => (None, PATIENCE),
            Some(Fault::TimedOutDone) => (Some(met.there), PATIENCE),
            Some(Fault::DoneLate) => (Some(PATIENCE + late), PATIENCE),
            Some(fault) if failure(fault).is_some() => (None, met.there + met.back),
            _ => (Some(met.there), met.there + met.back),
        }
    }

    /// Looks at an account's list.
    async fn look(&self, account: &Account, step: Step) -> ListOutcome {
        let met = self.claim.enter(step).await;
        let index = account_index(account);
        wait(met.there).await;
        self.claim.life.gate().await;
        let outcome = match met.fault {
            Some(Fault::TimedOutNotDone) => {
                wait(PATIENCE).await;
                self.claim.leave(&met).await;
                return ListOutcome::Failed(no_answer());
            }
            Some(fault) if failure(fault).is_some() => ListOutcome::Failed(failure(fault).unwrap()),
            _ => self.claim.sim.world().list(index),
        };
        // Known to be another one when the list was taken.
        let (wrong, noticed) = {
            let mut world = self.claim.sim.world();
            let (wrong, noticed) = (world.is_wrong(index), world.flagged.contains(&organization_of(index)));
            world.tell(Some(self.claim.credential), || {
                format!("the list shows {}{}", in_words(&outcome), if wrong { ", of another organization" } else { "" })
            });
            (wrong, noticed)
        };
        wait(met.back).await;
        self.claim.leave(&met).await;
        if met.fault != Some(Fault::Unreachable) {
            self.saw_date(met.back);
        }
        let mut world = self.claim.sim.world();
        if matches!(outcome, ListOutcome::Complete(_)) && *account == self.claim.policy.account {
            let mut seen = self.claim.seen.lock().unwrap();
            seen.listed = true;
            seen.wrongly_listed = wrong && noticed;
            seen.unnoticed = wrong && !noticed;
            let lagged = std::mem::take(&mut world.lagged);
            if lagged && !world.calm {
                world.matrix.meet(Fault::Lags, step);
            }
        }
        outcome
    }
}

/// See `SimProvider::send`.
pub async fn send<T: Send + 'static>(
    claim: &Claim,
    met: &Met,
    lands: Option<Ms>,
    waits: Ms,
    effect: impl FnOnce(&mut World) -> T + Send + 'static,
) -> Option<T> {
    let (told, mut answer) = oneshot::channel();
    if let Some(at) = lands {
        let sim = claim.sim.clone();
        tokio::spawn(async move {
            wait(at).await;
            let outcome = effect(&mut sim.world());
            // Whoever asked may be gone.
            let _ = told.send(outcome);
        });
    }
    if met.fault == Some(Fault::CrashUnderWay) {
        wait(met.there / 2).await;
        claim.life.gate().await;
        claim.sim.world().crash();
    }
    claim.life.gate().await;
    wait(waits).await;
    claim.leave(met).await;
    answer.try_recv().ok()
}

#[async_trait]
impl Provider for SimProvider {
    async fn issue(&self, request: &IssueRequest) -> (IssueOutcome, Option<Secret>) {
        let (claim, rotation) = (&self.claim, request.name.rotation);
        claim.life.gate().await;
        claim.sim.world().judge_mint(claim, rotation);
        if request.token_type == TokenType::ReadWrite && claim.policy.token_type == TokenType::ReadScaling {
            claim.sim.world().set_ups.insert(rotation);
        }
        let met = claim.enter(Step::Issue).await;
        let late = {
            let mut world = claim.sim.world();
            let longest = if world.latency_rng().permille(200) { 50 * MINUTE } else { 2 * MINUTE };
            world.latency_rng().between(0, longest)
        };
        let (lands, waits) = Self::course(&met, late);
        let (asked, credential) = (request.clone(), claim.credential);
        let answer = self.send(&met, lands, waits, move |world| world.create(credential, asked, met.fault)).await;
        match met.fault {
            Some(Fault::TimedOutNotDone | Fault::TimedOutDone | Fault::DoneLate) => {
                return (IssueOutcome::Unknown(no_answer()), None);
            }
            Some(fault) if failure(fault).is_some() => {
                if fault != Fault::Unreachable {
                    self.saw_date(met.back);
                }
                return (IssueOutcome::Refused(failure(fault).unwrap()), None);
            }
            _ => self.saw_date(met.back),
        }
        match answer {
            None => (IssueOutcome::Unknown(no_answer()), None),
            Some(Err(failed)) => (IssueOutcome::Refused(failed), None),
            Some(Ok(index)) => {
                let mut world = claim.sim.world();
                world.issued(claim, rotation, index);
                let issued = IssuedToken { token: listed(index, &world.tokens[index]), fingerprint: world.fingerprint(index) };
                (IssueOutcome::Issued(issued), Some(value(index)))
            }
        }
    }

    async fn list(&self, account: &Account) -> ListOutcome {
        let verifies = {
            let mut seen = self.claim.seen.lock().unwrap();
            std::mem::take(&mut seen.unverified) && self.claim.policy.verify == Verify::List
        };
        self.look(account, if verifies { Step::Verify } else { Step::List }).await
    }

    async fn revoke(&self, account: &Account, token: &TokenId) -> RevokeOutcome {
        let (claim, index) = (&self.claim, token_index(token));
        claim.life.gate().await;
        let sent = {
            let mut world = claim.sim.world();
            world.judge_revocation(claim, index);
            world.now
        };
        let met = claim.enter(Step::Revoke).await;
        let late = claim.sim.world().latency_rng().between(0, 2 * MINUTE);
        let (lands, waits) = Self::course(&met, late);
        let (account, credential) = (account_index(account), claim.credential);
        let answer = self.send(&met, lands, waits, move |world| world.delete(credential, account, index, sent)).await;
        match met.fault {
            Some(Fault::TimedOutNotDone | Fault::TimedOutDone | Fault::DoneLate) => return RevokeOutcome::Failed(no_answer()),
            Some(fault) if failure(fault).is_some() => {
                if fault != Fault::Unreachable {
                    self.saw_date(met.back);
                }
                return RevokeOutcome::Failed(failure(fault).unwrap());
            }
            _ => self.saw_date(met.back),
        }
        match answer {
            Some(Ok(())) => RevokeOutcome::Gone,
            Some(Err(failed)) => RevokeOutcome::Failed(failed),
            None => RevokeOutcome::Failed(no_answer()),
        }
    }

    async fn verify_calls(&self, accounts: &[Account], _none: &TokenId, value: &Secret) -> VerifyOutcome {
        self.verify_itself(&accounts[0], value).await
    }

    async fn admin_token(&self, _anew: bool) -> Option<rotad::rotation::Fingerprint> {
        Some(self.claim.sim.world().admin_token_in_use(self.organization).fingerprint())
    }

    async fn verify_itself(&self, _account: &Account, _value: &Secret) -> VerifyOutcome {
        let met = self.claim.enter(Step::Verify).await;
        self.claim.seen.lock().unwrap().unverified = false;
        wait(met.there).await;
        match met.fault {
            Some(Fault::TimedOutNotDone) => {
                wait(PATIENCE).await;
                self.claim.leave(&met).await;
                return VerifyOutcome::Failed(no_answer());
            }
            Some(fault) if failure(fault).is_some() => {
                wait(met.back).await;
                self.claim.leave(&met).await;
                return VerifyOutcome::Failed(failure(fault).unwrap());
            }
            _ => wait(met.back).await,
        }
        self.claim.leave(&met).await;
        self.saw_date(met.back);
        if met.fault == Some(Fault::Disproved) {
            self.claim.sim.world().actors[self.claim.credential].memo.newest = None;
            return VerifyOutcome::Disproved(Failed::new(Reason::BadAnswer, "another account"));
        }
        VerifyOutcome::Verified
    }

    /// No credential's own token is verified so: it is an account's first connection.
    async fn verify_by_connecting(&self, _: &Account, _: TokenType, value: &Secret) -> VerifyOutcome {
        let met = self.claim.enter(Step::Verify).await;
        wait(met.there).await;
        self.claim.life.gate().await;
        let (let_in, done) = {
            let mut world = self.claim.sim.world();
            let index = world.index_of_value(value);
            let token = &world.tokens[index];
            let (account, let_in) = (token.account, token.is_live(world.now) && token.token_type == TokenType::ReadWrite);
            let done =
                !matches!(met.fault, Some(Fault::TimedOutNotDone | Fault::Disproved)) && met.fault.and_then(failure).is_none();
            if let_in && done {
                // With another organization's admin token it was connected to there; the core takes the two for one.
                world.connected.insert(namesake(account).unwrap_or(account));
                world.tell(Some(self.claim.credential), || format!("account {account} is connected to with t{index}"));
            }
            (let_in, done)
        };
        let timed_out = matches!(met.fault, Some(Fault::TimedOutNotDone | Fault::TimedOutDone));
        wait(if timed_out { PATIENCE } else { met.back }).await;
        self.claim.leave(&met).await;
        match (met.fault.and_then(failure), let_in && done, timed_out) {
            (Some(failed), _, _) => VerifyOutcome::Failed(failed),
            (None, true, false) => VerifyOutcome::Verified,
            (None, _, true) => VerifyOutcome::Failed(no_answer()),
            (None, false, false) => VerifyOutcome::Disproved(Failed::new(Reason::Revoked, "refused")),
        }
    }
}
