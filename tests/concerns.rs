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
use rotad::engine::{Concern, concerns, general_concerns, summarize};
use rotad::rotation::{Backoff, Block, Blocked, Credential, Failed, Moment, Order, Reason, Roll, Steady, Trouble};
use rotad::snapshot::{At, Attention, Board, FleetSummary, FreezeReason, JournalState, Label, Summary, span};

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
    let briefly = board();
    briefly.fleets(vec![failing]);
    assert_eq!(taken(&briefly), [], "a list that failed once is nobody's concern");
    found
}

fn shown(heading: &str, concern: &Concern) -> String {
    let mut text = format!("{heading}\n");
    let _ = writeln!(text, "  happened  {}", concern.happened);
    if let Some(place) = &concern.place {
        let _ = writeln!(text, "  where     {place}");
    }
    if let Some(since) = concern.since {
        let _ = writeln!(text, "  since     {} ago", span(now(), since));
    }
    let when = concern.next_at.map_or_else(String::new, |at| format!(" (next in {})", span(at, now())));
    let _ = writeln!(text, "  rotad     {}{when}\n  to do     {}", concern.next, concern.remedy);
    text
}

#[test]
fn every_concern_has_all_its_parts_and_reads_as_it_did() {
    let (credentials, everything) = (of_credentials(), of_everything());
    for (heading, concern) in credentials.iter().chain(&everything) {
        for part in [&concern.happened, &concern.next, &concern.remedy] {
            assert!(part.len() > 8 && !part.ends_with('.'), "{heading}: `{part}`");
        }
        assert_ne!(concern.next, concern.remedy, "{heading}");
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
    let text: Vec<String> = credentials.iter().chain(&everything).map(|(heading, concern)| shown(heading, concern)).collect();
    let text = text.join("\n");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/concerns.txt");
    if std::env::var_os("ROTAD_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&golden).unwrap_or_default());
}
