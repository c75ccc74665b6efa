//! A small world for one credential in which everything works unless a test says otherwise: for the
//! rules that the simulator's random walk meets rarely.
#![allow(clippy::unwrap_used)] // helper code of tests

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rotad::rotation::{
    Account, Action, Blocked, Conditions, Credential, DeliveryId, DeliveryPolicy, Facts, Failed, Fingerprint, FirstConnection,
    Happened, InstallationId, IssueOutcome, IssuedToken, Limits, ListOutcome, ListedToken, Mode, Moment, Order, Owner, Policy,
    ProcessId, ReadOutcome, Reason, RevokeOutcome, RotationId, Schedule, Shows, Steady, TokenId, TokenName, TokenType, Turn,
    Verify, VerifyOutcome, WriteOutcome,
};

pub const INSTALLATION: InstallationId = InstallationId(0xaaaa_0001);
pub const MINUTE: i64 = 60;
pub const HOUR: i64 = 3600;
pub const DAY: i64 = 24 * HOUR;
pub const BEGINNING: i64 = 1_800_000_000;
/// More turns than any wait of a test asks for: a loop that spins fails.
const TURNS_MAX: u32 = 20_000;

pub fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

pub fn owner() -> Owner {
    "sim/etl".parse().unwrap()
}

pub fn place(name: &str) -> DeliveryId {
    DeliveryId::new(name)
}

pub fn fingerprint(value: u8) -> Fingerprint {
    Fingerprint::new([value; 32])
}

struct NoLimits;

impl Limits for NoLimits {
    fn rotation(&mut self, _: Timestamp, _: bool) -> Result<(), Timestamp> {
        Ok(())
    }

    fn revocation(&mut self, _: Timestamp) -> Result<(), Timestamp> {
        Ok(())
    }
}

/// What a test has gone wrong.
#[derive(Default)]
pub struct Wrong {
    pub list: Option<Failed>,
    /// By account.
    pub account_gone: Option<Account>,
    pub write: Option<WriteOutcome>,
    pub issue: Option<IssueOutcome>,
    /// A token is made all the same, whatever `issue` answers.
    pub issue_is_carried_out: bool,
    pub ttl_dropped: bool,
    pub revoke: Option<RevokeOutcome>,
    pub connect: Option<VerifyOutcome>,
    /// The process ends when it is about to do this.
    pub ends_at: Option<fn(&Action) -> bool>,
    /// Writes are answered, and reads don't show them.
    pub writes_lag: bool,
}

pub struct Rig {
    pub policy: Policy,
    pub facts: Facts,
    pub stored: Option<Credential>,
    pub hand: BTreeSet<RotationId>,
    pub second: i64,
    pub conditions: Conditions,
    pub places: BTreeMap<DeliveryId, Result<Shows, Failed>>,
    pub tokens: Vec<ListedToken>,
    pub wrong: Wrong,
    pub actions: Vec<(i64, Action)>,
    pub entries: Vec<Happened>,
    values: u8,
}

impl Rig {
    /// A credential with a ttl of 7 days, rotated daily, 12 hours of grace, delivered to `places`.
    pub fn new(places: &[&str]) -> Self {
        let deliveries = places.iter().map(|name| (place(name), delivery())).collect();
        let policy = Policy {
            owner: owner(),
            renamed_from: None,
            adopt: [].into(),
            used_by_rotad: false,
            account_is_kept: false,
            first_connection: FirstConnection::NotNeeded,
            organization: "main".into(),
            account: Account::new("etl_prod"),
            token_type: TokenType::ReadWrite,
            ttl: secs(7 * DAY),
            schedule: Schedule::every(secs(DAY), &owner()),
            window: None,
            grace: secs(12 * HOUR),
            verify: Verify::None,
            mode: Mode::Rotate,
            deliveries,
            sweep_every: secs(HOUR),
            tokens_max: 16,
        };
        let mut rig = Self {
            policy,
            facts: Facts {
                installation: INSTALLATION,
                journal_created_at: wall(0),
                process: ProcessId(1),
                process_since: Moment { wall: wall(0), steady: Steady(0) },
            },
            stored: None,
            hand: BTreeSet::new(),
            second: 0,
            conditions: Conditions::default(),
            places: BTreeMap::new(),
            tokens: Vec::new(),
            wrong: Wrong::default(),
            actions: Vec::new(),
            entries: Vec::new(),
            values: 0,
        };
        for name in places {
            rig.places.insert(place(name), Ok(Shows::Nothing { owner: None }));
        }
        rig
    }

    pub fn credential(&self) -> &Credential {
        self.stored.as_ref().unwrap()
    }

    pub fn blocked(&self) -> Option<Blocked> {
        self.credential().blocked.as_ref().map(|block| block.reason)
    }

    pub fn moment(&self) -> Moment {
        Moment { wall: wall(self.second), steady: Steady(self.second * 1000) }
    }

    /// Lets `seconds` pass, with a turn whenever the core asked for one.
    pub fn pass(&mut self, seconds: i64) {
        let end = self.second + seconds;
        for _ in 0..TURNS_MAX {
            let until = self.turn();
            if until >= end {
                self.second = end;
                return;
            }
            self.second = until;
        }
        panic!("{TURNS_MAX} turns in {seconds} s");
    }

    /// Lets time pass until a turn asked for a token.
    pub fn pass_to_an_issue(&mut self) {
        let since = self.actions.len();
        for _ in 0..TURNS_MAX {
            let until = self.turn();
            if self.actions[since..].iter().any(|(_, action)| is_issue(action)) {
                return;
            }
            self.second = until;
        }
        panic!("no token was asked for in {TURNS_MAX} turns");
    }

    /// Another process begins, with what the journal holds as its text.
    pub fn restart(&mut self) {
        self.facts.process = ProcessId(self.facts.process.0 + 1);
        self.facts.process_since = self.moment();
        self.hand.clear();
        self.stored = self.stored.as_ref().map(|state| serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap());
    }

    /// Takes a person's order into the state, as a turn does at its begin, and saves it.
    pub fn order(&mut self, order: &Order) -> Result<(), String> {
        let policy = self.policy.clone();
        let mut turn = Turn::begin(self.stored.clone(), &policy, self.facts, self.hand.clone(), self.moment());
        turn.obey(order, "root (uid 0)", self.moment())?;
        if let Some((state, entries)) = turn.unsaved() {
            self.stored = Some(state.clone());
            self.entries.extend(entries.iter().map(|entry| entry.what));
        }
        Ok(())
    }

    /// One turn, to its end; gives the second at which the next one is asked for.
    pub fn turn(&mut self) -> i64 {
        let policy = self.policy.clone();
        let mut turn = Turn::begin(self.stored.clone(), &policy, self.facts, self.hand.clone(), self.moment());
        loop {
            let action = turn.next(self.moment(), 0x5eed, &self.conditions, &mut NoLimits);
            if let Some((state, entries)) = turn.unsaved() {
                self.stored = Some(state.clone());
                self.entries.extend(entries.iter().map(|entry| entry.what));
            }
            if self.wrong.ends_at.is_some_and(|ends| ends(&action)) {
                self.hand.clear();
                return self.second + 1;
            }
            self.actions.push((self.second, action.clone()));
            if let Action::Wait { until } = action {
                self.hand = turn.keeps().into_iter().collect();
                return (until.as_millisecond() - BEGINNING * 1000 + 999).div_euclid(1000).max(self.second + 1);
            }
            self.carry_out(&mut turn, action);
        }
    }

    fn carry_out(&mut self, turn: &mut Turn<'_>, action: Action) {
        let now = self.moment();
        match action {
            Action::List { account, .. } => {
                let outcome = self.list(&account);
                turn.listed(&account, outcome, now);
            }
            Action::Read { delivery } => {
                let outcome = match self.places.get(&delivery).unwrap().clone() {
                    Ok(shows) => ReadOutcome::Shows(shows),
                    Err(failed) => ReadOutcome::Failed(failed),
                };
                turn.read(&delivery, outcome, now);
            }
            Action::Issue { rotation, request } => {
                let outcome = match self.wrong.issue.clone() {
                    Some(outcome) => {
                        if self.wrong.issue_is_carried_out {
                            let index = self.issue(&request.name, Some(request.ttl.as_secs()));
                            self.tokens[index].token_type = request.token_type;
                        }
                        outcome
                    }
                    None => {
                        let index =
                            self.issue(&request.name, if self.wrong.ttl_dropped { None } else { Some(request.ttl.as_secs()) });
                        self.tokens[index].token_type = request.token_type;
                        IssueOutcome::Issued(IssuedToken {
                            token: self.tokens[index].clone(),
                            fingerprint: fingerprint(self.values),
                        })
                    }
                };
                turn.issued(rotation, outcome, now);
            }
            Action::Verify { rotation } => turn.verified(rotation, VerifyOutcome::Verified, now),
            Action::Connect { rotation, .. } => {
                let outcome = self.wrong.connect.clone().unwrap_or(VerifyOutcome::Verified);
                turn.connected(rotation, outcome, now);
            }
            Action::Write { delivery, rotation } => {
                let outcome = self.wrong.write.clone().unwrap_or(WriteOutcome::Written);
                if outcome == WriteOutcome::Written && !self.wrong.writes_lag {
                    let token = turn.credential().rotations[&rotation].token.as_ref().unwrap();
                    self.show(delivery.as_str(), token.fingerprint.unwrap(), rotation);
                }
                turn.written(&delivery, rotation, outcome, now);
            }
            Action::Revoke { rotation, token, .. } => {
                let outcome = self.wrong.revoke.clone().unwrap_or(RevokeOutcome::Gone);
                if outcome == RevokeOutcome::Gone {
                    self.tokens.retain(|listed| listed.id != token);
                }
                turn.revoked(rotation, outcome, now);
            }
            Action::Wait { .. } => {}
        }
    }

    fn list(&mut self, account: &Account) -> ListOutcome {
        if self.wrong.account_gone.as_ref() == Some(account) {
            return ListOutcome::Failed(Failed::new(Reason::NoSuchAccount, "404 NOT_FOUND"));
        }
        if let Some(failed) = &self.wrong.list {
            return ListOutcome::Failed(failed.clone());
        }
        let now = wall(self.second);
        self.tokens.retain(|token| token.expires_at.is_none_or(|expires| expires > now));
        ListOutcome::Complete(self.tokens.clone())
    }

    /// A token at the API; gives its index.
    pub fn issue(&mut self, name: &TokenName, ttl: Option<i64>) -> usize {
        self.values += 1;
        self.tokens.push(ListedToken {
            id: TokenId(format!("t{}", self.values)),
            name: Some(name.to_string()),
            created_at: wall(self.second),
            expires_at: ttl.map(|ttl| wall(self.second + ttl)),
            token_type: TokenType::ReadWrite,
        });
        self.tokens.len() - 1
    }

    /// A token that an installation made at `second`; gives its rotation and its value's fingerprint.
    pub fn made_elsewhere(&mut self, installation: u32, second: i64) -> (RotationId, Fingerprint) {
        let rotation = RotationId::mint(wall(second), None, InstallationId(installation), self.values.into());
        let index = self.issue(&TokenName { owner: owner(), rotation }, Some(7 * DAY));
        self.tokens[index].created_at = wall(second);
        (rotation, fingerprint(self.values))
    }

    /// Puts a value with a marker of ours into a place.
    pub fn show(&mut self, name: &str, fingerprint: Fingerprint, rotation: RotationId) {
        let shows = Shows::Value { fingerprint, owner: Some(owner()), rotation: Some(rotation) };
        self.places.insert(place(name), Ok(shows));
    }

    /// Puts a value that nothing explains into a place.
    pub fn scribble(&mut self, name: &str) {
        let shows = Shows::Value { fingerprint: fingerprint(0xee), owner: Some(owner()), rotation: None };
        self.places.insert(place(name), Ok(shows));
    }

    pub fn break_reading(&mut self, name: &str) {
        self.places.insert(place(name), Err(Failed::new(Reason::Unavailable, "sealed")));
    }

    /// What a place shows, as the rotation of its token.
    pub fn served(&self, name: &str) -> Option<RotationId> {
        match self.places.get(&place(name)) {
            Some(Ok(Shows::Value { rotation, .. })) => *rotation,
            _ => None,
        }
    }

    /// How often it came to this since `second`.
    pub fn count(&self, since: i64, what: fn(&Action) -> bool) -> usize {
        self.actions.iter().filter(|(second, action)| *second >= since && what(action)).count()
    }

    pub fn happened(&self, what: Happened) -> usize {
        self.entries.iter().filter(|entry| **entry == what).count()
    }
}

pub fn delivery() -> DeliveryPolicy {
    DeliveryPolicy { take_over: false, write_limit: secs(10) }
}

pub fn wall(second: i64) -> Timestamp {
    Timestamp::from_second(BEGINNING + second).unwrap()
}

pub fn is_issue(action: &Action) -> bool {
    matches!(action, Action::Issue { .. })
}

pub fn is_write(action: &Action) -> bool {
    matches!(action, Action::Write { .. })
}

pub fn is_revoke(action: &Action) -> bool {
    matches!(action, Action::Revoke { .. })
}
