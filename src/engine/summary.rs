//! A credential's state as the few numbers that watchers see.

use jiff::Timestamp;

use crate::metrics::sink_of;
use crate::rotation::{Credential, DeliveryId, Fate, Mode, Policy, Rotation, RotationId, Stage, Trouble, deadline, due_by_time};
use crate::sinks;
use crate::snapshot::{At, CredentialState, OrganizationIndex, SinkCounts, Summary, TokenCounts, TokenPhase};

/// What to show of `credential` at `now`. Cheap enough to be made after every save.
pub fn summarize(credential: &Credential, policy: &Policy, organization: OrganizationIndex, now: Timestamp) -> Summary {
    let observed = policy.mode == Mode::Observe;
    let expiry = |rotation: &Rotation| rotation.token.as_ref().map(|token| token.expires_at);
    let current = credential.current.and_then(|id| credential.rotations.get(&id)).and_then(expiry);
    let latest = credential.latest().and_then(|(_, rotation)| expiry(rotation));
    let pending: Vec<At> = pending(credential).collect();
    Summary {
        state: state(credential, observed, !pending.is_empty()),
        blocked: credential.blocked.as_ref().map(|block| block.reason).filter(|_| !observed),
        expires_at: current.or(latest).into(),
        due_at: due_by_time(credential, policy, now).map(|due| due.at).into(),
        deadline_at: latest.map(|expiry| deadline(expiry, policy)).into(),
        last_success_at: credential.last_success_at.into(),
        served_until: served_until(credential, policy),
        last_sweep_at: credential.swept_at.into(),
        paused_until: credential.orders.pause(now).map(|pause| pause.until).into(),
        revocation_oldest_due_at: pending.iter().fold(At::UNKNOWN, |oldest, due_at| oldest.earlier(*due_at)),
        revocations_pending: narrow(pending.len()),
        tokens: tokens(credential),
        tokens_unknown: narrow(credential.seen.unknown as usize),
        tokens_foreign: narrow(credential.seen.foreign as usize),
        deliveries_unconfirmed: if observed { SinkCounts::default() } else { unconfirmed(credential, policy) },
        deliveries_failing: narrow(troubles(credential, policy).count()),
        provider_failing: provider_failures(credential) > 0,
        ..Summary::new(organization)
    }
}

fn state(credential: &Credential, observed: bool, pending: bool) -> CredentialState {
    if observed {
        return CredentialState::Observed;
    }
    if credential.blocked.is_some() {
        return CredentialState::Blocked;
    }
    match credential.latest() {
        None => CredentialState::New,
        Some((latest, _)) if credential.current != Some(latest) => CredentialState::Delivering,
        Some(_) if pending => CredentialState::Retiring,
        Some(_) => CredentialState::Current,
    }
}

/// When each revocation that is still to be made is due; unknown where no grace period runs for it.
fn pending(credential: &Credential) -> impl Iterator<Item = At> {
    credential.rotations.iter().filter_map(|(id, rotation)| match credential.fate(*id, rotation) {
        Fate::Revoked(due_at) => Some(due_at.into()),
        Fate::Stays | Fate::LeftToExpire(_) => None,
    })
}

/// A place keeps its consumers going until the token that it was last seen to serve expires. One that the
/// state no longer holds lived no longer than asked for.
fn served_until(credential: &Credential, policy: &Policy) -> At {
    let served = credential.deliveries.iter().filter(|(place, _)| policy.deliveries.contains_key(*place));
    let expiries = served.filter_map(|(_, known)| known.confirmed).map(|id| {
        let recorded = credential.rotations.get(&id).and_then(|rotation| Some(rotation.token.as_ref()?.expires_at));
        At::from(recorded.or_else(|| id.minted_at().checked_add(policy.ttl).ok()))
    });
    expiries.fold(At::UNKNOWN, At::earlier)
}

/// The configured places whose last read or write failed.
pub(super) fn troubles<'c>(
    credential: &'c Credential,
    policy: &'c Policy,
) -> impl Iterator<Item = (&'c DeliveryId, &'c Trouble)> {
    let known = |place| credential.deliveries.get(place).and_then(|known| known.trouble.as_ref());
    policy.deliveries.keys().filter_map(move |place| Some((place, known(place)?)))
}

/// How often MotherDuck's API failed in a row. A request for a token counts when it is intended, so one may be under way.
pub(super) fn provider_failures(credential: &Credential) -> u32 {
    credential.listing.failures.max(credential.issuing.failures.saturating_sub(1))
}

/// Where a rotation's token is in its life; `None` before the provider was asked.
pub fn phase(credential: &Credential, id: RotationId, rotation: &Rotation) -> Option<TokenPhase> {
    Some(match rotation.stage {
        Stage::Requested => return None,
        Stage::Lost => TokenPhase::Lost,
        Stage::Orphaned => TokenPhase::Orphaned,
        Stage::Unfit => TokenPhase::Unfit,
        Stage::ByHand => TokenPhase::ByHand,
        Stage::SetUp => TokenPhase::SetUp,
        Stage::Issued { .. } if credential.current == Some(id) => TokenPhase::Current,
        Stage::Issued { .. } if credential.current > Some(id) => TokenPhase::Retiring,
        Stage::Issued { .. } => TokenPhase::Issued,
    })
}

fn tokens(credential: &Credential) -> TokenCounts {
    let mut counts = TokenCounts::default();
    for phase in credential.rotations.iter().filter_map(|(id, rotation)| phase(credential, *id, rotation)) {
        let many = |count: &mut u16| *count = count.saturating_add(1);
        let few = |count: &mut u8| *count = count.saturating_add(1);
        match phase {
            TokenPhase::Issued => many(&mut counts.issued),
            TokenPhase::Retiring => many(&mut counts.retiring),
            TokenPhase::Orphaned => many(&mut counts.orphaned),
            TokenPhase::Lost => many(&mut counts.lost),
            TokenPhase::Current => few(&mut counts.current),
            TokenPhase::Unfit => few(&mut counts.unfit),
            TokenPhase::ByHand => few(&mut counts.by_hand),
            TokenPhase::SetUp => few(&mut counts.set_up),
        }
    }
    counts
}

/// The deliveries that don't confirm the newest token; all of them while there is none.
fn unconfirmed(credential: &Credential, policy: &Policy) -> SinkCounts {
    let newest = credential.latest().map(|(id, _)| id);
    let confirms = |place: &DeliveryId| {
        let confirmed = credential.deliveries.get(place).and_then(|known| known.confirmed);
        confirmed.is_some() && confirmed == newest
    };
    let mut counts = SinkCounts::default();
    for kind in policy.deliveries.keys().filter(|place| !confirms(place)).filter_map(sink_of) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::SignedDuration;

    use super::*;
    use crate::rotation::{
        Account, Block, Blocked, Delivery, DeliveryPolicy, FirstConnection, InstallationId, Moment, Owner, ProcessId, Schedule,
        Settled, Steady, Token, TokenId, TokenType, Verify,
    };
    use crate::snapshot::Board;

    const FILE: &str = "file:/run/etl/token";
    const VAULT: &str = "vault:https://v/secret/etl#token";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    fn id(seconds: i64) -> RotationId {
        RotationId::mint(at(seconds), None, InstallationId(1), 0)
    }

    fn policy(mode: Mode) -> Policy {
        let owner = Owner { deployment: "prod".parse().unwrap(), credential: "etl".parse().unwrap() };
        let place = DeliveryPolicy { take_over: false, write_limit: SignedDuration::from_secs(10) };
        let deliveries = [FILE, VAULT].map(|id| (DeliveryId::new(id), place.clone()));
        Policy {
            schedule: Schedule::every(SignedDuration::from_hours(1), &owner),
            owner,
            renamed_from: None,
            organization: "main".into(),
            account: Account::new("etl"),
            token_type: TokenType::ReadWrite,
            ttl: SignedDuration::from_secs(10_000),
            window: None,
            grace: SignedDuration::from_secs(600),
            verify: Verify::None,
            mode,
            deliveries: BTreeMap::from(deliveries),
            adopt: [].into(),
            used_by_rotad: false,
            account_is_kept: false,
            first_connection: FirstConnection::NotNeeded,
            sweep_every: SignedDuration::from_hours(1),
            tokens_max: 16,
        }
    }

    fn rotation(seconds: i64, stage: Stage) -> (RotationId, Rotation) {
        let rotation = Rotation {
            intended_at: Moment { wall: at(seconds), steady: Steady(0) },
            by: ProcessId(1),
            organization: "main".into(),
            account: Account::new("etl"),
            ttl: SignedDuration::from_secs(10_000),
            token_type: None,
            stage,
            token: (stage != Stage::Lost).then(|| Token {
                id: TokenId(format!("token-{seconds}")),
                created_at: at(seconds),
                expires_at: at(seconds + 10_000),
                fingerprint: None,
            }),
            adopted: false,
            set_up: false,
            missing_since: None,
            vanished: false,
            attempts: BTreeMap::new(),
            revocation_sent: false,
            backoff: Default::default(),
        };
        (id(seconds), rotation)
    }

    fn confirmed(place: &str, seconds: i64) -> (DeliveryId, Delivery) {
        (DeliveryId::new(place), Delivery { confirmed: Some(id(seconds)), ..Delivery::default() })
    }

    const ISSUED: Stage = Stage::Issued { verified: true };

    /// Rotated at 100 after a first token at 0; both places confirm the second.
    fn rotated() -> Credential {
        Credential {
            known: true,
            rotations: [rotation(0, ISSUED), rotation(100, ISSUED)].into(),
            deliveries: [confirmed(FILE, 100), confirmed(VAULT, 100)].into(),
            settled: Some(Settled {
                rotation: id(100),
                since: Moment { wall: at(110), steady: Steady(0) },
                grace: SignedDuration::from_secs(600),
                uncompared: false,
                used: false,
            }),
            current: Some(id(100)),
            last_success_at: Some(at(110)),
            ..Credential::default()
        }
    }

    fn summary(credential: &Credential, mode: Mode) -> Summary {
        summarize(credential, &policy(mode), Board::new(Moment { wall: at(0), steady: Steady(0) }).organization("main"), at(200))
    }

    #[test]
    fn a_token_that_was_replaced_is_retiring_and_its_revocation_due_when_grace_is_over() {
        let summary = summary(&rotated(), Mode::Rotate);
        assert_eq!(summary.state, CredentialState::Retiring);
        assert_eq!(summary.tokens, TokenCounts { current: 1, retiring: 1, ..TokenCounts::default() });
        assert_eq!((summary.revocations_pending, summary.revocation_oldest_due_at), (1, at(710).into()));
        assert_eq!((summary.expires_at, summary.served_until), (at(10_100).into(), at(10_100).into()));
        assert_eq!((summary.deadline_at, summary.last_success_at), (at(10_100 - 600 - 1_000).into(), at(110).into()));
        assert_eq!(summary.deliveries_unconfirmed, SinkCounts::default());
    }

    #[test]
    fn while_a_successor_is_on_its_way_consumers_are_served_until_the_oldest_confirmed_token_expires() {
        let mut credential = rotated();
        credential.rotations.extend([rotation(180, ISSUED)]);
        credential.deliveries.extend([confirmed(FILE, 180)]);
        let summary = summary(&credential, Mode::Rotate);
        assert_eq!((summary.state, summary.tokens.issued), (CredentialState::Delivering, 1));
        assert_eq!(summary.deliveries_unconfirmed, SinkCounts { vault: 1, ..SinkCounts::default() });
        assert_eq!(summary.served_until, at(10_100).into());
    }

    #[test]
    fn a_place_whose_token_the_state_forgot_is_served_no_longer_than_that_token_could_live() {
        let mut credential = rotated();
        credential.deliveries.extend([confirmed(VAULT, -9_000)]);
        assert_eq!(summary(&credential, Mode::Rotate).served_until, at(1_000).into());
    }

    #[test]
    fn what_was_adopted_or_may_be_served_by_a_former_place_is_not_pending() {
        let mut credential = rotated();
        credential.former.insert(DeliveryId::new("file:/old"), id(0));
        assert_eq!(summary(&credential, Mode::Rotate).revocations_pending, 0);
        credential.former.clear();
        credential.rotations.values_mut().for_each(|rotation| rotation.adopted = true);
        assert_eq!(summary(&credential, Mode::Rotate).revocations_pending, 0);
    }

    #[test]
    fn lost_orphaned_and_unfit_tokens_are_counted_and_only_what_has_an_id_can_be_revoked() {
        let mut credential = rotated();
        credential.rotations = [rotation(100, ISSUED), rotation(120, Stage::Lost), rotation(90, Stage::Orphaned)].into();
        credential.rotations.extend([rotation(130, Stage::Unfit), rotation(140, Stage::Requested)]);
        let summary = summary(&credential, Mode::Rotate);
        assert_eq!(summary.tokens, TokenCounts { current: 1, lost: 1, orphaned: 1, unfit: 1, ..TokenCounts::default() });
        assert_eq!((summary.state, summary.revocations_pending), (CredentialState::Retiring, 2));
    }

    #[test]
    fn the_state_is_one_word() {
        assert_eq!(summary(&Credential::default(), Mode::Rotate).state, CredentialState::New);
        assert_eq!(
            summary(&Credential::default(), Mode::Rotate).deliveries_unconfirmed,
            SinkCounts { aws: 0, file: 1, vault: 1 }
        );
        let mut credential = rotated();
        credential.rotations.remove(&id(0));
        assert_eq!(summary(&credential, Mode::Rotate).state, CredentialState::Current);
        let block = Block { reason: Blocked::RolledBack, since: at(150), detail: String::new() };
        credential.blocked = Some(block);
        let blocked = summary(&credential, Mode::Rotate);
        assert_eq!((blocked.state, blocked.blocked), (CredentialState::Blocked, Some(Blocked::RolledBack)));
        let observed = summary(&credential, Mode::Observe);
        assert_eq!((observed.state, observed.blocked), (CredentialState::Observed, None));
    }
}
