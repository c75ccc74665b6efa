//! What was seen under this claim, and what it means: the table of what a read-back may show.

use std::collections::{BTreeMap, BTreeSet};

use super::credential::Credential;
use super::outcome::{Failed, ListedToken, Shows};
use super::policy::Policy;
use super::words::{Account, CredentialName, DeliveryId, Moment, Owner, RotationId, TokenName};

/// What was seen of the world during this turn. Nothing of it survives the turn.
#[derive(Debug, Default)]
pub(super) struct Sight {
    pub reads: BTreeMap<DeliveryId, Seen>,
    /// Lists by account, in the order of asking; account names are compared without case.
    pub lists: Vec<(Account, Listed)>,
    /// When the action that is under way was given.
    pub begun: Option<Moment>,
    /// The account does not exist, in the words of the API's answer.
    pub no_such_account: Option<String>,
    /// Deliveries read once more, since the list named rotations that their markers may mean.
    pub reread: BTreeSet<DeliveryId>,
    /// Strangers whose token is gone: two complete lists lack it.
    pub dead: BTreeSet<RotationId>,
}

/// One look at a delivery.
#[derive(Debug)]
pub(super) struct Seen {
    /// When the read began: what it shows was there then or later.
    pub at: Moment,
    pub what: Result<Shows, Failed>,
}

#[derive(Debug)]
pub(super) enum Listed {
    Complete(Vec<ListedToken>),
    Failed,
}

impl Sight {
    pub fn list(&self, account: &Account) -> Option<&Listed> {
        self.lists.iter().find(|(listed, _)| listed == account).map(|(_, list)| list)
    }

    pub fn complete_list(&self, account: &Account) -> Option<&[ListedToken]> {
        match self.list(account)? {
            Listed::Complete(tokens) => Some(tokens),
            Listed::Failed => None,
        }
    }

    /// Rotation ids of this credential's names in every list of this turn.
    pub fn named_rotations<'s>(&'s self, names: Names<'s>) -> impl Iterator<Item = RotationId> + 's {
        let tokens = self.lists.iter().flat_map(|(_, list)| match list {
            Listed::Complete(tokens) => tokens.as_slice(),
            Listed::Failed => &[],
        });
        tokens.filter_map(move |token| names.rotation(token))
    }

    /// Whether list and deliveries were compared in this turn: every delivery tried, the list read.
    pub fn looked_at_everything(&self, policy: &Policy) -> bool {
        self.complete_list(&policy.account).is_some() && policy.deliveries.keys().all(|id| self.reads.contains_key(id))
    }
}

/// Which names are this credential's: its own and those that it had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    policy: &'a Policy,
    renamed: &'a BTreeMap<CredentialName, RotationId>,
}

impl<'a> Names<'a> {
    pub fn of(policy: &'a Policy, renamed: &'a BTreeMap<CredentialName, RotationId>) -> Self {
        Self { policy, renamed }
    }

    /// Whether a place marked as `owner`'s is this credential's.
    fn own(&self, owner: &Owner) -> bool {
        let name = &owner.credential;
        let had = || self.policy.renamed_from.as_ref() == Some(name) || self.renamed.contains_key(name);
        *owner == self.policy.owner || (owner.deployment == self.policy.owner.deployment && had())
    }

    /// The rotation that a listed token's name carries, if that name is this credential's. Another
    /// credential may bear a given-up name by now, so there only rotations of the time count.
    pub fn rotation(&self, token: &ListedToken) -> Option<RotationId> {
        let TokenName { owner, rotation } = TokenName::parse(token.name.as_deref()?)?;
        let given_up = owner != self.policy.owner && self.policy.renamed_from.as_ref() != Some(&owner.credential);
        let of_the_time = || self.renamed.get(&owner.credential).is_some_and(|newest| rotation <= *newest);
        (self.own(&owner) && (!given_up || of_the_time())).then_some(rotation)
    }
}

/// What a delivery shows, in the credential's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// A rotation whose token this journal recorded.
    Serves(RotationId),
    /// Ours by its marker, later than anything confirmed here, and not recorded (or only as asked for).
    Stranger(RotationId),
    /// Ours by its marker, earlier than the one last confirmed here, and no longer recorded.
    Past(RotationId),
    OwnedBy(Owner),
    /// A value that no marker and no fingerprint explains.
    Unexplained,
    Nothing,
    ScheduledForDeletion,
    Unreadable,
    /// Not read in this turn, or no longer: something was written since.
    Unread,
}

/// Judges what `sight` holds of a delivery.
pub(super) fn judge(credential: &Credential, policy: &Policy, sight: &Sight, delivery: &DeliveryId) -> Judged {
    let Some(seen) = sight.reads.get(delivery) else { return Judged::Unread };
    match &seen.what {
        Err(_) => Judged::Unreadable,
        Ok(Shows::ScheduledForDeletion) => Judged::ScheduledForDeletion,
        Ok(Shows::Nothing { owner: Some(owner) } | Shows::Value { owner: Some(owner), .. })
            if !Names::of(policy, &credential.renamed).own(owner) =>
        {
            Judged::OwnedBy(owner.clone())
        }
        Ok(Shows::Nothing { .. }) => Judged::Nothing,
        Ok(Shows::Value { fingerprint, rotation, .. }) => {
            let recorded = credential.rotations.iter().rev().find(|(_, rotation)| {
                rotation.token.as_ref().is_some_and(|token| token.fingerprint.as_ref() == Some(fingerprint))
            });
            match (recorded, rotation) {
                (Some((id, _)), _) => Judged::Serves(*id),
                (None, None) => Judged::Unexplained,
                (None, Some(id)) => judge_marked(credential, sight, delivery, *id),
            }
        }
    }
}

/// The marker explains the value, the journal's fingerprints don't.
fn judge_marked(credential: &Credential, sight: &Sight, delivery: &DeliveryId, id: RotationId) -> Judged {
    let confirmed = credential.deliveries.get(delivery).and_then(|known| known.confirmed);
    match credential.rotations.get(&id) {
        // Recorded with another fingerprint: the marker is wrong, so it explains nothing.
        Some(rotation) if rotation.token.as_ref().is_some_and(|token| token.fingerprint.is_some()) => Judged::Unexplained,
        // Asked for, lost, or found by name alone: a journal from before, or a marker from beyond it.
        Some(_) if !sight.dead.contains(&id) => Judged::Stranger(id),
        Some(_) => Judged::Unexplained,
        None if confirmed.is_some_and(|confirmed| id < confirmed) => Judged::Past(id),
        None if sight.dead.contains(&id) => Judged::Unexplained,
        None => Judged::Stranger(id),
    }
}
