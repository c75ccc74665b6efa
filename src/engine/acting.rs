//! Which actions are steps of a rotation, told to the witness with both their ends.

use jiff::Timestamp;

use super::{Acted, Engine};
use crate::metrics::Step;
use crate::rotation::{Action, Credential, CredentialName, DeliveryId, RotationId, TokenId, Turn};

/// A step that is about to be carried out.
pub(super) struct Acting {
    step: Step,
    rotation: RotationId,
    place: Option<DeliveryId>,
    /// Of a token whose record ends with the step.
    token: Option<TokenId>,
}

impl Acting {
    /// A read is a step of a rotation while the newest token is on its way to its places.
    pub(super) fn of(credential: &Credential, action: &Action) -> Option<Self> {
        let acting = |step, rotation| Some(Self { step, rotation, place: None, token: None });
        let at_place =
            |step, rotation, place: &DeliveryId| Some(Self { step, rotation, place: Some(place.clone()), token: None });
        match action {
            Action::Issue { rotation, .. } => acting(Step::Issue, *rotation),
            Action::Verify { rotation } => acting(Step::Verify, *rotation),
            Action::Connect { rotation, .. } => acting(Step::Connect, *rotation),
            Action::Write { delivery, rotation } => at_place(Step::Write, *rotation, delivery),
            Action::Revoke { rotation, token, .. } => {
                Some(Self { step: Step::Revoke, rotation: *rotation, place: None, token: Some(token.clone()) })
            }
            Action::Read { delivery } => {
                let (latest, _) = credential.latest().filter(|(latest, _)| credential.current != Some(*latest))?;
                at_place(Step::Read, latest, delivery)
            }
            Action::List { .. } | Action::Wait { .. } => None,
        }
    }

    /// It was carried out, and `turn` knows what came of it.
    pub(super) fn ended(&self, engine: &Engine, name: &CredentialName, turn: &Turn<'_>, began: Timestamp) {
        let known = turn.credential().rotations.get(&self.rotation).and_then(|rotation| rotation.token.as_ref());
        let entries = turn.unsaved_entries();
        let acted = Acted {
            step: self.step,
            rotation: self.rotation,
            token: self.token.as_ref().or(known.map(|token| &token.id)),
            place: self.place.as_ref(),
            began,
            // At the very moment that the history has for it, where it has one.
            ended: entries.last().map_or_else(|| engine.clock.now().wall, |entry| entry.at),
            entries,
        };
        engine.witness.acted(name, &acted);
    }
}
