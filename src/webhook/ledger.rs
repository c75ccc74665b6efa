//! What was told, and what is to be told next: a function of what is found, of what was told and of the time, without I/O.
//!
//! A state is told once it has lasted, and its end once that has lasted; what comes and goes faster is told once and stays
//! told. What can't be sent is a state of the ledger, not a message in a queue: what has ended before anybody could be told
//! is not told at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{General, OfFleet, in_fleet, of_accounts};
use crate::rotation::{AccountState, Blocked, CredentialName};
use crate::snapshot::{Attention, Label, Snapshot, Summary};

/// A deadline near is not urgent: like the shipped alert it waits ten times as long as the others.
const NEAR_TIMES: i32 = 10;

/// What a state is a state of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    Rotad,
    Organization(Arc<str>),
    Fleet(Arc<str>),
    /// A configured account, by its username.
    Account(Arc<str>),
    Credential(CredentialName),
}

/// What is told, the most pressing first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    General(General),
    /// A place serves a token that has expired.
    Expired,
    PastDeadline,
    Blocked(Blocked),
    Fleet(OfFleet),
    /// A configured account is not as it is configured, and rotad can't mend it, or must not.
    AccountApart,
    /// More than half of the credential's own margin is used up.
    NearDeadline,
}

/// States of one topic follow one another; those of different topics may be there together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    General(General),
    AdminToken,
    Deadline,
    Block,
    Fleet(OfFleet),
    Account,
}

impl State {
    fn all() -> impl Iterator<Item = Self> {
        let others = [Self::Expired, Self::PastDeadline, Self::NearDeadline, Self::AccountApart];
        let general = General::ALL.iter().map(|general| Self::General(*general));
        let of_fleets = OfFleet::ALL.iter().map(|of| Self::Fleet(*of));
        others.into_iter().chain(general).chain(of_fleets).chain(Blocked::ALL.into_iter().map(Self::Blocked))
    }

    /// In a word, as messages have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::General(general) => general.as_str(),
            Self::Expired => Attention::Expired.as_str(),
            Self::PastDeadline => Attention::PastDeadline.as_str(),
            Self::Blocked(_) => Attention::Blocked.as_str(),
            Self::Fleet(of) => of.as_str(),
            Self::AccountApart => "account_apart",
            Self::NearDeadline => "deadline_near",
        }
    }

    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Blocked(reason) => Some(reason.as_str()),
            Self::General(_) | Self::Expired | Self::PastDeadline | Self::Fleet(_) | Self::AccountApart | Self::NearDeadline => {
                None
            }
        }
    }

    /// As the journal has it: a block with its reason.
    fn recorded(self) -> String {
        self.reason().map_or_else(|| self.word().to_owned(), |reason| format!("{}:{reason}", self.word()))
    }

    fn topic(self) -> Topic {
        match self {
            Self::General(General::AdminTokenEnds | General::AdminTokenExpired) => Topic::AdminToken,
            Self::General(general) => Topic::General(general),
            Self::Expired | Self::PastDeadline | Self::NearDeadline => Topic::Deadline,
            Self::Blocked(_) => Topic::Block,
            Self::Fleet(of) => Topic::Fleet(of),
            Self::AccountApart => Topic::Account,
        }
    }

    /// How long it lasts before it is told.
    fn settles(self, settle: SignedDuration) -> SignedDuration {
        if self == Self::NearDeadline { settle.saturating_mul(NEAR_TIMES) } else { settle }
    }

    /// Whether who was told this knows of `other`, of the same topic: a worse state says it too, another block's reason not.
    fn covers(self, other: Self) -> bool {
        self == other || (self.topic() != Topic::Block && self < other)
    }
}

/// What of one credential is to be told, if it lasts.
pub fn states(summary: &Summary, now: Timestamp) -> impl Iterator<Item = State> {
    let (mut deadline, mut block) = (None, None);
    for attention in summary.attention(now) {
        match attention {
            Attention::Expired => deadline = Some(State::Expired),
            Attention::PastDeadline => deadline = deadline.or(Some(State::PastDeadline)),
            Attention::Blocked => block = summary.blocked.map(State::Blocked),
            Attention::Undelivered
            | Attention::ProviderFailing
            | Attention::RevocationOverdue
            | Attention::UnknownTokens
            | Attention::Paused => {}
        }
    }
    let near = || summary.is_near_its_deadline(now).then_some(State::NearDeadline);
    deadline.or_else(near).into_iter().chain(block)
}

/// What of the fleets and of the configured accounts is to be told, if it lasts.
pub fn states_of_accounts(snapshot: &Snapshot) -> Vec<(About, State)> {
    let of_fleet = |fleet| {
        let states = in_fleet(fleet, snapshot.taken_at).into_iter().map(|(of, _)| State::Fleet(of));
        states.map(|state| (About::Fleet(fleet.name.clone()), state)).collect::<Vec<_>>()
    };
    let apart = snapshot.accounts.apart.iter().filter(|account| !of_accounts(std::slice::from_ref(*account)).is_empty());
    let apart = apart.map(|account| (About::Account(account.username.clone()), State::AccountApart));
    snapshot.fleets.iter().flat_map(of_fleet).chain(apart).collect()
}

/// Whether nothing can be said of it yet: what was told of it before is no more over than it is so. After a start fleets are
/// listed anew, and accounts looked at one by one.
pub fn is_unknown(about: &About, snapshot: &Snapshot) -> bool {
    match about {
        About::Fleet(name) => {
            let known = snapshot.fleets.iter().find(|fleet| fleet.name == *name);
            known.is_some_and(|fleet| fleet.listed_at.timestamp().is_none() && fleet.failing.is_none())
        }
        About::Account(_) => snapshot.accounts.states.of(AccountState::Unseen) > 0,
        About::Rotad | About::Organization(_) | About::Credential(_) => false,
    }
}

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// What people read.
    pub wall: Timestamp,
    /// Time since boot: what is waited by, whatever the wall clock does.
    pub boot: SignedDuration,
}

/// What is there to tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Is(State, About, Timestamp),
    /// It was told, and is over since.
    Over(State, About, Timestamp),
}

/// One topic of one thing.
#[derive(Debug, Clone)]
struct Line {
    state: State,
    /// Since when it is in this state or in a worse one.
    since: Now,
    seen: Now,
    told: Vec<State>,
}

impl Line {
    fn is_told(&self) -> bool {
        self.told.iter().any(|told| told.covers(self.state))
    }

    fn is_over(&self, now: Now, settle: SignedDuration) -> bool {
        now.boot - self.seen.boot >= settle
    }

    fn change(&self, about: &About, now: Now, settle: SignedDuration) -> Option<Change> {
        if self.seen.boot < now.boot {
            // The last that was told is what people think that it is.
            let told = self.told.last().filter(|_| self.is_over(now, settle))?;
            return Some(Change::Over(*told, about.clone(), self.seen.wall));
        }
        let lasted = now.boot - self.since.boot >= self.state.settles(settle);
        (lasted && !self.is_told()).then(|| Change::Is(self.state, about.clone(), self.since.wall))
    }
}

/// What something is about, as the journal and messages have it: `null` for a credential where it is about something else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Whose {
    #[serde(default)]
    pub credential: Option<CredentialName>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub organization: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fleet: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<Arc<str>>,
}

impl From<&About> for Whose {
    fn from(about: &About) -> Self {
        let nobody = Self::default();
        match about.clone() {
            About::Rotad => nobody,
            About::Organization(organization) => Self { organization: Some(organization), ..nobody },
            About::Fleet(fleet) => Self { fleet: Some(fleet), ..nobody },
            About::Account(account) => Self { account: Some(account), ..nobody },
            About::Credential(credential) => Self { credential: Some(credential), ..nobody },
        }
    }
}

impl From<Whose> for About {
    fn from(whose: Whose) -> Self {
        match whose {
            Whose { credential: Some(credential), .. } => Self::Credential(credential),
            Whose { organization: Some(organization), .. } => Self::Organization(organization),
            Whose { fleet: Some(fleet), .. } => Self::Fleet(fleet),
            Whose { account: Some(account), .. } => Self::Account(account),
            Whose { credential: None, organization: None, fleet: None, account: None } => Self::Rotad,
        }
    }
}

/// One thing that was told, as the journal has it.
#[derive(Serialize, Deserialize)]
struct Told {
    #[serde(flatten)]
    whose: Whose,
    since: Timestamp,
    told: Vec<String>,
}

/// What is the matter, and what of it was told.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<(About, Topic), Line>);

impl Ledger {
    /// What was told up to `now`, as an earlier process recorded it; what can't be read was not told.
    pub fn restored(record: &str, now: Now) -> Self {
        let told: Vec<Told> = serde_json::from_str(record).unwrap_or_default();
        let line = |told: Told| {
            let states = told.told.iter().filter_map(|word| State::all().find(|state| state.recorded() == *word));
            let states: Vec<State> = states.collect();
            let state = *states.last()?;
            let about = About::from(told.whose);
            let since = Now { wall: told.since, boot: now.boot };
            // As if seen just now: that it is over must last in this process too.
            Some(((about, state.topic()), Line { state, since, seen: now, told: states }))
        };
        Self(told.into_iter().filter_map(line).collect())
    }

    /// What was told, for a later process.
    pub fn record(&self) -> String {
        let told = self.0.iter().filter(|(_, line)| !line.told.is_empty()).map(|((about, _), line)| {
            let told = line.told.iter().map(|state| state.recorded()).collect();
            Told { whose: about.into(), since: line.since.wall, told }
        });
        // Names, moments and words: it always can be serialised.
        serde_json::to_string(&told.collect::<Vec<_>>()).unwrap_or_default()
    }

    /// Takes it that what was told of these is still so: nothing can be said of them yet.
    pub fn keep(&mut self, unknown: impl Fn(&About) -> bool, now: Now) {
        let told = self.0.iter_mut().filter(|((about, _), line)| !line.told.is_empty() && unknown(about));
        told.for_each(|(_, line)| line.seen = now);
    }

    /// Notes what is the matter at this moment. `settle` is how long calm lasts before it counts.
    pub fn look(&mut self, found: impl IntoIterator<Item = (About, State)>, now: Now, settle: SignedDuration) {
        for (about, state) in found {
            let fresh = || Line { state, since: now, seen: now, told: Vec::new() };
            let line = self.0.entry((about, state.topic())).or_insert_with(fresh);
            // From a worse state to a lesser one nothing begins anew, nor from one block to another.
            if !line.state.covers(state) && state.topic() != Topic::Block {
                line.since = now;
            }
            line.state = state;
            line.seen = now;
        }
        self.0.retain(|_, line| !line.told.is_empty() || !line.is_over(now, settle));
    }

    /// What is to be told now, the most pressing first.
    pub fn changes(&self, now: Now, settle: SignedDuration) -> Vec<Change> {
        let mut changes: Vec<Change> = self.0.iter().filter_map(|((about, _), line)| line.change(about, now, settle)).collect();
        changes.sort_unstable();
        changes
    }

    /// These were told.
    pub fn told(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Is(state, about, _) => {
                    if let Some(line) = self.0.get_mut(&(about.clone(), state.topic())) {
                        line.told.push(*state);
                    }
                }
                Change::Over(state, about, _) => {
                    self.0.remove(&(about.clone(), state.topic()));
                }
            }
        }
    }
}

/// How many times the time between two messages doubles while each is followed by another.
const GAP_DOUBLED_MAX: u32 = 4;

/// When the next message may go: what goes on for hours, as the finding of 100,000 blocked ones does, comes in few.
#[derive(Debug, Default)]
pub struct Pace {
    sent_at: Option<SignedDuration>,
    doubled: u32,
}

impl Pace {
    fn gap(&self, settle: SignedDuration) -> SignedDuration {
        settle.saturating_mul(1 << self.doubled)
    }

    pub fn may_send(&self, now: Now, settle: SignedDuration) -> bool {
        self.sent_at.is_none_or(|at| now.boot - at >= self.gap(settle))
    }

    pub fn sent(&mut self, now: Now, settle: SignedDuration) {
        let soon = self.sent_at.is_some_and(|at| now.boot - at < self.gap(settle).saturating_mul(2));
        self.doubled = if soon { (self.doubled + 1).min(GAP_DOUBLED_MAX) } else { 0 };
        self.sent_at = Some(now.boot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::{Moment, Steady};
    use crate::snapshot::{AccountsSummary, ApartAccount, Board, FleetSummary};

    const SETTLE: SignedDuration = SignedDuration::from_secs(60);
    const BLOCKED: State = State::Blocked(Blocked::RolledBack);

    fn at(second: i64) -> Now {
        let wall = Timestamp::from_second(1_790_000_000 + second).unwrap();
        Now { wall, boot: SignedDuration::from_secs(5_000 + second) }
    }

    fn etl() -> About {
        About::Credential("etl".parse().unwrap())
    }

    /// Looks every 10 s at what `found` says, tells what there is to tell, and gives it with its second.
    fn watched(ledger: &mut Ledger, seconds: std::ops::Range<i64>, found: impl Fn(i64) -> Vec<State>) -> Vec<(i64, Change)> {
        let mut told = Vec::new();
        for second in seconds.step_by(10) {
            ledger.look(found(second).into_iter().map(|state| (etl(), state)), at(second), SETTLE);
            let changes = ledger.changes(at(second), SETTLE);
            ledger.told(&changes);
            told.extend(changes.into_iter().map(|change| (second, change)));
        }
        told
    }

    fn is(state: State, since: i64) -> Change {
        Change::Is(state, etl(), at(since).wall)
    }

    fn over(state: State, since: i64) -> Change {
        Change::Over(state, etl(), at(since).wall)
    }

    #[test]
    fn a_block_that_lasts_is_told_once_and_its_end_once() {
        let found = |second| if (100..500).contains(&second) { vec![BLOCKED] } else { vec![] };
        let told = watched(&mut Ledger::default(), 0..2_000, found);
        assert_eq!(told, [(160, is(BLOCKED, 100)), (550, over(BLOCKED, 490))]);
    }

    #[test]
    fn what_is_over_before_it_settles_is_not_told() {
        let found = |second| if (100..150).contains(&second) { vec![BLOCKED] } else { vec![] };
        assert_eq!(watched(&mut Ledger::default(), 0..1_000, found), []);
    }

    #[test]
    fn what_flaps_is_told_once_and_is_over_once_it_stays_away() {
        let found = |second: i64| if second < 3_600 && second % 50 < 30 { vec![BLOCKED] } else { vec![] };
        let told = watched(&mut Ledger::default(), 0..7_200, found);
        assert_eq!(told, [(60, is(BLOCKED, 0)), (3_630, over(BLOCKED, 3_570))]);
    }

    #[test]
    fn a_deadline_near_waits_longer_and_each_worse_state_is_told() {
        let found = |second| match second {
            0..1_000 => vec![State::NearDeadline],
            1_000..2_000 => vec![State::PastDeadline],
            2_000..3_000 => vec![State::Expired],
            // Better, and not well: nobody has to know.
            3_000..4_000 => vec![State::NearDeadline],
            _ => vec![],
        };
        let told = watched(&mut Ledger::default(), 0..5_000, found);
        let expected = [
            (600, is(State::NearDeadline, 0)),
            (1_060, is(State::PastDeadline, 1_000)),
            (2_060, is(State::Expired, 2_000)),
            (4_050, over(State::Expired, 3_990)),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn who_was_told_the_worst_first_is_not_told_the_lesser() {
        let found = |second| if second < 500 { vec![State::Expired] } else { vec![State::NearDeadline] };
        assert_eq!(watched(&mut Ledger::default(), 0..5_000, found), [(60, is(State::Expired, 0))]);
    }

    #[test]
    fn a_block_and_a_deadline_are_two_things_and_another_reason_is_told() {
        let another = State::Blocked(Blocked::OwnedByOther);
        let found = |second| match second {
            0..500 => vec![BLOCKED, State::PastDeadline],
            _ => vec![another],
        };
        let told = watched(&mut Ledger::default(), 0..1_000, found);
        let expected = [
            (60, is(State::PastDeadline, 0)),
            (60, is(BLOCKED, 0)),
            (500, is(another, 0)),
            (550, over(State::PastDeadline, 490)),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn reasons_that_alternate_are_each_told_once() {
        let another = State::Blocked(Blocked::OwnedByOther);
        let found = |second: i64| vec![if second % 20 == 0 { BLOCKED } else { another }];
        assert_eq!(watched(&mut Ledger::default(), 0..5_000, found).len(), 2);
    }

    #[test]
    fn another_process_tells_nothing_again_and_knows_what_is_over() {
        let mut ledger = Ledger::default();
        watched(&mut ledger, 0..100, |_| vec![BLOCKED, State::PastDeadline]);
        ledger.look([(About::Rotad, State::General(General::AnotherOrganization))], at(100), SETTLE);
        ledger.told(&[Change::Is(State::General(General::AnotherOrganization), About::Rotad, at(100).wall)]);
        let record = ledger.record();
        let mut restored = Ledger::restored(&record, at(1_000));
        assert_eq!(restored.record(), record);
        let told = watched(&mut restored, 1_000..3_000, |_| vec![BLOCKED]);
        let organization = Change::Over(State::General(General::AnotherOrganization), About::Rotad, at(1_000).wall);
        assert_eq!(told, [(1_060, organization), (1_060, over(State::PastDeadline, 1_000))]);
        assert_eq!(restored.record().matches("rolled_back").count(), 1);
    }

    #[test]
    fn a_record_that_can_t_be_read_is_as_if_nothing_was_told() {
        for record in ["", "{", r#"[{"credential":"etl","since":"2026-01-01T00:00:00Z","told":["of a later version"]}]"#] {
            assert_eq!(Ledger::restored(record, at(0)).record(), "[]", "{record}");
        }
        for state in State::all() {
            assert_eq!(State::all().filter(|other| other.recorded() == state.recorded()).count(), 1, "{state:?}");
        }
    }

    #[test]
    fn what_nobody_could_be_told_is_told_while_it_lasts_and_not_after() {
        let mut ledger = Ledger::default();
        let look = |ledger: &mut Ledger, second, found: &[State]| {
            ledger.look(found.iter().map(|state| (etl(), *state)), at(second), SETTLE);
            ledger.changes(at(second), SETTLE)
        };
        look(&mut ledger, 0, &[BLOCKED]);
        assert_eq!(look(&mut ledger, 60, &[BLOCKED]), [is(BLOCKED, 0)]);
        assert_eq!(look(&mut ledger, 9_000, &[BLOCKED]), [is(BLOCKED, 0)], "nothing piles up");
        assert_eq!(look(&mut ledger, 9_010, &[]), []);
        assert_eq!(look(&mut ledger, 9_060, &[]), []);
        assert!(ledger.0.is_empty());
    }

    #[test]
    fn a_wall_clock_that_jumps_changes_nothing() {
        let mut ledger = Ledger::default();
        let jumped = |second: i64, jump: i64| Now { wall: at(second + jump).wall, ..at(second) };
        ledger.look([(etl(), BLOCKED)], at(0), SETTLE);
        ledger.look([(etl(), BLOCKED)], jumped(30, 100_000), SETTLE);
        assert_eq!(ledger.changes(jumped(30, 100_000), SETTLE), []);
        ledger.look([(etl(), BLOCKED)], jumped(60, -100_000), SETTLE);
        assert_eq!(ledger.changes(jumped(60, -100_000), SETTLE), [is(BLOCKED, 0)]);
    }

    #[test]
    fn what_goes_on_comes_in_ever_fewer_messages() {
        let mut pace = Pace::default();
        let mut sent = Vec::new();
        for second in (0..5_000).chain(20_000..20_100) {
            if pace.may_send(at(second), SETTLE) {
                pace.sent(at(second), SETTLE);
                sent.push(second / 60);
            }
        }
        assert_eq!(sent, [0, 1, 3, 7, 15, 31, 47, 63, 79, 333, 334], "after a quiet time it is as at the beginning");
    }

    fn fleet(listed: Option<i64>, may_go: Option<u64>) -> FleetSummary {
        FleetSummary {
            name: "tenants".into(),
            accounts: 20,
            missing: may_go.map_or(0, |_| 9),
            left_out: 0,
            refused_since: may_go.map(|_| at(0).wall).into(),
            may_go,
            listed_at: listed.map(|second| at(second).wall).into(),
            failing: None,
        }
    }

    fn account(state: AccountState, observed: bool) -> ApartAccount {
        let (organization, username) = ("main".into(), "tenant_1".into());
        ApartAccount { organization, username, state, observed, failing: None, since: None, found: None, wanted: None }
    }

    fn shown(fleets: Vec<FleetSummary>, apart: Vec<ApartAccount>, unseen: u64) -> Snapshot {
        let moment = Moment { wall: at(0).wall, steady: Steady(0) };
        let board = Board::new(moment);
        board.fleets(fleets);
        let mut accounts = AccountsSummary { apart, ..AccountsSummary::default() };
        accounts.states.add(AccountState::Unseen, unseen);
        board.accounts(accounts);
        board.snapshot(moment)
    }

    #[test]
    fn fleets_and_accounts_have_states_where_a_person_is_needed() {
        let refused = shown(vec![fleet(Some(0), Some(3))], vec![account(AccountState::Differs, true)], 0);
        let expected = [
            (About::Fleet("tenants".into()), State::Fleet(OfFleet::LettingGoRefused)),
            (About::Account("tenant_1".into()), State::AccountApart),
        ];
        assert_eq!(states_of_accounts(&refused), expected);
        // What rotad is about to mend is nobody's.
        let mended = shown(vec![fleet(Some(0), None)], vec![account(AccountState::Differs, false)], 0);
        assert_eq!(states_of_accounts(&mended), []);
    }

    #[test]
    fn what_was_told_of_fleets_and_accounts_is_not_over_before_they_were_seen_again() {
        let refused = shown(vec![fleet(Some(0), Some(3))], vec![account(AccountState::Missing, true)], 0);
        let mut ledger = Ledger::default();
        let look = |ledger: &mut Ledger, second, snapshot: &Snapshot| {
            ledger.keep(|about| is_unknown(about, snapshot), at(second));
            ledger.look(states_of_accounts(snapshot), at(second), SETTLE);
            let changes = ledger.changes(at(second), SETTLE);
            ledger.told(&changes);
            changes.len()
        };
        look(&mut ledger, 0, &refused);
        assert_eq!(look(&mut ledger, 60, &refused), 2);
        // Another process, which has seen nothing yet.
        let mut ledger = Ledger::restored(&ledger.record(), at(100));
        let unseen = shown(vec![fleet(None, None)], vec![], 1);
        assert_eq!((look(&mut ledger, 200, &unseen), look(&mut ledger, 900, &unseen)), (0, 0));
        let well = shown(vec![fleet(Some(950), None)], vec![], 0);
        assert_eq!((look(&mut ledger, 950, &well), look(&mut ledger, 1_020, &well)), (0, 2));
        assert_eq!(ledger.record(), "[]");
    }

    #[test]
    fn a_summary_s_states_are_what_the_alerts_are_about() {
        let organization = Board::new(Moment { wall: at(0).wall, steady: Steady(0) }).organization("main");
        let summary = Summary { due_at: at(0).wall.into(), deadline_at: at(100).wall.into(), ..Summary::new(organization) };
        let found = |summary: Summary, second| states(&summary, at(second).wall).collect::<Vec<_>>();
        assert_eq!(found(summary, 50), []);
        assert_eq!(found(summary, 51), [State::NearDeadline]);
        assert_eq!(found(summary, 100), [State::PastDeadline]);
        let blocked = Summary { served_until: at(90).wall.into(), blocked: Some(Blocked::RolledBack), ..summary };
        assert_eq!(found(blocked, 100), [State::Expired, BLOCKED]);
        let troubled = Summary { deliveries_failing: 1, provider_failing: true, tokens_unknown: 1, ..summary };
        assert_eq!(found(troubled, 0), []);
        let observed = Summary { state: crate::snapshot::CredentialState::Observed, ..blocked };
        assert_eq!(found(observed, 100), []);
    }
}
