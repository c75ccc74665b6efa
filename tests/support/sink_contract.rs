//! What every sink must do, whatever store is behind it: one suite, run on each kind of place.
//!
//! A sink's test implements `World` for its store and calls `holds` with it. The suite makes places,
//! writes to them and lets the world change them behind the sink's back, as a person would.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rotad::rotation::{Account, Failed, InstallationId, Owner, RotationId, Shows, TokenId, TokenName, TokenType, WriteOutcome};
use rotad::secret::Secret;
use rotad::sinks::{Payload, Place, Question, Reading, Version};

/// One store with its sink: how the suite makes places and reaches around the sink.
#[async_trait]
pub trait World: Send + Sync {
    /// The place called `name` (letters only): the same target each time, empty at first.
    async fn place(&self, name: &str) -> Arc<dyn Place>;

    /// Puts a token that rotad never saw where a consumer would look, and leaves the marker alone.
    async fn change_by_hand(&self, name: &str, token: &str);

    /// Makes the place serve an earlier delivery again, by the store's own means. `token` was
    /// delivered there by `rotation`, at most two deliveries ago.
    async fn roll_back(&self, name: &str, token: &str, rotation: RotationId);

    /// Takes the value away, as a person who deletes the secret would.
    async fn wipe(&self, name: &str);

    /// What is in the store beside the value and its marker: it must be nothing.
    async fn left_over(&self, name: &str) -> Vec<String>;

    /// Whether the marker has room for an owner; where not, the sink goes by `Question::candidates`.
    fn marker_names_owner(&self) -> bool {
        true
    }
}

/// Checks the whole contract. Panics, with the sentence that is broken, if it does not hold.
pub async fn holds(world: &dyn World) {
    an_empty_place_shows_nothing(world).await;
    a_write_is_read_back(world).await;
    a_write_is_refused_after_a_foreign_change(world).await;
    a_write_is_refused_after_another_write_of_ours(world).await;
    a_second_write_of_the_same_payload_is_fine(world).await;
    the_marker_keeps_the_last_three(world).await;
    a_value_changed_by_hand_has_no_rotation(world).await;
    another_owner_is_seen(world).await;
    a_wiped_place_shows_nothing_and_can_be_filled(world).await;
    reading_changes_nothing(world).await;
}

/// One delivery as the suite makes it up: `number` tells deliveries apart and orders them.
pub struct Delivery {
    pub owner: Owner,
    pub rotation: RotationId,
    pub value: Secret,
    token_id: TokenId,
    token_name: TokenName,
    account: Account,
}

impl Delivery {
    pub fn new(credential: &str, number: u32) -> Self {
        let owner = Owner { deployment: "contract".parse().unwrap(), credential: credential.parse().unwrap() };
        let wall = Timestamp::from_second(1_790_000_000 + i64::from(number)).unwrap();
        let random = u64::from(number) ^ credential.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte));
        let rotation = RotationId::mint(wall, None, InstallationId(0x00c0_ffee), random);
        Self {
            rotation,
            value: Secret::new(format!("token-{credential}-{number}-{rotation}")),
            token_id: TokenId(format!("00000000-0000-4000-8000-{number:012}")),
            token_name: TokenName { owner: owner.clone(), rotation },
            account: Account::new("contract_account"),
            owner,
        }
    }

    pub fn payload(&self) -> Payload<'_> {
        Payload {
            owner: &self.owner,
            rotation: self.rotation,
            value: &self.value,
            token_id: &self.token_id,
            token_name: &self.token_name,
            account: &self.account,
            token_type: TokenType::ReadWrite,
            issued_at: self.rotation.minted_at(),
            expires_at: self.rotation.minted_at() + SignedDuration::from_hours(168),
        }
    }
}

/// What the suite's credential asks with: every rotation that it ever made up, newest first.
pub fn question(credential: &str) -> Question {
    let mut candidates: Vec<RotationId> = (0..8).map(|number| Delivery::new(credential, number).rotation).collect();
    candidates.reverse();
    Question { owner: Delivery::new(credential, 0).owner, candidates }
}

pub async fn read(place: &Arc<dyn Place>, credential: &str) -> Reading {
    place.read(&question(credential)).await.unwrap_or_else(|failed: Failed| panic!("{} can't be read: {failed}", place.id()))
}

/// Reads, and writes on the condition of what was read.
pub async fn deliver(place: &Arc<dyn Place>, credential: &str, delivery: &Delivery) {
    let version = read(place, credential).await.version;
    deliver_onto(place, &version, delivery).await;
}

async fn deliver_onto(place: &Arc<dyn Place>, version: &Version, delivery: &Delivery) {
    let outcome = place.write(version, &delivery.payload()).await;
    assert_eq!(outcome, WriteOutcome::Written, "writing to {}", place.id());
}

/// Asserts that the place serves exactly this delivery, with its marker.
pub async fn assert_serves(world: &dyn World, place: &Arc<dyn Place>, credential: &str, delivery: &Delivery) {
    let reading = read(place, credential).await;
    let Shows::Value { fingerprint, owner, rotation } = reading.shows else {
        panic!("{} shows {:?} after a delivery", place.id(), reading.shows);
    };
    assert_eq!(fingerprint, delivery.value.fingerprint(), "the fingerprint is that of the token, whatever is around it");
    assert_eq!(rotation, Some(delivery.rotation), "the marker gives the value's rotation");
    if world.marker_names_owner() {
        assert_eq!(owner, Some(delivery.owner.clone()), "the marker gives the owner");
    }
    let value = reading.value.expect("a reading of a value carries it");
    assert_eq!(value.expose(), delivery.value.expose(), "the value read is the value written");
}

async fn an_empty_place_shows_nothing(world: &dyn World) {
    let place = world.place("empty").await;
    let reading = read(&place, "empty").await;
    assert_eq!(reading.shows, Shows::Nothing { owner: None }, "an empty place shows nothing and names no owner");
    assert!(reading.value.is_none(), "an empty place has no value");
    assert_eq!(world.left_over("empty").await, Vec::<String>::new(), "reading an empty place leaves nothing behind");
}

async fn a_write_is_read_back(world: &dyn World) {
    let place = world.place("plain").await;
    for number in 0..2 {
        let delivery = Delivery::new("plain", number);
        deliver(&place, "plain", &delivery).await;
        assert_serves(world, &place, "plain", &delivery).await;
    }
    // A place made anew finds the same: nothing of it is kept in the process.
    assert_serves(world, &world.place("plain").await, "plain", &Delivery::new("plain", 1)).await;
    assert_eq!(place.id(), world.place("plain").await.id(), "the same target has the same id");
    assert_ne!(place.id(), world.place("other").await.id(), "two targets have two ids");
    assert_eq!(world.left_over("plain").await, Vec::<String>::new(), "a write leaves nothing behind");
}

async fn a_write_is_refused_after_a_foreign_change(world: &dyn World) {
    let place = world.place("foreign").await;
    deliver(&place, "foreign", &Delivery::new("foreign", 0)).await;
    let before = read(&place, "foreign").await.version;
    world.change_by_hand("foreign", "typed-in-by-a-person").await;

    let outcome = place.write(&before, &Delivery::new("foreign", 1).payload()).await;
    assert_eq!(outcome, WriteOutcome::Conflict, "a write on an outdated condition");
    let value = read(&place, "foreign").await.value.expect("the foreign value stays");
    assert_eq!(value.expose(), "typed-in-by-a-person", "a refused write changes nothing");
    assert_eq!(world.left_over("foreign").await, Vec::<String>::new(), "a refused write leaves nothing behind");
}

async fn a_write_is_refused_after_another_write_of_ours(world: &dyn World) {
    let place = world.place("twice").await;
    let before = read(&place, "twice").await.version;
    let first = Delivery::new("twice", 0);
    deliver_onto(&place, &before, &first).await;

    let outcome = place.write(&before, &Delivery::new("twice", 1).payload()).await;
    assert_eq!(outcome, WriteOutcome::Conflict, "a write on the condition that the place is empty");
    assert_serves(world, &place, "twice", &first).await;
}

async fn a_second_write_of_the_same_payload_is_fine(world: &dyn World) {
    let place = world.place("again").await;
    let delivery = Delivery::new("again", 0);
    for _ in 0..2 {
        deliver(&place, "again", &delivery).await;
        assert_serves(world, &place, "again", &delivery).await;
    }
}

async fn the_marker_keeps_the_last_three(world: &dyn World) {
    let place = world.place("history").await;
    let deliveries: Vec<Delivery> = (0..5).map(|number| Delivery::new("history", number)).collect();
    for delivery in &deliveries {
        deliver(&place, "history", delivery).await;
    }
    for number in [3, 2] {
        let earlier = &deliveries[number];
        world.roll_back("history", earlier.value.expose(), earlier.rotation).await;
        assert_serves(world, &place, "history", earlier).await;
    }
    // From the rolled-back state the next delivery goes on as from any other.
    let next = Delivery::new("history", 5);
    deliver(&place, "history", &next).await;
    assert_serves(world, &place, "history", &next).await;
}

async fn a_value_changed_by_hand_has_no_rotation(world: &dyn World) {
    let place = world.place("byhand").await;
    deliver(&place, "byhand", &Delivery::new("byhand", 0)).await;
    world.change_by_hand("byhand", "typed-in-by-a-person").await;

    let reading = read(&place, "byhand").await;
    let Shows::Value { fingerprint, rotation, .. } = reading.shows else { panic!("a value is a value, whoever wrote it") };
    assert_eq!(rotation, None, "no marker explains a value that was typed in");
    assert_eq!(fingerprint, Secret::new("typed-in-by-a-person".to_owned()).fingerprint());

    let mended = Delivery::new("byhand", 1);
    deliver(&place, "byhand", &mended).await;
    assert_serves(world, &place, "byhand", &mended).await;
}

async fn another_owner_is_seen(world: &dyn World) {
    let place = world.place("shared").await;
    let theirs = Delivery::new("theirs", 0);
    deliver(&place, "theirs", &theirs).await;

    let Shows::Value { owner, rotation, .. } = read(&place, "ours").await.shows else { panic!("their value is a value") };
    if world.marker_names_owner() {
        assert_eq!(owner, Some(theirs.owner), "the owner is the one that wrote, not the one that asks");
    } else {
        assert_eq!(rotation, None, "a rotation that the asking credential does not know is not confirmed to it");
    }
}

async fn a_wiped_place_shows_nothing_and_can_be_filled(world: &dyn World) {
    let place = world.place("wiped").await;
    deliver(&place, "wiped", &Delivery::new("wiped", 0)).await;
    let before = read(&place, "wiped").await.version;
    world.wipe("wiped").await;
    let outcome = place.write(&before, &Delivery::new("wiped", 1).payload()).await;
    assert_eq!(outcome, WriteOutcome::Conflict, "a write on the condition of a value that is gone");

    let reading = read(&place, "wiped").await;
    assert!(matches!(reading.shows, Shows::Nothing { .. }), "a wiped place shows nothing, not {:?}", reading.shows);
    let filled = Delivery::new("wiped", 2);
    deliver_onto(&place, &reading.version, &filled).await;
    assert_serves(world, &place, "wiped", &filled).await;
}

async fn reading_changes_nothing(world: &dyn World) {
    let place = world.place("calm").await;
    let delivery = Delivery::new("calm", 0);
    deliver(&place, "calm", &delivery).await;
    let first = read(&place, "calm").await.version;
    let findings = place.check().await;
    assert!(!findings.is_empty(), "a check says what it found");
    assert_eq!(read(&place, "calm").await.version, first, "neither a read nor a check changes what is there");
}
