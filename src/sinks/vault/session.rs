//! Our own token at Vault: how it is got, how long it is good for, how it is renewed.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::Auth;
use super::wire::{Answer, Call, Trouble, Wire};
use crate::rotation::{Failed, Reason};
use crate::secret::{Secret, SecretSource};

/// A renewal that gives less than this part of the first life means that the token's end is near
/// (its maximum cuts it): then a new login is made instead of ever shorter renewals.
const WORTHWHILE_PART: u32 = 2;
/// The shortest wait between two attempts to renew.
const RENEW_AGAIN: Duration = Duration::from_secs(5);

/// One login's result.
pub(super) struct Session {
    pub token: std::sync::Arc<Secret>,
    /// SHA-256 of the configured token, where the login is by token: a change means another login.
    pub from_token: Option<crate::rotation::Fingerprint>,
    life: Option<Life>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    /// As given at the login.
    first: Duration,
    renewable: bool,
    renew_at: Instant,
    ends_at: Instant,
}

impl Life {
    fn new(first: Duration, left: Duration, renewable: bool, now: Instant) -> Self {
        Self { first, renewable, renew_at: now + (left * 2 / 3).max(Duration::from_millis(100)), ends_at: now + left }
    }
}

/// `auth` of a login's or a renewal's answer.
#[derive(Deserialize)]
struct Granted {
    auth: Option<Grant>,
}

#[derive(Deserialize)]
struct Grant {
    client_token: String,
    /// Seconds; 0 for ever.
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct LookedUp {
    data: TokenData,
}

#[derive(Deserialize)]
struct TokenData {
    /// Seconds that are left; 0 for ever.
    ttl: u64,
    /// Absent for some kinds of token.
    #[serde(default)]
    renewable: Option<bool>,
}

#[derive(Deserialize)]
struct Unwrapped {
    data: SecretId,
}

#[derive(Deserialize)]
struct SecretId {
    secret_id: String,
}

impl Session {
    /// Whether it is time to renew, or to log in anew.
    pub fn wants_renewal(&self, now: Instant) -> bool {
        self.life.is_some_and(|life| now >= life.renew_at)
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.life.is_some_and(|life| now >= life.ends_at)
    }

    /// The same session, asked to be renewed somewhat later: renewing it failed just now.
    pub fn later(&self, now: Instant) -> Self {
        let later = |life: Life| Life { renew_at: now + RENEW_AGAIN.max((life.ends_at - now) / 10), ..life };
        Self { token: self.token.clone(), from_token: self.from_token, life: self.life.map(later) }
    }

    /// Renews the token; `None` where it can't be or isn't worth it: then a login is due.
    pub async fn renew(&self, wire: &Wire, deadline: Instant) -> Result<Option<Self>, Failed> {
        let Some(life) = self.life.filter(|life| life.renewable) else { return Ok(None) };
        let call = Call::post("auth/token/renew-self", &json!({}));
        let answer = wire.send(&call, Some(&self.token), None, deadline).await.map_err(Trouble::into_failed)?;
        if !answer.is_success() {
            return Ok(None);
        }
        let now = Instant::now();
        let grant = grant(&answer)?;
        let left = Duration::from_secs(grant.lease_duration);
        drop(Secret::new(grant.client_token));
        if left * WORTHWHILE_PART < life.first && self.from_token.is_none() {
            return Ok(None);
        }
        let life = (!left.is_zero()).then(|| Life::new(life.first, left, true, now));
        Ok(Some(Self { token: self.token.clone(), from_token: self.from_token, life }))
    }

    /// Whether the server still knows the token: its lookup of itself is refused otherwise.
    pub async fn is_known(&self, wire: &Wire, deadline: Instant) -> Result<bool, Trouble> {
        let answer = wire.send(&Call::get("auth/token/lookup-self"), Some(&self.token), None, deadline).await?;
        Ok(!matches!(answer.status, 401 | 403))
    }
}

/// Logs in.
///
/// # Errors
/// The secret's file, the connection, or the server's refusal; never with the secret in it.
pub(super) async fn log_in(wire: &Wire, auth: &Auth, unwrapped: &Unwrapping, deadline: Instant) -> Result<Session, Failed> {
    match auth {
        Auth::Token(source) => by_token(wire, source, deadline).await,
        Auth::AppRole { mount, role_id, secret_id } => {
            let secret_id = unwrapped.secret_id(wire, secret_id, deadline).await?;
            let body = json!({ "role_id": role_id, "secret_id": secret_id.expose() });
            by_body(wire, mount, &body, &[&secret_id], deadline).await
        }
        Auth::Kubernetes { mount, role, jwt } => {
            let jwt = SecretSource::File(jwt.clone()).read_word().await?;
            let body = json!({ "role": role, "jwt": jwt.expose() });
            by_body(wire, mount, &body, &[&jwt], deadline).await
        }
        Auth::Jwt { mount, role, token } => {
            let jwt = token.read_word().await?;
            let body = match role {
                Some(role) => json!({ "role": role, "jwt": jwt.expose() }),
                None => json!({ "jwt": jwt.expose() }),
            };
            by_body(wire, mount, &body, &[&jwt], deadline).await
        }
        Auth::Cert { mount, role, .. } => {
            let body = role.as_ref().map_or_else(|| json!({}), |role| json!({ "name": role }));
            by_body(wire, mount, &body, &[], deadline).await
        }
    }
}

/// A login by what `body` says. (vaultrs has requests for some of these, but with a double slash in
/// the path, which servers answer with a redirect.)
async fn by_body(
    wire: &Wire,
    mount: &str,
    body: &serde_json::Value,
    secrets: &[&Secret],
    deadline: Instant,
) -> Result<Session, Failed> {
    let call = Call::post(format!("auth/{mount}/login"), body);
    let answer = wire.send(&call, None, None, deadline).await.map_err(Trouble::into_failed)?;
    if !answer.is_success() {
        return Err(refused_login(&answer, mount, secrets));
    }
    let now = Instant::now();
    let grant = grant(&answer)?;
    let left = Duration::from_secs(grant.lease_duration);
    let life = (!left.is_zero()).then(|| Life::new(left, left, grant.renewable, now));
    Ok(Session { token: Secret::new(grant.client_token).into(), from_token: None, life })
}

/// A configured token is looked up, since nothing else tells how long it lives.
async fn by_token(wire: &Wire, source: &SecretSource, deadline: Instant) -> Result<Session, Failed> {
    let token = source.read_word().await?;
    let answer = wire.send(&Call::get("auth/token/lookup-self"), Some(&token), None, deadline).await;
    let answer = answer.map_err(Trouble::into_failed)?;
    match answer.status {
        200 => {}
        401 | 403 => {
            let from = source.to_string();
            let detail =
                format!("the token from {from} expired or was revoked, or lacks `read` on `auth/token/lookup-self`; replace it");
            return Err(Failed::new(Reason::Unauthorized, detail));
        }
        _ => return Err(super::wire::failure(&answer, super::store::plain_attempt("auth/token/lookup-self", "read"))),
    }
    let now = Instant::now();
    let TokenData { ttl, renewable } = answer.parse::<LookedUp>()?.data;
    let left = Duration::from_secs(ttl);
    let life = (!left.is_zero()).then(|| Life::new(left, left, renewable.unwrap_or(false), now));
    Ok(Session { from_token: Some(token.fingerprint()), token: token.into(), life })
}

fn grant(answer: &Answer) -> Result<Grant, Failed> {
    let granted: Granted = answer.parse()?;
    granted.auth.ok_or_else(|| Failed::new(Reason::BadAnswer, "the server's answer to the login carries no token"))
}

fn refused_login(answer: &Answer, mount: &str, secrets: &[&Secret]) -> Failed {
    if answer.status >= 429 || answer.status < 400 {
        return super::wire::failure(answer, super::store::plain_attempt(&format!("auth/{mount}/login"), "update"));
    }
    let said = answer.said(140, secrets);
    let detail = match answer.status {
        404 => format!("no auth method is mounted at `auth/{mount}`; enable one or correct `mount`"),
        status => format!("the login at `auth/{mount}` was refused ({status}: {said}); check role and secret"),
    };
    Failed::new(Reason::Unauthorized, detail)
}

/// A secret id that came wrapped: the wrapping token works once, so what was in it is kept in memory.
#[derive(Default)]
pub(super) struct Unwrapping {
    kept: std::sync::Mutex<Option<(crate::rotation::Fingerprint, Secret)>>,
}

impl Unwrapping {
    /// The secret id from its source, unwrapped first where the source holds a wrapping token:
    /// those begin with `hvs.` or `s.`, which a secret id that Vault made (a UUID) never does.
    async fn secret_id(&self, wire: &Wire, source: &SecretSource, deadline: Instant) -> Result<Secret, Failed> {
        let found = source.read_word().await?;
        if !found.expose().starts_with("hvs.") && !found.expose().starts_with("s.") {
            return Ok(found);
        }
        let kept = |slot: &Option<(_, Secret)>| {
            slot.as_ref().filter(|(wrapper, _)| *wrapper == found.fingerprint()).map(|(_, secret_id)| secret_id.duplicate())
        };
        let slot = || self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(secret_id) = kept(&slot()) {
            return Ok(secret_id);
        }
        let call = Call::post("sys/wrapping/unwrap", &json!({}));
        let answer = wire.send(&call, Some(&found), None, deadline).await.map_err(Trouble::into_failed)?;
        if !answer.is_success() {
            let from = source.to_string();
            let detail = format!(
                "the wrapped secret id in {from} can't be unwrapped ({}): it expired, or was unwrapped before, perhaps by \
                 somebody else; put a new one there",
                answer.status
            );
            return Err(Failed::new(Reason::Unauthorized, detail));
        }
        let secret_id = Secret::new(answer.parse::<Unwrapped>()?.data.secret_id);
        *slot() = Some((found.fingerprint(), secret_id.duplicate()));
        Ok(secret_id)
    }
}
