//! Prometheus's text format, a portion at a time: 100,000 credentials are some 40 MB of text, which
//! is never in memory as a whole.

use std::fmt::Write;
use std::sync::Arc;

use super::Metrics;
use super::catalogue::{self, Definition};
use crate::rotation::{CredentialName, Moment};
use crate::snapshot::{At, Board, FleetSummary, Label, Organization, Snapshot, Summary, Tally, TokenPhase};

/// The text format's content type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A series is at most 130 bytes, so a portion is at most 64 KiB.
const CREDENTIALS_PER_PORTION: usize = 500;

/// A family that has a series for each credential, and what it shows of it.
#[derive(Debug)]
struct Family {
    definition: &'static Definition,
    moment: fn(&Summary) -> At,
}

static PER_CREDENTIAL: [Family; 4] = [
    Family { definition: &catalogue::TOKEN_EXPIRY, moment: |summary| summary.expires_at },
    Family { definition: &catalogue::DUE, moment: |summary| summary.due_at },
    Family { definition: &catalogue::DEADLINE, moment: |summary| summary.deadline_at },
    Family { definition: &catalogue::LAST_SUCCESS, moment: |summary| summary.last_success_at },
];

/// Everything to be scraped, as an iterator over portions of text. The first one holds counters and
/// totals; the credentials follow, family by family, each read when its portion is asked for.
#[derive(Debug)]
pub struct Exposition {
    board: Arc<Board>,
    first: Option<String>,
    families: std::slice::Iter<'static, Family>,
    /// The family under way, and the credential that was rendered last.
    walk: Option<(&'static Family, Option<CredentialName>)>,
}

impl Exposition {
    /// With `per_credential` unset there is no series that grows with the number of credentials.
    pub fn new(metrics: &Metrics, board: Arc<Board>, now: Moment, per_credential: bool) -> Self {
        let mut first = String::with_capacity(64 * 1024);
        metrics.render(&mut first);
        totals(&mut first, &board.snapshot(now));
        let families = if per_credential { &PER_CREDENTIAL[..] } else { &[] };
        Self { board, first: Some(first), families: families.iter(), walk: None }
    }

    /// The next portion of the family under way, or its head.
    fn portion(&mut self) -> Option<String> {
        if let Some((family, after)) = &mut self.walk {
            let credentials = self.board.portion(after.as_ref(), CREDENTIALS_PER_PORTION);
            if let Some((last, _)) = credentials.last() {
                *after = Some(last.clone());
                return Some(series(family, &credentials));
            }
        }
        let family = self.families.next()?;
        self.walk = Some((family, None));
        let mut text = String::new();
        head(&mut text, family.definition);
        Some(text)
    }
}

impl Iterator for Exposition {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.first.take().or_else(|| self.portion())
    }
}

/// One line for each credential whose moment is known.
fn series(family: &Family, credentials: &[(CredentialName, Summary)]) -> String {
    let mut text = String::with_capacity(credentials.len() * (family.definition.name.len() + 90));
    for (name, summary) in credentials {
        let Some(millis) = (family.moment)(summary).millis() else { continue };
        text.push_str(family.definition.name);
        text.push_str("{credential=\"");
        text.push_str(name.as_str());
        text.push_str("\"} ");
        seconds(&mut text, millis);
        text.push('\n');
    }
    text
}

/// Everything that does not grow with the number of credentials.
fn totals(text: &mut String, snapshot: &Snapshot) {
    let flag = |set: bool| u64::from(set);
    tally(text, &catalogue::CREDENTIALS, &snapshot.credentials);
    tally(text, &catalogue::BLOCKED, &snapshot.blocked);
    tally(text, &catalogue::TOKENS, &snapshot.tokens);
    count(text, &catalogue::LOST, snapshot.tokens.of(TokenPhase::Lost));
    count(text, &catalogue::ORPHANS, snapshot.tokens.of(TokenPhase::Orphaned));
    count(text, &catalogue::UNKNOWN_TOKENS, snapshot.tokens_unknown);
    count(text, &catalogue::FOREIGN_TOKENS, snapshot.tokens_foreign);
    tally(text, &catalogue::DELIVERIES_UNCONFIRMED, &snapshot.deliveries_unconfirmed);
    count(text, &catalogue::CREDENTIALS_PAST_DUE, snapshot.credentials_past_due);
    count(text, &catalogue::CREDENTIALS_PAUSED, snapshot.credentials_paused);
    count(text, &catalogue::CREDENTIALS_PAST_DEADLINE, snapshot.credentials_past_deadline);
    by_organization(text, &catalogue::EARLIEST_EXPIRY, snapshot, |organization| organization.earliest_expiry_at);
    count(text, &catalogue::REVOCATIONS_PENDING, snapshot.revocations_pending);
    moment(text, &catalogue::REVOCATION_OLDEST_DUE, snapshot.revocation_oldest_due_at);
    tally(text, &catalogue::REVOCATIONS_FROZEN, &snapshot.revocations_frozen);
    if let Some(skew) = snapshot.clock_skew_millis {
        head(text, &catalogue::CLOCK_SKEW);
        text.push_str(catalogue::CLOCK_SKEW.name);
        text.push(' ');
        seconds(text, skew);
        text.push('\n');
    }
    moment(text, &catalogue::SURVIVAL_DEADLINE, snapshot.survival_deadline_at);
    by_organization(text, &catalogue::ADMIN_TOKEN_EXPIRY, snapshot, |organization| organization.admin_token_expires_at);
    by_fleet(text, &catalogue::FLEET_ACCOUNTS, snapshot, |fleet| Some(fleet.accounts.to_string()));
    by_fleet(text, &catalogue::FLEET_ACCOUNTS_MISSING, snapshot, |fleet| Some(fleet.missing.to_string()));
    by_fleet(text, &catalogue::FLEET_LETTING_GO_REFUSED, snapshot, |fleet| Some(flag(fleet.may_go.is_some()).to_string()));
    by_fleet(text, &catalogue::FLEET_LIST_LAST_SUCCESS, snapshot, |fleet| Some(in_seconds(fleet.listed_at.millis()?)));
    tally(text, &catalogue::ACCOUNTS, &snapshot.accounts.states);
    count(text, &catalogue::ACCOUNTS_FAILING, snapshot.accounts.failing);
    by_organization(text, &catalogue::SWEEP_LAST_SUCCESS, snapshot, |organization| organization.last_sweep_at);
    moment(text, &catalogue::SCHEDULER_HEARTBEAT, snapshot.heartbeat_at);
    count(text, &catalogue::STANDBY, flag(snapshot.journal_holder.is_some()));
    count(text, &catalogue::CONFIG_LAST_RELOAD_SUCCESSFUL, flag(snapshot.last_reload_successful));
    moment(text, &catalogue::CONFIG_LAST_RELOAD_SUCCESS, snapshot.last_reload_success_at);
    head(text, &catalogue::BUILD_INFO);
    labelled(text, &catalogue::BUILD_INFO, &[snapshot.build.version, snapshot.build.revision]);
    text.push_str("1\n");
}

fn tally<L: Label>(text: &mut String, definition: &Definition, tally: &Tally<L>) {
    head(text, definition);
    for label in L::ALL {
        labelled(text, definition, &[label.as_str()]);
        line_end(text, tally.of(*label));
    }
}

fn count(text: &mut String, definition: &Definition, count: u64) {
    head(text, definition);
    text.push_str(definition.name);
    text.push(' ');
    line_end(text, count);
}

/// A moment that is not known has no series, and then the family has no head either.
fn moment(text: &mut String, definition: &Definition, at: At) {
    let Some(millis) = at.millis() else { return };
    head(text, definition);
    text.push_str(definition.name);
    text.push(' ');
    seconds(text, millis);
    text.push('\n');
}

fn by_organization(text: &mut String, definition: &Definition, snapshot: &Snapshot, at: fn(&Organization) -> At) {
    let known = snapshot.organizations.iter().filter_map(|organization| Some((organization, at(organization).millis()?)));
    for (index, (organization, millis)) in known.enumerate() {
        if index == 0 {
            head(text, definition);
        }
        labelled(text, definition, &[&organization.name]);
        seconds(text, millis);
        text.push('\n');
    }
}

/// Without fleets the family is not there.
fn by_fleet(text: &mut String, definition: &Definition, snapshot: &Snapshot, value: impl Fn(&FleetSummary) -> Option<String>) {
    let known = snapshot.fleets.iter().filter_map(|fleet| Some((fleet, value(fleet)?)));
    for (index, (fleet, value)) in known.enumerate() {
        if index == 0 {
            head(text, definition);
        }
        labelled(text, definition, &[&fleet.name]);
        text.push_str(&value);
        text.push('\n');
    }
}

fn in_seconds(millis: i64) -> String {
    let mut text = String::new();
    seconds(&mut text, millis);
    text
}

fn head(text: &mut String, definition: &Definition) {
    let Definition { name, kind, help, .. } = definition;
    // Writing to a string can't fail, here and below.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
}

/// `name{label="value",…} `, values escaped.
fn labelled(text: &mut String, definition: &Definition, values: &[&str]) {
    text.push_str(definition.name);
    for (index, (label, value)) in definition.labels.iter().zip(values).enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        text.push_str(label);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text.push_str("} ");
}

fn line_end(text: &mut String, count: u64) {
    let _ = writeln!(text, "{count}");
}

/// Milliseconds as decimal seconds, exactly.
fn seconds(text: &mut String, millis: i64) {
    let sign = if millis < 0 { "-" } else { "" };
    let (whole, rest) = (millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000);
    let _ = match rest {
        0 => write!(text, "{sign}{whole}"),
        _ => write!(text, "{sign}{whole}.{rest:03}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_written_as_exact_seconds() {
        let written = |millis| {
            let mut text = String::new();
            seconds(&mut text, millis);
            text
        };
        let cases = [(0, "0"), (1, "0.001"), (1_790_000_000_120, "1790000000.120"), (-1500, "-1.500"), (-2, "-0.002")];
        assert_eq!(cases.map(|(millis, _)| written(millis)), cases.map(|(_, text)| text.to_owned()));
    }

    #[test]
    fn label_values_are_escaped() {
        let mut text = String::new();
        labelled(&mut text, &catalogue::EARLIEST_EXPIRY, &["a\"b\\c\nd"]);
        assert_eq!(text, "rotad_earliest_expiry_timestamp_seconds{organization=\"a\\\"b\\\\c\\nd\"} ");
    }
}
