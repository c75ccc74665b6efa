//! One credential, all of it: what `rotad status NAME`, its page and its JSON show.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::concern::{Concern, concerns};
use super::{Member, phase, summarize};
use crate::journal::HistoryLine;
use crate::rotation::{
    Credential, CredentialName, DeliveryId, Entry, Fate, Happened, LeftToExpire, Reason, Rotation, RotationId, TokenId,
};
use crate::snapshot::{Summary, TokenPhase, label, schema};

/// How many of its last steps tell of its tokens' lives: some 20 rotations of one delivery each.
pub const STEPS: usize = 300;

/// Everything that is known of a credential.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Detail {
    #[schemars(with = "String")]
    pub name: CredentialName,
    pub taken_at: Timestamp,
    pub account: String,
    pub organization: String,
    pub token_type: &'static str,
    #[serde(flatten)]
    pub summary: Summary,
    /// What needs a person, the most pressing first.
    pub concerns: Vec<Concern>,
    /// The tokens of its last rotations, oldest first: those that live, and those whose end the last steps tell.
    pub tokens_by_age: Vec<TokenLine>,
    pub places: Vec<PlaceLine>,
    /// Its last steps, newest first.
    pub history: Vec<StepLine>,
}

label!(
    /// How a token's life ended.
    TokenEnd {
        Revoked = "revoked",
        Expired = "expired",
        /// The API refused to issue it.
        Refused = "refused",
        /// It was looked for until it would have expired, and is not there.
        GivenUp = "given_up",
    }
);

/// One token's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenLine {
    #[schemars(with = "String")]
    pub rotation: RotationId,
    #[schemars(with = "Option<String>")]
    pub token: Option<TokenId>,
    /// Where it is in its life; absent where that is over, or has not begun.
    pub phase: Option<TokenPhase>,
    pub created_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// When each place first showed it.
    pub delivered: Vec<Delivered>,
    /// When every place had shown it, and its predecessor's grace period began.
    pub current_at: Option<Timestamp>,
    pub superseded_at: Option<Timestamp>,
    /// When it may be revoked, if every delivery still shows the current token then.
    pub revocation_due_at: Option<Timestamp>,
    pub ended: Option<TokenEnd>,
    pub ended_at: Option<Timestamp>,
    /// Why nobody revokes it.
    pub kept: Option<&'static str>,
}

/// When a place first showed a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Delivered {
    #[schemars(with = "String")]
    pub place: DeliveryId,
    pub at: Timestamp,
}

/// One place.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PlaceLine {
    #[schemars(with = "String")]
    pub place: DeliveryId,
    pub configured: bool,
    #[schemars(with = "Option<String>")]
    pub serves: Option<RotationId>,
    pub is_current: bool,
    pub trouble: Option<String>,
    pub tried_again_at: Option<Timestamp>,
}

impl PlaceLine {
    /// What it serves, in words.
    pub fn told(&self) -> &'static str {
        match (self.configured, self.is_current, self.serves) {
            (false, _, _) => "not configured any more: tokens of then are left to expire, or `rotad forget`",
            (true, true, _) => "serves the newest token",
            (true, false, Some(_)) => "serves an earlier token",
            (true, false, None) => "serves nothing of rotad's yet",
        }
    }
}

/// One step of the history.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StepLine {
    pub at: Timestamp,
    #[schemars(schema_with = "schema::word::<Happened>")]
    pub what: Happened,
    #[schemars(with = "Option<String>")]
    pub rotation: Option<RotationId>,
    #[schemars(with = "Option<String>")]
    pub token: Option<TokenId>,
    #[schemars(with = "Option<String>")]
    pub place: Option<DeliveryId>,
    #[schemars(schema_with = "schema::maybe::<Reason>")]
    pub reason: Option<Reason>,
    /// A sentence for people.
    pub detail: Option<String>,
    /// Who ordered it.
    pub by: Option<String>,
}

impl From<Entry> for StepLine {
    fn from(entry: Entry) -> Self {
        let Entry { at, what, rotation, token, delivery: place, reason, detail, by } = entry;
        Self { at, what, rotation, token, place, reason, detail, by }
    }
}

impl Detail {
    /// `history` is its newest steps, newest first; `wake_at` when its next turn is.
    pub fn new(
        name: CredentialName,
        member: &Member,
        state: &Credential,
        history: Vec<HistoryLine>,
        wake_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let policy = &member.policy;
        let summary = summarize(state, policy, member.organization, now);
        Self {
            taken_at: now,
            account: policy.account.as_str().to_owned(),
            organization: policy.organization.as_ref().to_owned(),
            token_type: policy.token_type.as_str(),
            concerns: concerns(state, policy, &summary, wake_at, now),
            tokens_by_age: tokens(state, &history),
            places: places(state, member, now),
            history: history.into_iter().map(|line| line.entry.into()).collect(),
            summary,
            name,
        }
    }
}

fn places(state: &Credential, member: &Member, now: Timestamp) -> Vec<PlaceLine> {
    let latest = state.latest().map(|(id, _)| id);
    let configured = member.policy.deliveries.keys().map(|place| {
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
    configured.chain(former).collect()
}

/// The lives that the state and the last steps tell of.
fn tokens(state: &Credential, history: &[HistoryLine]) -> Vec<TokenLine> {
    let mut lines: BTreeMap<RotationId, TokenLine> = BTreeMap::new();
    for line in history.iter().rev() {
        if let Some(id) = line.entry.rotation {
            lines.entry(id).or_insert_with(|| blank(id)).learn(&line.entry);
        }
    }
    for (id, rotation) in &state.rotations {
        lines.entry(*id).or_insert_with(|| blank(*id)).adopt(state, *id, rotation);
    }
    // A rotation of which only its end is still in the history tells nothing of a life.
    let mut lines: Vec<TokenLine> =
        lines.into_values().filter(|line| line.phase.is_some() || line.created_at.is_some()).collect();
    let mut next_at = None;
    for line in lines.iter_mut().rev() {
        line.superseded_at = next_at;
        next_at = line.current_at.or(next_at);
    }
    lines
}

fn blank(rotation: RotationId) -> TokenLine {
    TokenLine {
        rotation,
        token: None,
        phase: None,
        created_at: None,
        expires_at: None,
        delivered: Vec::new(),
        current_at: None,
        superseded_at: None,
        revocation_due_at: None,
        ended: None,
        ended_at: None,
        kept: None,
    }
}

impl TokenLine {
    /// What one step tells, the steps coming in their order.
    fn learn(&mut self, entry: &Entry) {
        self.token = self.token.take().or_else(|| entry.token.clone());
        match entry.what {
            Happened::Intended | Happened::SetUpIntended | Happened::Issued | Happened::Found | Happened::Rebuilt => {
                self.created_at.get_or_insert(entry.at);
            }
            Happened::Confirmed => {
                let place = entry.delivery.clone();
                let first = place.filter(|place| self.delivered.iter().all(|known| known.place != *place));
                self.delivered.extend(first.map(|place| Delivered { place, at: entry.at }));
            }
            Happened::Promoted => {
                self.current_at.get_or_insert(entry.at);
            }
            Happened::Revoked => self.end(TokenEnd::Revoked, entry.at),
            Happened::Expired => self.end(TokenEnd::Expired, entry.at),
            Happened::IssueRefused => self.end(TokenEnd::Refused, entry.at),
            Happened::GivenUp => self.end(TokenEnd::GivenUp, entry.at),
            _ => {}
        }
    }

    fn end(&mut self, how: TokenEnd, at: Timestamp) {
        (self.ended, self.ended_at) = (Some(how), Some(at));
    }

    /// What the state knows of a rotation whose token may live.
    fn adopt(&mut self, state: &Credential, id: RotationId, rotation: &Rotation) {
        self.phase = phase(state, id, rotation);
        if let Some(token) = &rotation.token {
            self.token = Some(token.id.clone());
            self.created_at = Some(token.created_at);
            self.expires_at = Some(token.expires_at);
        }
        match state.fate(id, rotation) {
            Fate::Stays => {}
            Fate::Revoked(due_at) => self.revocation_due_at = due_at,
            Fate::LeftToExpire(LeftToExpire::NotRecorded) => self.kept = Some("left to expire: this journal did not record it"),
            Fate::LeftToExpire(LeftToExpire::FormerPlace) => self.kept = Some("left to expire: a former place may serve it"),
        }
    }
}
