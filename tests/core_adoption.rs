//! Taking over tokens that people made by hand, in the core: what `adopt` lists is superseded and revoked like
//! a retiring token, and nothing else is.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of test functions

#[allow(dead_code)]
mod rig;

use jiff::Timestamp;
use rig::*;
use rotad::rotation::{
    Account, Action, Adoption, Failed, Happened, InstallationId, ListedToken, Order, Owner, Reason, RotationId, Shows, Stage,
    TokenId, TokenName, TokenType,
};

const BY_HAND: &str = "hand-1";
const OTHER: &str = "hand-2";

/// A token in the account's list, made a month ago, that never expires.
fn made_by_hand(rig: &mut Rig, id: &str, name: &str) {
    rig.tokens.push(ListedToken {
        id: TokenId(id.to_owned()),
        name: Some(name.to_owned()),
        created_at: wall(-30 * DAY),
        expires_at: None,
        token_type: TokenType::ReadWrite,
    });
}

fn adopt(rig: &mut Rig, ids: &[&str]) {
    rig.policy.adopt = ids.iter().map(|id| TokenId((*id).to_owned())).collect();
}

/// A hand-made token in use at every place, which the operator wants taken over.
fn in_use(places: &[&str]) -> Rig {
    let mut rig = Rig::new(places);
    made_by_hand(&mut rig, BY_HAND, "for etl");
    adopt(&mut rig, &[BY_HAND]);
    for name in places {
        hold_by_hand(&mut rig, name);
    }
    rig.policy.deliveries.values_mut().for_each(|delivery| delivery.take_over = true);
    rig
}

/// The place holds a value that no marker and no fingerprint explains.
fn hold_by_hand(rig: &mut Rig, name: &str) {
    rig.places.insert(place(name), Ok(Shows::Value { fingerprint: fingerprint(0xcc), owner: None, rotation: None }));
}

fn lives(rig: &Rig, id: &str) -> bool {
    rig.tokens.iter().any(|token| token.id.0 == id)
}

fn adoption(rig: &Rig, id: &str) -> Option<Adoption> {
    rig.credential().adoptions.get(&TokenId(id.to_owned())).copied()
}

fn revocations_of(rig: &Rig, id: &str) -> usize {
    rig.actions.iter().filter(|(_, action)| matches!(action, Action::Revoke { token, .. } if token.0 == id)).count()
}

#[test]
fn a_hand_made_token_is_superseded_by_the_first_token_and_revoked_after_the_grace_period() {
    let mut rig = in_use(&["a", "b"]);
    rig.pass(12 * HOUR - MINUTE);
    assert_eq!(rig.count(0, is_issue), 1, "the first token supersedes it at once");
    assert!(lives(&rig, BY_HAND), "the grace period is not over");
    assert_eq!((adoption(&rig, BY_HAND), rig.happened(Happened::AdoptionTaken)), (Some(Adoption::Taken), 1));
    assert_eq!(rig.credential().seen.foreign, 0, "it is nobody else's");
    rig.pass(5 * MINUTE);
    assert!(!lives(&rig, BY_HAND));
    assert_eq!((adoption(&rig, BY_HAND), rig.happened(Happened::Revoked)), (Some(Adoption::Ended), 1));
    rig.pass(2 * DAY);
    assert_eq!(revocations_of(&rig, BY_HAND), 1);
    assert_eq!(rig.happened(Happened::AdoptionRefused), 0, "that its list lacks it now is no news");
}

#[test]
fn while_a_place_holds_a_value_that_is_not_explained_the_hand_made_token_lives() {
    let mut rig = in_use(&["a", "b"]);
    rig.policy.deliveries.get_mut(&place("b")).unwrap().take_over = false;
    rig.pass(6 * DAY);
    assert_eq!(
        rig.blocked(),
        Some(rotad::rotation::Blocked::TakeOverNeeded),
        "to adopt a token is no leave to overwrite a place"
    );
    assert!(lives(&rig, BY_HAND), "`b` may serve it");
    rig.policy.deliveries.get_mut(&place("b")).unwrap().take_over = true;
    rig.pass(DAY);
    assert!(!lives(&rig, BY_HAND));
}

#[test]
fn while_a_place_can_t_be_read_or_is_changed_back_by_hand_the_grace_period_begins_anew() {
    let mut rig = in_use(&["a", "b"]);
    rig.pass(6 * HOUR);
    rig.break_reading("b");
    rig.pass(10 * HOUR);
    assert!(lives(&rig, BY_HAND), "what can't be read may serve it");
    hold_by_hand(&mut rig, "b");
    rig.pass(HOUR);
    assert!(rig.served("b").is_some(), "mended by a copy");
    rig.pass(10 * HOUR);
    assert!(lives(&rig, BY_HAND), "a mend begins the period anew");
    rig.pass(DAY);
    assert!(!lives(&rig, BY_HAND), "also if a scheduled rotation began the period once more");
}

#[test]
fn a_place_that_was_removed_before_anything_of_ours_was_there_keeps_the_hand_made_token() {
    let mut rig = in_use(&["a", "b"]);
    rig.wrong.write = Some(rotad::rotation::WriteOutcome::Refused(Failed::new(Reason::Forbidden, "AccessDenied")));
    rig.pass(HOUR);
    rig.wrong.write = None;
    rig.policy.deliveries.remove(&place("b"));
    rig.pass(6 * DAY);
    assert!(rig.served("a").is_some());
    assert!(lives(&rig, BY_HAND), "`b` holds it, and is no longer read");
    rig.order(&Order::Forget { place: place("b") }).unwrap();
    rig.pass(DAY);
    assert!(!lives(&rig, BY_HAND), "a person said that `b` is of no account");
}

#[test]
fn an_id_that_is_removed_from_the_configuration_is_withdrawn() {
    let mut rig = in_use(&["a"]);
    made_by_hand(&mut rig, OTHER, "for the dashboard");
    adopt(&mut rig, &[BY_HAND, OTHER]);
    rig.pass(6 * HOUR);
    adopt(&mut rig, &[OTHER]);
    rig.pass(2 * DAY);
    assert!(lives(&rig, BY_HAND) && !lives(&rig, OTHER));
    assert_eq!((adoption(&rig, BY_HAND), rig.happened(Happened::AdoptionWithdrawn)), (None, 1));
    assert_eq!(rig.credential().seen.foreign, 1, "it is foreign again");
}

#[test]
fn an_id_that_the_account_does_not_have_is_told_once_and_never_revoked() {
    let mut rig = in_use(&["a"]);
    adopt(&mut rig, &["of-another-account"]);
    rig.pass(3 * DAY);
    assert_eq!((adoption(&rig, "of-another-account"), rig.happened(Happened::AdoptionRefused)), (Some(Adoption::NotListed), 1));
    assert_eq!(revocations_of(&rig, "of-another-account"), 0);
    assert!(lives(&rig, BY_HAND), "nobody listed this one");
}

#[test]
fn an_id_of_another_credential_or_deployment_of_rotad_is_refused() {
    for owner in ["sim/dashboard", "elsewhere/etl", "sim/etl"] {
        let mut rig = in_use(&["a"]);
        let rotation = RotationId::mint(wall(-DAY), None, InstallationId(0xbbbb_0002), 1);
        let name = TokenName { owner: owner.parse::<Owner>().unwrap(), rotation }.to_string();
        made_by_hand(&mut rig, OTHER, &name);
        adopt(&mut rig, &[OTHER]);
        rig.pass(3 * DAY);
        assert_eq!((adoption(&rig, OTHER), rig.happened(Happened::AdoptionRefused)), (Some(Adoption::Refused), 1), "{owner}");
        assert!(lives(&rig, OTHER), "{owner}");
        assert_eq!(revocations_of(&rig, OTHER), 0);
    }
}

#[test]
fn one_that_is_adopted_later_waits_for_the_whole_grace_period_of_a_token_that_is_later_than_it() {
    let mut rig = Rig::new(&["a"]);
    rig.pass(3 * DAY + HOUR);
    made_by_hand(&mut rig, BY_HAND, "for etl");
    let made_at = rig.second;
    rig.tokens.last_mut().unwrap().created_at = wall(made_at);
    let newest = rig.credential().latest().unwrap().0;
    adopt(&mut rig, &[BY_HAND]);
    while rig.credential().latest().unwrap().0 == newest {
        assert!(lives(&rig, BY_HAND), "it was made after the newest token of ours, which is no successor to it");
        rig.pass(HOUR);
    }
    rig.pass(10 * HOUR);
    assert!(lives(&rig, BY_HAND));
    rig.pass(4 * HOUR);
    assert!(!lives(&rig, BY_HAND));
}

#[test]
fn a_crash_or_a_lost_journal_changes_nothing_for_it() {
    let mut rig = in_use(&["a", "b"]);
    rig.pass(6 * HOUR);
    rig.restart();
    rig.pass(5 * HOUR);
    assert!(lives(&rig, BY_HAND));
    rig.stored = None;
    rig.facts.journal_created_at = rig.moment().wall;
    rig.restart();
    rig.pass(11 * HOUR);
    assert!(lives(&rig, BY_HAND), "after a rebuild the period begins anew");
    rig.pass(DAY);
    assert!(!lives(&rig, BY_HAND), "the configuration still lists it");
    assert!(rig.count(0, is_issue) <= 2, "the first, and perhaps a scheduled one");
}

#[test]
fn while_the_clocks_disagree_or_the_organization_may_be_another_one_it_is_not_revoked() {
    let mut rig = in_use(&["a"]);
    rig.pass(6 * HOUR);
    rig.conditions.frozen = true;
    rig.pass(DAY);
    assert!(lives(&rig, BY_HAND));
    (rig.conditions.frozen, rig.conditions.another_organization) = (false, true);
    rig.pass(DAY);
    assert!(lives(&rig, BY_HAND));
    rig.conditions.another_organization = false;
    rig.pass(DAY);
    assert!(!lives(&rig, BY_HAND));
}

#[test]
fn one_that_expires_or_is_revoked_by_someone_is_done_with() {
    let mut rig = in_use(&["a"]);
    made_by_hand(&mut rig, OTHER, "for a while");
    rig.tokens.last_mut().unwrap().expires_at = Some(wall(6 * HOUR));
    adopt(&mut rig, &[BY_HAND, OTHER]);
    rig.pass(2 * HOUR);
    rig.tokens.retain(|token| token.id.0 != BY_HAND);
    rig.pass(DAY);
    let by_hand = |stage| rig.credential().rotations.values().filter(|rotation| rotation.stage == stage).count();
    assert_eq!(by_hand(Stage::ByHand), 0);
    assert_eq!((adoption(&rig, BY_HAND), adoption(&rig, OTHER)), (Some(Adoption::Ended), Some(Adoption::Ended)));
}

#[test]
fn a_token_from_the_far_future_by_its_record_leaves_room_for_later_ones() {
    let mut rig = in_use(&["a"]);
    rig.tokens.last_mut().unwrap().created_at = Timestamp::MAX;
    rig.pass(2 * DAY);
    assert!(rig.count(0, is_issue) >= 2 && !lives(&rig, BY_HAND));
}

#[test]
fn when_the_account_changes_it_is_revoked_where_it_was_found() {
    let mut rig = in_use(&["a"]);
    rig.pass(HOUR);
    rig.policy.account = Account::new("etl_new");
    rig.pass(3 * DAY);
    let at = |(_, action): &(i64, Action)| match action {
        Action::Revoke { token, account, .. } if token.0 == BY_HAND => Some(account.clone()),
        _ => None,
    };
    assert_eq!(rig.actions.iter().find_map(at), Some(Account::new("etl_prod")));
}

#[test]
fn a_leaked_hand_made_token_is_revoked_as_soon_as_every_place_shows_its_successor() {
    let mut rig = in_use(&["a", "b"]);
    rig.pass(MINUTE);
    rig.order(&Order::Rotate { revoke_now: true }).unwrap();
    rig.pass(5 * MINUTE);
    assert!(!lives(&rig, BY_HAND));
    assert!(rig.served("a").is_some() && rig.served("a") == rig.served("b"));
}
