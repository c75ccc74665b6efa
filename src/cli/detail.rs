//! One credential, all of it, as text: `rotad status NAME`.

use std::fmt::Write;

use anyhow::Context;
use jiff::Timestamp;

use super::text::{Colours, wrapped};
use crate::engine::{self, Detail, Member, TokenLine};
use crate::journal::Journal;
use crate::rotation::CredentialName;
use crate::snapshot::{At, Label, span, until};

/// How many of its last steps are shown.
const STEPS: usize = 10;

/// What the journal knows of a credential; `None` where it has not begun.
pub async fn gather(
    member: &Member,
    journal: &dyn Journal,
    name: &CredentialName,
    now: Timestamp,
) -> anyhow::Result<Option<Detail>> {
    let Some(row) = journal.load(name).await? else { return Ok(None) };
    let state = row.read_state().map_err(anyhow::Error::msg).context("the journal's record can't be read")?;
    let history = journal.history(Some(name), engine::STEPS).await?;
    Ok(Some(Detail::new(name.clone(), member, &state, history, Some(row.wake_at), now)))
}

pub fn table(detail: &Detail, colours: Colours) -> String {
    let Detail { name, account, summary, taken_at: now, .. } = detail;
    let mut text = wrapped("", 2, &format!("{name}, account {account}: {}", summary.state.as_str()));
    let moment = |at: At| match at.timestamp() {
        Some(time) => format!("{} ({})", time.strftime("%Y-%m-%dT%H:%M:%SZ"), until(at, *now)),
        None => "not known yet".to_owned(),
    };
    let _ = writeln!(text, "  works until   {}, if rotad stopped now", moment(summary.served_until));
    let _ = writeln!(text, "  next token    {}", moment(summary.due_at));
    let _ = writeln!(text, "  deadline      {}", moment(summary.deadline_at));
    for concern in &detail.concerns {
        let _ = write!(text, "\n{}", concern_told(concern, *now, colours));
    }
    let _ = writeln!(text, "\nTokens, oldest first");
    for line in detail.tokens_by_age.iter().filter(|line| line.phase.is_some()) {
        text.push_str(&wrapped("  ", 4, &token(line, *now)));
    }
    let _ = writeln!(text, "\nPlaces");
    for line in &detail.places {
        text.push_str(&wrapped("  ", 4, &format!("{}  {}", line.place, line.told())));
        if let Some(trouble) = &line.trouble {
            let again = line.tried_again_at.map_or_else(String::new, |at| format!(" (tried again in {})", span(at, *now)));
            text.push_str(&wrapped("    ", 4, &format!("{trouble}{again}")));
        }
    }
    let _ = writeln!(text, "\nLast steps");
    for step in detail.history.iter().take(STEPS).rev() {
        text.push_str(&wrapped("  ", 4, &super::history::step(name, step)));
    }
    text
}

/// A concern in its parts, one after the other.
fn concern_told(concern: &crate::engine::Concern, now: jiff::Timestamp, colours: Colours) -> String {
    let what = concern.attention.map_or_else(String::new, |attention| attention.as_str().to_uppercase().replace('_', " ") + " ");
    let since = concern.since.map_or_else(String::new, |since| format!("for {} ", span(now, since)));
    let place = concern.place.as_ref().map_or_else(String::new, |place| format!("at {place} "));
    let next_at = concern.when(now).map_or_else(String::new, |when| format!(" ({when})"));
    let head = format!("{what}{since}{place}");
    let happened = wrapped("  ", 4, &format!("{}: {}", head.trim_end(), concern.happened));
    let next = wrapped("    rotad:  ", 12, &format!("{}{next_at}", concern.next));
    let remedy = wrapped("    to do:  ", 12, &concern.remedy);
    format!("{}\n{next}{remedy}", colours.alarming(happened.trim_end()))
}

fn token(line: &TokenLine, now: jiff::Timestamp) -> String {
    let id = line.token.as_ref().map_or("(not known)", |token| &token.0);
    let phase = line.phase.map_or("", Label::as_str);
    let expires = line.expires_at.map_or_else(String::new, |at| format!(", expires in {}", span(at, now)));
    let revoked = match (line.revocation_due_at, line.kept) {
        (_, Some(kept)) => format!(", {kept}"),
        (Some(at), None) if at <= now => ", to be revoked now".to_owned(),
        (Some(at), None) => format!(", revoked in {}", span(at, now)),
        (None, None) => String::new(),
    };
    format!("{id}  {phase}{expires}{revoked}")
}
