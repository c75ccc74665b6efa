//! One credential's turn, carried out: asks the core what is next, records it, does it, tells the
//! outcome, until the core says to wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tracing::{error, warn};

use super::acting::Acting;
use super::orders::Answer;
use super::summary::summarize;
use super::{Engine, Member, Ordered};
use crate::fail_point::{self, Point};
use crate::journal::{JournalError, Row, Save};
use crate::metrics::SinkOperation;
use crate::motherduck::Provider;
use crate::rotation::breakage::{Breakage, broken};
use crate::rotation::{
    Account, Action, Conditions, Credential, CredentialName, DeliveryId, Entry, Failed, Happened, IssueOutcome, IssueRequest,
    ListOutcome, Moment, ReadOutcome, Reason, RevokeOutcome, Rotation, RotationId, Token, TokenId, TokenType, Turn, Verify,
    VerifyOutcome, WriteOutcome,
};
use crate::secret::Secret;
use crate::sinks::{Payload, Place, Question, Version};
use crate::snapshot::Summary;

/// What is told of an order where the journal went away over its recording.
const UNSETTLED: &str = "whether it was recorded is not known: `rotad history` shows it once the journal can be read";

/// The values of one credential that are in memory, since a delivery still needs them.
pub(super) type Values = BTreeMap<RotationId, Secret>;

/// How a turn ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub wake_at: Timestamp,
    pub summary: Option<Summary>,
    /// The clocks disagreed, or were not compared yet, when it was found what to wait for.
    pub frozen: bool,
}

/// What a turn holds besides the core's `Turn`: values, versions and the row that it saves to.
struct Worker<'a> {
    engine: &'a Engine,
    name: &'a CredentialName,
    member: &'a Member,
    places: BTreeMap<DeliveryId, Arc<dyn Place>>,
    values: Values,
    versions: BTreeMap<DeliveryId, Version>,
    /// When each delivery was last read, in time since boot.
    read_at: BTreeMap<DeliveryId, SignedDuration>,
    row_version: Option<u64>,
    /// When the last save was asked for, in time since boot: the journal was ours then.
    saved_at: SignedDuration,
    /// How many changes of admin tokens there were when the turn's lists were asked for.
    admin_tokens: u64,
    /// An earlier name's row, until the first save has taken it over.
    takes_over: Option<(CredentialName, u64)>,
    /// Whom to tell that their orders are recorded, once they are.
    ordered_by: Vec<Answer>,
}

/// What the journal knows of a credential.
struct Stored {
    state: Option<Credential>,
    row_version: Option<u64>,
    takes_over: Option<(CredentialName, u64)>,
}

impl Stored {
    /// The credential's own row, or that of its earlier name where its own holds nothing to lose.
    async fn load(engine: &Engine, name: &CredentialName, member: &Member) -> Result<Self, JournalError> {
        let row = engine.journal.load(name).await?;
        let row_version = row.as_ref().map(|row| row.version);
        let state = row.and_then(|row| read_state(name, &row));
        if let Some(from) = member.policy.renamed_from.as_ref()
            && state.as_ref().is_none_or(Credential::is_untouched)
            && let Some(row) = engine.journal.load(from).await?
            && let Some(earlier) = read_state(from, &row)
        {
            return Ok(Self { state: Some(earlier), row_version, takes_over: Some((from.clone(), row.version)) });
        }
        Ok(Self { state, row_version, takes_over: None })
    }
}

/// Runs one turn. Whatever fails is journaled by the core or told here; the credential always gets
/// a time to be looked at again.
pub(super) async fn take_turn(engine: &Engine, name: &CredentialName, member: &Member) -> Ended {
    let Stored { state, row_version, takes_over } = match Stored::load(engine, name, member).await {
        Ok(stored) => stored,
        Err(error) => return engine.journal_failed(name, &error),
    };
    let values = engine.take_values(name);
    let in_hand: BTreeSet<RotationId> = values.keys().copied().collect();
    let places = member.places.iter().map(|place| (place.id().clone(), place.clone())).collect();
    let admin_tokens = engine.standings().changes();
    let (versions, read_at, ordered_by) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let saved_at = engine.clock.boot();
    let mut worker = Worker {
        engine,
        name,
        member,
        places,
        values,
        versions,
        read_at,
        row_version,
        saved_at,
        admin_tokens,
        takes_over,
        ordered_by,
    };
    let now = engine.clock.now();
    let mut turn = Turn::begin(state, &member.policy, engine.facts, in_hand, now);
    if member.policy.used_by_rotad {
        worker.watch_own_token(turn.credential(), false).await;
    }
    fail_point::pass(Point::TurnBegun);
    for Ordered { order, by, answer } in engine.take_orders(name) {
        match turn.obey(&order, &by, now) {
            Ok(()) => worker.ordered_by.push(answer),
            Err(refusal) => drop(answer.send(Err(refusal))),
        }
    }
    worker.run(turn).await
}

/// A state that can't be read is as good as none: what the deliveries serve is taken as the truth.
fn read_state(name: &CredentialName, row: &Row) -> Option<Credential> {
    match row.read_state() {
        Ok(state) => Some(state),
        Err(error) => {
            error!(credential = %name, %error, "the journal's record can't be read: the credential is rebuilt from what its deliveries serve");
            None
        }
    }
}

impl Worker<'_> {
    async fn run(&mut self, mut turn: Turn<'_>) -> Ended {
        loop {
            if let Err(error) = self.meet_admin_token(&self.member.policy.organization).await {
                return self.engine.journal_failed(self.name, &error);
            }
            let now = self.engine.clock.now();
            self.forget_outdated_lists(&mut turn);
            let conditions = self.conditions();
            let lived = self.engine.clock.now_in_process();
            let action =
                turn.next(now, (self.engine.random)(), &conditions, &mut self.engine.limits().at(lived, conditions.frozen));
            let wake_at = match &action {
                Action::Wait { until } => *until,
                _ => now.wall,
            };
            let last = matches!(action, Action::Wait { .. });
            if (last || !broken(Breakage::SavedAfterEffect))
                && let Err(error) = self.save(&mut turn, wake_at, last).await
            {
                return self.engine.journal_failed(self.name, &error);
            }
            let (before, after) = points(&action);
            fail_point::pass(before);
            if let Err(error) = self.hold_on(&turn, &action, wake_at).await {
                return self.engine.journal_failed(self.name, &error);
            }
            if let Action::Wait { until } = action {
                return self.end(&turn, until, now, conditions.frozen);
            }
            let acting = Acting::of(turn.credential(), &action);
            self.carry_out(&mut turn, action).await;
            if let Some(acting) = acting {
                acting.ended(self.engine, self.name, &turn, now.wall);
            }
            fail_point::pass(after);
        }
    }

    /// Does it, and tells the outcome.
    async fn carry_out(&mut self, turn: &mut Turn<'_>, action: Action) {
        match action {
            Action::List { organization, account } => {
                if let Err(error) = self.meet_admin_token(&organization).await {
                    let failed =
                        Failed::new(Reason::Unavailable, format!("the journal does not say whose the admin token is: {error}"));
                    return turn.listed(&account, ListOutcome::Failed(failed), self.engine.clock.now());
                }
                let asked_under = self.engine.standings().changes();
                let outcome = match self.provider(&organization) {
                    Ok(provider) => provider.list(&account).await,
                    Err(failed) => ListOutcome::Failed(failed),
                };
                // What was asked for with the admin token of before proves nothing of the one of now.
                if self.engine.standings().changes() == asked_under {
                    self.judge_organization(turn, &organization, &account, &outcome);
                }
                turn.listed(&account, outcome, self.engine.clock.now());
            }
            Action::Read { delivery } => self.read(turn, &delivery).await,
            Action::Issue { rotation, request } => self.issue(turn, rotation, &request).await,
            Action::Verify { rotation } => {
                let outcome = self.verify(turn, rotation).await;
                turn.verified(rotation, outcome, self.engine.clock.now());
            }
            Action::Connect { rotation, organization, account } => {
                let outcome = self.connect(rotation, &organization, &account).await;
                turn.connected(rotation, outcome, self.engine.clock.now());
            }
            Action::Write { delivery, rotation } => {
                let outcome = self.write(turn, &delivery, rotation).await;
                self.versions.remove(&delivery);
                turn.written(&delivery, rotation, outcome, self.engine.clock.now());
            }
            Action::Revoke { rotation, organization, account, token } => {
                let outcome = match self.provider(&organization) {
                    Ok(_) if !turn.may_still_revoke(rotation, self.oldest_read(), self.engine.clock.now()) => {
                        RevokeOutcome::Failed(outdated())
                    }
                    Ok(provider) => match self.stands_by_its_lists(&organization).await {
                        Ok(()) => provider.revoke(&account, &token).await,
                        Err(failed) => RevokeOutcome::Failed(failed),
                    },
                    Err(failed) => RevokeOutcome::Failed(failed),
                };
                turn.revoked(rotation, outcome, self.engine.clock.now());
            }
            Action::Wait { .. } => {}
        }
    }

    /// Before a call is made: whether the admin token is another one than the organization's standing is of.
    async fn meet_admin_token(&self, organization: &Arc<str>) -> Result<(), JournalError> {
        // Without one, or without a provider, the call itself says so.
        let Ok(provider) = self.provider(organization) else { return Ok(()) };
        let Some(fingerprint) = provider.admin_token(false).await else { return Ok(()) };
        self.engine.meet_admin_token(organization, fingerprint).await
    }

    /// Whether the admin token is still the one that this turn listed with, and nothing speaks against it there: it may have
    /// been replaced while what is about to be asked for was saved. Nothing was sent yet if not.
    async fn stands_by_its_lists(&self, organization: &Arc<str>) -> Result<(), Failed> {
        let unknown = |error| format!("nothing was sent, since the journal does not say whose the admin token is: {error}");
        self.meet_admin_token(organization).await.map_err(|error| Failed::new(Reason::Unavailable, unknown(error)))?;
        let standings = self.engine.standings();
        if standings.changes() == self.admin_tokens && !standings.is_suspect(organization) {
            return Ok(());
        }
        Err(Failed::new(
            Reason::Busy,
            "nothing was sent, since the admin token was replaced meanwhile: its account is listed again",
        ))
    }

    /// What was listed with another admin token, perhaps in another organization, says nothing any more.
    fn forget_outdated_lists(&mut self, turn: &mut Turn<'_>) {
        let admin_tokens = self.engine.standings().changes();
        if std::mem::replace(&mut self.admin_tokens, admin_tokens) != admin_tokens {
            turn.forget_lists();
        }
    }

    /// How long ago the delivery was read that was read first.
    fn oldest_read(&self) -> SignedDuration {
        self.read_at.values().min().map_or(SignedDuration::ZERO, |first| self.engine.clock.boot() - *first)
    }

    fn conditions(&self) -> Conditions {
        let policy = &self.member.policy;
        let standings = self.engine.standings();
        let suspect = standings.is_suspect(&policy.organization);
        let frozen = self.engine.clock.frozen().is_some();
        if !policy.used_by_rotad {
            return Conditions { frozen, another_organization: suspect, ..Conditions::default() };
        }
        Conditions {
            frozen,
            another_organization: suspect,
            in_use: standings.swept_with(&policy.organization),
            others_blocked: standings.others_blocked(&policy.organization, self.name),
        }
    }

    fn provider(&self, organization: &str) -> Result<&Arc<dyn Provider>, Failed> {
        self.member.providers.get(organization).ok_or_else(|| {
            Failed::new(
                Reason::Missing,
                format!("organization `{organization}` is no longer configured: its tokens are left to expire"),
            )
        })
    }

    /// Saves what `next` marked, before it is carried out. The last save of a turn records when to wake.
    async fn save(&mut self, turn: &mut Turn<'_>, wake_at: Timestamp, last: bool) -> Result<(), JournalError> {
        let unsaved = turn.unsaved();
        if unsaved.is_none() && !(last && self.row_version.is_some()) {
            return Ok(());
        }
        let (state, entries) = match unsaved {
            Some((state, entries)) => (encode(state)?, entries),
            None => (encode(turn.credential())?, Vec::new()),
        };
        self.record(turn, wake_at, state, entries).await
    }

    /// Where another process may have the journal by now, what was saved too long ago is saved again: that shows whose it is.
    async fn hold_on(&mut self, turn: &Turn<'_>, action: &Action, wake_at: Timestamp) -> Result<(), JournalError> {
        let hold = self.engine.hold;
        if action.may_begin(self.engine.clock.boot() - self.saved_at, hold) {
            return Ok(());
        }
        self.record(turn, wake_at, encode(turn.credential())?, Vec::new()).await?;
        if action.may_begin(self.engine.clock.boot() - self.saved_at, hold) {
            return Ok(());
        }
        Err(JournalError::Unwritable("a save takes longer than what it announces may wait: nothing is begun by it".to_owned()))
    }

    async fn record(
        &mut self,
        turn: &Turn<'_>,
        wake_at: Timestamp,
        state: String,
        entries: Vec<Entry>,
    ) -> Result<(), JournalError> {
        let save = Save {
            credential: self.name.clone(),
            expected: self.row_version,
            state,
            wake_at,
            entries: entries.clone(),
            takes_over: self.takes_over.clone(),
        };
        self.engine.mark_clock().await?;
        fail_point::pass(Point::BeforeSave);
        self.saved_at = self.engine.clock.boot();
        self.row_version = match self.engine.journal.save(save).await {
            Ok(version) => Some(version),
            Err(error) => {
                if matches!(error, JournalError::Unsettled(_)) {
                    self.ordered_by.drain(..).for_each(|answer| drop(answer.send(Err(UNSETTLED.to_owned()))));
                }
                return Err(error);
            }
        };
        if let Some((from, _)) = self.takes_over.take() {
            self.engine.board.not_let_go(&from);
        }
        self.ordered_by.drain(..).for_each(|answer| drop(answer.send(Ok(()))));
        self.engine.journal_works();
        self.tell(turn.credential(), &entries);
        Ok(())
    }

    /// Logs and counts what was recorded.
    fn tell(&self, credential: &Credential, entries: &[Entry]) {
        for entry in entries {
            self.engine.witness.happened(self.name, entry);
            self.engine.metrics.happened(entry);
            match entry.what {
                Happened::Intended => self.member.observe_lag(&self.engine.metrics, entry.at),
                Happened::Promoted => self.observe_margin(credential, entry),
                _ => {}
            }
        }
    }

    /// How close it came: from the delivery everywhere to the old token's expiry.
    fn observe_margin(&self, credential: &Credential, entry: &Entry) {
        let Some(promoted) = entry.rotation else { return };
        let before = credential.rotations.range(..promoted).rev().filter_map(|(_, rotation)| {
            let served = rotation.attempts.values().any(|attempt| attempt.landed);
            rotation.token.as_ref().filter(|_| served).map(|token| token.expires_at)
        });
        if let Some(expiry) = before.max() {
            self.engine.metrics.rotation_margin(expiry.duration_since(entry.at));
        }
    }

    fn end(&mut self, turn: &Turn<'_>, wake_at: Timestamp, now: Moment, frozen: bool) -> Ended {
        if let Some(kept) = turn.keeps()
            && let Some(value) = self.values.remove(&kept)
        {
            self.engine.keep_value(self.name, kept, value);
        }
        let summary = summarize(turn.credential(), turn.policy(), self.member.organization, now.wall);
        let vanished = turn.credential().latest().is_some_and(|(_, rotation)| rotation.vanished);
        let blocked = summary.blocked.is_some();
        self.engine.standings().vanished(&turn.policy().organization, self.name, vanished, now.wall);
        self.engine.standings().blocked(&turn.policy().organization, self.name, blocked);
        Ended { wake_at, summary: Some(summary), frozen }
    }

    /// Tells the organization's standing what a complete list showed of the tokens known there.
    fn judge_organization(&self, turn: &Turn<'_>, organization: &Arc<str>, account: &Account, outcome: &ListOutcome) {
        let ListOutcome::Complete(listed) = outcome else { return };
        let now = self.engine.clock.now().wall;
        let rotations = turn.credential().rotations.values().filter(|rotation| rotation.account == *account);
        let living = rotations.filter_map(|rotation| rotation.token.as_ref()).filter(|token| token.expires_at > now);
        let known: Vec<(Timestamp, bool)> =
            living.map(|token| (token.created_at, listed.iter().any(|listed| listed.id == token.id))).collect();
        self.engine.standings().listed(organization, self.name, &known);
    }

    /// What the calls are made with from now on, for the credential whose token that is.
    async fn watch_own_token(&self, credential: &Credential, anew: bool) {
        let organization = &self.member.policy.organization;
        let Ok(provider) = self.provider(organization) else { return };
        let Some(fingerprint) = provider.admin_token(anew).await else { return };
        let recorded = |rotation: &Rotation| rotation.token.as_ref().is_some_and(|token| token.fingerprint == Some(fingerprint));
        let watched = match credential.rotations.values().any(|rotation| recorded(rotation) && !rotation.adopted) {
            true => self.engine.has_own_admin_token(organization, fingerprint).await,
            false => self.engine.watch_admin_token(organization, fingerprint).await.map(drop),
        };
        if let Err(error) = watched {
            warn!(%organization, %error, "the admin token's fingerprint can't be held against the journal's");
        }
    }

    async fn read(&mut self, turn: &mut Turn<'_>, delivery: &DeliveryId) {
        let question = Question { owner: turn.policy().owner.clone(), candidates: turn.candidates() };
        let outcome = match self.places.get(delivery) {
            None => ReadOutcome::Failed(no_place(delivery)),
            Some(place) => {
                let began = self.engine.clock.now();
                self.read_at.insert(delivery.clone(), self.engine.clock.boot());
                let answer = place.read(&question).await;
                self.engine.observe_sink(delivery, SinkOperation::Read, began);
                match answer {
                    Err(failed) => ReadOutcome::Failed(failed),
                    Ok(reading) => {
                        self.versions.insert(delivery.clone(), reading.version);
                        if let Some(value) = reading.value
                            && let Some(rotation) = turn.wants(&value.fingerprint())
                        {
                            self.values.insert(rotation, value);
                        }
                        ReadOutcome::Shows(reading.shows)
                    }
                }
            }
        };
        turn.read(delivery, outcome, self.engine.clock.now());
    }

    async fn issue(&mut self, turn: &mut Turn<'_>, rotation: RotationId, request: &IssueRequest) {
        let outcome = match self.provider(&request.organization) {
            Err(failed) => IssueOutcome::Refused(failed),
            Ok(provider) => {
                if let Err(failed) = self.stands_by_its_lists(&request.organization).await {
                    return turn.issued(rotation, IssueOutcome::Refused(failed), self.engine.clock.now());
                }
                let (outcome, value) = provider.issue(request).await;
                match (&outcome, value) {
                    (IssueOutcome::Issued(_), Some(value)) => {
                        self.values.insert(rotation, value);
                    }
                    (IssueOutcome::Issued(_), None) => {
                        warn!(credential = %self.name, %rotation, "the token came without its value")
                    }
                    _ => {}
                }
                outcome
            }
        };
        turn.issued(rotation, outcome, self.engine.clock.now());
    }

    /// Proves the token to be what it was asked for as: the configuration may want another account or type since.
    async fn verify(&self, turn: &Turn<'_>, rotation: RotationId) -> VerifyOutcome {
        let policy = turn.policy();
        let Some(asked) = turn.credential().rotations.get(&rotation) else {
            return VerifyOutcome::Failed(Failed::new(Reason::Missing, "the token's record is gone"));
        };
        let token_type = asked.token_type.unwrap_or(policy.token_type);
        let provider = match self.provider(&asked.organization) {
            Ok(provider) => provider,
            Err(failed) => return VerifyOutcome::Failed(failed),
        };
        match (policy.verify, self.values.get(&rotation)) {
            (Verify::Itself, Some(value)) => provider.verify_itself(&asked.account, value).await,
            (Verify::None, _) => VerifyOutcome::Verified,
            (Verify::Connect, Some(value)) => provider.verify_by_connecting(&asked.account, token_type, value).await,
            (Verify::Calls, Some(value)) => {
                // A rotation's id is no token's.
                let none = TokenId(rotation.to_string());
                provider.verify_calls(&self.member.proves_by, &none, value).await
            }
            (Verify::Itself | Verify::Connect | Verify::Calls, None) => {
                VerifyOutcome::Failed(Failed::new(Reason::Missing, "the value is not in memory"))
            }
            (Verify::List, _) => match &asked.token {
                Some(token) => verify_by_list(provider.list(&asked.account).await, token_type, token),
                None => VerifyOutcome::Failed(Failed::new(Reason::Missing, "the token's record is gone")),
            },
        }
    }

    /// The set-up token's value has served when this is over, however it went.
    async fn connect(&mut self, rotation: RotationId, organization: &str, account: &Account) -> VerifyOutcome {
        let Some(value) = self.values.remove(&rotation) else {
            return VerifyOutcome::Failed(Failed::new(Reason::Missing, "the value is not in memory"));
        };
        match self.provider(organization) {
            Ok(provider) => provider.verify_by_connecting(account, TokenType::ReadWrite, &value).await,
            Err(failed) => VerifyOutcome::Failed(failed),
        }
    }

    async fn write(&self, turn: &Turn<'_>, delivery: &DeliveryId, rotation: RotationId) -> WriteOutcome {
        let policy = turn.policy();
        let known = turn.credential().rotations.get(&rotation);
        let Some(token) = known.and_then(|rotation| rotation.token.as_ref()) else {
            return WriteOutcome::Refused(Failed::new(Reason::Missing, "the token's record is gone"));
        };
        let (Some(place), Some(version), Some(value)) =
            (self.places.get(delivery), self.versions.get(delivery), self.values.get(&rotation))
        else {
            return WriteOutcome::Refused(no_place(delivery));
        };
        let token_name = crate::rotation::TokenName { owner: policy.owner.clone(), rotation };
        let account = known.map_or(&policy.account, |rotation| &rotation.account);
        let payload = Payload {
            owner: &policy.owner,
            rotation,
            value,
            token_id: &token.id,
            token_name: &token_name,
            account,
            token_type: policy.token_type,
            issued_at: token.created_at,
            expires_at: token.expires_at,
        };
        let began = self.engine.clock.now();
        let outcome = place.write(version, &payload).await;
        self.engine.observe_sink(delivery, SinkOperation::Write, began);
        if policy.used_by_rotad {
            self.watch_own_token(turn.credential(), true).await;
        }
        outcome
    }
}

/// Where a test may end the process around an action.
fn points(action: &Action) -> (Point, Point) {
    match action {
        Action::List { .. } => (Point::BeforeList, Point::AfterList),
        Action::Read { .. } => (Point::BeforeRead, Point::AfterRead),
        Action::Issue { .. } => (Point::BeforeIssue, Point::AfterIssue),
        Action::Verify { .. } | Action::Connect { .. } => (Point::BeforeVerify, Point::AfterVerify),
        Action::Write { .. } => (Point::BeforeWrite, Point::AfterWrite),
        Action::Revoke { .. } => (Point::BeforeRevoke, Point::AfterRevoke),
        Action::Wait { .. } => (Point::TurnSaved, Point::TurnSaved),
    }
}

/// The id shows in the account's list, as asked.
fn verify_by_list(outcome: ListOutcome, token_type: TokenType, token: &Token) -> VerifyOutcome {
    let listed = match outcome {
        ListOutcome::Failed(failed) => return VerifyOutcome::Failed(failed),
        ListOutcome::Complete(listed) => listed,
    };
    match listed.into_iter().find(|listed| listed.id == token.id) {
        None => VerifyOutcome::Failed(Failed::new(Reason::Missing, "the new token is not in the account's list yet")),
        Some(listed) if listed.token_type != token_type => {
            let detail = format!("the list shows the new token as `{}`, not `{token_type}`", listed.token_type);
            VerifyOutcome::Disproved(Failed::new(Reason::BadAnswer, detail))
        }
        Some(_) => VerifyOutcome::Verified,
    }
}

fn outdated() -> Failed {
    Failed::new(
        Reason::TimedOut,
        "not sent: the deliveries were read back too long before, as the journal was slow or the process suspended; they are read again",
    )
}

fn no_place(delivery: &DeliveryId) -> Failed {
    Failed::new(Reason::Missing, format!("`{delivery}` is not a place that can be reached now"))
}

fn encode(state: &Credential) -> Result<String, JournalError> {
    serde_json::to_string(state).map_err(|error| JournalError::Unwritable(format!("the state can't be encoded: {error}")))
}
