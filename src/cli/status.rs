//! `rotad status`: what the journal knows of every credential, whether the daemon runs or not, and what concerns rotad as a
//! whole where it does.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::text::{Colours, wrapped};
use super::{
    Ended, Sight, block_on, complain, detail, healthcheck, load_without_secrets, look, offline_fleet, say, with_members,
};
use crate::clock::Clock;
use crate::control::GeneralConcern;
use crate::daemon::accounts::APART;
use crate::engine::{Roster, of_accounts, of_fleet, summarize};
use crate::fleet::{Fleet, rolls};
use crate::journal::{Journal, Row};
use crate::rotation::{Account, Block, CredentialName, Orders, RotationId};
use crate::snapshot::{ApartAccount, At, Attention, FleetSummary, Label, Summary, span, tokens_until, until};

/// Columns of a name; the row is 80 wide with it.
const NAME: usize = 38;
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
    /// Whether the daemon answers where the configuration says that it listens; unknown for the port 0.
    daemon_answers: Option<bool>,
    /// Until when every consumer keeps working if rotad dies now; unknown while one has no token.
    survival_deadline_at: At,
    /// What of rotad as a whole needs a person; without an answer of the daemon only what the journal says of it.
    concerns: Vec<GeneralConcern>,
    fleets: Vec<FleetSummary>,
    /// Accounts of the configuration that were not as configured when the daemon last looked.
    accounts_apart: Vec<ApartAccount>,
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
    let config = block_on(with_members(load_without_secrets(path)?))??;
    if let Some(name) = arguments.name.as_ref().filter(|name| !config.credentials.contains_key(*name)) {
        return Err(Ended::Misused(format!("rotad: no credential is named `{name}`: `rotad status` lists them")));
    }
    let clock = Arc::new(Clock::new());
    block_on(async {
        let fleet = offline_fleet(config, clock.clone()).await?;
        loop {
            // Each time anew: the daemon may have come or gone.
            let sight = look(fleet.config()).await?;
            let now = clock.now().wall;
            let text = match &arguments.name {
                Some(name) => one(&fleet, sight.journal(fleet.config())?.as_ref(), name, now, arguments.json).await?,
                None => {
                    let status = gather(&fleet, &sight, now).await?;
                    if arguments.json {
                        serde_json::to_string_pretty(&status)? + "\n"
                    } else {
                        table(&status, Colours::of_stdout())
                    }
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

async fn one(fleet: &Fleet, journal: &dyn Journal, name: &CredentialName, now: Timestamp, json: bool) -> anyhow::Result<String> {
    let Some(member) = fleet.member(name) else { anyhow::bail!("`{name}` is not configured") };
    let Some(detail) = detail::gather(&member, journal, name, now).await? else { return Ok(format!("{name}: not begun\n")) };
    Ok(if json { serde_json::to_string_pretty(&detail)? + "\n" } else { detail::table(&detail, Colours::of_stdout()) })
}

pub(super) async fn gather(fleet: &Fleet, sight: &Sight, now: Timestamp) -> anyhow::Result<Status> {
    let journal = sight.journal(fleet.config())?;
    let journal = journal.as_ref();
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
    let fleets: Vec<FleetSummary> = fleets.iter().map(|(name, roll)| FleetSummary::new(name, roll)).collect();
    let accounts_apart = accounts_apart(journal, fleet).await?;
    let (daemon_answers, concerns) = match &sight.daemon {
        Some(daemon) => (Some(true), daemon.concerns().await?),
        None => {
            let recorded = fleets.iter().flat_map(|fleet| of_fleet(fleet, now)).chain(of_accounts(&accounts_apart));
            (healthcheck::answers(fleet.config().server.listen).await, recorded.map(Into::into).collect())
        }
    };
    Ok(Status { taken_at: now, daemon_answers, survival_deadline_at: survival, concerns, fleets, accounts_apart, credentials })
}

/// What the journal has of the accounts that are still configured.
async fn accounts_apart(journal: &dyn Journal, fleet: &Fleet) -> anyhow::Result<Vec<ApartAccount>> {
    let Some(text) = journal.fact(APART).await? else { return Ok(Vec::new()) };
    let mut apart: Vec<ApartAccount> = serde_json::from_str(&text).unwrap_or_else(|problem| {
        complain(&format!(
            "rotad: the journal's record of the accounts can't be read, a running daemon writes it anew: {problem}"
        ));
        Vec::new()
    });
    let accounts = &fleet.config().accounts;
    apart.retain(|apart| {
        let kept = accounts.get(&Account::new(&apart.username));
        kept.is_some_and(|kept| kept.organization == apart.organization)
    });
    Ok(apart)
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
        return tokens_until(&state, now).map(|_| Line { let_go: true, ..unread(name) });
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

fn table(status: &Status, colours: Colours) -> String {
    let left = status.survival_deadline_at.timestamp().map(|until| span(until, status.taken_at));
    let first = match (status.daemon_answers, left) {
        (Some(false), Some(left)) => {
            format!("rotad does not answer: does it run? Every consumer keeps working for {left}.")
        }
        (Some(false), None) => "rotad does not answer: does it run? Not every credential has been delivered yet.".to_owned(),
        (_, Some(left)) => format!("If rotad stopped now, every consumer would keep working for {left}."),
        (_, None) => "Not every credential has been delivered yet.".to_owned(),
    };
    let mut text = wrapped("", 0, &first);
    if status.daemon_answers == Some(false) {
        text = colours.alarming(&text);
    }
    for GeneralConcern { happened, next, remedy } in &status.concerns {
        let _ = write!(text, "\n{}", colours.alarming(wrapped("", 2, happened).trim_end()));
        let _ = write!(text, "\n{}{}", wrapped("  rotad:  ", 10, next), wrapped("  to do:  ", 10, remedy));
    }
    let _ = writeln!(text, "\n{:<NAME$} {:<11} {:>9} {:>9} {:>9}", "CREDENTIAL", "STATE", "EXPIRES", "NEXT", "DELIVERED");
    status.credentials.iter().for_each(|line| tell(&mut text, line, status.taken_at, colours));
    text
}

/// One credential's row, and below it what is wrong with it.
fn tell(text: &mut String, line: &Line, now: Timestamp, colours: Colours) {
    let name = line.name.as_str();
    // Whole, so that it can be copied: the row then follows on a line of its own.
    let name = if name.len() > NAME { format!("{name}\n{:<NAME$}", "") } else { format!("{name:<NAME$}") };
    let Some(summary) = line.summary else {
        let state = if line.let_go { "let go" } else { "not begun" };
        let _ = writeln!(text, "{name} {state}");
        return;
    };
    let state = format!("{:<11}", summary.state.as_str());
    let state = match line.attention(now) {
        Some(_) if line.block.is_some() => colours.alarming(&state),
        Some(_) => colours.notable(&state),
        None => state,
    };
    let current = line.deliveries.iter().filter(|delivery| delivery.is_current).count();
    let delivered = format!("{current} of {}", line.deliveries.len());
    let (expires, next) = (until(summary.expires_at, now), until(summary.due_at, now));
    let _ = writeln!(text, "{name} {state} {expires:>9} {next:>9} {delivered:>9}");
    if let Some(block) = &line.block {
        text.push_str(&wrapped("  ", 4, &format!("blocked since {}: {}", span(now, block.since), block.detail)));
    }
    if let Some(pause) = line.orders.pause(now) {
        text.push_str(&wrapped("  ", 4, &format!("paused for {} by {}: {}", span(pause.until, now), pause.by, pause.reason)));
    }
    for delivery in &line.deliveries {
        if let Some(trouble) = &delivery.trouble {
            text.push_str(&wrapped("  ", 4, &format!("{}: {trouble}", delivery.place)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::{Blocked, Moment, Pause, Steady};
    use crate::snapshot::{Board, CredentialState};

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn delivery(place: &str, is_current: bool, trouble: Option<&str>) -> DeliveryLine {
        DeliveryLine { place: place.to_owned(), serves: None, is_current, trouble: trouble.map(str::to_owned) }
    }

    fn credential(name: &str, state: CredentialState) -> Line {
        let board = Board::new(Moment { wall: at(0), steady: Steady(0) });
        let summary = Summary { state, ..Summary::new(board.organization("main")) };
        Line { summary: Some(summary), ..unread(name.parse().unwrap()) }
    }

    /// One of each that looks otherwise.
    fn status() -> Status {
        let mut well = credential("reports", CredentialState::Current);
        let summary = well.summary.as_mut().unwrap();
        (summary.expires_at, summary.due_at) = (at(30 * DAY).into(), at(23 * DAY).into());
        well.deliveries = vec![delivery("file:/run/reports", true, None), delivery("aws:eu/reports", true, None)];

        let mut blocked = credential("ingest", CredentialState::Blocked);
        let summary = blocked.summary.as_mut().unwrap();
        (summary.expires_at, summary.due_at, summary.blocked) = (at(5 * HOUR).into(), at(-60).into(), Some(Blocked::RolledBack));
        let detail = "`vault:kv/ingest` was set back to an earlier token by somebody: `rotad resume ingest` overwrites it";
        blocked.block = Some(Block { reason: Blocked::RolledBack, since: at(-10 * 60), detail: detail.to_owned() });
        blocked.deliveries = vec![delivery("vault:kv/ingest", false, None)];

        let mut failing = credential(&format!("a-{}", "long-name-".repeat(5)), CredentialState::Delivering);
        let summary = failing.summary.as_mut().unwrap();
        (summary.expires_at, summary.deliveries_failing) = (at(90).into(), 1);
        let trouble = "AWS refused `PutSecretValue` for `eu/long`: allow `secretsmanager:PutSecretValue` to rotad";
        failing.deliveries = vec![delivery("file:/run/long", true, None), delivery("aws:eu/long", false, Some(trouble))];

        let mut paused = credential("nightly", CredentialState::Current);
        paused.summary.as_mut().unwrap().paused_until = at(2 * DAY).into();
        let (reason, by) = ("a migration".to_owned(), "anna".to_owned());
        paused.orders.paused = Some(Pause { since: at(-60), until: at(2 * DAY), reason, by, let_expire: false });

        let let_go = Line { let_go: true, ..unread("former".parse().unwrap()) };
        Status {
            taken_at: at(0),
            daemon_answers: Some(true),
            survival_deadline_at: at(5 * HOUR).into(),
            concerns: vec![GeneralConcern {
                happened: "the clock was set forward by an hour".to_owned(),
                next: "revokes nothing until it is explained, and rotates on".to_owned(),
                remedy: "set the clock right, or `rotad reload` if it is right now".to_owned(),
            }],
            fleets: Vec::new(),
            accounts_apart: Vec::new(),
            credentials: vec![blocked, failing, paused, well, let_go, unread("fresh".parse().unwrap())],
        }
    }

    #[test]
    fn the_table_reads_as_it_did_and_fits() {
        let text = table(&status(), Colours::NONE);
        let expected = [
            "If rotad stopped now, every consumer would keep working for 5 h.",
            "",
            "the clock was set forward by an hour",
            "  rotad:  revokes nothing until it is explained, and rotates on",
            "  to do:  set the clock right, or `rotad reload` if it is right now",
            "",
            "CREDENTIAL                             STATE         EXPIRES      NEXT DELIVERED",
            "ingest                                 blocked           5 h       now    0 of 1",
            "  blocked since 10 min: `vault:kv/ingest` was set back to an earlier token by",
            "    somebody: `rotad resume ingest` overwrites it",
            "a-long-name-long-name-long-name-long-name-long-name-",
            "                                       delivering       90 s         -    1 of 2",
            "  aws:eu/long: AWS refused `PutSecretValue` for `eu/long`: allow",
            "    `secretsmanager:PutSecretValue` to rotad",
            "nightly                                current             -         -    0 of 0",
            "  paused for 2 d by anna: a migration",
            "reports                                current          30 d      23 d    2 of 2",
            "former                                 let go",
            "fresh                                  not begun",
        ];
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, expected, "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn the_first_line_says_when_nobody_answers() {
        let first = |daemon_answers, left: At| {
            let status = Status { daemon_answers, survival_deadline_at: left, ..status() };
            table(&status, Colours::NONE).lines().next().unwrap().to_owned()
        };
        assert_eq!(
            [first(Some(false), at(60).into()), first(Some(false), At::UNKNOWN), first(None, At::UNKNOWN)],
            [
                "rotad does not answer: does it run? Every consumer keeps working for 60 s.",
                "rotad does not answer: does it run? Not every credential has been delivered yet.",
                "Not every credential has been delivered yet."
            ]
        );
    }

    /// Colour stands beside words and never instead of them.
    #[test]
    fn colour_adds_nothing_that_is_not_said() {
        let coloured = table(&status(), Colours::ALL);
        assert!(coloured.contains("\x1b[1;31mblocked") && coloured.contains("\x1b[33mdelivering"), "{coloured}");
        let plain = ["\x1b[1;31m", "\x1b[33m", "\x1b[0m"].iter().fold(coloured.clone(), |text, code| text.replace(code, ""));
        assert_eq!(plain, table(&status(), Colours::NONE));
    }
}
