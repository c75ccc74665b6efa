//! `rotad status`: what the journal knows of every credential, whether the daemon runs or not.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::detail;
use super::{Ended, block_on, complain, load, offline_fleet, say, with_members};
use crate::clock::Clock;
use crate::daemon::journal_path;
use crate::engine::{Concern, Roster, of_fleet, summarize};
use crate::fleet::{Fleet, rolls};
use crate::journal::{Journal, Row, SqliteJournal};
use crate::rotation::{Block, CredentialName, Orders, RotationId};
use crate::snapshot::{At, Attention, FleetSummary, Label, Summary, span, until};

/// How many rows are read from the journal at once.
const PORTION: usize = 1000;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Everything that is known of this credential, instead of a line for each
    name: Option<CredentialName>,
    /// Show it again every two seconds
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// How often `--watch` looks.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(2);
/// Moves a terminal's cursor to the top and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Debug, Serialize)]
pub(super) struct Status {
    taken_at: Timestamp,
    /// Until when every consumer keeps working if rotad dies now; unknown while one has no token.
    survival_deadline_at: At,
    fleets: Vec<FleetSummary>,
    credentials: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: CredentialName,
    /// Not configured any more: let go, shown until its tokens expire.
    let_go: bool,
    #[serde(flatten)]
    summary: Option<Summary>,
    /// Why it needs a person.
    block: Option<Block>,
    /// What persons ordered and is not done yet.
    orders: Orders,
    deliveries: Vec<DeliveryLine>,
}

#[derive(Debug, Serialize)]
struct DeliveryLine {
    place: String,
    /// The rotation that the last read-back showed.
    serves: Option<RotationId>,
    is_current: bool,
    trouble: Option<String>,
}

impl Status {
    /// Those that need a person, the most pressing first.
    pub fn needing_attention(&self) -> Vec<CredentialName> {
        let needing = self.credentials.iter().filter(|line| line.attention(self.taken_at).is_some());
        needing.map(|line| line.name.clone()).collect()
    }
}

impl Line {
    /// The most pressing reason for a person to look at it.
    fn attention(&self, now: Timestamp) -> Option<Attention> {
        self.summary.and_then(|summary| summary.attention(now).next())
    }
}

pub fn run(path: &Path, arguments: &Arguments) -> Result<(), Ended> {
    let config = block_on(with_members(load(path)?))??;
    if let Some(name) = arguments.name.as_ref().filter(|name| !config.credentials.contains_key(*name)) {
        return Err(Ended::Misused(format!("rotad: no credential is named `{name}`: `rotad status` lists them")));
    }
    let clock = Arc::new(Clock::new());
    block_on(async {
        let fleet = offline_fleet(config, clock.clone()).await?;
        let journal = SqliteJournal::open_read_only(journal_path(fleet.config())?)?;
        loop {
            let now = clock.now().wall;
            let text = match &arguments.name {
                Some(name) => one(&fleet, &journal, name, now, arguments.json).await?,
                None => {
                    let status = gather(&fleet, &journal, now).await?;
                    if arguments.json { serde_json::to_string_pretty(&status)? + "\n" } else { table(&status) }
                }
            };
            if !arguments.watch {
                say(&text);
                return Ok(());
            }
            let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
            say(&format!("{clear}{text}"));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })?
}

async fn one(
    fleet: &Fleet,
    journal: &SqliteJournal,
    name: &CredentialName,
    now: Timestamp,
    json: bool,
) -> anyhow::Result<String> {
    let Some(member) = fleet.member(name) else { anyhow::bail!("`{name}` is not configured") };
    let Some(detail) = detail::gather(&member, journal, name, now).await? else { return Ok(format!("{name}: not begun\n")) };
    Ok(if json { serde_json::to_string_pretty(&detail)? + "\n" } else { detail::table(&detail) })
}

pub(super) async fn gather(fleet: &Fleet, journal: &dyn Journal, now: Timestamp) -> anyhow::Result<Status> {
    let mut credentials = Vec::new();
    let mut missing: std::collections::BTreeSet<CredentialName> = fleet.names().into_iter().collect();
    let mut after = None;
    loop {
        let rows = journal.load_after(after.as_ref(), PORTION).await?;
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        for (name, row) in rows {
            missing.remove(&name);
            credentials.extend(line(fleet, name, &row, now));
        }
    }
    credentials.extend(missing.into_iter().map(unread));
    credentials.sort_by_cached_key(|line: &Line| {
        let attention = line.attention(now);
        (attention.is_none(), attention, line.name.clone())
    });
    let served = |line: &Line| line.summary.map_or(At::UNKNOWN, |summary| summary.served_until);
    let each: Vec<At> = credentials.iter().filter(|line| !line.let_go).map(served).collect();
    let all_known = each.iter().all(|at| at.millis().is_some());
    let survival = each.into_iter().min_by_key(|at| at.millis()).filter(|_| all_known).unwrap_or(At::UNKNOWN);
    let fleets = rolls::load(journal, fleet.config()).await?;
    let fleets = fleets.iter().map(|(name, roll)| FleetSummary::new(name, roll)).collect();
    Ok(Status { taken_at: now, survival_deadline_at: survival, fleets, credentials })
}

/// A credential of which nothing is known.
fn unread(name: CredentialName) -> Line {
    Line { name, let_go: false, summary: None, block: None, orders: Orders::default(), deliveries: Vec::new() }
}

fn line(fleet: &Fleet, name: CredentialName, row: &Row, now: Timestamp) -> Option<Line> {
    let member = fleet.member(&name);
    let state = match row.read_state() {
        Ok(state) => state,
        Err(problem) => {
            complain(&format!("rotad: the journal's record of `{name}` can't be read, a running daemon rebuilds it: {problem}"));
            return member.map(|_| unread(name));
        }
    };
    let Some(member) = member else {
        let alive = state.rotations.values().any(|rotation| rotation.token.as_ref().is_some_and(|token| token.expires_at > now));
        return alive.then(|| Line { let_go: true, ..unread(name) });
    };
    let summary = summarize(&state, &member.policy, member.organization, now);
    let latest = state.latest().map(|(id, _)| id);
    let deliveries = state.deliveries.iter().map(|(place, known)| DeliveryLine {
        place: place.to_string(),
        serves: known.confirmed,
        is_current: known.confirmed.is_some() && known.confirmed == latest,
        trouble: known.trouble.as_ref().map(|trouble| trouble.failed.detail.clone()),
    });
    let deliveries = deliveries.collect();
    Some(Line { name, let_go: false, summary: Some(summary), block: state.blocked, orders: state.orders, deliveries })
}

fn table(status: &Status) -> String {
    let mut text = match status.survival_deadline_at.timestamp() {
        Some(until) => {
            format!("If rotad stopped now, every consumer would keep working for {}.\n\n", span(until, status.taken_at))
        }
        None => "Not every credential has been delivered yet.\n\n".to_owned(),
    };
    for Concern { happened, remedy, .. } in status.fleets.iter().flat_map(|fleet| of_fleet(fleet, status.taken_at)) {
        let _ = writeln!(text, "{happened}: {remedy}\n");
    }
    let _ = writeln!(text, "{:<28} {:<11} {:>9} {:>9} {:>9}", "CREDENTIAL", "STATE", "EXPIRES", "NEXT", "DELIVERED");
    for line in &status.credentials {
        let Some(summary) = line.summary else {
            let state = if line.let_go { "let go" } else { "not begun" };
            let _ = writeln!(text, "{:<28} {state:<11}", line.name.as_str());
            continue;
        };
        let current = line.deliveries.iter().filter(|delivery| delivery.is_current).count();
        let delivered = format!("{current} of {}", line.deliveries.len());
        let (expires, next) = (until(summary.expires_at, status.taken_at), until(summary.due_at, status.taken_at));
        let state = summary.state.as_str();
        let _ = writeln!(text, "{:<28} {state:<11} {expires:>9} {next:>9} {delivered:>9}", line.name.as_str());
        if let Some(block) = &line.block {
            let _ = writeln!(text, "  blocked since {}: {}", span(status.taken_at, block.since), block.detail);
        }
        if let Some(pause) = line.orders.pause(status.taken_at) {
            let _ = writeln!(text, "  paused for {} by {}: {}", span(pause.until, status.taken_at), pause.by, pause.reason);
        }
        for delivery in &line.deliveries {
            if let Some(trouble) = &delivery.trouble {
                let _ = writeln!(text, "  {}: {trouble}", delivery.place);
            }
        }
    }
    text
}
