//! Checks the checker: each deliberate breakage of the core is noticed by the simulator, by the
//! name of the promise that it breaks; with the rule in force the same seeds pass.
//!
//! Rules mask each other. Where one does, the breakage is made in the combination that shows it, and
//! promises that the companion alone breaks are not judged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // test code outside of `#[test]` functions

#[allow(dead_code)] // shared with `simulation.rs`, which uses other parts
#[path = "simulation/mod.rs"]
mod simulator;

use rotad::rotation::breakage::{Breakage, break_only};
use simulator::setup::Faults;
use simulator::{Shape, explain, run_as};

/// Seeds tried before a breakage counts as unnoticed.
const SEEDS: u64 = 1500;

/// With `breakages` some history breaks one of `promises`; without, the same one breaks none.
fn notices(breakages: &[Breakage], promises: &[&str], shape: Shape) {
    for seed in 1..=SEEDS {
        break_only(breakages);
        let report = run_as(seed, false, &shape);
        break_only(&[]);
        let Some(violation) = report.violation else { continue };
        let sound = run_as(seed, false, &shape);
        assert!(sound.violation.is_none(), "{}", explain(seed, &shape));
        if !promises.contains(&violation.promise) {
            break_only(breakages);
            panic!("{breakages:?} broke {} instead of {promises:?}: {}", violation.promise, explain(seed, &shape));
        }
        println!("{breakages:?}: seed {seed} breaks {}: {}", violation.promise, violation.detail);
        return;
    }
    panic!("{breakages:?} went unnoticed in {SEEDS} histories");
}

const QUICK: Shape = Shape { quick: true, faults: None, ignored: &[] };

fn with(faults: fn(&mut Faults)) -> Shape {
    Shape { faults: Some(faults), ..QUICK }
}

/// Late and unanswered writes, with crashes, and nothing else.
fn late_writes(faults: &mut Faults) {
    *faults = Faults { sink: 250, late: 800, crash: 60, ..Faults::NONE };
}

fn wrong_clocks(faults: &mut Faults) {
    *faults = Faults { clocks: true, crash: 60, ..Faults::NONE };
}

macro_rules! breakages {
    ($($name:ident: $breakages:expr => $promises:expr, $shape:expr;)*) => {
        $(#[test]
        fn $name() {
            use Breakage::*;
            notices(&$breakages, &$promises, $shape);
        })*
    };
}

breakages! {
    a_read_back_of_any_age: [StaleReadBack] => ["S1"], with(|faults| *faults = Faults { sink: 80, provider: 250, late: 900, ..Faults::NONE });
    a_revocation_without_a_list: [RevokedUnlisted] => ["S7"], QUICK;
    a_late_write_ignored: [UnsettledWritesIgnored, GraceIgnored] => ["S1"], Shape { ignored: &["S2", "S6"], ..with(late_writes) };
    a_cut_off_write_taken_as_refused: [CutOffWriteRefused, GraceIgnored] => ["S1"], Shape { ignored: &["S2", "S6"], ..with(late_writes) };
    a_former_delivery_forgotten: [FormerDeliveryForgotten] => ["S1"], with(|faults| *faults = Faults { configuration: true, persons: 1500, ..Faults::NONE });
    grace_from_the_intent: [GraceFromIntent] => ["S2"], QUICK;
    grace_that_goes_on_after_a_change: [GraceNotRestarted] => ["S2", "S1"], QUICK;
    no_grace: [GraceIgnored] => ["S2"], QUICK;
    grace_shortened_by_a_reload: [GraceShortened] => ["S2"], with(|faults| *faults = Faults { configuration: true, persons: 1500, ..Faults::NONE });
    promoted_after_the_first_delivery: [PromotedAfterFirst] => ["S1", "S2"], QUICK;
    a_lost_token_revoked_at_once: [LostRevokedAtOnce] => ["S1", "S2"], with(|faults| *faults = Faults { provider: 250, ..Faults::NONE });
    an_adopted_token_revoked: [AdoptedRevoked] => ["S3"], with(|faults| *faults = Faults { journal: true, persons: 1500, ..Faults::NONE });
    a_lost_token_forgotten: [LostForgotten] => ["L2"], with(|faults| *faults = Faults { provider: 250, ..Faults::NONE });
    a_failed_delivery_that_mints: [FailedDeliveryMints] => ["S6", "S7"], with(|faults| *faults = Faults { sink: 250, ..Faults::NONE });
    absence_from_one_list_as_proof: [AbsenceAsProof] => ["S7", "S6"], QUICK;
    a_token_asked_for_without_a_list: [IssuedUnlisted] => ["S7"], QUICK;
    a_rebuild_left_out: [RebuildSkipped] => ["S7", "S6", "S3", "L1", "L3"], with(|faults| *faults = Faults { journal: true, persons: 1500, ..Faults::NONE });
    everything_due_at_the_start: [DueAtStart] => ["S7", "S6"], QUICK;
    clocks_that_disagree_ignored: [FreezeIgnored] => ["S7"], with(wrong_clocks);
    a_roll_back_overwritten_at_once: [RolledBackOverwritten] => ["roll-back"], with(|faults| *faults = Faults { persons: 1500, ..Faults::NONE });
    the_deadline_ignored: [DeadlineIgnored] => ["L1"], with(|faults| *faults = Faults { persons: 4000, outages: true, ..Faults::NONE });
    a_revocation_given_up: [RevocationGivenUp] => ["L2"], with(|faults| *faults = Faults { provider: 250, ..Faults::NONE });
    an_admin_token_revoked_unused: [UnusedAdminToken] => ["admin"], with(|faults| *faults = Faults { admin: true, ..Faults::NONE });
    a_withdrawal_ignored: [WithdrawalIgnored] => ["S3"], with(|faults| *faults = Faults { adoption: true, configuration: true, persons: 1500, ..Faults::NONE });
    a_token_of_another_credential_adopted: [AnothersAdopted] => ["S3", "S1", "S2", "panic"], with(|faults| *faults = Faults { adoption: true, ..Faults::NONE });
    a_place_of_a_hand_made_token_forgotten: [FormerDeliveryForgotten] => ["S1"], with(|faults| *faults = Faults { adoption: true, configuration: true, persons: 1500, ..Faults::NONE });
    a_first_connection_left_out: [ConnectionSkipped] => ["scaling"], with(|faults| *faults = Faults { scaling: true, ..Faults::NONE });
    a_first_connection_made_twice: [ConnectionForgotten] => ["scaling"], with(|faults| *faults = Faults { scaling: true, ..Faults::NONE });
    a_set_up_token_not_revoked: [SetUpTokenKept] => ["L2"], with(|faults| *faults = Faults { scaling: true, ..Faults::NONE });
    a_set_up_token_asked_for_again: [SetUpSentAgain] => ["S5"], with(|faults| *faults = Faults { scaling: true, provider: 250, ..Faults::NONE });
    a_credential_never_woken: [NeverWoken] => ["L3", "panic"], QUICK;
}

/// A breakage that no test looks for would say nothing: each is named where it is found, here, by the model or, the
/// engine's own, by the simulator of the engine.
#[test]
fn every_breakage_is_looked_for_by_name() {
    let names =
        include_str!("../src/rotation/breakage.rs").lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(','));
    let names: Vec<&str> = names.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric())).collect();
    let (model, _) = include_str!("model/checked.rs").split_once("NOT_IN_THE_MODEL").unwrap();
    let looked_for = [include_str!("breakages.rs"), model, include_str!("engine_simulation/checked.rs")];
    let is_named =
        |name: &&str| looked_for.iter().any(|text| text.split(|c: char| !c.is_alphanumeric()).any(|word| word == *name));
    let forgotten: Vec<&&str> = names.iter().filter(|name| !is_named(name)).collect();
    assert!(names.len() >= 32 && forgotten.is_empty(), "{forgotten:?} of {}", names.len());
}
