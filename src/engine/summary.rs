//! A credential's state as the few numbers that watchers see.

use jiff::Timestamp;

use crate::metrics::sink_of;
use crate::rotation::{Blocked, Credential, Mode, Policy, Rotation, Stage, deadline, due_by_time};
use crate::sinks;
use crate::snapshot::{At, BlockedReason, CredentialState, OrganizationIndex, SinkCounts, Summary, TokenCounts};

/// What to show of `credential` at `now`.
pub fn summarize(credential: &Credential, policy: &Policy, organization: OrganizationIndex, now: Timestamp) -> Summary {
    let mut summary = Summary::new(organization);
    summary.blocked = credential.blocked.as_ref().map(|block| blocked(block.reason));
    summary.state = state(credential, policy);
    summary.last_success_at = At::from(credential.last_success_at);
    summary.last_sweep_at = At::from(credential.swept_at);
    summary.tokens = counts(credential);
    summary.tokens_unknown = narrow(credential.seen.unknown as usize);
    summary.tokens_foreign = narrow(credential.seen.foreign as usize);
    let expiry = |rotation: &Rotation| rotation.token.as_ref().map(|token| token.expires_at);
    let current = credential.current.and_then(|id| credential.rotations.get(&id)).and_then(expiry);
    let latest = credential.latest();
    summary.expires_at = At::from(current.or(latest.and_then(|(_, rotation)| expiry(rotation))));
    summary.deadline_at = At::from(latest.and_then(|(_, rotation)| expiry(rotation)).map(|at| deadline(at, policy)));
    summary.due_at = At::from(due_by_time(credential, policy, now).map(|due| due.at));
    // A place keeps its consumers going until the token that it was last seen to serve expires.
    let served = |delivery: &crate::rotation::Delivery| credential.rotations.get(&delivery.confirmed?).and_then(expiry);
    let each: Vec<Option<Timestamp>> = credential.deliveries.values().map(served).collect();
    summary.served_until = At::from(each.iter().flatten().min().copied().filter(|_| each.iter().all(Option::is_some)));
    let unconfirmed = |id: &&crate::rotation::DeliveryId| {
        let confirmed = credential.deliveries.get(*id).and_then(|known| known.confirmed);
        confirmed.is_none() || confirmed != latest.map(|(id, _)| id)
    };
    summary.deliveries_unconfirmed = by_sink(policy.deliveries.keys().filter(unconfirmed).filter_map(sink_of));
    let pending: Vec<&Rotation> = superseded(credential).collect();
    summary.revocations_pending = narrow(pending.len());
    let grace_over = credential.settled.and_then(|settled| settled.since.wall.checked_add(settled.grace.max(policy.grace)).ok());
    summary.revocation_oldest_due_at = At::from(grace_over.filter(|_| !pending.is_empty()));
    summary
}

/// Rotations whose tokens rotad is to revoke: superseded, orphaned or unfit, and recorded by this journal.
fn superseded(credential: &Credential) -> impl Iterator<Item = &Rotation> {
    let latest = credential.latest().map(|(id, _)| id);
    credential.rotations.iter().filter_map(move |(id, rotation)| {
        let revocable = match rotation.stage {
            Stage::Issued { .. } => Some(*id) < latest,
            Stage::Orphaned | Stage::Unfit => true,
            Stage::Requested | Stage::Lost => false,
        };
        (revocable && !rotation.adopted).then_some(rotation)
    })
}

fn state(credential: &Credential, policy: &Policy) -> CredentialState {
    if policy.mode == Mode::Observe {
        CredentialState::Observed
    } else if credential.blocked.is_some() {
        CredentialState::Blocked
    } else {
        match credential.latest() {
            None => CredentialState::New,
            Some((latest, _)) if credential.current != Some(latest) => CredentialState::Delivering,
            Some(_) if superseded(credential).next().is_some() => CredentialState::Retiring,
            Some(_) => CredentialState::Current,
        }
    }
}

fn counts(credential: &Credential) -> TokenCounts {
    let mut counts = TokenCounts::default();
    let latest = credential.latest().map(|(id, _)| id);
    for (id, rotation) in &credential.rotations {
        let count = match rotation.stage {
            Stage::Requested | Stage::Lost => &mut counts.lost,
            Stage::Orphaned => &mut counts.orphaned,
            Stage::Unfit => &mut counts.unfit,
            Stage::Issued { .. } if credential.current == Some(*id) => &mut counts.current,
            Stage::Issued { .. } if latest == Some(*id) => &mut counts.issued,
            Stage::Issued { .. } => &mut counts.retiring,
        };
        *count = count.saturating_add(1);
    }
    counts
}

fn by_sink(kinds: impl Iterator<Item = sinks::Kind>) -> SinkCounts {
    let mut counts = SinkCounts::default();
    for kind in kinds {
        let count = match kind {
            sinks::Kind::Aws => &mut counts.aws,
            sinks::Kind::File => &mut counts.file,
            sinks::Kind::Vault => &mut counts.vault,
        };
        *count = count.saturating_add(1);
    }
    counts
}

fn narrow(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn blocked(reason: Blocked) -> BlockedReason {
    match reason {
        Blocked::SecondInstallation => BlockedReason::SecondInstallation,
        Blocked::AnotherOrganization => BlockedReason::AnotherOrganization,
        Blocked::NoSuchAccount => BlockedReason::NoSuchAccount,
        Blocked::OwnedByOther => BlockedReason::OwnedByOther,
        Blocked::ScheduledForDeletion => BlockedReason::ScheduledForDeletion,
        Blocked::TakeOverNeeded => BlockedReason::TakeOverNeeded,
        Blocked::UnfitToken => BlockedReason::UnfitToken,
        Blocked::TooManyTokens => BlockedReason::TooManyTokens,
        Blocked::RolledBack => BlockedReason::RolledBack,
    }
}
