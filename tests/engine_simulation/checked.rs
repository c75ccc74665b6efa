//! Checks the simulation: the engine's own rules, which are not the core's, broken on purpose.

use rotad::rotation::breakage::{Breakage, break_only};

use crate::engine;
use crate::engine::setup::Switches;

/// So many histories have to show a breakage.
const SEEDS: u64 = 400;

/// The same of the whole engine: its own rules are not the core's.
fn the_engine_notices(breakage: Breakage, promises: &[&str]) {
    for seed in 1..=SEEDS {
        break_only(&[breakage]);
        let report = engine::run(engine::Kind::Dense, seed, &Switches::default(), false);
        break_only(&[]);
        let Some(violation) = report.violation else { continue };
        assert!(
            promises.contains(&violation.promise),
            "{breakage:?}: seed {seed} breaks {}: {}",
            violation.promise,
            violation.detail
        );
        let sound = engine::run(engine::Kind::Dense, seed, &Switches::default(), false);
        assert!(sound.violation.is_none(), "seed {seed}: {:?}", sound.violation);
        println!("{breakage:?}: seed {seed} breaks {}: {}", violation.promise, violation.detail);
        break_only(&[breakage]);
        let shrunk = engine::shrink::shrink(engine::Kind::Dense, seed, &Switches::default());
        break_only(&[]);
        let same = shrunk.report.violation.as_ref().map(|shrunk| shrunk.promise);
        assert_eq!(same, Some(violation.promise), "what is made smaller breaks the same promise");
        let told = shrunk.tell(engine::Kind::Dense, seed);
        assert!(told.contains("ROTAD_ENGINE_SEED") && told.contains("BROKEN"), "{told}");
        return;
    }
    panic!("{breakage:?} went unnoticed in {SEEDS} histories");
}

#[test]
fn limits_that_let_everything_pass() {
    the_engine_notices(Breakage::LimitsIgnored, &["limits"]);
}

#[test]
fn a_restart_that_begins_a_new_minute_of_the_limits() {
    the_engine_notices(Breakage::RestartUncounted, &["limits"]);
}

#[test]
fn an_effect_before_its_intent_is_saved() {
    the_engine_notices(Breakage::SavedAfterEffect, &["S3", "S5", "S6"]);
}
