//! `rotad plan`: what comes next for each credential, when and why; nothing is changed. The daemon's own core is
//! run ahead from what the journal holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::fleets::{self, FleetLine};
use super::{Ended, block_on, load, load_without_secrets, look, offline_fleet, say, with_members};
use crate::clock::Clock;
use crate::config::{self, Config, Diff, parse_duration, show_duration};
use crate::control::Selection;
use crate::engine::{BlastRadius, Forecast, Member, Roster, Step, Subject, forecast};
use crate::fleet::Fleet;
use crate::journal::{CLOCK_MARK, Identity, Journal};
use crate::rotation::{
    Block, Credential, CredentialName, Facts, Happened, InstallationId, Moment, Pause, ProcessId, PutOff, Schedule, Steady,
    Tried, Why,
};
use crate::snapshot::span;

/// How many rows are read from the journal at once.
const PORTION: usize = 1_000;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Names of credentials, or patterns such as `etl-*`; all without
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Every step for so long ahead, such as `1d` or `30d`, instead of the next rotation only
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    ahead: Option<SignedDuration>,
    /// What this other configuration would change, instead
    #[arg(long, value_name = "FILE", conflicts_with = "ahead")]
    diff: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Plan {
    taken_at: Timestamp,
    until: Option<Timestamp>,
    fleets: Vec<FleetLine>,
    credentials: Vec<Line>,
    load: Load,
}

#[derive(Debug, Serialize)]
struct Line {
    name: CredentialName,
    /// In the way of everything that is forecast.
    block: Option<Block>,
    paused: Option<Pause>,
    schedule: Rule,
    steps: Vec<Step>,
}

/// A credential's own schedule, as the configuration has it.
#[derive(Debug, Serialize)]
struct Rule {
    every: Option<String>,
    /// How far into each interval the credential's name puts it: the same for ever, so that not all are due at once.
    spread: Option<String>,
    cron: Option<String>,
    timezone: Option<String>,
    window: Option<String>,
}

impl Rule {
    fn of(schedule: &Schedule, window: Option<SignedDuration>) -> Self {
        let window = window.map(show_duration);
        match schedule {
            Schedule::Every { every, phase } => {
                let (every, spread) = (Some(show_duration(*every)), Some(show_duration(*phase)));
                Self { every, spread, cron: None, timezone: None, window }
            }
            Schedule::Cron(line) => {
                let (cron, timezone) = (Some(line.expression().to_owned()), Some(line.zone().to_owned()));
                Self { every: None, spread: None, cron, timezone, window }
            }
        }
    }

    fn told(&self) -> String {
        let own = |field: &Option<String>| field.clone().unwrap_or_default();
        match (&self.every, &self.spread) {
            (Some(every), Some(spread)) => format!("every {every}, spread by {spread}"),
            _ => format!("cron {}, {}", own(&self.cron), own(&self.timezone)),
        }
    }
}

/// Whether it fits the limits: rotad's own, the API's and the sinks'.
#[derive(Debug, Serialize)]
struct Load {
    rotations: usize,
    /// Those of them that the limit of rotations per minute puts off.
    rotations_put_off: usize,
    /// The most of the forecast that begin within one minute.
    rotations_in_a_minute: usize,
    rotations_per_minute_limit: u32,
    revocations_in_a_minute: usize,
    revocations_per_minute_limit: u32,
    organizations: Vec<Calls>,
    sinks: Vec<Calls>,
}

/// What a minute asks of an organization's API, or of a sink's writes.
#[derive(Debug, Serialize)]
struct Calls {
    name: Arc<str>,
    calls_in_a_minute: u64,
    /// Null where none is known.
    calls_per_minute_limit: Option<u64>,
}

/// Calls in each minute, by its number.
#[derive(Default)]
struct Minutes(BTreeMap<i64, u64>);

impl Minutes {
    fn add(&mut self, at: Timestamp, calls: u32) {
        *self.0.entry(at.as_second().div_euclid(60)).or_default() += u64::from(calls);
    }

    fn most(&self) -> u64 {
        self.0.values().copied().max().unwrap_or(0)
    }
}

/// What is asked of whom.
#[derive(Default)]
struct Asked {
    organizations: BTreeMap<Arc<str>, Minutes>,
    sinks: BTreeMap<Arc<str>, Minutes>,
}

impl Asked {
    fn note(&mut self, credential: &config::Credential, member: &Member, ahead: &Forecast, config: &Config) {
        let api = self.organizations.entry(credential.terms.organization.clone()).or_default();
        ahead.calls.iter().for_each(|at| api.add(*at, 1));
        for (at, written) in &ahead.writes {
            let Some(position) = member.places.iter().position(|place| place.id() == written) else { continue };
            let Some(name) = credential.deliveries.get(position).map(|delivery| &delivery.sink) else { continue };
            let calls = config.sinks.get(name).map_or(1, config::Sink::calls_per_write);
            self.sinks.entry(name.clone()).or_default().add(*at, calls);
        }
    }

    /// With the lists of sweeps, which are made for every credential, in the plan or not.
    fn of_organizations(&self, fleet: &Fleet) -> Vec<Calls> {
        let (config, sizes) = (fleet.config(), fleet.sizes());
        let calls = |(name, minutes): (&Arc<str>, &Minutes)| {
            let organization = config.organizations.get(name)?;
            let swept = sizes.get(name).copied().unwrap_or(0);
            let sweeps = (swept as f64 * 60.0 / organization.sweep_every(swept).as_secs_f64()).ceil() as u64;
            Some(Calls {
                name: name.clone(),
                calls_in_a_minute: minutes.most() + sweeps,
                calls_per_minute_limit: Some(u64::from(organization.requests_per_second.get()) * 60),
            })
        };
        self.organizations.iter().filter_map(calls).collect()
    }

    fn of_sinks(&self, config: &Config) -> Vec<Calls> {
        let calls = |(name, minutes): (&Arc<str>, &Minutes)| {
            let limit = config.sinks.get(name)?.writes_per_minute_limit().map(u64::from);
            Some(Calls { name: name.clone(), calls_in_a_minute: minutes.most(), calls_per_minute_limit: limit })
        };
        self.sinks.iter().filter_map(calls).collect()
    }
}

pub fn run(path: &Path, arguments: &Arguments) -> Result<(), Ended> {
    let config = load_without_secrets(path)?;
    if let Some(other) = &arguments.diff {
        let (config, other) = (block_on(with_members(config))??, block_on(with_members(load(other)?))??);
        let diff = config.diff(&other);
        say(&if arguments.json { serde_json::to_string_pretty(&diff)? + "\n" } else { told_diff(&diff) });
        return Ok(());
    }
    let (config, fleets) = block_on(fleets::look(config))??;
    let selection = Selection { names: arguments.names.clone(), all: arguments.names.is_empty(), ..Selection::default() };
    // Without credentials there is nothing to select from: a fleet may have no accounts yet.
    let nothing = config.credentials.is_empty() && selection.all;
    let names = if nothing { Ok(Vec::new()) } else { selection.resolve(&config) };
    let names = names.map_err(|refusal| Ended::Misused(format!("rotad: {refusal}")))?;
    block_on(async {
        let fleet = offline_fleet(config, Arc::new(Clock::new())).await?;
        let plan = Plan { fleets, ..plan(&fleet, &names, arguments.ahead).await? };
        say(&if arguments.json { serde_json::to_string_pretty(&plan)? + "\n" } else { told(&plan) });
        Ok(())
    })?
}

/// What is remembered of a fleet: of a journal, or nothing where rotad has not run yet.
enum Memory {
    Journal(Arc<dyn Journal>),
    Nothing,
}

impl Memory {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        Ok(look(config).await?.journal.map_or(Self::Nothing, Self::Journal))
    }

    /// What is recorded of every credential. A record that can't be read is rebuilt by the daemon: the plan knows no more
    /// than it does.
    async fn credentials(&self) -> anyhow::Result<BTreeMap<CredentialName, Credential>> {
        let mut known = BTreeMap::new();
        let Self::Journal(journal) = self else { return Ok(known) };
        let mut after = None;
        loop {
            let rows = journal.load_after(after.as_ref(), PORTION).await?;
            let Some((last, _)) = rows.last() else { return Ok(known) };
            after = Some(last.clone());
            known.extend(rows.into_iter().filter_map(|(name, row)| Some((name, row.read_state().ok()?))));
        }
    }

    /// The present, on the steady clock of the daemon: what passed since its last mark is taken to have passed for it.
    async fn now(&self) -> anyhow::Result<Moment> {
        let wall = Clock::new().now().wall;
        let Self::Journal(journal) = self else { return Ok(Moment { wall, steady: Steady(0) }) };
        let mark: Option<Moment> = journal.fact(CLOCK_MARK).await?.and_then(|mark| serde_json::from_str(&mark).ok());
        let mark = mark.unwrap_or(Moment { wall, steady: Steady(0) });
        let passed = i64::try_from(wall.duration_since(mark.wall).as_millis().max(0))?;
        Ok(Moment { wall, steady: Steady(mark.steady.0.saturating_add(passed)) })
    }

    fn identity(&self, now: Timestamp) -> Identity {
        match self {
            Self::Journal(journal) => journal.identity(),
            Self::Nothing => Identity { installation: InstallationId(0), created_at: now },
        }
    }
}

async fn plan(fleet: &Fleet, names: &[CredentialName], ahead: Option<SignedDuration>) -> anyhow::Result<Plan> {
    let memory = Memory::open(fleet.config()).await?;
    let now = memory.now().await?;
    let Identity { installation, created_at } = memory.identity(now.wall);
    let facts = Facts { installation, journal_created_at: created_at, process: ProcessId(0), process_since: now };
    let until = ahead.map(|ahead| now.wall.saturating_add(ahead)).transpose()?;
    let wanted: BTreeSet<&CredentialName> = names.iter().collect();
    let mut known = memory.credentials().await?;
    let (mut lines, mut subjects) = (Vec::new(), Vec::new());
    // The others take their part of the limits.
    for name in fleet.names() {
        let Some(member) = fleet.member(&name) else { continue };
        let earlier = member.policy.renamed_from.as_ref();
        let stored = known.remove(&name).or_else(|| known.remove(earlier?));
        let block = stored.as_ref().and_then(|state| state.blocked.clone());
        let paused = stored.as_ref().and_then(|state| state.orders.pause(now.wall)).cloned();
        let schedule = Rule::of(&member.policy.schedule, member.policy.window);
        subjects.push(Subject { stored, policy: member.policy.clone(), is_wanted: wanted.contains(&name) });
        lines.push((Line { name, block, paused, schedule, steps: Vec::new() }, member));
    }
    let config::Limits { rotations_per_minute, revocations_per_minute, .. } = fleet.config().limits;
    let mut limits = BlastRadius::new(rotations_per_minute.get(), revocations_per_minute.get());
    let next_is_there = |steps: &[Step]| until.is_none() && is_whole(steps);
    let forecasts = forecast(subjects, facts, now, &mut limits, until.unwrap_or(Timestamp::MAX), next_is_there);
    let (mut credentials, mut asked) = (Vec::new(), Asked::default());
    for ((line, member), ahead) in lines.into_iter().zip(forecasts).filter(|((line, _), _)| wanted.contains(&line.name)) {
        if let Some(credential) = fleet.config().credentials.get(&line.name) {
            asked.note(credential, &member, &ahead, fleet.config());
        }
        credentials.push(Line { block: line.block.or(ahead.block), steps: ahead.steps, ..line });
    }
    let key = |line: &Line| (line.block.is_none(), line.steps.first().map(|step| step.at), line.name.clone());
    credentials.sort_by_key(key);
    let load = load_of(&credentials, &asked, fleet);
    Ok(Plan { taken_at: now.wall, until, fleets: Vec::new(), credentials, load })
}

/// Whether the next rotation and the end of its predecessor are among the steps.
fn is_whole(steps: &[Step]) -> bool {
    let Some(promoted) = steps.iter().position(|step| step.what == Happened::Promoted) else { return false };
    let first = steps.iter().take(promoted).all(|step| step.why.is_none_or(|why| why == Why::First));
    first || steps[promoted..].iter().any(|step| matches!(step.what, Happened::Revoked | Happened::Expired))
}

fn load_of(credentials: &[Line], asked: &Asked, fleet: &Fleet) -> Load {
    let config = fleet.config();
    let is_limited = |step: &&Step| step.put_off.iter().any(|put_off| matches!(put_off, PutOff::Limit { .. }));
    let rotations_put_off = credentials.iter().flat_map(|line| &line.steps).filter(is_limited).count();
    let begun = |what: &[Happened]| -> Vec<Timestamp> {
        let steps = credentials.iter().flat_map(|line| &line.steps);
        steps.filter(|step| what.contains(&step.what)).map(|step| step.at).collect()
    };
    // A set-up token counts as a rotation does.
    let (rotations, revocations) = (begun(&[Happened::Intended, Happened::SetUpIntended]), begun(&[Happened::Revoked]));
    Load {
        rotations: rotations.len(),
        rotations_put_off,
        rotations_in_a_minute: most_in_a_minute(rotations),
        rotations_per_minute_limit: config.limits.rotations_per_minute.get(),
        revocations_in_a_minute: most_in_a_minute(revocations),
        revocations_per_minute_limit: config.limits.revocations_per_minute.get(),
        organizations: asked.of_organizations(fleet),
        sinks: asked.of_sinks(config),
    }
}

fn most_in_a_minute(mut times: Vec<Timestamp>) -> usize {
    times.sort_unstable();
    let within = |from: usize| times[from..].iter().take_while(|at| at.duration_since(times[from]).as_secs() < 60).count();
    (0..times.len()).map(within).max().unwrap_or(0)
}

fn told(plan: &Plan) -> String {
    let mut text = fleets::told(&plan.fleets);
    for Line { name, block, paused, schedule, steps } in &plan.credentials {
        let _ = writeln!(text, "{name}");
        if let Some(block) = block {
            let _ = writeln!(text, "  blocked, so nothing of this happens before a person has done this: {}", block.detail);
        }
        if let Some(pause) = paused {
            let _ = writeln!(text, "  paused until {:.0} by {}: {}", pause.until, pause.by, pause.reason);
        }
        if steps.is_empty() {
            let _ = writeln!(text, "  nothing");
        }
        for step in steps {
            let _ =
                writeln!(text, "  {}  {:>9}  {}", shown(step.at), from_now(step.at, plan.taken_at), words(step, schedule, plan));
        }
    }
    text.push('\n');
    text.push_str(&told_load(&plan.load));
    text
}

fn told_load(load: &Load) -> String {
    let Load { rotations, rotations_put_off, rotations_in_a_minute: fullest, rotations_per_minute_limit: limit, .. } = load;
    let (s, begin) = (if *rotations == 1 { "" } else { "s" }, if *fullest == 1 { "begins" } else { "begin" });
    let mut text = format!("{rotations} rotation{s}; at most {fullest} {begin} within one minute, and the limit is {limit}");
    let _ = writeln!(
        text,
        "{}",
        if *rotations_put_off > 0 {
            format!(": {rotations_put_off} come{} later for it", if *rotations_put_off == 1 { "s" } else { "" })
        } else {
            String::new()
        }
    );
    let asked = load.organizations.iter().map(|calls| ("organization", "call", " of the API", calls));
    for (kind, what, of, calls) in asked.chain(load.sinks.iter().map(|calls| ("sink", "write", "", calls))) {
        let Calls { name, calls_in_a_minute: count, calls_per_minute_limit: limit } = calls;
        let s = if *count == 1 { "" } else { "s" };
        let _ = write!(text, "{kind} `{name}`: at most {count} {what}{s}{of} within one minute");
        let later = |limit: u64| if *count > limit { ": some come later than shown" } else { "" };
        let limit = limit.map(|limit| format!(", and the limit is {limit}{}", later(limit)));
        let _ = writeln!(text, "{}", limit.unwrap_or_default());
    }
    text
}

fn shown(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn from_now(at: Timestamp, now: Timestamp) -> String {
    if at <= now { "now".to_owned() } else { format!("in {}", span(at, now)) }
}

fn words(step: &Step, schedule: &Rule, plan: &Plan) -> String {
    let token = match (&step.token, step.rotation) {
        (Some(token), _) => format!("token {token}"),
        (None, Some(rotation)) => format!("the token issued at {:.0}", rotation.minted_at()),
        (None, None) => "a token".to_owned(),
    };
    match step.what {
        Happened::Intended => {
            let because = reason(step, schedule);
            let put_off: String =
                step.put_off.iter().map(|put_off| "; ".to_owned() + &put_off_by(*put_off, step, schedule, plan)).collect();
            format!("a {} token is issued: {because}{put_off}", if step.why == Some(Why::First) { "first" } else { "new" })
        }
        Happened::SetUpIntended => "a set-up token is issued: the account is connected to once, then it is revoked".to_owned(),
        Happened::Connected => "the account is connected to: its read-scaling tokens work".to_owned(),
        Happened::Promoted => "every delivery has it: its grace period begins".to_owned(),
        Happened::Revoked => format!("{token} is revoked"),
        Happened::Expired => format!("{token} expires"),
        Happened::GivenUp => "a lost token is given up: it has expired if it ever was".to_owned(),
        Happened::AdoptionTaken => format!("{token} was made by hand: it is to be superseded and revoked"),
        Happened::PauseEnded => "the pause ends".to_owned(),
        other => other.as_str().to_owned(),
    }
}

/// What the time of a new token rests on.
fn reason(step: &Step, schedule: &Rule) -> String {
    let rule = schedule.told();
    match step.why {
        Some(Why::First) => "there is none yet".to_owned(),
        Some(Why::Schedule) => format!("the schedule's time ({rule})"),
        Some(Why::Deadline) => {
            format!("the old one's deadline, its expiry less grace and margin, as the schedule ({rule}) comes later")
        }
        Some(Why::Undelivered) => "the old one's deadline, as one of its places can't be written".to_owned(),
        Some(Why::Gone) => "the old one is gone".to_owned(),
        Some(Why::Ordered) => "a person ordered it".to_owned(),
        None => "it is due".to_owned(),
    }
}

/// One thing that puts a step off.
fn put_off_by(put_off: PutOff, step: &Step, schedule: &Rule, plan: &Plan) -> String {
    match put_off {
        PutOff::Window { .. } => {
            let (due, window) = (step.due_at.map(shown).unwrap_or_default(), schedule.window.as_deref().unwrap_or_default());
            format!("the window of {window} from {due} on was missed")
        }
        PutOff::Pause { until } => format!("paused until {}", shown(until)),
        PutOff::Backoff { of, failures, until } => {
            let (of, times) =
                (tried(of), if failures == 1 { "1 failure".to_owned() } else { format!("{failures} failures in a row") });
            format!("backoff after {times} to {of}, until {}", shown(until))
        }
        PutOff::Limit { .. } => {
            let (due, limit) = (step.due_at.map(shown).unwrap_or_default(), plan.load.rotations_per_minute_limit);
            format!("due at {due}, put off by the limit of {limit} rotation{} per minute", if limit == 1 { "" } else { "s" })
        }
    }
}

fn tried(of: Tried) -> &'static str {
    match of {
        Tried::Issue => "issue it",
        Tried::List => "list the account's tokens",
        Tried::Read => "read a place",
    }
}

fn told_diff(diff: &Diff) -> String {
    if diff.is_empty() {
        return "nothing would change\n".to_owned();
    }
    let mut text = String::new();
    for section in &diff.sections {
        let _ = writeln!(text, "~ [{section}]");
    }
    for name in &diff.added {
        let _ = writeln!(text, "+ {name}: gets its first token, under the limits");
    }
    for (from, to) in &diff.renamed {
        let _ = writeln!(text, "~ {from} is called {to}: its tokens and places are carried on");
    }
    for change in &diff.changed {
        let _ = writeln!(text, "~ {}{}", change.name, if change.terms { ": its terms change" } else { "" });
        for place in &change.places_added {
            let _ = writeln!(text, "    + {place}: filled with a copy, or when next due");
        }
        for place in &change.places_removed {
            let _ = writeln!(text, "    - {place}: the tokens of today are left to expire, unless `rotad forget` says otherwise");
        }
    }
    for name in &diff.removed {
        let _ = writeln!(text, "- {name}: let go, its tokens are left to expire");
    }
    if let Err(refusal) = diff.check_automatic() {
        let _ = writeln!(text, "\n{refusal}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_minute_is_found_wherever_it_begins() {
        let at = |seconds: &[i64]| seconds.iter().map(|second| Timestamp::from_second(*second).unwrap()).collect();
        assert_eq!(most_in_a_minute(at(&[])), 0);
        assert_eq!(most_in_a_minute(at(&[300, 0, 50, 59, 60, 109])), 4);
    }
}
