//! Places, simulated: conditional writes, reads that lag, and writes that land without an answer.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use rotad::rotation::{DeliveryId, Failed, Owner, Reason, RotationId, Shows, WriteOutcome};
use rotad::sinks::{Finding, Payload, Place, Question, Reading, Version};

use super::api::{failure, send};
use super::claim::{Claim, wait};
use super::matrix::{Fault, Step};
use super::world::{World, value};
use crate::simulator::oracle::Look;
use crate::simulator::world::{Author, Content, Ended, Marker, Ms, SECOND, span};

/// How long a read waits for its answer.
const READ_LIMIT: Ms = 10 * SECOND;

pub struct SimPlace {
    claim: Arc<Claim>,
    id: DeliveryId,
    index: usize,
    write_limit: Ms,
}

impl SimPlace {
    pub fn new(claim: Arc<Claim>, id: &DeliveryId) -> Self {
        let world = claim.sim.world();
        let index = world.place_of[id];
        let write_limit = world.places[index].write_limit;
        drop(world);
        Self { claim, id: id.clone(), index, write_limit }
    }
}

/// A write on its way.
struct Write {
    place: usize,
    credential: usize,
    owner: Owner,
    rotation: RotationId,
    value: usize,
    /// What the place must hold still; `None` where the place can't compare.
    expected: Option<u64>,
    /// Nothing lands later.
    latest: Ms,
    writer: u64,
}

impl World {
    /// What a reader of the place sees: perhaps what was there a while ago.
    fn seen_at(&mut self, place: usize) -> (u64, Content, bool) {
        let lag = self.places[place].lag;
        let behind = if lag > 0 && !self.calm { self.latency_rng().between(0, lag) } else { 0 };
        let (now, held) = (self.now, &self.places[place]);
        let seen = held.versions.iter().rev().find(|version| version.at <= now - behind).unwrap_or(&held.versions[0]);
        (seen.number, seen.content.clone(), seen.number != held.now().number)
    }

    fn shows(&self, content: &Content, checked: Option<&[RotationId]>) -> Shows {
        if content.scheduled_for_deletion {
            return Shows::ScheduledForDeletion;
        }
        let owner = content.marker.as_ref().map(|marker| marker.owner.clone());
        let Some(value) = content.value else { return Shows::Nothing { owner } };
        let pairs = content.marker.iter().flat_map(|marker| &marker.pairs);
        let rotation = pairs.rev().find(|(known, _)| *known == value).map(|(_, rotation)| *rotation);
        // A marker that can only be checked explains what is asked for.
        let rotation = rotation.filter(|id| checked.is_none_or(|candidates| candidates.contains(id)));
        Shows::Value { fingerprint: self.fingerprint(value), owner, rotation }
    }

    fn land(&mut self, write: &Write) -> WriteOutcome {
        let latest = self
            .died
            .get(&write.writer)
            .map_or(write.latest, |died| write.latest.min(died + 2 * self.places[write.place].write_limit));
        if self.now > latest {
            return WriteOutcome::Refused(Failed::new(Reason::TimedOut, "too late"));
        }
        let place = &mut self.places[write.place];
        if write.expected.is_some_and(|expected| expected != place.now().number) {
            return WriteOutcome::Conflict;
        }
        if place.now().content.scheduled_for_deletion {
            return WriteOutcome::Refused(Failed::new(Reason::Unsuitable, "scheduled for deletion"));
        }
        let fingerprint = write.value;
        let pairs = marker_pairs(&place.now().content, &write.owner, (fingerprint, write.rotation));
        let marker = Some(Marker { owner: write.owner.clone(), pairs });
        place.put(self.now, Content { value: Some(write.value), marker, scheduled_for_deletion: false }, Author::Us);
        let id = place.id.clone();
        self.fold(write.value as u64);
        self.tell(Some(write.credential), || format!("t{} lands at `{id}`", write.value));
        if self.tokens[write.value].ended.is_some_and(|(_, by)| by == Ended::ByUs) {
            let detail = format!("t{} landed at `{id}`, and we had revoked it", write.value);
            self.violate("S1", Some(write.credential), detail);
        }
        WriteOutcome::Written
    }
}

/// The marker's pairs with a new one: the last three, that of the value in place always among them.
fn marker_pairs(held: &Content, owner: &Owner, new: (usize, RotationId)) -> Vec<(usize, RotationId)> {
    let mut pairs = match &held.marker {
        Some(marker) if marker.owner == *owner => marker.pairs.clone(),
        _ => Vec::new(),
    };
    pairs.retain(|(known, _)| *known != new.0);
    while pairs.len() > 2 {
        let dispensable = pairs.iter().position(|(known, _)| Some(*known) != held.value).unwrap_or(0);
        pairs.remove(dispensable);
    }
    pairs.push(new);
    pairs
}

#[async_trait]
impl Place for SimPlace {
    fn id(&self) -> &DeliveryId {
        &self.id
    }

    fn write_limit(&self) -> SignedDuration {
        span(self.write_limit)
    }

    async fn read(&self, question: &Question) -> Result<Reading, Failed> {
        let claim = &self.claim;
        let again = claim.seen.lock().unwrap().wrote.contains(&self.id);
        let step = if again { Step::ReadBack } else { Step::Read };
        let met = claim.enter(step).await;
        wait(met.there).await;
        claim.life.gate().await;
        let down = claim.sim.world().places[self.index].unreadable_until > claim.sim.time.now();
        let failed = match met.fault {
            Some(Fault::TimedOutNotDone) => {
                wait(READ_LIMIT).await;
                Some(Failed::new(Reason::TimedOut, "no answer within the time limit"))
            }
            Some(fault) => failure(fault),
            None => down.then(|| Failed::new(Reason::Unavailable, "sealed")),
        };
        if let Some(failed) = failed {
            wait(met.back).await;
            claim.leave(&met).await;
            let mut world = claim.sim.world();
            world.actors[claim.credential].memo.unreadable.insert(self.id.clone());
            let at = world.now;
            claim.seen.lock().unwrap().looks.insert(self.id.clone(), Look { at, readable: false, value: None });
            return Err(failed);
        }
        let (at, number, content, shows) = {
            let mut world = claim.sim.world();
            let (number, content, lags) = world.seen_at(self.index);
            if lags && !world.calm {
                world.matrix.meet(Fault::Lags, step);
            }
            let checked = world.places[self.index].id.as_str().starts_with("aws").then_some(&question.candidates[..]);
            let shows = world.shows(&content, checked);
            (world.now, number, content, shows)
        };
        wait(met.back).await;
        claim.leave(&met).await;
        let mut world = claim.sim.world();
        let held = if content.scheduled_for_deletion { None } else { content.value };
        let look = Look { at, readable: true, value: held };
        world.looked(claim, &self.id, look, number);
        Ok(Reading { shows, value: held.map(value), version: Version(number.to_string()) })
    }

    async fn write(&self, expected: &Version, payload: &Payload<'_>) -> WriteOutcome {
        let claim = &self.claim;
        let met = claim.enter(Step::Write).await;
        let (write, down, ends, lands_after) = {
            let mut world = claim.sim.world();
            world.judge_write(claim, &self.id, expected, payload);
            claim.seen.lock().unwrap().wrote.insert(self.id.clone());
            let conditional = world.places[self.index].conditional;
            let ends = world.latency_rng().between(0, self.write_limit);
            let lands_after = world.latency_rng().between(0, 2 * self.write_limit - 1);
            let value = world.index_of_value(payload.value);
            let write = Write {
                place: self.index,
                credential: claim.credential,
                owner: payload.owner.clone(),
                rotation: payload.rotation,
                value,
                expected: conditional.then(|| expected.0.parse().unwrap()),
                latest: world.now + ends + 2 * self.write_limit,
                writer: claim.life.id,
            };
            (write, world.places[self.index].unwritable_until > world.now, ends, lands_after)
        };
        let unknown = || WriteOutcome::Unknown(Failed::new(Reason::TimedOut, "no answer within the time limit"));
        let refused = match met.fault {
            Some(fault) => failure(fault),
            None => down.then(|| Failed::new(Reason::Unavailable, "standby")),
        };
        let (lands, waits) = match met.fault {
            Some(Fault::TimedOutNotDone) => (None, self.write_limit),
            Some(Fault::TimedOutDone) => (Some(met.there), self.write_limit),
            Some(Fault::DoneLate) => (Some(ends + lands_after), ends),
            _ if refused.is_some() => (None, met.there + met.back),
            _ => (Some(met.there), met.there + met.back),
        };
        let answer = send(claim, &met, lands, waits, move |world| world.land(&write)).await;
        claim.seen.lock().unwrap().looks.remove(&self.id);
        claim.seen.lock().unwrap().numbers.remove(&self.id);
        match (met.fault, refused, answer) {
            (Some(Fault::TimedOutNotDone | Fault::TimedOutDone | Fault::DoneLate), _, _) => unknown(),
            (_, Some(failed), _) => WriteOutcome::Refused(failed),
            (_, None, Some(outcome)) => outcome,
            (_, None, None) => unknown(),
        }
    }

    async fn check(&self) -> Vec<Finding> {
        Vec::new()
    }
}
