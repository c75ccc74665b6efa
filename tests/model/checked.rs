//! Checks the checker: each deliberate breakage of the core is found by the model, by the name of
//! the promise that it breaks, or told to be the simulator's to find (`tests/breakages.rs`).
//!
//! Rules mask each other. Where one does, the breakage is made in the combination that shows it, and
//! promises that the companion alone breaks are not judged.

use rotad::rotation::breakage::{Breakage, break_only};

use super::search::{Bounds, explain, search};
use super::state::Model;

/// The first violation is one of `promises`.
fn finds(name: &str, promises: &[&str], prepare: fn(), model: &Model) {
    let bounds = Bounds { threads: 1, states: 1_000_000, turns: u32::MAX, prepare };
    let found = search(model, &bounds);
    let named = match &found.violation {
        Some((violation, from, picks)) => {
            if !promises.contains(&violation.promise) {
                prepare();
                let trace = explain(model, &found.graph, *from, picks).join("\n");
                panic!("{name} broke {} instead of {promises:?}: {}\n{trace}", violation.promise, violation.detail);
            }
            format!("{}: {}", violation.promise, violation.detail)
        }
        None => {
            let calm = found.graph.calm_down();
            let (promise, at) =
                calm.broken.unwrap_or_else(|| panic!("{name} went unnoticed in {} states", found.graph.nodes.len()));
            assert!(promises.contains(&promise), "{name} broke {promise} instead of {promises:?}");
            format!("{promise}: from state {at} on it does not hold")
        }
    };
    println!("{name}: the model, {} turns deep, {} states: {named}", found.depth, found.graph.nodes.len());
}

macro_rules! found_by_the_model {
    ($($name:ident: $breakages:expr => $promises:expr, $model:expr;)*) => {
        $(#[test]
        fn $name() {
            use Breakage::*;
            finds(stringify!($name), &$promises, || break_only(&$breakages), &$model);
        })*
    };
}

/// A store without conditional writes, where nothing but the rules on late writes is in their way.
fn late_writes() -> Model {
    Model { unconditional: true, ignored: &["S2", "S5", "S6"], ..Model::new(1) }
}

found_by_the_model! {
    a_read_back_of_any_age: [StaleReadBack] => ["S1"], Model::new(2);
    no_read_back_before_revoking: [ReadBackSkipped] => ["S1"], Model::new(1);
    a_revocation_without_a_list: [RevokedUnlisted] => ["S7"], Model::new(0);
    a_late_write_ignored: [UnsettledWritesIgnored, GraceIgnored] => ["S1"], late_writes();
    a_cut_off_write_taken_as_refused: [CutOffWriteRefused, GraceIgnored] => ["S1"], late_writes();
    a_former_delivery_forgotten: [FormerDeliveryForgotten] => ["S1"], Model::new(1);
    grace_from_the_intent: [GraceFromIntent] => ["S2"], Model::new(1);
    grace_that_goes_on_after_a_change: [GraceNotRestarted] => ["S2", "S1"], Model::new(1);
    no_grace: [GraceIgnored] => ["S2"], Model::new(0);
    promoted_after_the_first_delivery: [PromotedAfterFirst] => ["S1", "S2"], Model::new(1);
    a_lost_token_revoked_at_once: [LostRevokedAtOnce] => ["S1", "S2"], Model::new(1);
    an_adopted_token_revoked: [AdoptedRevoked] => ["S3"], Model::new(1);
    a_lost_token_forgotten: [LostForgotten] => ["L2"], Model::new(1);
    a_request_sent_again: [RequestSentAgain] => ["S5"], Model::new(1);
    a_failed_delivery_that_mints: [FailedDeliveryMints] => ["S6", "S7"], Model::new(1);
    absence_from_one_list_as_proof: [AbsenceAsProof] => ["S7", "S6"], Model::new(2);
    a_token_asked_for_without_a_list: [IssuedUnlisted] => ["S7"], Model::new(0);
    a_token_asked_for_without_reading: [IssuedUnread] => ["S7"], Model::new(0);
    a_rebuild_left_out: [RebuildSkipped] => ["S7", "S6", "S3", "L1", "L2"], Model::new(1);
    everything_due_at_the_start: [DueAtStart] => ["S7", "S6"], Model::new(1);
    a_roll_back_overwritten_at_once: [RolledBackOverwritten] => ["roll-back"], Model::new(1);
    a_revocation_given_up: [RevocationGivenUp] => ["L2"], Model::new(1);
}

/// The condition of a write is the store's to keep, and other rules mask its absence: with it the
/// rules on late writes may be broken all together, without it a late write brings back what was
/// revoked, and with these rules in force it does not (`a_store_without_conditional_writes`).
#[test]
fn an_unconditional_write() {
    let prepare = || break_only(&[Breakage::UnsettledWritesIgnored, Breakage::CutOffWriteRefused, Breakage::GraceIgnored]);
    let bounds = Bounds { threads: 1, states: 3_000_000, turns: u32::MAX, prepare };
    let conditional = search(&Model { unconditional: false, ..late_writes() }, &bounds);
    assert!(conditional.complete && conditional.violation.is_none(), "a conditional write lands over what was written since");
    finds("an_unconditional_write", &["S1"], prepare, &late_writes());
}

/// Breakages that only the simulator finds (`tests/breakages.rs`), each with what the model leaves out.
const NOT_IN_THE_MODEL: [(Breakage, &str); 11] = [
    (Breakage::GraceShortened, "a reload that shortens the grace period"),
    (Breakage::FreezeIgnored, "clocks that are wrong"),
    (Breakage::DeadlineIgnored, "an outage as long as a token's life"),
    (Breakage::NeverWoken, "states in which nothing at all is due"),
    (Breakage::WithdrawalIgnored, "tokens made by hand that the operator lists for adoption"),
    (Breakage::AnothersAdopted, "tokens made by hand that the operator lists for adoption"),
    (Breakage::UnusedAdminToken, "the admin token's own rotation"),
    (Breakage::ConnectionSkipped, "read-scaling tokens"),
    (Breakage::ConnectionForgotten, "read-scaling tokens"),
    (Breakage::SetUpTokenKept, "read-scaling tokens"),
    (Breakage::SetUpSentAgain, "read-scaling tokens"),
];

#[test]
fn what_the_model_leaves_out_is_told() {
    for (breakage, why) in NOT_IN_THE_MODEL {
        println!("{breakage:?}: the simulator alone, since the model leaves out {why}");
    }
}
