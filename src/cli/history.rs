//! `rotad history`: what happened, from the journal, whether the daemon runs or not.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Ended, block_on, load_without_secrets, look, misused, say};
use crate::clock::Clock;
use crate::config::parse_duration;
use crate::engine::StepLine;
use crate::journal::{From, HistoryLine, Journal, Page};
use crate::rotation::{CredentialName, Entry, RotationId};

/// How many lines are read from the journal at once.
const PORTION: usize = 1_000;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Of this credential; of all without it
    credential: Option<CredentialName>,
    /// Not before this moment, or no longer ago than this: `2027-01-31T18:00:00Z`, `24h`
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Before this moment, or longer ago than this
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only these steps, such as `issued,revoked,blocked`
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    what: Vec<String>,
    /// Only of the token with this id, and of the rotation that made it
    #[arg(long, value_name = "ID")]
    token: Option<String>,
    /// Only of this rotation
    #[arg(long, value_name = "ID")]
    rotation: Option<RotationId>,
    /// The newest so many lines
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100, conflicts_with = "all")]
    newest: usize,
    /// Every line that is kept, oldest first
    #[arg(long)]
    all: bool,
    /// Print each line as a JSON object, for an auditor's tools
    #[arg(long)]
    json: bool,
}

/// A moment, or how long ago it was.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago: SignedDuration = parse_duration(text)
        .map_err(|_| "give a time such as `2027-01-31T18:00:00Z`, or how long ago, such as `24h`".to_owned())?;
    Clock::new().now().wall.checked_sub(ago).map_err(|error| error.to_string())
}

impl Arguments {
    fn page(&self, from: From) -> Page {
        Page {
            credential: self.credential.clone(),
            since: self.since.unwrap_or(Timestamp::MIN),
            until: self.until.unwrap_or(Timestamp::MAX),
            from,
            limit: PORTION,
        }
    }
}

#[derive(Serialize)]
struct Exported<'a> {
    number: u64,
    credential: &'a CredentialName,
    #[serde(flatten)]
    entry: &'a Entry,
}

pub fn run(path: &Path, arguments: &Arguments) -> Result<(), Ended> {
    let known: Vec<&str> = crate::rotation::Happened::ALL.iter().map(|what| what.as_str()).collect();
    if let Some(unknown) = arguments.what.iter().find(|what| !known.contains(&what.as_str())) {
        return Err(Ended::Misused(format!("rotad: `{unknown}` is no step; the steps are {}", known.join(", "))));
    }
    let config = load_without_secrets(path)?;
    block_on(async {
        let journal = look(&config).await?.journal(&config)?;
        let named = arguments.credential.as_ref().filter(|name| !config.credentials.contains_key(*name));
        if let Some(name) = named
            && journal.history(Some(name), 1).await?.is_empty()
        {
            return Err(misused(format!(
                "no credential is named `{name}`, and no step of one is kept: `rotad status` lists those that there are"
            )));
        }
        let wanted = Wanted { arguments, of_token: rotations_of(journal.as_ref(), arguments).await? };
        if arguments.all {
            export(journal.as_ref(), &wanted).await?
        } else {
            newest(journal.as_ref(), &wanted).await?
        }
        Ok(())
    })?
}

/// What is asked for, and the rotations whose token it is: most of their steps name no token.
struct Wanted<'a> {
    arguments: &'a Arguments,
    of_token: BTreeSet<RotationId>,
}

impl Wanted<'_> {
    fn fits(&self, line: &HistoryLine) -> bool {
        let (entry, wanted) = (&line.entry, self.arguments);
        let is_of_token = |token: &String| {
            entry.token.as_ref().is_some_and(|of| of.0 == *token) || entry.rotation.is_some_and(|of| self.of_token.contains(&of))
        };
        (wanted.what.is_empty() || wanted.what.iter().any(|what| what == entry.what.as_str()))
            && wanted.token.as_ref().is_none_or(is_of_token)
            && wanted.rotation.is_none_or(|rotation| entry.rotation == Some(rotation))
    }
}

async fn rotations_of(journal: &dyn Journal, arguments: &Arguments) -> anyhow::Result<BTreeSet<RotationId>> {
    let mut rotations = BTreeSet::new();
    let Some(token) = &arguments.token else { return Ok(rotations) };
    let mut from = From::After(0);
    loop {
        let page = Page { since: Timestamp::MIN, until: Timestamp::MAX, ..arguments.page(from) };
        let lines = journal.history_page(page).await?;
        let Some((last, _)) = lines.last() else { return Ok(rotations) };
        from = From::After(*last);
        let with_token = lines.iter().filter(|(_, line)| line.entry.token.as_ref().is_some_and(|of| of.0 == *token));
        rotations.extend(with_token.filter_map(|(_, line)| line.entry.rotation));
    }
}

/// Every line that fits, oldest first, as it is read.
async fn export(journal: &dyn Journal, wanted: &Wanted<'_>) -> anyhow::Result<()> {
    let arguments = wanted.arguments;
    let mut from = From::After(0);
    loop {
        let lines = journal.history_page(arguments.page(from)).await?;
        let Some((last, _)) = lines.last() else { return Ok(()) };
        from = From::After(*last);
        lines.iter().filter(|(_, line)| wanted.fits(line)).try_for_each(|line| tell(line, arguments.json))?;
    }
}

/// The newest lines that fit, the newest last.
async fn newest(journal: &dyn Journal, wanted: &Wanted<'_>) -> anyhow::Result<()> {
    let arguments = wanted.arguments;
    let mut found = Vec::new();
    let mut from = From::Before(u64::MAX);
    while found.len() < arguments.newest {
        let lines = journal.history_page(arguments.page(from)).await?;
        let Some((last, _)) = lines.last() else { break };
        from = From::Before(*last);
        found.extend(lines.into_iter().filter(|(_, line)| wanted.fits(line)));
    }
    found.truncate(arguments.newest);
    found.iter().rev().try_for_each(|line| tell(line, arguments.json))
}

pub(super) fn tell((number, told): &(u64, HistoryLine), json: bool) -> anyhow::Result<()> {
    if json {
        let exported = Exported { number: *number, credential: &told.credential, entry: &told.entry };
        say(&(serde_json::to_string(&exported)? + "\n"));
    } else {
        say(&line(told));
    }
    Ok(())
}

/// One line of the history for people.
fn line(told: &HistoryLine) -> String {
    step(&told.credential, &told.entry.clone().into()) + "\n"
}

/// The same, without the line's end.
pub(super) fn step(credential: &CredentialName, step: &StepLine) -> String {
    let StepLine { at, what, rotation, token, place, reason, detail, by } = step;
    let at = at.strftime("%Y-%m-%dT%H:%M:%SZ");
    let mut text = format!("{at}  {credential}  {}", what.as_str());
    if let Some(place) = place {
        let _ = write!(text, "  {place}");
    }
    if let Some(token) = token {
        let _ = write!(text, "  token {token}");
    } else if let Some(rotation) = rotation {
        let _ = write!(text, "  rotation {rotation}");
    }
    if let Some(reason) = reason {
        let _ = write!(text, "  {}", reason.as_str());
    }
    if let Some(detail) = detail {
        let _ = write!(text, "  {detail}");
    }
    if let Some(by) = by {
        let _ = write!(text, "  by {by}");
    }
    text
}
