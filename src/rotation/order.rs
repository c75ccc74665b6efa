//! What a person orders at a credential. An order stands in the state until it is done, so that a crash
//! does not lose it, and it is obeyed by the same rules as everything else: it makes something due, or
//! puts it off, or lets one promise yield.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::credential::{Delivery, RolledBack, Rotation, Stage, Token};
use super::entry::Happened;
use super::issue::deadline;
use super::outcome::ListedToken;
use super::policy::Mode;
use super::turn::Turn;
use super::words::{Account, DeliveryId, Moment, RotationId, TokenId};

/// The longest reason of a pause (characters): it is shown in tables and kept in the journal.
pub const REASON_MAX: usize = 200;

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Replace the newest token now, under the limits. With `revoke_now` the tokens of today are revoked as
    /// soon as every delivery shows the new one (S2 yields).
    Rotate {
        #[serde(default)]
        revoke_now: bool,
    },
    /// Issue nothing before `until`. Deliveries, revocations and sweeps go on, and so do rotations at the deadline, and
    /// what replaces a token that is gone, unless `let_expire` forbids these as well.
    Pause {
        until: Timestamp,
        reason: String,
        #[serde(default)]
        let_expire: bool,
    },
    /// End a pause, overwrite what was rolled back, and try again now whatever waits for a repetition.
    Resume,
    /// Compare list, deliveries and journal now.
    Sweep,
    /// Wait no longer for tokens that a place which is not configured any more may serve.
    Forget { place: DeliveryId },
    /// Revoke this token without waiting for the grace period, also if the journal did not record it (S2 and S3
    /// yield). With `even_if_served` also if a delivery serves it (S1 yields).
    Revoke {
        token: TokenId,
        #[serde(default)]
        even_if_served: bool,
    },
}

impl Order {
    /// The command that gives it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Rotate { .. } => "rotate",
            Self::Pause { .. } => "pause",
            Self::Resume => "resume",
            Self::Sweep => "sweep",
            Self::Forget { .. } => "forget",
            Self::Revoke { .. } => "revoke",
        }
    }

    /// The order in words, for the history.
    fn told(&self) -> String {
        match self {
            Self::Rotate { revoke_now: false } => "rotate now".to_owned(),
            Self::Rotate { revoke_now: true } => "rotate now, and revoke the tokens before without a grace period".to_owned(),
            Self::Pause { until, reason, let_expire } => {
                let last = if *let_expire { ", even if the token expires" } else { "" };
                format!("pause until {until:.0}{last}: {reason}")
            }
            Self::Resume => "resume".to_owned(),
            Self::Sweep => "sweep now".to_owned(),
            Self::Forget { place } => format!("forget the former place `{place}`"),
            Self::Revoke { token, even_if_served: false } => format!("revoke token `{token}`"),
            Self::Revoke { token, even_if_served: true } => format!("revoke token `{token}` even if it is served"),
        }
    }
}

/// Orders that are not done yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// A rotation later than this one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_after: Option<RotationId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// Tokens to be revoked without a grace period, and whether even if a delivery serves them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revoke: BTreeMap<TokenId, EvenIfServed>,
}

/// Whether S1 yields as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EvenIfServed(pub bool);

/// Nothing is issued for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    pub since: Timestamp,
    pub until: Timestamp,
    pub reason: String,
    pub by: String,
    /// Not even to save the token's consumers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub let_expire: bool,
}

impl Orders {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The pause that holds at `now`.
    pub fn pause(&self, now: Timestamp) -> Option<&Pause> {
        self.paused.as_ref().filter(|pause| now < pause.until)
    }

    /// Whether this token is to be revoked without a grace period; the answer says whether even if served.
    pub(super) fn revokes(&self, rotation: &Rotation) -> Option<EvenIfServed> {
        rotation.token.as_ref().and_then(|token| self.revoke.get(&token.id)).copied()
    }
}

impl Turn<'_> {
    /// Takes an order of `by` into the state; what follows from it, `next` says.
    ///
    /// # Errors
    /// Why it is not taken, and what to do instead; nothing has changed then.
    pub fn obey(&mut self, order: &Order, by: &str, now: Moment) -> Result<(), String> {
        if self.policy.mode == Mode::Observe && !matches!(order, Order::Sweep) {
            return Err("it is only looked at (`mode = \"observe\"`): change its mode first".to_owned());
        }
        match order {
            Order::Rotate { revoke_now } => self.order_rotation(*revoke_now, now)?,
            Order::Pause { until, reason, let_expire } => {
                let pause =
                    Pause { since: now.wall, until: *until, reason: reason.clone(), by: by.to_owned(), let_expire: *let_expire };
                self.order_pause(pause, now)?;
            }
            Order::Resume => self.order_resumption(),
            Order::Sweep => self.look_anew(),
            Order::Forget { place } => self.order_forgetting(place)?,
            Order::Revoke { token, even_if_served } => self.order_revocation(token, *even_if_served)?,
        }
        let (told, by) = (order.told(), by.to_owned());
        self.entry(now, Happened::Ordered, |entry| {
            entry.detail = Some(told);
            entry.by = Some(by);
        });
        Ok(())
    }

    fn order_rotation(&mut self, revoke_now: bool, now: Moment) -> Result<(), String> {
        if let Some(pause) = self.credential.orders.pause(now.wall) {
            return Err(format!("it is paused until {:.0} ({}): resume it first", pause.until, pause.reason));
        }
        // Without a token a new one is due anyway.
        self.credential.orders.rotate_after = self.credential.latest().map(|(latest, _)| latest);
        self.credential.issuing.until = None;
        if revoke_now {
            let tokens = self.credential.rotations.values().filter_map(|rotation| rotation.token.as_ref());
            let tokens: Vec<TokenId> = tokens.map(|token| token.id.clone()).collect();
            for token in tokens {
                self.credential.orders.revoke.entry(token).or_insert(EvenIfServed(false));
            }
        }
        Ok(())
    }

    fn order_pause(&mut self, pause: Pause, now: Moment) -> Result<(), String> {
        if pause.until <= now.wall {
            return Err(format!("the pause would end at {:.0}, which is not in the future: give a later end", pause.until));
        }
        if pause.reason.chars().count() > REASON_MAX {
            return Err(format!("the reason has more than {REASON_MAX} characters: shorten it"));
        }
        let expiry = self.credential.latest().and_then(|(_, rotation)| rotation.token.as_ref()).map(|token| token.expires_at);
        let deadline = expiry.map(|expiry| deadline(expiry, self.policy));
        if let Some(deadline) = deadline.filter(|deadline| *deadline < pause.until && !pause.let_expire) {
            return Err(format!(
                "its token has to be replaced by {deadline:.0}, before the pause would end: choose an earlier end, or let it expire on \
                 purpose (`--let-expire`)"
            ));
        }
        self.credential.orders.paused = Some(pause);
        Ok(())
    }

    fn order_resumption(&mut self) {
        let latest = self.credential.latest().map(|(latest, _)| latest);
        let credential = &mut self.credential;
        credential.orders.paused = None;
        let is_rolled_back = credential.deliveries.values().any(|known| known.rolled_back.is_some());
        let supplies = |known: &Delivery| known.confirmed == latest && known.rolled_back.is_none() && known.oddity.is_none();
        if is_rolled_back && !credential.deliveries.values().any(supplies) {
            // Nobody holds the newest value any more: only a later one can overwrite what was put back.
            credential.orders.rotate_after = latest;
        }
        credential.issuing.until = None;
        credential.unfit = 0;
        for known in credential.deliveries.values_mut() {
            // As if it had been rolled back before the newest rotation: that is brought to it.
            if let Some(RolledBack { shows, under }) = &mut known.rolled_back {
                *under = *shows;
            }
            if let Some(trouble) = &mut known.trouble {
                trouble.backoff.until = None;
            }
        }
        for rotation in credential.rotations.values_mut() {
            rotation.backoff.until = None;
        }
        self.look_anew();
    }

    /// What was looked at before counts no longer.
    fn look_anew(&mut self) {
        self.credential.swept_by = None;
        self.credential.listing.until = None;
    }

    fn order_forgetting(&mut self, place: &DeliveryId) -> Result<(), String> {
        if self.policy.deliveries.contains_key(place) {
            return Err(format!("`{place}` is configured: remove the delivery from the configuration first"));
        }
        if self.credential.former.remove(place).is_some() {
            return Ok(());
        }
        let former: Vec<String> = self.credential.former.keys().map(|place| format!("`{place}`")).collect();
        Err(match former.as_slice() {
            [] => format!("`{place}` is not one of its former places: nothing is to be done, since nothing waits for one"),
            _ => format!("`{place}` is not one of its former places: give one of {}", former.join(", ")),
        })
    }

    fn order_revocation(&mut self, token: &TokenId, even_if_served: bool) -> Result<(), String> {
        if let Some(place) = self.serves(token).filter(|_| !even_if_served) {
            return Err(format!(
                "`{place}` serves it: `rotad rotate NAME --revoke-now` replaces it first; `--even-if-served` breaks whoever reads it there"
            ));
        }
        self.credential.orders.revoke.insert(token.clone(), EvenIfServed(even_if_served));
        Ok(())
    }

    /// The first delivery that was last seen to serve this token.
    fn serves(&self, token: &TokenId) -> Option<&DeliveryId> {
        let id = self.credential.rotation_of(token)?;
        self.credential.deliveries.iter().find(|(_, known)| known.confirmed == Some(id)).map(|(place, _)| place)
    }

    /// Drops what is done: a later rotation was issued, the pause is over.
    pub(super) fn tidy_orders(&mut self, now: Moment) {
        let latest = self.credential.latest().map(|(latest, _)| latest);
        let orders = &mut self.credential.orders;
        if orders.rotate_after < latest {
            orders.rotate_after = None;
        }
        if let Some(pause) = orders.paused.take_if(|pause| pause.until <= now.wall) {
            let detail = format!("the pause of {:.0} is over: {}", pause.since, pause.reason);
            self.entry(now, Happened::PauseEnded, |entry| entry.detail = Some(detail));
        }
    }

    /// What a complete list says of tokens that a person wants revoked: one of this credential's name that the
    /// journal did not record is taken in; one that the account does not have, or not by that name, is done with.
    pub(super) fn match_ordered(&mut self, account: &Account, tokens: &[ListedToken], now: Moment) {
        if *account != self.policy.account {
            return;
        }
        let unrecorded: Vec<TokenId> =
            self.credential.orders.revoke.keys().filter(|token| self.credential.rotation_of(token).is_none()).cloned().collect();
        for token in unrecorded {
            let listed = tokens.iter().find(|listed| listed.id == token);
            let named = listed.and_then(|listed| Some((self.names().rotation(listed)?, listed)));
            match named.filter(|(id, _)| !self.credential.rotations.contains_key(id)) {
                Some((id, listed)) => self.take_in(id, listed, now),
                None => {
                    self.credential.orders.revoke.remove(&token);
                    let was_there = listed.is_some();
                    self.entry(now, Happened::OrderEnded, |entry| {
                        entry.token = Some(token);
                        entry.detail = Some(match was_there {
                            true => "the token is not named for this credential: rotad does not revoke it".to_owned(),
                            false => "the account has no such token any more".to_owned(),
                        });
                    });
                }
            }
        }
    }

    fn take_in(&mut self, id: RotationId, listed: &ListedToken, now: Moment) {
        let mut rotation = Rotation::requested(self.policy, self.facts.process, now);
        rotation.stage = Stage::Orphaned;
        rotation.adopted = true;
        let expires_at = listed.expires_at.unwrap_or(Timestamp::MAX);
        rotation.token = Some(Token { id: listed.id.clone(), created_at: listed.created_at, expires_at, fingerprint: None });
        self.credential.note_newest(id);
        self.credential.rotations.insert(id, rotation);
        let token = listed.id.clone();
        self.entry(now, Happened::Found, |entry| {
            entry.rotation = Some(id);
            entry.token = Some(token);
        });
    }
}
