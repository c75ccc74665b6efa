//! One credential, all of it: `rotad status NAME`.

use std::fmt::Write;

use jiff::Timestamp;
use serde::Serialize;

use super::status::{span, when};
use crate::engine::{Member, phase, summarize};
use crate::journal::HistoryLine;
use crate::rotation::{Credential, CredentialName, DeliveryId, Rotation, RotationId, TokenId};
use crate::snapshot::{Label, Summary, TokenPhase};

/// How many of its last steps are shown.
pub const STEPS: usize = 10;

/// Everything that is known of a credential.
#[derive(Debug, Serialize)]
pub struct Detail {
    name: CredentialName,
    account: String,
    #[serde(flatten)]
    summary: Summary,
    state: Credential,
    tokens_by_age: Vec<TokenLine>,
    places: Vec<PlaceLine>,
    history: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TokenLine {
    rotation: RotationId,
    token: Option<TokenId>,
    phase: TokenPhase,
    created_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    /// When it may be revoked, if every delivery still shows the current token then.
    revocation_due_at: Option<Timestamp>,
    /// Why nobody revokes it.
    kept: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct PlaceLine {
    place: DeliveryId,
    configured: bool,
    serves: Option<RotationId>,
    is_current: bool,
    trouble: Option<String>,
    tried_again_at: Option<Timestamp>,
}

impl Detail {
    pub fn new(name: CredentialName, member: &Member, state: Credential, history: &[HistoryLine], now: Timestamp) -> Self {
        let policy = &member.policy;
        let summary = summarize(&state, policy, member.organization, now);
        let tokens_by_age = state.rotations.iter().filter_map(|(id, rotation)| token(&state, *id, rotation)).collect();
        let latest = state.latest().map(|(id, _)| id);
        let configured = policy.deliveries.keys().map(|place| {
            let known = state.deliveries.get(place);
            let trouble = known.and_then(|known| known.trouble.as_ref());
            let serves = known.and_then(|known| known.confirmed);
            PlaceLine {
                place: place.clone(),
                configured: true,
                serves,
                is_current: serves.is_some() && serves == latest,
                trouble: trouble.map(|trouble| trouble.failed.detail.clone()),
                tried_again_at: trouble.and_then(|trouble| trouble.backoff.wait(now)),
            }
        });
        let former = state.former.iter().map(|(place, newest)| PlaceLine {
            place: place.clone(),
            configured: false,
            serves: Some(*newest),
            is_current: false,
            trouble: None,
            tried_again_at: None,
        });
        let places = configured.chain(former).collect();
        let history = history.iter().rev().map(|line| super::history::line(line).trim_end().to_owned()).collect();
        Self { name, account: policy.account.as_str().to_owned(), summary, tokens_by_age, places, history, state }
    }

    pub fn table(&self, now: Timestamp) -> String {
        let Self { name, account, summary, state, .. } = self;
        let mut text = format!("{name}, account {account}: {}\n", summary.state.as_str());
        let moment = |at: crate::snapshot::At| match at.timestamp() {
            Some(time) => format!("{} ({})", time.strftime("%Y-%m-%dT%H:%M:%SZ"), when(at, now)),
            None => "not known yet".to_owned(),
        };
        let _ = writeln!(text, "  works until   {}, if rotad stopped now", moment(summary.served_until));
        let _ = writeln!(text, "  next token    {}", moment(summary.due_at));
        let _ = writeln!(text, "  deadline      {}", moment(summary.deadline_at));
        if let Some(block) = &state.blocked {
            let _ = writeln!(text, "  BLOCKED for {}: {}", span(now, block.since), block.detail);
        }
        if let Some(pause) = state.orders.pause(now) {
            let _ = writeln!(text, "  PAUSED for {} by {}: {}", span(pause.until, now), pause.by, pause.reason);
        }
        let _ = writeln!(text, "\nTokens, oldest first");
        for line in &self.tokens_by_age {
            let id = line.token.as_ref().map_or("(not known)", |token| &token.0);
            let expires = line.expires_at.map_or_else(String::new, |at| format!(", expires in {}", span(at, now)));
            let revoked = match (line.revocation_due_at, line.kept) {
                (_, Some(kept)) => format!(", {kept}"),
                (Some(at), None) if at <= now => ", to be revoked now".to_owned(),
                (Some(at), None) => format!(", revoked in {}", span(at, now)),
                (None, None) => String::new(),
            };
            let _ = writeln!(text, "  {id}  {}{expires}{revoked}", line.phase.as_str());
        }
        let _ = writeln!(text, "\nPlaces");
        for line in &self.places {
            let serves = match (line.configured, line.is_current, line.serves) {
                (false, _, _) => "not configured any more: tokens of then are left to expire, or `rotad forget`",
                (true, true, _) => "serves the newest token",
                (true, false, Some(_)) => "serves an earlier token",
                (true, false, None) => "serves nothing of rotad's yet",
            };
            let _ = writeln!(text, "  {}  {serves}", line.place);
            if let Some(trouble) = &line.trouble {
                let again = line.tried_again_at.map_or_else(String::new, |at| format!(" (tried again in {})", span(at, now)));
                let _ = writeln!(text, "    {trouble}{again}");
            }
        }
        let _ = writeln!(text, "\nLast steps");
        for line in &self.history {
            let _ = writeln!(text, "  {line}");
        }
        text
    }
}

fn token(state: &Credential, id: RotationId, rotation: &Rotation) -> Option<TokenLine> {
    let phase = phase(state, id, rotation)?;
    let ordered = rotation.token.as_ref().is_some_and(|token| state.orders.revoke.contains_key(&token.id));
    let settled = state.settled.filter(|settled| settled.rotation > id);
    let grace = |settled: crate::rotation::Settled| if ordered { jiff::SignedDuration::ZERO } else { settled.grace };
    let due = settled.and_then(|settled| settled.since.wall.checked_add(grace(settled)).ok());
    let kept = if rotation.adopted && !ordered {
        Some("left to expire: this journal did not record it")
    } else if state.former.values().any(|newest| id <= *newest) {
        Some("left to expire: a former place may serve it")
    } else {
        None
    };
    Some(TokenLine {
        rotation: id,
        token: rotation.token.as_ref().map(|token| token.id.clone()),
        phase,
        created_at: rotation.token.as_ref().map(|token| token.created_at),
        expires_at: rotation.token.as_ref().map(|token| token.expires_at),
        revocation_due_at: due.filter(|_| !matches!(phase, TokenPhase::Lost)),
        kept,
    })
}
