//! The core's rules one by one: the table of what a read-back may show, and the paragraphs of the
//! design that a random walk meets rarely.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of test functions

#[allow(dead_code)]
mod rig;

use rig::*;
use rotad::rotation::{
    Account, Action, Blocked, Failed, Happened, IssueOutcome, Owner, Reason, RotationId, Schedule, Shows, Stage, TokenName,
    TokenType, Verify, WriteOutcome, deadline,
};

/// A credential in its daily course: delivered everywhere, its grace periods over.
fn steady(places: &[&str]) -> Rig {
    let mut rig = Rig::new(places);
    rig.pass(3 * DAY + HOUR);
    let newest = rig.credential().latest().unwrap().0;
    assert!(places.iter().all(|name| rig.served(name) == Some(newest)));
    // Away from the due time, whichever hour it has.
    while rig.count(rig.second - 2 * HOUR, is_issue) > 0 || next_due(&rig) < 3 * HOUR {
        rig.pass(HOUR);
    }
    rig
}

fn next_due(rig: &Rig) -> i64 {
    let due = rig.policy.schedule.next_after(wall(rig.second)).unwrap();
    due.duration_since(wall(rig.second)).as_secs()
}

fn newest(rig: &Rig) -> RotationId {
    rig.credential().latest().unwrap().0
}

// The ordinary course.

#[test]
fn a_rotation_a_day_and_the_old_token_lives_for_its_grace_period() {
    let mut rig = Rig::new(&["a", "b"]);
    rig.pass(10 * DAY);
    let (issued, revoked) = (rig.happened(Happened::Issued), rig.happened(Happened::Revoked));
    assert!((10..=11).contains(&issued), "{issued}");
    assert!(issued - revoked <= 2, "{issued} {revoked}");
    assert!(rig.tokens.len() <= 2);
}

#[test]
fn the_first_token_is_issued_at_once_and_not_again_after_a_restart() {
    let mut rig = Rig::new(&["a"]);
    rig.turn();
    assert_eq!(rig.count(0, is_issue), 1);
    rig.facts.process = rotad::rotation::ProcessId(2);
    rig.hand.clear();
    rig.pass(MINUTE);
    assert_eq!(rig.count(0, is_issue), 1);
}

// What a read-back may show.

#[test]
fn an_earlier_token_within_a_minute_of_our_write_is_lag_and_writes_nothing() {
    let mut rig = steady(&["a", "b"]);
    rig.wrong.writes_lag = true;
    let until_due = next_due(&rig);
    rig.pass(until_due + 2);
    let since = rig.second - 2;
    assert_eq!(rig.count(since - 1, is_issue), 1);
    assert_eq!(rig.count(since - 1, is_write), 2, "each place is written once");
    rig.pass(50);
    assert_eq!(rig.count(since - 1, is_write), 2, "it looks again and writes nothing");
    rig.wrong.writes_lag = false;
    rig.pass(30);
    assert!(rig.count(since - 1, is_write) > 2, "after a minute the write has failed: the same token is written again");
    assert_eq!(rig.count(since - 1, is_issue), 1);
    assert_eq!(rig.served("a"), Some(newest(&rig)));
}

#[test]
fn a_place_that_shows_nothing_again_within_a_minute_of_our_write_is_lag_and_mints_nothing() {
    let mut rig = Rig::new(&["a"]);
    rig.pass(5);
    assert_eq!(rig.served("a"), Some(newest(&rig)), "confirmed: its value is no longer in memory");
    rig.places.insert(place("a"), Ok(Shows::Nothing { owner: None }));
    // A read may lag behind one that showed the write already.
    rig.turn();
    rig.pass(30);
    assert_eq!(rig.count(0, is_issue), 1);
    rig.pass(2 * MINUTE);
    rig.pass(HOUR);
    assert_eq!(rig.count(0, is_issue), 2, "after a minute it was wiped: no other place has the value");
}

#[test]
fn a_rolled_back_delivery_is_left_until_the_next_rotation_and_nothing_is_revoked() {
    let mut rig = steady(&["a", "b"]);
    let until_due = next_due(&rig);
    rig.pass(until_due + HOUR);
    let (old, _) = rig.credential().rotations.first_key_value().map(|(id, rotation)| (*id, rotation.clone())).unwrap();
    let value = rig.credential().rotations[&old].token.as_ref().unwrap().fingerprint.unwrap();
    rig.show("b", value, old);
    let since = rig.second;
    rig.pass(20 * HOUR);
    assert_eq!(rig.blocked(), Some(Blocked::RolledBack));
    assert_eq!(rig.served("b"), Some(old), "what a person put back stays");
    assert_eq!(rig.count(since, is_revoke), 0, "revocations wait, past the grace period");
    rig.pass(DAY);
    assert_eq!(rig.served("b"), Some(newest(&rig)), "overwritten when next due");
    assert_eq!(rig.blocked(), None);
}

#[test]
fn a_value_changed_by_hand_is_mended_by_copying_and_at_most_hourly() {
    let mut rig = steady(&["a", "b"]);
    let since = rig.second;
    rig.scribble("b");
    rig.pass(2 * MINUTE);
    rig.turn();
    let at_first = rig.count(since, is_write);
    rig.pass(HOUR);
    assert_eq!(rig.served("b"), Some(newest(&rig)));
    assert_eq!(rig.count(since, is_write) + at_first, at_first + 1);
    rig.scribble("b");
    let again = rig.second;
    rig.turn();
    rig.pass(10 * MINUTE);
    assert_eq!(rig.count(again, is_issue), 0);
    rig.pass(2 * HOUR);
    assert_eq!(rig.served("b"), Some(newest(&rig)));
    let writes: Vec<i64> =
        rig.actions.iter().filter(|(second, action)| *second >= since && is_write(action)).map(|(second, _)| *second).collect();
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert!(writes[1] - writes[0] >= HOUR, "{writes:?}");
}

#[test]
fn an_emptied_delivery_is_filled_by_copying_and_mints_nothing() {
    let mut rig = steady(&["a", "b"]);
    let since = rig.second;
    rig.places.insert(place("b"), Ok(Shows::Nothing { owner: None }));
    rig.pass(2 * HOUR);
    assert_eq!(rig.served("b"), Some(newest(&rig)));
    assert_eq!(rig.count(since, is_issue), 0);
}

#[test]
fn where_no_delivery_can_supply_the_value_a_token_is_issued_at_once() {
    let mut rig = steady(&["a", "b"]);
    let since = rig.second;
    rig.places.insert(place("a"), Ok(Shows::Nothing { owner: None }));
    rig.break_reading("b");
    rig.pass(90 * MINUTE);
    assert_eq!(rig.count(since, is_issue), 0, "what can't be read may have it");
    rig.places.insert(place("b"), Ok(Shows::Nothing { owner: None }));
    rig.pass(2 * HOUR);
    assert_eq!(rig.count(since, is_issue), 1);
    assert_eq!(rig.served("a"), Some(newest(&rig)));
}

#[test]
fn another_owners_place_is_never_written_not_even_at_the_deadline() {
    let mut rig = steady(&["a", "b"]);
    let other: Owner = "sim/other".parse().unwrap();
    let theirs = Shows::Value { fingerprint: fingerprint(0xdd), owner: Some(other), rotation: None };
    rig.places.insert(place("b"), Ok(theirs.clone()));
    rig.pass(2 * HOUR);
    assert_eq!(rig.blocked(), Some(Blocked::OwnedByOther));
    rig.pass(10 * DAY);
    assert_eq!(rig.places[&place("b")], Ok(theirs));
    let (_, rotation) = rig.credential().latest().unwrap();
    assert!(
        deadline(rotation.token.as_ref().unwrap().expires_at, &rig.policy) > wall(rig.second),
        "the other place is kept alive"
    );
    assert_eq!(rig.served("a"), Some(newest(&rig)));
}

#[test]
fn a_secret_scheduled_for_deletion_is_blocked_and_holds_no_other_up() {
    let mut rig = steady(&["a", "b"]);
    rig.places.insert(place("b"), Ok(Shows::ScheduledForDeletion));
    rig.pass(2 * HOUR);
    assert_eq!(rig.blocked(), Some(Blocked::ScheduledForDeletion));
    rig.pass(8 * DAY);
    assert_eq!(rig.places[&place("b")], Ok(Shows::ScheduledForDeletion));
    assert_eq!(rig.served("a"), Some(newest(&rig)));
    rig.places.insert(place("b"), Ok(Shows::Nothing { owner: None }));
    rig.pass(HOUR);
    assert_eq!((rig.blocked(), rig.served("b")), (None, Some(newest(&rig))));
}

#[test]
fn a_first_delivery_over_somebodys_value_needs_take_over() {
    let mut rig = Rig::new(&["a"]);
    let unmarked = Shows::Value { fingerprint: fingerprint(0xcc), owner: None, rotation: None };
    rig.places.insert(place("a"), Ok(unmarked.clone()));
    rig.pass(DAY);
    assert_eq!(rig.blocked(), Some(Blocked::TakeOverNeeded));
    assert_eq!(rig.places[&place("a")], Ok(unmarked));
    assert_eq!(rig.count(0, is_issue), 0);
    rig.policy.deliveries.get_mut(&place("a")).unwrap().take_over = true;
    rig.pass(HOUR);
    assert_eq!((rig.blocked(), rig.served("a")), (None, Some(newest(&rig))));
}

// Rebuilding.

#[test]
fn a_rebuild_waits_until_every_delivery_could_be_read() {
    let mut rig = steady(&["a", "b"]);
    rig.stored = None;
    rig.hand.clear();
    rig.break_reading("b");
    let since = rig.second;
    rig.pass(3 * HOUR);
    assert!(!rig.credential().known);
    assert_eq!(rig.count(since, |action| is_issue(action) || is_write(action) || is_revoke(action)), 0);
    let served = rig.served("a").unwrap();
    rig.places.insert(place("b"), rig.places[&place("a")].clone());
    rig.pass(10 * MINUTE);
    assert!(rig.credential().known);
    assert_eq!(newest(&rig), served, "what the deliveries serve is taken over");
    assert_eq!(rig.count(since, is_issue), 0, "and nothing is due early");
}

/// Who wrote what a rebuild finds, and when, is not known: a read that lags behind it is no roll-back.
#[test]
fn what_a_rebuild_found_may_not_show_at_each_read_for_a_minute() {
    let mut rig = steady(&["a", "b"]);
    let (before, value) = (newest(&rig), rig.credential().rotations[&newest(&rig)].token.as_ref().unwrap().fingerprint.unwrap());
    // A later token, brought to one place by a process whose journal is lost.
    let (written, written_value) = rig.made_elsewhere(INSTALLATION.0, rig.second);
    rig.restart();
    rig.show("a", written_value, written);
    rig.turn();
    assert_eq!(rig.served("a"), Some(written));
    rig.show("a", value, before);
    rig.turn();
    assert_eq!(rig.happened(Happened::RolledBack), 0, "another of its reads lags behind");
    rig.show("a", written_value, written);
    rig.pass(2 * MINUTE);
    rig.show("a", value, before);
    rig.pass(2 * HOUR);
    assert_eq!(rig.happened(Happened::RolledBack), 1, "now it was put back");
}

#[test]
fn what_a_rebuild_found_is_left_to_expire() {
    let mut rig = steady(&["a"]);
    let served = rig.served("a").unwrap();
    rig.stored = None;
    rig.facts.installation = rotad::rotation::InstallationId(0xaaaa_0002);
    rig.facts.journal_created_at = wall(rig.second);
    rig.pass(3 * DAY);
    assert!(rig.credential().rotations[&served].adopted);
    assert_ne!(newest(&rig), served);
    assert!(rig.tokens.iter().any(|token| token.name.as_ref().unwrap().contains(&served.to_string())), "not revoked");
    rig.pass(7 * DAY);
    assert!(!rig.credential().rotations.contains_key(&served));
}

#[test]
fn a_predecessors_token_is_adopted_for_a_quarter_of_an_hour_and_a_rivals_blocks() {
    for (minutes, adopted) in [(14, true), (16, false)] {
        let mut rig = Rig::new(&["a"]);
        rig.second = 20 * MINUTE;
        let (rotation, value) = rig.made_elsewhere(0xbbbb_0001, minutes * MINUTE);
        rig.show("a", value, rotation);
        rig.pass(5 * MINUTE);
        assert_eq!(rig.credential().rotations.contains_key(&rotation), adopted, "{minutes} min");
        assert_eq!(rig.blocked(), (!adopted).then_some(Blocked::SecondInstallation), "{minutes} min");
        assert_eq!(rig.served("a"), Some(rotation));
        assert_eq!(rig.count(0, is_issue), 0, "{minutes} min");
    }
}

#[test]
fn a_second_installation_blocks_between_lists_too_until_its_token_is_gone() {
    let mut rig = steady(&["a"]);
    rig.made_elsewhere(0xbbbb_0001, rig.second);
    rig.pass(2 * HOUR);
    let since = rig.entries.len();
    rig.pass(3 * HOUR);
    assert_eq!(rig.blocked(), Some(Blocked::SecondInstallation));
    assert!(!rig.entries[since..].contains(&Happened::Unblocked), "it does not come and go");
    rig.tokens.retain(|token| !token.name.as_ref().unwrap().ends_with("bbbb0001"));
    rig.pass(20 * MINUTE);
    assert_eq!(rig.blocked(), None);
}

#[test]
fn what_is_left_of_a_rivals_dead_token_does_not_block() {
    let mut rig = steady(&["a"]);
    let (rotation, value) = rig.made_elsewhere(0xbbbb_0001, rig.second);
    rig.tokens.pop();
    rig.show("a", value, rotation);
    rig.pass(2 * HOUR);
    assert_eq!(rig.blocked(), None);
    rig.pass(DAY);
    assert_eq!(rig.served("a"), Some(newest(&rig)));
}

// Tokens.

#[test]
fn an_unfit_token_is_revoked_at_once_and_the_second_one_blocks() {
    let mut rig = steady(&["a"]);
    let before = newest(&rig);
    rig.wrong.ttl_dropped = true;
    let since = rig.second;
    let until_due = next_due(&rig);
    rig.pass(until_due + 10);
    assert_eq!(rig.happened(Happened::Unfit), 2);
    assert_eq!(rig.count(since, is_write), 0);
    assert!(rig.tokens.iter().all(|token| token.expires_at.is_some()), "both are revoked already");
    assert_eq!(rig.blocked(), Some(Blocked::UnfitToken));
    rig.pass(6 * HOUR);
    assert!(rig.happened(Happened::Unfit) <= 9, "tried again hourly");
    rig.wrong.ttl_dropped = false;
    rig.pass(2 * HOUR);
    assert_eq!(rig.blocked(), None);
    assert!(newest(&rig) > before);
}

#[test]
fn too_many_tokens_block_the_schedule_but_not_the_deadline_until_twice_as_many() {
    for (extra, at_deadline) in [(20, true), (40, false)] {
        let mut rig = steady(&["a"]);
        for number in 0..extra {
            let rotation = RotationId::mint(wall(rig.second), None, INSTALLATION, number << 20);
            rig.issue(&TokenName { owner: owner(), rotation }, Some(60 * DAY));
        }
        let since = rig.second;
        rig.pass(3 * DAY);
        assert_eq!(rig.blocked(), Some(Blocked::TooManyTokens));
        assert_eq!(rig.count(since, is_issue), 0);
        rig.pass(3 * DAY + 18 * HOUR);
        assert_eq!(rig.count(since, is_issue) > 0, at_deadline, "{extra} extra tokens");
    }
}

#[test]
fn a_vanished_token_is_replaced_after_two_lists_a_minute_apart() {
    let mut rig = steady(&["a"]);
    let gone = newest(&rig);
    rig.tokens.retain(|token| !token.name.as_ref().unwrap().contains(&gone.to_string()));
    let since = rig.second;
    rig.pass(2 * HOUR);
    let lists: Vec<i64> = rig
        .actions
        .iter()
        .filter(|(second, action)| *second >= since && matches!(action, rotad::rotation::Action::List { .. }))
        .map(|(second, _)| *second)
        .collect();
    let issued =
        rig.actions.iter().find(|(second, action)| *second >= since && is_issue(action)).map(|(second, _)| *second).unwrap();
    assert!(issued - lists[0] >= MINUTE, "first missed at {}, replaced at {issued}", lists[0]);
    assert!(newest(&rig) > gone);
    assert_eq!(rig.served("a"), Some(newest(&rig)));
}

#[test]
fn a_lost_token_is_found_by_its_name_and_revoked_after_the_grace_period_only() {
    let mut rig = steady(&["a"]);
    rig.wrong.issue = Some(IssueOutcome::Unknown(Failed::new(Reason::TimedOut, "no answer")));
    rig.pass_to_an_issue();
    let lost = *rig.credential().rotations.last_key_value().unwrap().0;
    rig.issue(&TokenName { owner: owner(), rotation: lost }, Some(7 * DAY));
    rig.wrong.issue = None;
    let since = rig.second;
    rig.pass(11 * HOUR);
    assert_eq!(rig.happened(Happened::Found), 1);
    assert_eq!(rig.count(since, is_revoke), 0);
    assert!(newest(&rig) > lost, "a new attempt has a new id");
    rig.pass(2 * HOUR);
    assert!(!rig.credential().rotations.contains_key(&lost));
    assert!(!rig.tokens.iter().any(|token| token.name.as_ref().unwrap().contains(&lost.to_string())));
}

#[test]
fn a_token_that_may_still_be_made_is_looked_for_as_long_as_it_could_live_and_an_hour() {
    let mut rig = steady(&["a"]);
    rig.wrong.issue = Some(IssueOutcome::Unknown(Failed::new(Reason::TimedOut, "no answer")));
    rig.pass_to_an_issue();
    rig.wrong.issue = None;
    let lost = *rig.credential().rotations.last_key_value().unwrap().0;
    rig.pass(7 * DAY + 50 * MINUTE);
    assert!(rig.credential().rotations.contains_key(&lost));
    rig.pass(HOUR);
    assert!(!rig.credential().rotations.contains_key(&lost));
    assert_eq!(rig.happened(Happened::GivenUp), 1);
}

// Schedule, deadline, windows.

#[test]
fn a_delivery_that_cannot_be_written_rotates_at_the_deadline_and_not_before() {
    let mut rig = steady(&["a"]);
    let until_due = next_due(&rig);
    rig.pass(until_due - 1);
    rig.wrong.write = Some(WriteOutcome::Refused(Failed::new(Reason::Forbidden, "403")));
    let since = rig.second;
    rig.pass(6 * DAY);
    assert_eq!(rig.count(since, is_issue), 1, "the schedule's, and no other: a failed delivery mints nothing");
    rig.pass(12 * HOUR);
    assert_eq!(rig.count(since, is_issue), 2, "the deadline's");
}

#[test]
fn a_due_time_whose_window_is_over_is_passed_by() {
    let mut rig = steady(&["a"]);
    rig.policy.window = Some(secs(HOUR));
    let until_due = next_due(&rig);
    rig.pass(until_due - 10 * MINUTE);
    rig.wrong.list = Some(Failed::new(Reason::Unavailable, "503"));
    let since = rig.second;
    rig.pass(2 * HOUR);
    rig.wrong.list = None;
    rig.pass(20 * HOUR);
    assert_eq!(rig.count(since, is_issue), 0);
    rig.pass(4 * HOUR);
    assert_eq!(rig.count(since, is_issue), 1);
}

#[test]
fn a_shorter_every_is_spread_over_the_new_one() {
    let mut rig = steady(&["a"]);
    let since = rig.second;
    rig.policy.schedule = Schedule::every(secs(2 * HOUR), &owner());
    rig.policy.grace = secs(HOUR);
    let due = rig.policy.schedule.next_after(wall(rig.second)).unwrap().duration_since(wall(rig.second)).as_secs();
    rig.pass(due - 1);
    assert_eq!(rig.count(since, is_issue), 0, "nothing is due before the change");
    rig.pass(MINUTE);
    assert_eq!(rig.count(since, is_issue), 1);
}

#[test]
fn a_grace_period_in_progress_is_lengthened_and_never_shortened() {
    for (grace, after) in [(HOUR, 12 * HOUR), (20 * HOUR, 20 * HOUR)] {
        let mut rig = steady(&["a"]);
        let until_due = next_due(&rig);
        rig.pass(until_due + MINUTE);
        let since = rig.second;
        rig.policy.grace = secs(grace);
        rig.pass(after - 3 * MINUTE);
        assert_eq!(rig.count(since, is_revoke), 0, "{grace}");
        rig.pass(5 * MINUTE);
        assert_eq!(rig.count(since, is_revoke), 1, "{grace}");
    }
}

#[test]
fn frozen_clocks_stop_the_schedule_and_revocations_but_not_the_deadline() {
    let mut rig = steady(&["a"]);
    let until_due = next_due(&rig);
    rig.pass(until_due + MINUTE);
    rig.conditions.frozen = true;
    let since = rig.second;
    rig.pass(6 * DAY);
    assert_eq!(rig.count(since, |action| is_issue(action) || is_revoke(action)), 0);
    rig.pass(12 * HOUR);
    assert_eq!(rig.count(since, is_issue), 1);
    assert_eq!(rig.happened(Happened::DeadlineForced), 1);
    assert_eq!(rig.count(since, is_revoke), 0);
}

#[test]
fn a_grace_period_seen_before_the_clocks_were_compared_counts_from_the_comparison() {
    let mut rig = steady(&["a"]);
    let until_due = next_due(&rig);
    rig.conditions.frozen = true;
    rig.pass(until_due - HOUR);
    // A person's change and its end, both under clocks that are not compared.
    rig.scribble("a");
    rig.turn();
    let (id, rotation) = rig.credential().latest().map(|(id, rotation)| (id, rotation.clone())).unwrap();
    rig.show("a", rotation.token.unwrap().fingerprint.unwrap(), id);
    rig.turn();
    rig.second += 30 * HOUR;
    rig.conditions.frozen = false;
    let since = rig.second;
    rig.pass(11 * HOUR);
    assert_eq!(rig.count(since, is_revoke), 0);
}

// Places and accounts that were left.

#[test]
fn tokens_that_a_former_delivery_may_serve_are_left_to_expire() {
    let mut rig = steady(&["a", "b"]);
    rig.policy.deliveries.remove(&place("b"));
    let held = newest(&rig);
    let since = rig.second;
    rig.pass(6 * DAY);
    let revoked: Vec<String> = rig
        .actions
        .iter()
        .filter(|(second, _)| *second >= since)
        .filter_map(|(_, action)| match action {
            rotad::rotation::Action::Revoke { rotation, .. } => Some(rotation.to_string()),
            _ => None,
        })
        .collect();
    assert!(!revoked.contains(&held.to_string()));
    assert!(!revoked.is_empty(), "later ones are revoked as ever");
    rig.pass(3 * DAY);
    assert!(rig.credential().former.is_empty());
}

/// A journal that was restored from before the first write to a place, which is removed before it was read again.
#[test]
fn tokens_that_a_former_delivery_may_serve_unknown_to_the_journal_are_left_to_expire() {
    let mut rig = steady(&["a", "b"]);
    let held = newest(&rig);
    let stored = rig.stored.as_mut().unwrap();
    stored.deliveries.insert(place("b"), rotad::rotation::Delivery::default());
    for rotation in stored.rotations.values_mut() {
        rotation.attempts.remove(&place("b"));
    }
    rig.policy.deliveries.remove(&place("b"));
    let since = rig.second;
    rig.pass(5 * DAY);
    let revoked = |rotation: &RotationId| {
        let revokes = |action: &Action| matches!(action, Action::Revoke { rotation: of, .. } if of == rotation);
        rig.actions.iter().any(|(second, action)| *second >= since && revokes(action))
    };
    assert!(!revoked(&held), "`b` serves it still");
    assert!(rig.count(since, is_revoke) > 0, "later ones are revoked as ever");
}

#[test]
fn an_added_delivery_is_filled_by_copying() {
    let mut rig = steady(&["a"]);
    rig.policy.deliveries.insert(place("b"), delivery());
    rig.places.insert(place("b"), Ok(Shows::Nothing { owner: None }));
    let since = rig.second;
    rig.pass(HOUR);
    assert_eq!(rig.served("b"), rig.served("a"));
    assert_eq!(rig.count(since, is_issue), 0);
}

#[test]
fn an_account_that_the_credential_has_left_may_be_gone() {
    let mut rig = steady(&["a"]);
    rig.wrong.account_gone = Some(rig.policy.account.clone());
    rig.policy.account = Account::new("etl_new");
    rig.tokens.clear();
    rig.pass(2 * DAY);
    assert_eq!(rig.blocked(), None);
    assert_eq!(rig.credential().latest().unwrap().1.account, Account::new("etl_new"));
    assert_eq!(rig.served("a"), Some(newest(&rig)));
}

#[test]
fn an_account_that_is_gone_blocks_and_leaves_the_deliveries_as_they_are() {
    let mut rig = steady(&["a"]);
    let served = rig.served("a");
    rig.wrong.account_gone = Some(rig.policy.account.clone());
    let since = rig.second;
    rig.pass(2 * DAY);
    assert_eq!(rig.blocked(), Some(Blocked::NoSuchAccount));
    assert_eq!(rig.served("a"), served);
    assert_eq!(rig.count(since, |action| is_issue(action) || is_write(action) || is_revoke(action)), 0);
}

#[test]
fn an_account_that_rotad_is_to_create_is_waited_for_without_a_block() {
    let mut rig = Rig::new(&["a"]);
    rig.policy.account_is_kept = true;
    rig.wrong.account_gone = Some(rig.policy.account.clone());
    rig.pass(2 * HOUR);
    assert_eq!((rig.blocked(), rig.served("a")), (None, None));
    rig.wrong.account_gone = None;
    rig.pass(5 * 60);
    assert_eq!((rig.blocked(), rig.served("a")), (None, Some(newest(&rig))));
}

#[test]
fn an_outage_of_the_api_is_waited_out_without_spinning() {
    let mut rig = steady(&["a"]);
    rig.wrong.list = Some(Failed::new(Reason::Unavailable, "503"));
    let since = rig.actions.len();
    rig.pass(12 * HOUR);
    let turns = rig.actions[since..].iter().filter(|(_, action)| matches!(action, rotad::rotation::Action::Wait { .. })).count();
    assert!(turns < 12 * 20, "{turns} turns in 12 hours");
}

#[test]
fn after_a_restart_a_value_is_copied_only_once_a_list_showed_its_token_live() {
    let mut rig = steady(&["a", "b"]);
    rig.facts.process = rotad::rotation::ProcessId(2);
    rig.hand.clear();
    rig.places.insert(place("b"), Ok(Shows::Nothing { owner: None }));
    rig.wrong.list = Some(Failed::new(Reason::Unavailable, "503"));
    let since = rig.second;
    rig.pass(HOUR);
    assert_eq!(rig.count(since, is_write), 0, "the journal may be from before its revocation");
    rig.wrong.list = None;
    rig.pass(20 * MINUTE);
    assert_eq!(rig.served("b"), Some(newest(&rig)));
}

/// A journal that was restored from before the verification, and a configuration that asks for another type since: what is
/// served is neither verified against that nor thought gone, and the next token comes when it is due.
#[test]
fn what_a_delivery_serves_is_not_verified_once_more() {
    let mut rig = steady(&["a"]);
    rig.facts.process = rotad::rotation::ProcessId(2);
    rig.hand.clear();
    rig.policy.verify = Verify::List;
    rig.policy.token_type = TokenType::ReadScaling;
    let (newest, since) = (newest(&rig), rig.second);
    rig.stored.as_mut().unwrap().rotations.get_mut(&newest).unwrap().stage = Stage::Issued { verified: false };
    rig.turn();
    rig.pass(2 * HOUR);
    assert_eq!(rig.count(since, |action| matches!(action, Action::Verify { .. })), 0);
    assert_eq!(rig.count(since, is_issue), 0);
    assert_eq!(rig.credential().rotations[&newest].stage, Stage::Issued { verified: true });
}

#[test]
fn a_delivery_rolled_back_before_the_newest_token_came_is_no_reason_for_another() {
    let mut rig = steady(&["a", "b"]);
    let until_due = next_due(&rig);
    rig.pass(until_due - 2 * HOUR);
    let (old, value) = rig
        .credential()
        .rotations
        .iter()
        .next()
        .map(|(id, rotation)| (*id, rotation.token.as_ref().unwrap().fingerprint.unwrap()))
        .unwrap();
    let newest_before = newest(&rig);
    if old == newest_before {
        // The old one is gone by now: one more rotation gives two.
        rig.pass(DAY);
    }
    let old = *rig.credential().rotations.first_key_value().unwrap().0;
    let value = rig.credential().rotations[&old].token.as_ref().and_then(|token| token.fingerprint).unwrap_or(value);
    rig.show("b", value, old);
    rig.turn();
    rig.wrong.write = Some(WriteOutcome::Refused(Failed::new(Reason::Forbidden, "403")));
    rig.pass_to_an_issue();
    let since = rig.second + 1;
    rig.pass(3 * DAY);
    assert_eq!(rig.count(since, is_issue), 0, "the broken delivery waits for the deadline");
}

// A renamed credential.

/// As `renamed_from` does it: the journal's state goes on under another name.
fn rename(rig: &mut Rig) {
    rig.policy.renamed_from = Some(rig.policy.owner.credential.clone());
    rig.policy.owner.credential = "renamed".parse().unwrap();
}

#[test]
fn a_renamed_credential_carries_on_its_tokens_and_places() {
    let mut rig = steady(&["a", "b"]);
    let (before, since) = (newest(&rig), rig.second);
    rename(&mut rig);
    rig.pass(HOUR);
    assert_eq!((rig.blocked(), rig.happened(Happened::Renamed), rig.happened(Happened::Rebuilt)), (None, 1, 0));
    assert_eq!((newest(&rig), rig.count(since, is_issue)), (before, 0), "a rename rotates nothing");
    rig.pass(3 * DAY);
    let named = |token: &rotad::rotation::ListedToken| token.name.as_deref().unwrap().contains("/renamed/");
    assert!(
        rig.tokens.iter().all(named) && rig.tokens.len() <= 2,
        "the old name's tokens are revoked in their time: {:?}",
        rig.tokens
    );
    assert_eq!((rig.happened(Happened::Vanished), rig.blocked()), (0, None));
}

#[test]
fn what_was_renamed_stays_known_when_the_configuration_no_longer_says_so() {
    let mut rig = steady(&["a", "b"]);
    let (before, since) = (newest(&rig), rig.second);
    rename(&mut rig);
    rig.turn();
    rig.policy.renamed_from = None;
    rig.pass(HOUR);
    assert_eq!((rig.blocked(), newest(&rig), rig.count(since, is_issue)), (None, before, 0));
    rig.pass(3 * DAY);
    assert_eq!((rig.happened(Happened::Vanished), rig.blocked()), (0, None));
}

#[test]
fn a_renamed_credential_whose_journal_is_lost_is_rebuilt_from_its_earlier_name() {
    let mut rig = steady(&["a", "b"]);
    let (before, since) = (newest(&rig), rig.second);
    rename(&mut rig);
    rig.stored = None;
    rig.hand.clear();
    rig.pass(HOUR);
    assert_eq!((rig.blocked(), newest(&rig), rig.count(since, is_issue)), (None, before, 0));
    assert_eq!(rig.happened(Happened::Rebuilt), 1);
}

#[test]
fn another_credential_that_bears_the_given_up_name_is_not_ours() {
    let mut rig = steady(&["a"]);
    let owner = rig.policy.owner.clone();
    rename(&mut rig);
    rig.turn();
    rig.policy.renamed_from = None;
    let later = RotationId::mint(wall(rig.second + HOUR), None, INSTALLATION, 1);
    rig.issue(&TokenName { owner, rotation: later }, Some(7 * DAY));
    rig.pass(HOUR);
    let seen = rig.credential().seen;
    assert_eq!((seen.unknown, seen.foreign), (0, 1), "{seen:?}");
}

#[test]
fn an_unnamed_predecessor_blocks_and_says_how_to_carry_it_on() {
    let mut rig = steady(&["a"]);
    rename(&mut rig);
    rig.policy.renamed_from = None;
    rig.stored = None;
    rig.turn();
    assert_eq!(rig.blocked(), Some(Blocked::OwnedByOther));
    assert!(rig.credential().blocked.as_ref().unwrap().detail.contains("renamed_from"));
}

#[test]
fn a_start_compares_the_list_whenever_the_last_sweep_was() {
    let mut rig = steady(&["a"]);
    rig.turn();
    let (since, is_list) =
        (rig.second, |action: &rotad::rotation::Action| matches!(action, rotad::rotation::Action::List { .. }));
    let before = rig.count(since, is_list);
    rig.turn();
    assert_eq!(rig.count(since, is_list), before, "the sweep is not due");
    rig.facts.process = rotad::rotation::ProcessId(2);
    rig.turn();
    assert_eq!(rig.count(since, is_list), before + 1);
    rig.turn();
    assert_eq!(rig.count(since, is_list), before + 1, "once for each process");
}
