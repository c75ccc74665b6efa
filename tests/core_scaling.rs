//! An account's first connection, rule by rule: before its first read-scaling token is asked for it is connected to once
//! with a set-up token, which nobody else ever gets and which is revoked at once.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of test functions

#[allow(dead_code)]
mod rig;

use rig::*;
use rotad::rotation::{
    Account, Action, Blocked, Failed, FirstConnection, Happened, IssueOutcome, IssueRequest, Reason, RevokeOutcome, Stage,
    TokenType, VerifyOutcome,
};

/// A read-scaling credential of an account that nobody connected to.
fn scaling() -> Rig {
    let mut rig = Rig::new(&["a", "b"]);
    rig.policy.token_type = TokenType::ReadScaling;
    rig.policy.first_connection = FirstConnection::ByRotad;
    rig
}

fn is_connect(action: &Action) -> bool {
    matches!(action, Action::Connect { .. })
}

/// What was asked for, in order.
fn asked_for(rig: &Rig) -> Vec<&IssueRequest> {
    let actions = rig.actions.iter().map(|(_, action)| action);
    actions.filter_map(|action| if let Action::Issue { request, .. } = action { Some(request) } else { None }).collect()
}

fn types(rig: &Rig) -> Vec<TokenType> {
    asked_for(rig).iter().map(|request| request.token_type).collect()
}

fn unreachable() -> VerifyOutcome {
    VerifyOutcome::Failed(Failed::new(Reason::Unreachable, "`postgres` can't be reached"))
}

#[test]
fn it_is_connected_to_once_and_the_set_up_token_is_gone_before_the_first_token_is_there() {
    let mut rig = scaling();
    rig.turn();
    assert_eq!(types(&rig), [TokenType::ReadWrite, TokenType::ReadScaling]);
    let set_up = asked_for(&rig)[0];
    assert_eq!((set_up.ttl, &set_up.account), (secs(300), &rig.policy.account));
    let order: Vec<&Action> = rig.actions.iter().map(|(_, action)| action).filter(|action| !is_look(action)).collect();
    let steps = order.iter().map(|action| format!("{action:?}").split([' ', '{']).next().unwrap().to_owned());
    assert_eq!(steps.collect::<Vec<_>>()[..4], ["Issue", "Connect", "Revoke", "Issue"]);
    assert_eq!(rig.tokens.len(), 1, "what is left is what is served: {:?}", rig.tokens);
    assert_eq!((rig.happened(Happened::SetUpIntended), rig.happened(Happened::Connected)), (1, 1));
    rig.pass(10 * DAY);
    rig.restart();
    rig.pass(3 * DAY);
    assert_eq!(rig.count(0, is_connect), 1, "it is remembered");
}

fn is_look(action: &Action) -> bool {
    matches!(action, Action::List { .. } | Action::Read { .. } | Action::Wait { .. })
}

#[test]
fn nothing_is_asked_for_that_does_not_work_and_the_connection_is_tried_again_ever_more_slowly() {
    let mut rig = scaling();
    rig.wrong.connect = Some(unreachable());
    rig.pass(2 * HOUR);
    let tries = rig.count(0, is_connect);
    assert!((10..=14).contains(&tries), "{tries} in two hours, at 1 s and then twice as long after each");
    assert_eq!(types(&rig), vec![TokenType::ReadWrite; tries], "no token that does not work");
    assert_eq!((rig.count(0, is_revoke), rig.tokens.len()), (tries, 0), "none of the set-up tokens lives on");
    let unconnected = rig.credential().unconnected.clone().unwrap();
    assert_eq!((unconnected.since, unconnected.failed.reason), (wall(0), Reason::Unreachable));
    rig.wrong.connect = None;
    rig.pass(HOUR + MINUTE);
    assert_eq!((rig.served("a").is_some(), &rig.credential().unconnected), (true, &None));
}

#[test]
fn a_set_up_token_whose_answer_was_lost_is_found_by_its_name_and_revoked_and_none_is_asked_for_by_that_name_again() {
    let mut rig = scaling();
    rig.wrong.issue = Some(IssueOutcome::Unknown(Failed::new(Reason::TimedOut, "no answer")));
    rig.wrong.issue_is_carried_out = true;
    rig.turn();
    assert_eq!((rig.happened(Happened::Lost), rig.happened(Happened::Found), rig.count(0, is_connect)), (1, 1, 0));
    assert_eq!(rig.tokens.len(), 0, "it is revoked as soon as it is found");
    rig.wrong.issue = None;
    rig.pass(MINUTE);
    assert_eq!(rig.count(0, is_connect), 1);
    let mut names: Vec<String> = asked_for(&rig).iter().map(|request| request.name.to_string()).collect();
    names.dedup();
    assert_eq!(names.len(), 3, "two set-up tokens and the first one: {names:?}");
    assert!(rig.served("b").is_some());
}

#[test]
fn a_process_that_ends_before_it_has_connected_leaves_nothing_behind() {
    let mut rig = scaling();
    rig.wrong.ends_at = Some(is_connect);
    rig.turn();
    rig.wrong.ends_at = None;
    let set_up = |rig: &Rig| rig.credential().rotations.values().filter(|rotation| rotation.stage == Stage::SetUp).count();
    assert_eq!((set_up(&rig), rig.tokens.len()), (1, 1));
    let left = rig.tokens[0].id.clone();
    rig.restart();
    rig.pass(MINUTE);
    assert_eq!(set_up(&rig), 0);
    assert!(rig.tokens.iter().all(|token| token.id != left), "another process revokes it: nobody can serve it");
    assert_eq!(rig.count(0, is_connect), 1, "its value was gone, so another one was made");
    assert!(rig.served("a").is_some());
}

#[test]
fn a_set_up_token_that_can_t_be_revoked_holds_nothing_up_and_is_tried_until_it_is_gone() {
    let mut rig = scaling();
    rig.wrong.revoke = Some(RevokeOutcome::Failed(Failed::new(Reason::Forbidden, "403")));
    rig.turn();
    rig.pass(30);
    assert!(rig.served("a").is_some() && rig.served("b").is_some(), "{:?}", rig.actions);
    assert!(rig.count(0, is_revoke) >= 3);
    rig.wrong.revoke = None;
    rig.pass(2 * MINUTE);
    assert_eq!(rig.tokens.len(), 1);
    // And one that nobody ever gets revoked expires.
    let mut rig = scaling();
    rig.wrong.revoke = Some(RevokeOutcome::Failed(Failed::new(Reason::Forbidden, "403")));
    rig.pass(2 * HOUR);
    assert_eq!((rig.tokens.len(), rig.credential().rotations.len(), rig.happened(Happened::Expired)), (1, 1, 1));
}

#[test]
fn a_set_up_token_of_another_life_or_type_is_not_connected_with_and_is_revoked() {
    let mut rig = scaling();
    rig.wrong.ttl_dropped = true;
    rig.pass(10 * MINUTE);
    assert_eq!((rig.blocked(), rig.count(0, is_connect), rig.tokens.len()), (Some(Blocked::UnfitToken), 0, 0));
    assert!(rig.happened(Happened::Unfit) >= 2);
    rig.wrong.ttl_dropped = false;
    rig.pass(2 * HOUR);
    assert_eq!((rig.blocked(), rig.served("a").is_some()), (None, true));
}

#[test]
fn without_an_endpoint_it_says_what_a_person_must_do_and_goes_on_when_it_is_said_to_be_done() {
    let mut rig = scaling();
    rig.policy.first_connection = FirstConnection::ByPerson;
    rig.pass(HOUR);
    assert_eq!((rig.blocked(), asked_for(&rig).len()), (Some(Blocked::FirstConnectionNeeded), 0));
    let told = &rig.credential().blocked.as_ref().unwrap().detail;
    assert!(told.contains("`etl_prod`") && told.contains("read/write token") && told.contains("`postgres`"), "{told}");
    rig.policy.first_connection = FirstConnection::NotNeeded;
    rig.pass(10 * MINUTE);
    assert_eq!((rig.blocked(), types(&rig)), (None, vec![TokenType::ReadScaling]));
}

#[test]
fn what_is_served_already_is_rotated_without_it_though_nobody_remembers() {
    // A journal from before there was a first connection, and one that was lost.
    for forget in [true, false] {
        let mut rig = scaling();
        rig.policy.first_connection = FirstConnection::NotNeeded;
        rig.pass(3 * DAY);
        rig.policy.first_connection = FirstConnection::ByPerson;
        match forget {
            true => rig.stored = None,
            false => assert_eq!(rig.credential().connected, None),
        }
        rig.restart();
        rig.pass(3 * DAY);
        assert_eq!((rig.blocked(), rig.count(0, is_connect)), (None, 0));
        assert!(rig.credential().connected.is_some(), "from then on it is remembered");
    }
}

#[test]
fn another_account_needs_its_own_and_so_does_one_that_was_made_again() {
    let mut rig = scaling();
    rig.pass(HOUR);
    let first = rig.policy.account.clone();
    rig.policy.account = Account::new("etl_other");
    rig.tokens.clear();
    rig.pass(2 * DAY);
    assert_eq!(rig.count(0, is_connect), 2);
    let accounts = rig.actions.iter().filter_map(|(_, action)| match action {
        Action::Connect { account, .. } => Some(account.clone()),
        _ => None,
    });
    assert_eq!(accounts.collect::<Vec<_>>(), [first, Account::new("etl_other")]);
    // Gone with its tokens, and there again.
    rig.wrong.account_gone = Some(Account::new("etl_other"));
    rig.tokens.clear();
    rig.pass(2 * HOUR);
    assert_eq!(rig.blocked(), Some(Blocked::NoSuchAccount));
    rig.wrong.account_gone = None;
    rig.pass(2 * HOUR);
    assert_eq!((rig.count(0, is_connect), rig.blocked()), (3, None));
    // So fast that nobody saw it gone: but its tokens are.
    rig.tokens.clear();
    rig.pass(2 * HOUR);
    assert_eq!((rig.count(0, is_connect), rig.tokens.len()), (4, 1));
}

#[test]
fn a_set_up_token_is_revoked_where_it_is_no_longer_needed() {
    let mut rig = scaling();
    rig.wrong.revoke = Some(RevokeOutcome::Failed(Failed::new(Reason::Unavailable, "503")));
    rig.wrong.connect = Some(unreachable());
    rig.turn();
    assert_eq!(rig.tokens.len(), 1);
    let left = rig.tokens[0].id.clone();
    rig.policy.token_type = TokenType::ReadWrite;
    rig.policy.first_connection = FirstConnection::NotNeeded;
    rig.wrong.revoke = None;
    rig.pass(MINUTE);
    assert!(rig.tokens.iter().all(|token| token.id != left));
    assert_eq!(rig.credential().unconnected, None);
}
