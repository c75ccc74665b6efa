//! How much MotherDuck's API and the sinks take, and whether a fleet asks for more.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;

use super::account::KeptAccount;
use super::check::Found;
use super::credential::Credential;
use super::problem::{Sheet, Span};
use super::sections::{Limits, Organization};
use super::sink::Sink;
use crate::rotation::Account;

/// The least time between two sweeps of a credential: changes by hand and vanished tokens are noticed within it, and reads
/// of AWS secrets stay below 200 a day for each.
const SWEEP_MIN: SignedDuration = SignedDuration::from_mins(15);
/// A sweep lists once for each credential; all of them together take a quarter of the API's pace.
const SWEEP_SHARE: u64 = 4;
/// An account of the configuration is looked at so often: somebody else's change of its Ducklings is undone within it.
const ACCOUNT_LOOK_MIN: SignedDuration = SignedDuration::from_mins(15);
/// Looks at such accounts take a twentieth of the API's pace, each being one call.
const ACCOUNT_LOOK_SHARE: u64 = 20;
/// Where many are due at once, as at a start, their calls take a quarter of it.
const ACCOUNT_PACE_SHARE: u32 = 4;
/// Issue, two lists, verification, revocation, and one to spare.
const CALLS_PER_ROTATION: f64 = 6.0;
/// What Secrets Manager takes of writes from one account in one region (AWS's quotas).
const AWS_WRITES_PER_SECOND: u32 = 50;
/// A new version, and the label moved to it.
const AWS_CALLS_PER_WRITE: u32 = 2;

impl Organization {
    /// How often each of so many credentials is swept.
    pub fn sweep_every(&self, credentials: usize) -> SignedDuration {
        let seconds = credentials as u64 * SWEEP_SHARE / u64::from(self.requests_per_second.get());
        SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)).max(SWEEP_MIN)
    }

    /// How often each of so many accounts of the configuration is looked at.
    pub fn look_every(&self, accounts: usize) -> SignedDuration {
        let seconds = accounts as u64 * ACCOUNT_LOOK_SHARE / u64::from(self.requests_per_second.get());
        SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)).max(ACCOUNT_LOOK_MIN)
    }

    /// How far apart the calls for these accounts are, whatever there is to be done.
    pub fn account_pace(&self) -> SignedDuration {
        SignedDuration::from_secs(ACCOUNT_PACE_SHARE.into()) / i32::try_from(self.requests_per_second.get()).unwrap_or(i32::MAX)
    }
}

impl Sink {
    /// How many calls a minute that write it takes, where that is known: Vault's quotas are its operator's.
    pub fn writes_per_minute_limit(&self) -> Option<u32> {
        matches!(self, Self::Aws(_)).then_some(AWS_WRITES_PER_SECOND * 60)
    }

    /// How many calls one write of a place makes.
    pub fn calls_per_write(&self) -> u32 {
        if matches!(self, Self::Aws(_)) { AWS_CALLS_PER_WRITE } else { 1 }
    }
}

/// Rotations in a second, on the average at most.
fn rate(credential: &Credential) -> f64 {
    1.0 / credential.terms.pace.shortest().as_secs_f64().max(1.0)
}

/// Warns of an organization whose credentials need more calls than it may make.
pub(super) fn api(
    sheet: &Sheet<'_>,
    found: &Found,
    accounts: &BTreeMap<Account, KeptAccount>,
    organizations: &BTreeMap<Arc<str>, Organization>,
    span: impl Fn(&str) -> Span,
) {
    for (name, organization) in organizations {
        let of_it =
            found.values().map(|resolved| &resolved.credential).filter(|credential| credential.terms.organization == *name);
        let (mut rotations, mut count) = (0.0, 0_usize);
        for credential in of_it {
            rotations += rate(credential);
            count += 1;
        }
        let sweeps = count as f64 / organization.sweep_every(count).as_secs_f64();
        let kept = accounts.values().filter(|kept| kept.organization == *name).count();
        let looks = kept as f64 / organization.look_every(kept).as_secs_f64();
        let calls = rotations * CALLS_PER_ROTATION + sweeps + looks;
        let allowed = f64::from(organization.requests_per_second.get());
        if calls > allowed {
            let of_accounts = if kept == 0 { String::new() } else { format!(" + {looks:.2} looks at accounts") };
            let message = format!(
                "its {count} credentials need {calls:.1} calls a second ({rotations:.2} rotations × {CALLS_PER_ROTATION} + {sweeps:.2} lists of sweeps{of_accounts}), and `requests_per_second` is {allowed}"
            );
            sheet.warn(&span(name), message, "rotate less often, or raise `requests_per_second` if MotherDuck allows it");
        }
    }
}

/// Warns of an AWS sink that gets more writes than AWS takes.
pub(super) fn aws(sheet: &Sheet<'_>, found: &Found, sinks: &BTreeMap<Arc<str>, Sink>, span: impl Fn(&str) -> Span) {
    let mut writes: BTreeMap<&Arc<str>, f64> = BTreeMap::new();
    for resolved in found.values() {
        for delivery in &resolved.credential.deliveries {
            if matches!(sinks.get(&delivery.sink), Some(Sink::Aws(_))) {
                *writes.entry(&delivery.sink).or_default() += rate(&resolved.credential) * f64::from(AWS_CALLS_PER_WRITE);
            }
        }
    }
    for (sink, writes) in writes.into_iter().filter(|(_, writes)| *writes > f64::from(AWS_WRITES_PER_SECOND)) {
        let message = format!(
            "the sink `{sink}` gets {writes:.1} writes a second ({AWS_CALLS_PER_WRITE} for each delivery), and AWS takes {AWS_WRITES_PER_SECOND}"
        );
        sheet.warn(&span(sink), message, "rotate less often, or spread the secrets over regions");
    }
}

/// Warns of more rotations than the blast radius lets begin.
pub(super) fn limits(sheet: &Sheet<'_>, found: &Found, limits: &Limits, span: &Span) {
    let rotations = found.values().map(|resolved| rate(&resolved.credential)).sum::<f64>() * 60.0;
    let limits = [
        ("rotations_per_minute", limits.rotations_per_minute, "rotations that it holds back come at their deadline"),
        ("revocations_per_minute", limits.revocations_per_minute, "old tokens that it holds back pile up until they expire"),
    ];
    for (key, allowed, consequence) in limits {
        if rotations > f64::from(allowed.get()) {
            let message = format!("{rotations:.1} rotations a minute are due, and `{key}` is {allowed}: {consequence}");
            sheet.warn(span, message, format!("rotate less often, or raise `{key}` in `[limits]`"));
        }
    }
}
