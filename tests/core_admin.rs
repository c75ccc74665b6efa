//! The token that rotad itself calls the API with, in the core: its grace period begins when it was used for a whole
//! sweep, and nothing of it is revoked before, or while it is not what the calls are made with.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of test functions

#[allow(dead_code)]
mod rig;

use rig::*;
use rotad::rotation::{Fingerprint, Happened, IssueOutcome, Order, RotationId, TokenId, Verify};

/// An admin token in its place, in use, with the hand-made one of before still alive.
fn in_use() -> Rig {
    let mut rig = Rig::new(&["a"]);
    rig.policy.used_by_rotad = true;
    rig.policy.verify = Verify::Calls;
    rig.conditions.in_use = Some(Fingerprint::new([0xdd; 32]));
    rig.turn();
    assert_eq!(rig.count(0, is_issue), 1);
    rig
}

fn newest(rig: &Rig) -> RotationId {
    rig.credential().latest().unwrap().0
}

/// Every call is made with the newest token, and was for a whole sweep.
fn use_newest(rig: &mut Rig) {
    let token = rig.credential().latest().unwrap().1.token.clone().unwrap();
    rig.conditions.in_use = token.fingerprint;
}

/// Two tokens, the second of which was just brought to its place.
fn rotated() -> Rig {
    let mut rig = in_use();
    use_newest(&mut rig);
    rig.pass(13 * HOUR);
    let before = newest(&rig);
    while newest(&rig) == before {
        rig.pass(MINUTE);
    }
    assert_eq!((rig.tokens.len(), rig.served("a")), (2, Some(newest(&rig))));
    rig
}

#[test]
fn the_old_token_lives_until_the_new_one_was_used_for_a_whole_sweep_and_the_grace_period_is_over() {
    let mut rig = rotated();
    let since = rig.second;
    rig.pass(8 * HOUR);
    assert_eq!(rig.count(since, is_revoke), 0, "the calls are made with the one before");
    use_newest(&mut rig);
    rig.pass(11 * HOUR + 50 * MINUTE);
    assert_eq!(rig.count(since, is_revoke), 0, "the grace period begins with the use");
    assert!(rig.happened(Happened::InUse) >= 1);
    rig.pass(20 * MINUTE);
    assert_eq!(rig.count(since, is_revoke), 1);
}

#[test]
fn nothing_is_revoked_while_the_calls_are_made_with_another_token_again() {
    let mut rig = rotated();
    use_newest(&mut rig);
    rig.pass(HOUR);
    rig.conditions.in_use = None;
    let since = rig.second;
    rig.pass(14 * HOUR);
    assert_eq!(rig.count(since, is_revoke), 0, "after a restart the use is proven anew");
    use_newest(&mut rig);
    rig.pass(2 * MINUTE);
    assert_eq!(rig.count(since, is_revoke), 1, "the period went on meanwhile");
}

#[test]
fn while_another_credential_is_blocked_it_is_neither_replaced_nor_revoked_but_at_its_deadline() {
    let mut rig = rotated();
    use_newest(&mut rig);
    rig.conditions.others_blocked = true;
    let since = rig.second;
    rig.pass(4 * DAY);
    assert_eq!((rig.count(since, is_revoke), rig.count(since, is_issue)), (0, 0));
    rig.pass(3 * DAY);
    assert_eq!(rig.count(since, is_issue), 1, "it would have expired");
    assert_eq!(rig.count(since, is_revoke), 0);
    rig.conditions.others_blocked = false;
    use_newest(&mut rig);
    rig.pass(13 * HOUR);
    assert!(rig.tokens.len() <= 2, "what was left over is revoked, or has expired");
}

#[test]
fn until_the_organization_was_swept_nothing_is_asked_for() {
    let mut rig = Rig::new(&["a"]);
    rig.policy.used_by_rotad = true;
    rig.policy.deliveries.values_mut().for_each(|delivery| delivery.take_over = true);
    rig.scribble("a");
    rig.pass(DAY);
    assert_eq!(rig.count(0, is_issue), 0);
    rig.conditions.in_use = Some(Fingerprint::new([0xdd; 32]));
    rig.pass(MINUTE);
    assert_eq!(rig.count(0, is_issue), 1);
}

#[test]
fn a_lost_answer_leaves_the_admin_token_in_its_place() {
    let mut rig = in_use();
    use_newest(&mut rig);
    let (before, served) = (newest(&rig), rig.served("a"));
    rig.wrong.issue = Some(IssueOutcome::Unknown(rotad::rotation::Failed::new(rotad::rotation::Reason::TimedOut, "no answer")));
    rig.wrong.issue_is_carried_out = true;
    rig.order(&Order::Rotate { revoke_now: false }).unwrap();
    rig.pass(MINUTE);
    rig.wrong.issue = None;
    assert_eq!((newest(&rig), rig.served("a")), (before, served), "the one in use stays where it is");
    rig.pass(HOUR);
    use_newest(&mut rig);
    rig.pass(DAY);
    use_newest(&mut rig);
    rig.pass(DAY);
    assert!(rig.tokens.iter().any(|token| Some(&token.id) == id_of(&rig, newest(&rig)).as_ref()));
    assert!(rig.happened(Happened::Revoked) >= 1, "the lost one is found and revoked");
}

fn id_of(rig: &Rig, rotation: RotationId) -> Option<TokenId> {
    rig.credential().rotations[&rotation].token.as_ref().map(|token| token.id.clone())
}

#[test]
fn a_leaked_admin_token_is_revoked_at_once_but_not_before_the_new_one_is_in_use() {
    let mut rig = in_use();
    use_newest(&mut rig);
    rig.pass(HOUR);
    let since = rig.second;
    rig.order(&Order::Rotate { revoke_now: true }).unwrap();
    rig.pass(10 * MINUTE);
    assert_eq!((rig.count(since, is_issue), rig.count(since, is_revoke)), (1, 0));
    use_newest(&mut rig);
    rig.pass(2 * MINUTE);
    assert_eq!(rig.count(since, is_revoke), 1);
}
