//! Makes a failing history smaller: without whole classes of faults, with fewer credentials, and with
//! an earlier end of what goes wrong, as long as it breaks the same promise.

use super::matrix::Class;
use super::setup::Switches;
use super::{Kind, Report, run};
use crate::simulator::world::{MINUTE, Ms};

/// As many lines of a shortened trace as are shown, unless `ROTAD_ENGINE_LINES` says otherwise; with
/// `ROTAD_ENGINE_ALL` those of other credentials too.
const LINES: usize = 120;
/// As many runs as shrinking may take; `ROTAD_ENGINE_RUNS` says otherwise: with 1 nothing is made smaller.
const RUNS_MAX: u32 = 40;

/// What is left of a failing history.
pub struct Shrunk {
    pub switches: Switches,
    pub report: Report,
    pub runs: u32,
}

/// Shrinks the history of `seed`, which breaks a promise with `switches`.
pub fn shrink(kind: Kind, seed: u64, switches: &Switches) -> Shrunk {
    let first = run(kind, seed, switches, true);
    let promise = first.violation.as_ref().map(|violation| violation.promise);
    let mut left = Shrunk { switches: switches.clone(), report: first, runs: 1 };
    let most = std::env::var("ROTAD_ENGINE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS_MAX);
    let attempt = |left: &mut Shrunk, switches: Switches| {
        if left.runs >= most || promise.is_none() {
            return false;
        }
        left.runs += 1;
        let report = run(kind, seed, &switches, true);
        let same = report.violation.as_ref().map(|violation| violation.promise) == promise;
        if same {
            left.switches = switches;
            left.report = report;
        }
        same
    };
    for class in Class::ALL {
        let mut smaller = left.switches.clone();
        smaller.off.insert(class);
        attempt(&mut left, smaller);
    }
    for credentials in [1, 2, 4, 8] {
        let smaller = Switches { credentials: Some(credentials), ..left.switches.clone() };
        if attempt(&mut left, smaller) {
            break;
        }
    }
    let whole = kind.setup(seed, &left.switches).chaos_ends;
    let mut ends = whole;
    while ends > 2 * MINUTE {
        let smaller = Switches { chaos_ends: Some(ends / 2), ..left.switches.clone() };
        if !attempt(&mut left, smaller) {
            break;
        }
        ends /= 2;
    }
    left
}

impl Shrunk {
    /// The violation, the last lines about its credential, and how to see it again.
    pub fn tell(&self, kind: Kind, seed: u64) -> String {
        let Some(violation) = &self.report.violation else { return format!("seed {seed}: no violation") };
        let at = crate::simulator::clock(violation.at);
        let head = format!("seed {seed} ({kind:?}): {} broken at {at}: {}", violation.promise, violation.detail);
        let broken = self.report.trace.iter().rev().find(|(_, line)| line.contains("BROKEN"));
        let about = broken.and_then(|(credential, _)| *credential).filter(|_| std::env::var_os("ROTAD_ENGINE_ALL").is_none());
        let fits = |of: &Option<usize>| about.is_none() || of.is_none() || *of == about;
        let lines: Vec<&str> = self.report.trace.iter().filter(|(of, _)| fits(of)).map(|(_, line)| line.as_str()).collect();
        let most = std::env::var("ROTAD_ENGINE_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(LINES);
        let shown = &lines[lines.len().saturating_sub(most)..];
        format!(
            "{head}\n{}\n{head}\nmade smaller in {} runs; to see it again:\n  {} cargo test --all-features --test engine_simulation a_seed_given -- --nocapture",
            shown.join("\n"),
            self.runs,
            self.environment(kind, seed)
        )
    }

    fn environment(&self, kind: Kind, seed: u64) -> String {
        let Switches { off, credentials, chaos_ends, .. } = &self.switches;
        let mut text = format!("ROTAD_ENGINE_SEED={seed} ROTAD_ENGINE_KIND={}", kind.title());
        if !off.is_empty() {
            let off: Vec<&str> = off.iter().map(|class| class.title()).collect();
            text += &format!(" ROTAD_ENGINE_OFF={}", off.join(","));
        }
        if let Some(credentials) = credentials {
            text += &format!(" ROTAD_ENGINE_CREDENTIALS={credentials}");
        }
        if let Some(ends) = chaos_ends {
            text += &format!(" ROTAD_ENGINE_CHAOS_MS={ends}");
        }
        text
    }
}

/// The seed and the switches that the environment gives, if it gives a seed.
pub fn given() -> Option<(Kind, u64, Switches)> {
    let read = |name: &str| std::env::var(format!("ROTAD_ENGINE_{name}")).ok();
    let seed = read("SEED")?.parse().expect("ROTAD_ENGINE_SEED is a number");
    let kind = match read("KIND").as_deref() {
        Some("long") => Kind::Long,
        _ => Kind::Dense,
    };
    let off = read("OFF").unwrap_or_default();
    let off = Class::ALL.into_iter().filter(|class| off.split(',').any(|name| name == class.title())).collect();
    let number = |name: &str| read(name).map(|text| text.parse::<Ms>().expect("a number"));
    let credentials = number("CREDENTIALS").map(|credentials| credentials as usize);
    Some((kind, seed, Switches { off, credentials, chaos_ends: number("CHAOS_MS"), ignored: Vec::new() }))
}
