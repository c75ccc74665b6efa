//! Beyond what can be explored whole: a walk by chance, from one seed, with fault after fault.

use std::collections::VecDeque;

use super::canon::canonical;
use super::chooser::Chooser;
use super::faults::Kind;
use super::graph::{AT_REST, BLOCKED, marks, truth};
use super::run::Run;
use super::search::go;
use super::state::{Model, State};
use crate::simulator::oracle::Violation;
use crate::simulator::rng::Rng;
use crate::simulator::world::{HOUR, Ms};

/// How many turns of a trace are told.
const TOLD: usize = 40;
/// After so many turns nothing more goes wrong, until it has come to rest.
const ROUND: u64 = 400;
/// Within this it comes to rest: lost tokens are given up after their life and an hour.
pub const REST_WITHIN: Ms = 5 * HOUR;

#[derive(Debug, Default)]
pub struct Walked {
    pub steps: u64,
    pub turns: u64,
    pub rests: u64,
    pub met: Vec<u64>,
    pub longest_to_rest: Ms,
    pub violation: Option<(Violation, Vec<String>)>,
}

/// Walks so many steps; a step is an action of the core or an event of the world.
pub fn walk(model: &Model, seed: u64, steps: u64) -> Walked {
    let mut walked = Walked { met: vec![0; Kind::ALL.len()], ..Walked::default() };
    let mut rng = Rng::new(seed);
    let mut state = model.first();
    let mut told: VecDeque<(State, Rng, u64)> = VecDeque::new();
    while walked.steps < steps {
        let permille = *rng.pick(&[3, 10, 30, 100, 300]);
        for _ in 0..ROUND {
            if !step(model, &mut state, &mut rng, permille, &mut walked, &mut told) {
                return walked;
            }
        }
        let mut calm_for = 0;
        loop {
            let marks = marks(model, &state);
            if marks & BLOCKED != 0 {
                state = model.first();
            }
            if marks & (AT_REST | BLOCKED) != 0 {
                break;
            }
            if !step(model, &mut state, &mut rng, 0, &mut walked, &mut told) {
                return walked;
            }
            // A turn begins when the one before asked for it; the canonical form has moved the time since.
            let wakes = state.sites.iter().map(|site| site.wake - state.now);
            calm_for += wakes.min().unwrap_or(0).max(0);
            if calm_for > REST_WITHIN {
                let detail = format!("it is not at rest {} h after the last fault", calm_for / HOUR);
                walked.violation = Some((Violation { promise: "L2", detail, at: state.now }, tell(model, told)));
                return walked;
            }
        }
        walked.rests += 1;
        walked.longest_to_rest = walked.longest_to_rest.max(calm_for);
    }
    walked
}

fn step(
    model: &Model,
    state: &mut State,
    rng: &mut Rng,
    permille: u64,
    walked: &mut Walked,
    told: &mut VecDeque<(State, Rng, u64)>,
) -> bool {
    told.push_back((state.clone(), rng.clone(), permille));
    if told.len() > TOLD {
        told.pop_front();
    }
    let chooser = if permille == 0 { Chooser::Calm } else { Chooser::Chance { rng, permille } };
    let mut run = Run::new(model, state.clone(), chooser);
    go(&mut run);
    walked.steps += run.actions + run.met.len() as u64;
    walked.turns += 1;
    run.met.iter().for_each(|kind| walked.met[*kind as usize] += 1);
    *state = run.state;
    if let Some(violation) = run.violation {
        walked.violation = Some((violation, tell(model, std::mem::take(told))));
        return false;
    }
    canonical(state);
    true
}

/// Takes the same way twice, in the canonical form and as it comes: both must go on alike.
pub fn compare_forms(model: &Model, seed: u64, turns: u32) {
    let mut rng = Rng::new(seed);
    let (mut plain, mut tidy) = (model.first(), model.first());
    for turn in 0..turns {
        let mut again = rng.clone();
        let mut first = Run::new(model, plain, Chooser::Chance { rng: &mut rng, permille: 60 });
        go(&mut first);
        let mut second = Run::new(model, tidy, Chooser::Chance { rng: &mut again, permille: 60 });
        go(&mut second);
        let told = |run: &Run<'_, '_>| (run.met.clone(), run.actions, run.violation.as_ref().map(|violation| violation.promise));
        assert_eq!(told(&first), told(&second), "seed {seed}, turn {turn}: the forms go different ways");
        assert!(first.violation.is_none(), "{:?}", first.violation);
        plain = first.state;
        tidy = second.state;
        let mut tidied = plain.clone();
        if canonical(&mut tidied) != canonical(&mut tidy) {
            let (one, other) = (format!("{tidied:#?}"), format!("{tidy:#?}"));
            let lines: Vec<_> = one.lines().zip(other.lines()).filter(|(one, other)| one != other).take(12).collect();
            panic!("seed {seed}, turn {turn}: the forms came to different states: {lines:#?}");
        }
    }
}

/// The last turns once more, told.
fn tell(model: &Model, told: VecDeque<(State, Rng, u64)>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut last = None;
    for (state, mut rng, permille) in told {
        lines.push("turn".to_owned());
        let chooser = if permille == 0 { Chooser::Calm } else { Chooser::Chance { rng: &mut rng, permille } };
        let mut run = Run::new(model, state, chooser);
        run.trace = Some(Vec::new());
        go(&mut run);
        lines.extend(run.trace.take().unwrap_or_default());
        last = Some(run.state);
    }
    lines.extend(last.iter().flat_map(truth));
    lines
}
