//! One credential, all of it, as text: `rotad status NAME`.

use std::fmt::Write;

use anyhow::Context;
use jiff::Timestamp;

use crate::engine::{self, Detail, Member, TokenLine};
use crate::journal::{Journal, SqliteJournal};
use crate::rotation::CredentialName;
use crate::snapshot::{At, Label, span, until};

/// How many of its last steps are shown.
const STEPS: usize = 10;

/// What the journal knows of a credential; `None` where it has not begun.
pub async fn gather(
    member: &Member,
    journal: &SqliteJournal,
    name: &CredentialName,
    now: Timestamp,
) -> anyhow::Result<Option<Detail>> {
    let Some(row) = journal.load(name).await? else { return Ok(None) };
    let state = row.read_state().map_err(anyhow::Error::msg).context("the journal's record can't be read")?;
    let history = journal.history(Some(name), engine::STEPS).await?;
    Ok(Some(Detail::new(name.clone(), member, &state, history, Some(row.wake_at), now)))
}

pub fn table(detail: &Detail) -> String {
    let Detail { name, account, summary, taken_at: now, .. } = detail;
    let mut text = format!("{name}, account {account}: {}\n", summary.state.as_str());
    let moment = |at: At| match at.timestamp() {
        Some(time) => format!("{} ({})", time.strftime("%Y-%m-%dT%H:%M:%SZ"), until(at, *now)),
        None => "not known yet".to_owned(),
    };
    let _ = writeln!(text, "  works until   {}, if rotad stopped now", moment(summary.served_until));
    let _ = writeln!(text, "  next token    {}", moment(summary.due_at));
    let _ = writeln!(text, "  deadline      {}", moment(summary.deadline_at));
    for concern in &detail.concerns {
        let _ = writeln!(text, "\n{}", concern_told(concern, *now));
    }
    let _ = writeln!(text, "\nTokens, oldest first");
    for line in detail.tokens_by_age.iter().filter(|line| line.phase.is_some()) {
        let _ = writeln!(text, "  {}", token(line, *now));
    }
    let _ = writeln!(text, "\nPlaces");
    for line in &detail.places {
        let _ = writeln!(text, "  {}  {}", line.place, line.told());
        if let Some(trouble) = &line.trouble {
            let again = line.tried_again_at.map_or_else(String::new, |at| format!(" (tried again in {})", span(at, *now)));
            let _ = writeln!(text, "    {trouble}{again}");
        }
    }
    let _ = writeln!(text, "\nLast steps");
    for step in detail.history.iter().take(STEPS).rev() {
        let _ = writeln!(text, "  {}", super::history::step(name, step));
    }
    text
}

/// A concern in its parts, one line each.
fn concern_told(concern: &crate::engine::Concern, now: jiff::Timestamp) -> String {
    let what = concern.attention.map_or_else(String::new, |attention| attention.as_str().to_uppercase().replace('_', " ") + " ");
    let since = concern.since.map_or_else(String::new, |since| format!("for {} ", span(now, since)));
    let place = concern.place.as_ref().map_or_else(String::new, |place| format!("at {place} "));
    let next_at = concern.next_at.map_or_else(String::new, |at| format!(" (next in {})", span(at, now)));
    let head = format!("{what}{since}{place}");
    format!("  {}: {}\n    rotad:  {}{next_at}\n    to do:  {}", head.trim_end(), concern.happened, concern.next, concern.remedy)
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
