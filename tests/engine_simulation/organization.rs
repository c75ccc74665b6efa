//! An admin token of another organization: nothing is issued or revoked there, whatever else changes.

use crate::engine::matrix::{Fault, Step};
use crate::engine::play::{DAILY, Play};
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
    let reads = |play: &Play| play.world().actors[0].step == Step::Read;
    for _ in 0..1000 {
        if reads(&play) {
            break;
        }
        play.pass(5);
    }
    assert!(reads(&play), "its turn is under way, and the list was had");
    play.outside(Fault::CredentialRemoved, 0);
    play.pass(MINUTE);
    assert_eq!(play.rotations(), rotations, "what its list showed holds until the turn has ended");
}
