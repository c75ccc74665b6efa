//! Checks the checker: each deliberate breakage of the core is found by the model, by the name of
//! the promise that it breaks, or told to be the simulator's to find (`tests/breakages.rs`).
//!
//! Rules mask each other. Where one does, the breakage is made in the combination that shows it, and
//! promises that the companion alone breaks are not judged.

use std::time::Duration;

use rotad::rotation::breakage::{Breakage, break_only};

use super::search::{Bounds, explain, search};
use super::state::Model;

/// The first violation is one of `promises`.
fn finds(name: &str, promises: &[&str], prepare: fn(), model: &Model) {
    let bounds = Bounds { threads: 1, states: 3_000_000, time: Duration::from_secs(120), prepare };
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

fn late_writes() -> Model {
    Model { ignored: &["S2", "S5", "S6"], ..Model::new(2) }
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
    absence_from_one_list_as_proof: [AbsenceAsProof] => ["S7", "S6"], Model::new(1);
    a_token_asked_for_without_a_list: [IssuedUnlisted] => ["S7"], Model::new(0);
    a_token_asked_for_without_reading: [IssuedUnread] => ["S7"], Model::new(0);
    a_rebuild_left_out: [RebuildSkipped] => ["S7", "S6", "S3", "L1", "L2"], Model::new(1);
    everything_due_at_the_start: [DueAtStart] => ["S7", "S6"], Model::new(1);
    a_roll_back_overwritten_at_once: [RolledBackOverwritten] => ["roll-back"], Model::new(1);
    a_revocation_given_up: [RevocationGivenUp] => ["L2"], Model::new(1);
    a_credential_never_woken: [NeverWoken] => ["L3"], Model::new(1);
}

/// The condition of a write is the store's to keep, and other rules mask its absence: with it the two
/// late-write rules may be broken together, without it a late write brings back what was revoked.
#[test]
fn an_unconditional_write() {
    let prepare = || break_only(&[Breakage::UnsettledWritesIgnored, Breakage::CutOffWriteRefused, Breakage::GraceIgnored]);
    finds("an_unconditional_write", &["S1"], prepare, &Model { unconditional: true, ..late_writes() });
}
