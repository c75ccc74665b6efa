//! Everything that can need a person, in its parts: what happened, to which credential and place, what rotad does next and
//! when, and what the person should do. All of it stands in `tests/golden/concerns.txt`, as status, page and JSON have it.
//! With `ROTAD_GOLDEN=write` that is written anew: read the difference then.
#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

#[allow(dead_code, reason = "it takes what it needs of the rig")]
mod rig;

use std::fmt::Write;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rig::{Rig, place, secs, wall};
use rotad::engine::{Concern, NOTHING_BY_ITSELF, by_summary, concerns, general_concerns, near_deadline, summarize};
use rotad::rotation::{
    AccountState, Adoption, Backoff, Block, Blocked, Credential, Failed, Moment, Order, Reason, Roll, Steady, TokenId, Trouble,
    Unconnected,
};
use rotad::snapshot::{
    AccountsSummary, ApartAccount, At, Attention, Board, FleetSummary, FreezeReason, JournalState, Label, Summary, span,
};

const PLACE: &str = "vault:https://v/secret/etl#token";

fn now() -> Timestamp {
    wall(100_000)
}

/// A moment's summary with nothing amiss, and a state to go with it.
fn rotated() -> (Rig, Credential, Summary) {
    let mut rig = Rig::new(&[PLACE]);
    rig.pass(10);
    let state = rig.credential().clone();
    let board = Board::new(Moment { wall: wall(0), steady: Steady(0) });
    let summary = summarize(&state, &rig.policy, board.organization("main"), now());
    (rig, state, summary)
}

fn trouble(reason: Reason, writing: bool) -> Trouble {
    let failed = Failed::new(reason, "(what the place answered)");
    Trouble { since: now() - secs(600), writing, failed, backoff: Backoff { failures: 5, until: Some(now() + secs(512)) } }
}

/// What is told of a credential that has this and nothing else.
fn told(alter: impl FnOnce(&mut Credential)) -> Vec<Concern> {
    let (rig, mut state, _) = rotated();
    alter(&mut state);
    let board = Board::new(Moment { wall: wall(0), steady: Steady(0) });
    let summary = summarize(&state, &rig.policy, board.organization("main"), now());
    concerns(&state, &rig.policy, &summary, Some(now() + secs(540)), now())
}

/// The same for what the summary's numbers alone say.
fn told_by_numbers(alter: impl FnOnce(&mut Summary)) -> Vec<Concern> {
    let (rig, state, mut summary) = rotated();
    alter(&mut summary);
    concerns(&state, &rig.policy, &summary, Some(now() + secs(60)), now())
}

/// Every concern that a credential can have, under a heading.
fn of_credentials() -> Vec<(String, Concern)> {
    let mut found: Vec<(String, Concern)> = Vec::new();
    let mut add = |heading: String, concerns: Vec<Concern>| {
        assert_eq!(concerns.len(), 1, "{heading}: {concerns:?}");
        found.extend(concerns.into_iter().map(|concern| (heading.clone(), concern)));
    };
    let long_ago = now() - SignedDuration::from_hours(5);
    add("expired".to_owned(), told_by_numbers(|summary| summary.served_until = long_ago.into()));
    add("past_deadline".to_owned(), told_by_numbers(|summary| summary.deadline_at = long_ago.into()));
    for reason in Blocked::ALL {
        let block = Block { reason, since: now() - secs(7_300), detail: "(what was found)".to_owned() };
        add(format!("blocked: {}", reason.as_str()), told(|state| state.blocked = Some(block)));
    }
    for (reason, writing) in Reason::ALL.iter().map(|reason| (*reason, true)).chain([(Reason::Unavailable, false)]) {
        let doing = if writing { "write" } else { "read" };
        let delivery = |state: &mut Credential| {
            let known = state.deliveries.entry(place(PLACE)).or_default();
            known.trouble = Some(trouble(reason, writing));
        };
        add(format!("undelivered: {doing}, {}", reason.as_str()), told(delivery));
    }
    let failing = Backoff { failures: 7, until: Some(now() + secs(64)) };
    add("provider_failing".to_owned(), told(|state| state.listing = failing));
    let unconnected = |reason, detail: &str| {
        let failed = Failed::new(reason, detail);
        move |state: &mut Credential| {
            state.issuing = failing;
            state.unconnected = Some(Unconnected { since: now() - secs(7_300), failed });
        }
    };
    for reason in [Reason::Unreachable, Reason::BadAnswer, Reason::WrongRegion, Reason::Revoked] {
        let heading = format!("provider_failing: first connection, {}", reason.as_str());
        add(heading, told(unconnected(reason, "(what the Postgres endpoint said)")));
    }
    let overdue = |summary: &mut Summary| {
        summary.revocations_pending = 1;
        summary.revocation_oldest_due_at = long_ago.into();
    };
    add("revocation_overdue".to_owned(), told_by_numbers(overdue));
    add("unknown_tokens".to_owned(), told_by_numbers(|summary| summary.tokens_unknown = 3));
    let mut rig = Rig::new(&[PLACE]);
    rig.pass(10);
    let pause = Order::Pause { until: now() + secs(7_200), reason: "until the audit is over".to_owned(), let_expire: false };
    rig.order(&pause).unwrap();
    let orders = rig.credential().orders.clone();
    add("paused".to_owned(), told(|state| state.orders = orders));
    found
}

/// What of a credential is told beside its own attention: ids to adopt that are none, and what a webhook tells early, or
/// without the journal's record.
fn of_credentials_beside() -> Vec<(String, Concern)> {
    let adoption = |adoption: Adoption| {
        told(|state| {
            state.adoptions.insert(TokenId("token-1".to_owned()), adoption);
        })
    };
    let (rig, _, summary) = rotated();
    let name = &rig.policy.owner.credential;
    let by_summary = |attention: Attention| {
        let blocked = Summary { blocked: Some(Blocked::RolledBack), ..summary };
        vec![by_summary(name, attention, if attention == Attention::Blocked { &blocked } else { &summary }, now())]
    };
    let found = [
        ("unadopted: not listed", adoption(Adoption::NotListed)),
        ("unadopted: rotad's own", adoption(Adoption::Refused)),
        ("near its deadline", vec![near_deadline(name, &summary, Some(now() + secs(540)), now())]),
        ("near its deadline, and its turn is due", vec![near_deadline(name, &summary, Some(now()), now())]),
        ("blocked, the journal does not answer", by_summary(Attention::Blocked)),
        ("past its deadline, the journal does not answer", by_summary(Attention::PastDeadline)),
        ("expired, the journal does not answer", by_summary(Attention::Expired)),
    ];
    let one = |(heading, mut concerns): (&str, Vec<Concern>)| {
        assert_eq!(concerns.len(), 1, "{heading}: {concerns:?}");
        (heading.to_owned(), concerns.remove(0))
    };
    found.into_iter().map(one).collect()
}

fn apart(number: usize, state: AccountState) -> ApartAccount {
    let differs = state == AccountState::Differs;
    let ducklings = |size: &str| Some(format!("read/write {size}")).filter(|_| differs);
    ApartAccount {
        organization: "main".into(),
        username: format!("tenant_{number}").into(),
        state,
        observed: false,
        failing: None,
        since: Some(wall(90_000)),
        found: ducklings("standard"),
        wanted: ducklings("jumbo"),
    }
}

/// Accounts of the configuration that a person must look at: those that have the same are told together.
fn accounts_apart() -> Vec<(String, Vec<ApartAccount>)> {
    let mut found = Vec::new();
    for reason in Reason::ALL {
        let failing = ApartAccount { failing: Some(reason), ..apart(1, AccountState::Missing) };
        found.push((format!("missing, {}", reason.as_str()), vec![failing]));
    }
    for state in [AccountState::Unseen, AccountState::Differs, AccountState::Unfit] {
        let failing = |number| ApartAccount { failing: Some(Reason::Rejected), ..apart(number, state) };
        found.push((format!("{}, rejected", state.as_str()), (1..=5).map(failing).collect()));
    }
    for state in [AccountState::Missing, AccountState::Differs] {
        let observed = |number| ApartAccount { observed: true, ..apart(number, state) };
        found.push((format!("{}, observed", state.as_str()), (1..=2).map(observed).collect()));
    }
    found
}

/// Every concern about rotad as a whole.
fn of_everything() -> Vec<(String, Concern)> {
    let board = || {
        let board = Board::new(Moment { wall: wall(0), steady: Steady(0) });
        board.configuration_loaded(wall(0));
        board.journal(JournalState::Writable);
        board
    };
    let taken = |board: &Board| general_concerns(&board.snapshot(Moment { wall: now(), steady: Steady(0) }));
    assert_eq!(taken(&board()), [], "nothing is amiss");
    let mut found = Vec::new();
    let mut add = |heading: String, board: &Board| {
        let concerns = taken(board);
        assert_eq!(concerns.len(), 1, "{heading}: {concerns:?}");
        found.extend(concerns.into_iter().map(|concern| (heading.clone(), concern)));
    };
    let unwritable = board();
    unwritable.journal(JournalState::Unwritable);
    unwritable.freeze(FreezeReason::JournalUnwritable, true);
    add("the journal".to_owned(), &unwritable);
    let standby = board();
    standby.stands_by("rotad 7 on replica-1 0badcafe");
    add("standing by".to_owned(), &standby);
    for reason in FreezeReason::ALL.iter().filter(|reason| **reason != FreezeReason::JournalUnwritable) {
        let frozen = board();
        frozen.freeze(*reason, true);
        add(format!("frozen: {}", reason.as_str()), &frozen);
    }
    let refused = board();
    refused.reload_failed();
    add("the configuration".to_owned(), &refused);
    for (heading, left) in [("the admin token, soon", 86_400 * 3), ("the admin token, over", -60)] {
        let expiring = board();
        expiring.admin_token_expires(expiring.organization("main"), Some(now() + secs(left)));
        add(heading.to_owned(), &expiring);
    }
    let listed_at = At::from(now() - secs(60));
    let calm = FleetSummary { listed_at, ..FleetSummary::new(&"tenants".into(), &Roll::default()) };
    let mut fleet = |heading: &str, changed: FleetSummary| {
        let board = board();
        board.fleets(vec![calm.clone(), changed]);
        add(format!("a fleet, {heading}"), &board);
    };
    let many = FleetSummary { accounts: 40, missing: 5, may_go: Some(4), refused_since: wall(0).into(), ..calm.clone() };
    fleet("too many gone at once", many);
    let failing = FleetSummary { failing: Some(Reason::Forbidden), ..calm.clone() };
    fleet("not listed for long", FleetSummary { listed_at: (now() - secs(16 * 60)).into(), ..failing.clone() });
    fleet("never listed", FleetSummary { listed_at: At::UNKNOWN, ..failing.clone() });
    fleet("accounts left out", FleetSummary { left_out: 2, ..calm.clone() });
    for (heading, apart) in accounts_apart() {
        let board = board();
        board.accounts(AccountsSummary { apart, ..AccountsSummary::default() });
        add(format!("accounts, {heading}"), &board);
    }
    let about_to_be_mended = board();
    about_to_be_mended.accounts(AccountsSummary { apart: vec![apart(1, AccountState::Missing)], ..AccountsSummary::default() });
    assert_eq!(taken(&about_to_be_mended), [], "rotad creates it next");
    let briefly = board();
    briefly.fleets(vec![failing]);
    assert_eq!(taken(&briefly), [], "a list that failed once is nobody's concern");
    found
}

fn shown(heading: &str, concern: &Concern) -> String {
    let mut text = format!("{heading}\n");
    let _ = writeln!(text, "  happened  {}", concern.happened);
    if let Some(credential) = &concern.credential {
        let _ = writeln!(text, "  to        {credential}");
    }
    if let Some(place) = &concern.place {
        let _ = writeln!(text, "  where     {place}");
    }
    if let Some(since) = concern.since {
        let _ = writeln!(text, "  since     {} ago", span(now(), since));
    }
    let when = concern.when(now()).map_or_else(String::new, |when| format!(" ({when})"));
    let _ = writeln!(text, "  rotad     {}{when}\n  to do     {}", concern.next, concern.remedy);
    text
}

#[test]
fn every_concern_has_all_its_parts_and_reads_as_it_did() {
    let (credentials, beside, everything) = (of_credentials(), of_credentials_beside(), of_everything());
    let all = || credentials.iter().chain(&beside).chain(&everything);
    for (heading, concern) in all() {
        for part in [&concern.happened, &concern.next, &concern.remedy] {
            assert!(part.len() > 8 && !part.ends_with('.'), "{heading}: `{part}`");
        }
        assert_ne!(concern.next, concern.remedy, "{heading}");
        let has_a_time = concern.next_at.is_some_and(|at| at > now()) || concern.next_within_seconds.is_some();
        let nothing = concern.next.starts_with(NOTHING_BY_ITSELF);
        assert!(has_a_time != nothing, "{heading} says neither when nor that rotad does nothing by itself: {concern:?}");
        let of_a_credential = everything.iter().all(|(other, _)| other != heading);
        assert_eq!(concern.credential.as_ref().map(|name| name.as_str()), of_a_credential.then_some("etl"), "{heading}");
    }
    for (heading, concern) in &credentials {
        let attention = concern.attention.unwrap_or_else(|| panic!("{heading} says not what it is about"));
        assert!(heading.starts_with(attention.as_str()), "{heading}: {attention:?}");
        assert!(concern.next_at.is_some_and(|at| at > now()), "{heading} says not when");
        assert_eq!(concern.place.is_some(), attention == Attention::Undelivered, "{heading}");
    }
    for attention in Attention::ALL {
        assert!(credentials.iter().any(|(_, concern)| concern.attention == Some(*attention)), "{attention:?} is not in the list");
    }
    let text: Vec<String> = all().map(|(heading, concern)| shown(heading, concern)).collect();
    let text = text.join("\n");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/concerns.txt");
    if std::env::var_os("ROTAD_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&golden).unwrap_or_default());
}
