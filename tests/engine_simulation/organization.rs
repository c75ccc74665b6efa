//! An admin token of another organization: nothing is issued or revoked there, whatever else changes. And what is configured
//! otherwise while a token is on its way.

use rotad::rotation::{FirstConnection, Happened, TokenType, Verify};

use crate::engine::matrix::{Fault, Step};
use crate::engine::play::{DAILY, Play};
use crate::engine::world::Mend;
use crate::simulator::world::{DAY, HOUR, MINUTE, SECOND};

#[test]
fn a_credential_let_go_in_the_midst_of_its_turn_asks_for_nothing_elsewhere() {
    let mut play = Play::new(1, &DAILY);
    play.pass(15 * HOUR);
    play.pass_to_before_a_rotation(0);
    play.outside(Fault::WrongOrganization, 0);
    let rotations = play.rotations();
    play.pass(30 * MINUTE);
    assert_eq!(play.rotations(), rotations, "it is due, and waits");
    play.restart();
    pass_to(&mut play, Step::Read);
    play.outside(Fault::CredentialRemoved, 0);
    play.pass(MINUTE);
    assert_eq!(play.rotations(), rotations, "what its list showed holds until the turn has ended");
}

/// The daemon looks at its admin tokens every ten seconds, which is not soon enough.
#[test]
fn the_very_first_call_with_another_admin_token_is_known_to_be_one() {
    let mut play = Play::new(1, &DAILY);
    play.pass(15 * HOUR);
    play.pass_to_before_a_rotation(0);
    play.pass(15 * MINUTE - 2 * SECOND);
    let rotations = play.rotations();
    play.outside(Fault::WrongOrganization, 0);
    play.pass(30 * MINUTE);
    assert_eq!(play.rotations(), rotations, "it was due two seconds after the change");
    play.world().mend(Mend::Organization);
    play.pass(30 * MINUTE);
    assert_eq!(play.rotations(), rotations + 1);
}

/// It is replaced between the list and the request, while what is intended is saved.
#[test]
fn an_admin_token_that_is_replaced_while_an_intent_is_saved_asks_for_nothing() {
    let mut play = Play::new(1, &DAILY);
    play.pass(15 * HOUR);
    play.pass_to_before_a_rotation(0);
    play.pass(15 * MINUTE - 2 * SECOND);
    let (rotations, tokens) = (play.rotations(), play.world().tokens.len());
    pass_to(&mut play, Step::Intend);
    play.outside(Fault::WrongOrganization, 0);
    play.pass(30 * MINUTE);
    assert_eq!(play.rotations(), rotations + 1, "one was intended");
    assert_eq!(play.world().tokens.len(), tokens, "and not asked for");
    play.world().mend(Mend::Organization);
    play.pass(30 * MINUTE);
    assert_eq!(play.world().tokens.len(), tokens + 1);
}

/// What is proven of a new token is what it was asked for as: a type that is configured meanwhile begins with the next one.
#[test]
fn a_token_on_its_way_is_not_replaced_since_another_type_is_configured() {
    let mut play = Play::with(1, &DAILY, |setup| {
        let policy = std::sync::Arc::make_mut(&mut setup.plans[0].policy);
        (policy.verify, policy.token_type) = (Verify::List, TokenType::ReadScaling);
        policy.first_connection = FirstConnection::ByRotad;
    });
    play.pass(15 * HOUR);
    let rotations = play.rotations();
    play.next(Step::Verify, 0, Fault::Unavailable, 6);
    play.pass_to_a_rotation(0);
    let mut policy = (*play.world().actors[0].policy).clone();
    (policy.token_type, policy.first_connection) = (TokenType::ReadWrite, FirstConnection::NotNeeded);
    play.world().configure(0, policy);
    play.pass(2 * HOUR);
    assert_eq!((play.happened(0, Happened::Unfit), play.rotations()), (0, rotations + 1));
    let served = play.served(0)[0].unwrap();
    assert_eq!(play.world().tokens[served].token_type, TokenType::ReadScaling);
    play.pass(DAY);
    let served = play.served(0)[0].unwrap();
    assert_eq!(play.world().tokens[served].token_type, TokenType::ReadWrite);
}

#[test]
fn what_was_listed_elsewhere_says_nothing_once_the_right_admin_token_is_back() {
    let mut play = Play::with(1, &DAILY, |setup| {
        std::sync::Arc::make_mut(&mut setup.plans[0].policy).sweep_every = jiff::SignedDuration::from_mins(15);
    });
    play.pass(15 * HOUR);
    let rotations = play.rotations();
    play.outside(Fault::WrongOrganization, 0);
    // A sweep, and another list a minute after it.
    play.pass(2 * HOUR);
    assert!(play.state(0).latest().unwrap().1.vanished, "the lists of the other organization lack its token");
    play.restart();
    // The turn goes on for longer than a new admin token goes unnoticed.
    play.next(Step::Read, 0, Fault::TimedOutNotDone, 1);
    pass_to(&mut play, Step::Read);
    play.world().mend(Mend::Organization);
    play.pass(30 * MINUTE);
    assert_eq!(play.rotations(), rotations, "its token lives, and is not due");
    assert!(!play.state(0).latest().unwrap().1.vanished);
}

/// Lets time pass until a turn is under way that has come to this step.
fn pass_to(play: &mut Play, step: Step) {
    for _ in 0..20_000 {
        if play.world().actors[0].step == step {
            return;
        }
        play.pass(1);
    }
    panic!("no turn came to {}", step.title());
}
