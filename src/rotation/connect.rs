//! An account's first connection.
//!
//! Read-scaling tokens of an account that was made through the API work only after the account was connected to once with
//! a read/write token (documented). rotad does that with a token of its own, made for nothing else: the *set-up token*. It
//! is intended, asked for, looked for by its name when its answer was lost, and revoked, like any other. That a connection
//! to the Postgres endpoint counts is inferred; `verify = "connect"` shows it where it does not.
//!
//! Its value never leaves the process that asked for it: no delivery is ever handed it. So nothing can serve it, and it is
//! revoked at once, by whichever process finds it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::backoff::LONGEST;
use super::breakage::{Breakage, broken};
use super::credential::{Blocked, Rotation, Stage};
use super::entry::Happened;
use super::outcome::{Failed, IssueRequest, ListedToken, Reason, VerifyOutcome};
use super::reason::Due;
use super::turn::{Action, Turn};
use super::words::{Account, Moment, RotationId, TokenName, TokenType};

/// How long a set-up token lives if nobody revokes it: the least that the API takes (documented).
pub(super) const SET_UP_LIFE: SignedDuration = SignedDuration::from_secs(300);

/// Who makes an account's first connection, if its tokens need one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FirstConnection {
    /// Read/write tokens need none, and the configuration may say that it was made.
    NotNeeded,
    ByRotad,
    /// There is no endpoint to connect to.
    ByPerson,
}

/// An account that was connected to: its read-scaling tokens work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connected {
    pub organization: Arc<str>,
    pub account: Account,
    /// When it was made, or seen to be needless.
    pub at: Timestamp,
}

/// Why the first connection could not be made, until it could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unconnected {
    pub since: Timestamp,
    pub failed: Failed,
}

impl Turn<'_> {
    /// Whether the account has to be connected to before a token is asked for that is delivered.
    pub(super) fn needs_connection(&self) -> bool {
        let made = |connected: &Connected| {
            connected.organization == self.policy.organization && connected.account == self.policy.account
        };
        let known = self.credential.connected.as_ref().is_some_and(made) && !broken(Breakage::ConnectionForgotten);
        self.policy.first_connection != FirstConnection::NotNeeded && !known && !broken(Breakage::ConnectionSkipped)
    }

    /// What a complete list of the account proves: where the newest token is a read-scaling one, as a list or an earlier
    /// version of rotad left it, the connection was made before, or its consumers do without.
    pub(super) fn match_connected(&mut self, account: &Account, tokens: &[ListedToken], now: Moment) {
        let Some((_, latest)) = self.credential.latest() else { return };
        let is_it = |token: &&ListedToken| latest.token.as_ref().is_some_and(|recorded| recorded.id == token.id);
        let in_use = tokens.iter().find(is_it).is_some_and(|token| token.token_type == TokenType::ReadScaling);
        let of_account = *account == self.policy.account && latest.organization == self.policy.organization;
        if in_use && of_account && self.needs_connection() {
            self.note_connected(now);
        }
    }

    fn note_connected(&mut self, now: Moment) {
        let (organization, account) = (self.policy.organization.clone(), self.policy.account.clone());
        self.credential.connected = Some(Connected { organization, account, at: now.wall });
        self.credential.unconnected = None;
    }

    /// Drops what no longer keeps it from being connected.
    pub(super) fn tidy_connection(&mut self) {
        if self.policy.first_connection != FirstConnection::ByRotad || !self.needs_connection() {
            self.credential.unconnected = None;
        }
    }

    /// Without an endpoint only a person can connect.
    pub(super) fn waits_for_a_person_to_connect(&mut self) -> bool {
        let waits = self.policy.first_connection == FirstConnection::ByPerson && self.needs_connection();
        if waits {
            let detail = format!(
                "account `{}` has to be connected to once with a read/write token before its read-scaling tokens work, and its \
                 organization has no `postgres` for rotad to do it",
                self.policy.account
            );
            self.obstacle(Blocked::FirstConnectionNeeded, detail);
        }
        waits
    }

    /// Asks for a set-up token.
    pub(super) fn begin_set_up(&mut self, now: Moment, random: u64, due: Due) -> Action {
        let rotation = self.mint(now, random, Breakage::SetUpSentAgain);
        let requested = Rotation::requested(self.policy, self.facts.process, now);
        self.intend(
            rotation,
            Rotation { ttl: SET_UP_LIFE, token_type: Some(TokenType::ReadWrite), set_up: true, ..requested },
            due,
            now,
        );
        let told = format!(
            "a set-up token: account `{}` is connected to once before its first read-scaling token is issued",
            self.policy.account
        );
        self.entry(now, Happened::SetUpIntended, |entry| {
            entry.rotation = Some(rotation);
            entry.detail = Some(told);
        });
        let request = IssueRequest {
            organization: self.policy.organization.clone(),
            account: self.policy.account.clone(),
            name: TokenName { owner: self.policy.owner.clone(), rotation },
            token_type: TokenType::ReadWrite,
            ttl: SET_UP_LIFE,
        };
        Action::Issue { rotation, request }
    }

    /// Connects with the set-up token that this turn got.
    pub(super) fn connect(&self) -> Option<Action> {
        let policy = self.policy;
        let usable = |(id, rotation): &(&RotationId, &Rotation)| {
            let of_account = rotation.account == policy.account && rotation.organization == policy.organization;
            rotation.stage == Stage::SetUp && of_account && !rotation.revocation_sent && self.in_hand.contains(*id)
        };
        let needed = policy.first_connection == FirstConnection::ByRotad && self.needs_connection();
        let (id, _) = self.credential.rotations.iter().find(usable).filter(|_| needed)?;
        let (organization, account) = (policy.organization.clone(), policy.account.clone());
        Some(Action::Connect { rotation: *id, organization, account })
    }

    /// Tells the outcome of `Action::Connect`. The driver drops the token's value: it has served.
    pub fn connected(&mut self, id: RotationId, outcome: VerifyOutcome, now: Moment) {
        self.in_hand.remove(&id);
        let token = self.credential.rotations.get(&id).and_then(|rotation| rotation.token.as_ref());
        let token = token.map(|token| token.id.clone());
        match outcome {
            VerifyOutcome::Verified => {
                self.note_connected(now);
                self.credential.issuing.reset();
                let told = format!("account `{}` was connected to for the first time", self.policy.account);
                self.entry(now, Happened::Connected, |entry| {
                    (entry.rotation, entry.token, entry.detail) = (Some(id), token, Some(told));
                });
            }
            VerifyOutcome::Disproved(failed) | VerifyOutcome::Failed(failed) => {
                let since = self.credential.unconnected.as_ref().map_or(now.wall, |before| before.since);
                self.credential.unconnected = Some(Unconnected { since, failed: failed.clone() });
                // As if the request had failed: the next one waits from now on.
                self.credential.issuing.failures = self.credential.issuing.failures.saturating_sub(1);
                self.credential.issuing.push(now.wall, LONGEST, failed.retry_after);
                self.failed_entry(now, Happened::ConnectFailed, Some(id), &failed);
            }
        }
    }

    /// An account that is gone and made again was never connected to. One whose newest token vanished may be one.
    pub(super) fn forget_connection(&mut self, account: &Account, reason: Reason) {
        if reason == Reason::NoSuchAccount {
            self.credential.connected = self.credential.connected.take().filter(|connected| connected.account != *account);
        }
    }
}
