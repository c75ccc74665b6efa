//! What a person orders, in the core: each order does what it says, survives a restart, and lets no
//! promise yield but the one that it names.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of test functions

#[allow(dead_code)]
mod rig;

use rig::*;
use rotad::rotation::{Action, Happened, Order, RotationId, TokenId, deadline};

const ROTATE: Order = Order::Rotate { revoke_now: false };
const REPLACE: Order = Order::Rotate { revoke_now: true };

/// A credential in its daily course, an hour or more from its next due time, with one token.
fn steady(places: &[&str]) -> Rig {
    let mut rig = Rig::new(places);
    rig.pass(3 * DAY);
    while rig.tokens.len() > 1 || next_due(&rig) < 3 * HOUR {
        rig.pass(HOUR);
    }
    rig
}

fn next_due(rig: &Rig) -> i64 {
    rig.policy.schedule.next_after(wall(rig.second)).unwrap().duration_since(wall(rig.second)).as_secs()
}

fn newest(rig: &Rig) -> RotationId {
    rig.credential().latest().unwrap().0
}

fn token_of(rig: &Rig, id: RotationId) -> TokenId {
    rig.credential().rotations[&id].token.as_ref().unwrap().id.clone()
}

fn revoked(rig: &Rig, since: i64) -> Vec<TokenId> {
    let of = |(at, action): &(i64, Action)| match action {
        Action::Revoke { token, .. } if *at >= since => Some(token.clone()),
        _ => None,
    };
    rig.actions.iter().filter_map(of).collect()
}

fn pause(rig: &Rig, seconds: i64, let_expire: bool) -> Order {
    Order::Pause { until: wall(rig.second + seconds), reason: "a migration".to_owned(), let_expire }
}

#[test]
fn a_rotation_on_order_is_made_once_and_keeps_the_old_token_for_its_grace_period() {
    let mut rig = steady(&["a", "b"]);
    let (before, since) = (newest(&rig), rig.second);
    rig.order(&ROTATE).unwrap();
    rig.pass(HOUR);
    assert_eq!(rig.count(since, is_issue), 1);
    assert!(newest(&rig) > before && rig.served("a") == Some(newest(&rig)) && rig.served("b") == Some(newest(&rig)));
    assert_eq!(rig.tokens.len(), 2, "the grace period holds");
    assert_eq!(rig.credential().orders.rotate_after, None, "it is done");
}

#[test]
fn an_order_survives_the_process_that_took_it() {
    let mut rig = steady(&["a"]);
    rig.order(&ROTATE).unwrap();
    rig.restart();
    let since = rig.second;
    rig.pass(MINUTE);
    assert_eq!(rig.count(since, is_issue), 1);
}

#[test]
fn revoke_now_revokes_as_soon_as_every_delivery_shows_the_new_token_and_not_before() {
    let mut rig = steady(&["a", "b"]);
    let leaked = token_of(&rig, newest(&rig));
    let good = rig.places[&place("b")].clone();
    rig.break_reading("b");
    let since = rig.second;
    rig.order(&REPLACE).unwrap();
    rig.pass(2 * HOUR);
    assert_eq!(rig.count(since, is_issue), 1, "the other delivery has the new token");
    assert_eq!(revoked(&rig, since), [], "a delivery that can't be read may serve it (S1)");
    rig.places.insert(place("b"), good);
    rig.pass(10 * MINUTE);
    assert_eq!(revoked(&rig, since), [leaked]);
    assert!(rig.credential().orders.is_empty(), "{:?}", rig.credential().orders);
    assert_eq!(rig.tokens.len(), 1);
}

#[test]
fn a_pause_puts_the_schedule_off_and_is_over_by_itself() {
    let mut rig = steady(&["a"]);
    let since = rig.second;
    let length = next_due(&rig) + 5 * HOUR;
    rig.order(&pause(&rig, length, false)).unwrap();
    rig.restart();
    rig.pass(length - MINUTE);
    assert_eq!(rig.count(since, is_issue), 0);
    rig.pass(3 * MINUTE);
    assert_eq!(rig.count(since, is_issue), 1, "what was due meanwhile comes once");
    assert_eq!(rig.happened(Happened::PauseEnded), 1);
}

#[test]
fn deliveries_and_revocations_go_on_in_a_pause() {
    let mut rig = steady(&["a", "b"]);
    rig.order(&ROTATE).unwrap();
    rig.pass(MINUTE);
    let since = rig.second;
    rig.order(&pause(&rig, DAY, false)).unwrap();
    rig.scribble("b");
    rig.pass(DAY - HOUR);
    assert_eq!(rig.served("b"), Some(newest(&rig)), "it was mended");
    assert_eq!(revoked(&rig, since).len(), 1, "the grace period ended");
    assert_eq!(rig.count(since, is_issue), 0);
}

#[test]
fn a_pause_beyond_the_deadline_is_refused_unless_the_token_may_expire() {
    let mut rig = steady(&["a"]);
    let expiry = rig.credential().rotations[&newest(&rig)].token.as_ref().unwrap().expires_at;
    let until_deadline = deadline(expiry, &rig.policy).duration_since(wall(rig.second)).as_secs();
    let refusal = rig.order(&pause(&rig, until_deadline + HOUR, false)).unwrap_err();
    assert!(refusal.contains("--let-expire"), "{refusal}");
    assert!(rig.credential().orders.is_empty());
    let since = rig.second;
    rig.order(&pause(&rig, until_deadline + 20 * DAY, true)).unwrap();
    rig.pass(until_deadline + 19 * DAY);
    assert_eq!(rig.count(since, is_issue), 0, "it was let expire");
    rig.pass(2 * DAY);
    assert!(rig.count(since, is_issue) >= 1);
}

#[test]
fn what_a_consumer_can_not_do_without_is_replaced_in_a_pause_too() {
    let mut rig = steady(&["a"]);
    rig.order(&pause(&rig, DAY, false)).unwrap();
    let since = rig.second;
    rig.tokens.clear();
    rig.pass(2 * HOUR);
    assert_eq!(rig.count(since, is_issue), 1, "the token that was revoked by someone is replaced");
}

#[test]
fn a_paused_credential_is_not_rotated_on_order_before_it_is_resumed() {
    let mut rig = steady(&["a"]);
    rig.order(&pause(&rig, HOUR, false)).unwrap();
    assert!(rig.order(&ROTATE).unwrap_err().contains("a migration"), "the refusal says why it is paused");
    rig.order(&Order::Resume).unwrap();
    rig.order(&ROTATE).unwrap();
    let since = rig.second;
    rig.pass(MINUTE);
    assert_eq!(rig.count(since, is_issue), 1);
}

#[test]
fn resume_overwrites_what_was_rolled_back() {
    let mut rig = steady(&["a"]);
    let before = newest(&rig);
    let old = rig.places[&place("a")].clone();
    rig.order(&ROTATE).unwrap();
    rig.pass(10 * MINUTE);
    rig.places.insert(place("a"), old);
    rig.pass(6 * HOUR);
    assert_eq!(rig.served("a"), Some(before), "what a person put back stays");
    assert_eq!(rig.blocked(), Some(rotad::rotation::Blocked::RolledBack));
    rig.order(&Order::Resume).unwrap();
    rig.pass(10 * MINUTE);
    assert_ne!(rig.served("a"), Some(before));
    assert_eq!(rig.blocked(), None);
}

#[test]
fn forget_lets_go_of_a_former_place() {
    let mut rig = steady(&["a", "b"]);
    let before = token_of(&rig, newest(&rig));
    rig.policy.deliveries.remove(&place("b"));
    rig.order(&ROTATE).unwrap();
    let since = rig.second;
    rig.pass(20 * HOUR);
    assert_eq!(revoked(&rig, since), [], "the former place may serve it");
    let refusal = rig.order(&Order::Forget { place: place("c") }).unwrap_err();
    assert!(refusal.contains(place("b").as_str()), "{refusal}");
    assert!(rig.order(&Order::Forget { place: place("a") }).unwrap_err().contains("is configured"));
    rig.order(&Order::Forget { place: place("b") }).unwrap();
    rig.pass(DAY);
    assert!(revoked(&rig, since).contains(&before), "the place is forgotten, and the grace period over");
}

#[test]
fn a_served_token_is_revoked_only_where_the_order_says_so_and_replaced_at_once() {
    let mut rig = steady(&["a"]);
    let token = token_of(&rig, newest(&rig));
    let refusal = rig.order(&Order::Revoke { token: token.clone(), even_if_served: false }).unwrap_err();
    assert!(refusal.contains("--revoke-now"), "{refusal}");
    let since = rig.second;
    rig.order(&Order::Revoke { token: token.clone(), even_if_served: true }).unwrap();
    rig.pass(10 * MINUTE);
    assert_eq!(revoked(&rig, since), [token], "once");
    assert_eq!(rig.count(since, is_issue), 1);
    assert_eq!(rig.served("a"), Some(newest(&rig)));
    assert_eq!(rig.tokens.len(), 1);
    assert!(rig.credential().orders.is_empty());
}

#[test]
fn a_token_that_the_journal_did_not_record_is_revoked_by_its_id_only_if_it_is_the_credential_s() {
    let mut rig = steady(&["a"]);
    let (unknown, _) = rig.made_elsewhere(7, 30);
    let id = rig.tokens.last().unwrap().id.clone();
    rig.order(&ROTATE).unwrap();
    rig.pass(HOUR);
    assert!(rig.tokens.iter().any(|token| token.id == id), "unknown ones are left alone (S3)");
    assert!(newest(&rig) > unknown);
    let since = rig.second;
    rig.order(&Order::Revoke { token: id.clone(), even_if_served: false }).unwrap();
    rig.order(&Order::Revoke { token: TokenId("of-somebody-else".to_owned()), even_if_served: false }).unwrap();
    rig.order(&Order::Sweep).unwrap();
    rig.pass(HOUR);
    assert_eq!(revoked(&rig, since), [id]);
    assert_eq!(rig.happened(Happened::OrderEnded), 1, "the other is not a token of this account");
    assert!(rig.credential().orders.is_empty());
}

#[test]
fn a_sweep_lists_and_reads_at_once() {
    let mut rig = steady(&["a"]);
    rig.pass(MINUTE);
    let since = rig.second;
    rig.turn();
    assert_eq!(rig.count(since, |action| matches!(action, Action::List { .. })), 0);
    rig.order(&Order::Sweep).unwrap();
    rig.turn();
    assert_eq!(rig.count(since, |action| matches!(action, Action::List { .. })), 1);
}
