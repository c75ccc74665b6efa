//! Who comes and goes of a fleet by the lists of an organization's users: nobody by a list that lags or lacks a part.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use rotad::rotation::{Account, Change, GONE_AFTER, Listed, Moment, Roll, Steady};

const HOUR: i64 = 3600;

fn at(second: i64) -> Moment {
    Moment { wall: Timestamp::from_second(1_800_000_000 + second).unwrap(), steady: Steady(second * 1000) }
}

fn account(number: usize) -> Account {
    Account::new(&format!("tenant_{number}"))
}

fn accounts(numbers: impl IntoIterator<Item = usize>) -> Vec<Account> {
    numbers.into_iter().map(account).collect()
}

/// A list that was asked for at `second` and whole a second later.
fn see(roll: &mut Roll, second: i64, numbers: impl IntoIterator<Item = usize>) -> Change {
    let accounts = accounts(numbers);
    roll.see(Listed { accounts: &accounts, began: at(second), ended: at(second + 1), all_may_go: false })
}

fn allow(roll: &mut Roll, second: i64, numbers: impl IntoIterator<Item = usize>) -> Change {
    let accounts = accounts(numbers);
    roll.see(Listed { accounts: &accounts, began: at(second), ended: at(second + 1), all_may_go: true })
}

#[test]
fn an_account_comes_with_the_first_list_that_shows_it() {
    let mut roll = Roll::default();
    assert_eq!(see(&mut roll, 0, [1, 2]).come, accounts([1, 2]));
    assert_eq!(see(&mut roll, 60, [1, 2, 3]), Change { come: accounts([3]), gone: Vec::new() });
    assert_eq!(see(&mut roll, 120, [3, 2, 1]), Change::default());
}

#[test]
fn an_account_that_one_list_lacks_is_not_gone() {
    let mut roll = Roll::default();
    see(&mut roll, 0, 0..9);
    assert_eq!(see(&mut roll, 60, 1..9), Change::default());
    assert_eq!(roll.missing().cloned().collect::<Vec<_>>(), accounts([0]));
    assert_eq!(see(&mut roll, 120, 0..9), Change::default(), "it was a list that lagged");
    assert_eq!(see(&mut roll, 180, 1..9), Change::default(), "and so may this be");
    assert_eq!(see(&mut roll, 240, 1..9), Change::default(), "59 s after the first one was whole");
    assert_eq!(see(&mut roll, 241, 1..9).gone, accounts([0]));
    assert_eq!(see(&mut roll, 300, 0..9).come, accounts([0]), "it may come back");
}

#[test]
fn more_than_three_or_a_tenth_are_not_let_go_at_once() {
    for (size, may_go) in [(8, 3), (39, 3), (40, 4), (200, 20)] {
        for gone in [may_go, may_go + 1] {
            let mut roll = Roll::default();
            see(&mut roll, 0, 0..size);
            see(&mut roll, 60, gone..size);
            let change = see(&mut roll, 180, gone..size);
            assert_eq!(change.gone.len(), if gone == may_go { gone } else { 0 }, "{gone} of {size}");
            assert_eq!(roll.refusal().is_some(), gone > may_go);
            if let Some(refusal) = roll.refusal() {
                assert_eq!((refusal.missing, refusal.accounts, refusal.allowed), (gone, size, may_go));
                assert_eq!(refusal.since, at(181).wall);
            }
        }
    }
}

#[test]
fn those_that_go_one_after_the_other_within_an_hour_go_at_once() {
    let mut roll = Roll::default();
    see(&mut roll, 0, 0..20);
    let mut gone = 0;
    for minute in 1..60 {
        gone += see(&mut roll, minute * 60, usize::try_from(minute / 3).unwrap()..20).gone.len();
    }
    assert_eq!(gone, 3);
    assert!(roll.refusal().is_some());
}

#[test]
fn the_last_ones_of_a_fleet_are_not_let_go_by_a_list() {
    let mut roll = Roll::default();
    see(&mut roll, 0, [1, 2]);
    for minute in 1..120 {
        assert_eq!(see(&mut roll, minute * 60, []), Change::default());
    }
    assert!(roll.refusal().is_some());
    assert_eq!(allow(&mut roll, 2 * HOUR, []).gone, accounts([1, 2]));
}

#[test]
fn a_refusal_ends_when_they_show_again_or_a_person_says_that_they_are_gone() {
    let mut roll = Roll::default();
    see(&mut roll, 0, 0..9);
    see(&mut roll, 60, 5..9);
    see(&mut roll, 180, 5..9);
    let first = roll.refusal().unwrap();
    see(&mut roll, 240, 5..9);
    assert_eq!(roll.refusal().unwrap().since, first.since);
    let mut again = roll.clone();
    assert_eq!(see(&mut again, 300, 0..9), Change::default());
    assert_eq!((again.refusal(), again.missing().count()), (None, 0));
    // A person's word is for those that were told, not for one that the list lacks for the first time.
    assert_eq!(allow(&mut roll, 300, 6..9).gone, accounts(0..5));
    assert_eq!(roll.accounts().cloned().collect::<Vec<_>>(), accounts(5..9));
    assert_eq!(roll.refusal(), None);
    assert_eq!(see(&mut roll, 420, 6..9).gone, accounts([5]), "what a person let go does not count for the next hour");
}

#[test]
fn an_account_is_the_same_in_any_case_and_keeps_its_first_writing() {
    let mut roll = Roll::default();
    let list = |roll: &mut Roll, second: i64, name: &str| {
        let accounts = [Account::new(name)];
        roll.see(Listed { accounts: &accounts, began: at(second), ended: at(second), all_may_go: false })
    };
    list(&mut roll, 0, "Tenant_A");
    assert_eq!(list(&mut roll, 60, "tenant_a"), Change::default());
    assert_eq!(roll.accounts().map(Account::as_str).collect::<Vec<_>>(), ["Tenant_A"]);
}

#[test]
fn a_clock_that_went_back_delays_and_lets_nobody_go() {
    let mut roll = Roll::default();
    see(&mut roll, 100_000, 0..9);
    see(&mut roll, 100_060, 1..9);
    // As after a restart whose journal has no mark of the clock.
    assert_eq!(see(&mut roll, 0, 1..9), Change::default());
    assert_eq!(see(&mut roll, 30, 1..9), Change::default());
    assert_eq!(see(&mut roll, 90, 1..9).gone, accounts([0]));
}

/// A list: how many seconds after the one before, and which accounts it lacks.
fn lists() -> impl Strategy<Value = Vec<(i64, BTreeSet<usize>, bool)>> {
    let lacks = prop_oneof![
        3 => Just(BTreeSet::new()),
        4 => prop::collection::btree_set(0_usize..30, 0..4),
        1 => prop::collection::btree_set(0_usize..30, 0..30),
    ];
    // What is gone is mostly gone in the next lists, too.
    prop::collection::vec((5_i64..400, lacks, any::<bool>()), 1..60)
}

proptest! {
    #[test]
    fn whatever_lists_come_nobody_is_let_go_too_early_or_with_too_many(lists in lists()) {
        let (mut roll, mut now) = (Roll::default(), 0);
        let mut lacking = BTreeSet::new();
        // Since when every list lacked the account, and when the accounts went.
        let (mut missing, mut went): (BTreeMap<Account, i64>, Vec<i64>) = (BTreeMap::new(), Vec::new());
        let mut largest = 0;
        for (after, lacks, again) in lists {
            now += after;
            lacking = if again { &lacking | &lacks } else { lacks };
            let shown: Vec<usize> = (0..30).filter(|number| !lacking.contains(number)).collect();
            let before: Vec<Account> = roll.accounts().cloned().collect();
            largest = largest.max(before.len());
            let change = see(&mut roll, now, shown.iter().copied());
            let shown = accounts(shown);
            missing.retain(|account, _| !shown.contains(account));
            for account in &change.gone {
                prop_assert!(!shown.contains(account), "{account} is there");
                let since = missing.get(account).copied();
                prop_assert!(since.is_some_and(|since| now - since >= GONE_AFTER.as_secs()), "{account} is missing since {since:?}, at {now}");
            }
            for account in before.iter().filter(|account| !shown.contains(account)) {
                missing.entry(account.clone()).or_insert(now + 1);
            }
            went.extend(change.gone.iter().map(|_| now + 1));
            went.retain(|at| now + 1 - at < HOUR);
            prop_assert!(went.len() <= 3.max(largest / 10), "{} went at once", went.len());
            // Whoever the list shows is covered, and nobody else but those that are missing.
            let covered: Vec<Account> = roll.accounts().cloned().collect();
            prop_assert!(shown.iter().all(|account| covered.contains(account)));
            let expected: BTreeSet<Account> = before.into_iter().chain(shown).filter(|account| !change.gone.contains(account)).collect();
            prop_assert_eq!(covered, expected.into_iter().collect::<Vec<_>>());
            // A restart changes nothing.
            let kept: Roll = serde_json::from_str(&serde_json::to_string(&roll).unwrap()).unwrap();
            prop_assert_eq!(&kept, &roll);
            roll = kept;
        }
    }

    #[test]
    fn who_is_missing_for_good_goes_in_the_end(size in 5_usize..200, gone in 1_usize..4, every in 5_i64..400) {
        let mut roll = Roll::default();
        see(&mut roll, 0, 0..size);
        let lists = 60 / every + 2;
        let went: usize = (1..=lists).map(|list| see(&mut roll, list * every, gone..size).gone.len()).sum();
        prop_assert_eq!(went, gone);
        prop_assert_eq!(roll.accounts().count(), size - gone);
    }
}
