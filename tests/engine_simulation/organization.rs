//! An admin token of another organization: nothing is issued or revoked there, whatever else changes.

use crate::engine::matrix::{Fault, Step};
use crate::engine::play::{DAILY, Play};
use crate::engine::world::Mend;
use crate::simulator::world::{HOUR, MINUTE};

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
    pass_to_a_read(&mut play);
    play.outside(Fault::CredentialRemoved, 0);
    play.pass(MINUTE);
    assert_eq!(play.rotations(), rotations, "what its list showed holds until the turn has ended");
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
    pass_to_a_read(&mut play);
    play.world().mend(Mend::Organization);
    play.pass(30 * MINUTE);
    assert_eq!(play.rotations(), rotations, "its token lives, and is not due");
    assert!(!play.state(0).latest().unwrap().1.vanished);
}

/// Lets time pass until a turn is under way that has its list.
fn pass_to_a_read(play: &mut Play) {
    let reads = |play: &Play| play.world().actors[0].step == Step::Read;
    for _ in 0..1000 {
        if reads(play) {
            return;
        }
        play.pass(5);
    }
    panic!("no turn came to a read");
}
