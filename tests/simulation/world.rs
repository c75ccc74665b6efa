//! What rotad acts on: an API that keeps tokens, and places that hold values.

use jiff::{SignedDuration, Timestamp};
use rotad::rotation::{DeliveryId, Fingerprint, Owner, RotationId, Shows, TokenId, TokenName, TokenType};

/// True time in milliseconds since the history began.
pub type Ms = i64;
pub const SECOND: Ms = 1000;
pub const MINUTE: Ms = 60 * SECOND;
pub const HOUR: Ms = 60 * MINUTE;
pub const DAY: Ms = 24 * HOUR;

const BEGINNING: i64 = 1_800_000_000_000;

pub fn stamp(at: Ms) -> Timestamp {
    Timestamp::from_millisecond(BEGINNING + at).unwrap()
}

pub fn span(ms: Ms) -> SignedDuration {
    SignedDuration::from_millis(ms)
}

pub fn ms_of(at: Timestamp) -> Ms {
    at.as_millisecond() - BEGINNING
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    ByUs,
    ByHand,
}

/// A token at the API.
#[derive(Debug, Clone)]
pub struct Token {
    pub name: TokenName,
    pub account: usize,
    pub created: Ms,
    pub expires: Ms,
    pub token_type: TokenType,
    pub ended: Option<(Ms, Ended)>,
    /// From when a list shows it.
    pub listed_from: Ms,
    /// A person made it: its name says nothing, whatever `name` holds.
    pub by_hand: bool,
}

impl Token {
    pub fn is_live(&self, now: Ms) -> bool {
        self.ended.is_none() && now < self.expires
    }
}

pub fn token_id(index: usize) -> TokenId {
    TokenId(format!("t{index}"))
}

pub fn token_index(id: &TokenId) -> usize {
    id.0[1..].parse().unwrap()
}

/// The value of token `index`; values that are no token's have indices from `FOREIGN` on.
pub const FOREIGN: usize = 1 << 40;

pub fn fingerprint(index: usize) -> Fingerprint {
    let mut bytes = [7_u8; 32];
    bytes[..8].copy_from_slice(&(index as u64).to_be_bytes());
    Fingerprint::new(bytes)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    pub owner: Owner,
    /// The last three pairs of value and rotation.
    pub pairs: Vec<(usize, RotationId)>,
}

/// What a place holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    pub value: Option<usize>,
    pub marker: Option<Marker>,
    pub scheduled_for_deletion: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    Us,
    Person,
}

/// One content of a place, from `since` on.
#[derive(Debug, Clone)]
pub struct Version {
    /// Since when the place has served this value without a break.
    pub since: Ms,
    /// When this version was put.
    pub at: Ms,
    pub number: u64,
    pub content: Content,
    pub author: Author,
}

#[derive(Debug, Clone)]
pub struct Place {
    pub id: DeliveryId,
    /// Whose place it is meant to be: the index of a credential.
    pub credential: usize,
    /// Whether a write is conditional on what was read (a KV v1 mount is not).
    pub conditional: bool,
    /// How long a read may still show what was there before, at most.
    pub lag: Ms,
    pub write_limit: Ms,
    /// Oldest first; old ones are kept for roll-backs.
    pub versions: Vec<Version>,
    pub unreadable_until: Ms,
    pub unwritable_until: Ms,
}

impl Place {
    pub fn now(&self) -> &Version {
        self.versions.last().unwrap()
    }

    pub fn value(&self) -> Option<usize> {
        if self.now().content.scheduled_for_deletion { None } else { self.now().content.value }
    }

    pub fn put(&mut self, now: Ms, content: Content, author: Author) {
        let number = self.now().number + 1;
        // A value that stays is served since it first was, whoever touched what is around it.
        let same = self.now().content.value == content.value;
        let since = if same && author == Author::Us { self.now().since } else { now };
        if self.versions.len() > 12 {
            self.versions.remove(0);
        }
        self.versions.push(Version { since, at: now, number, content, author });
    }

    /// What rotad writes: the value, and its marker with the last three pairs.
    pub fn write(&mut self, now: Ms, owner: &Owner, value: usize, rotation: RotationId) {
        let mut pairs = match &self.now().content.marker {
            Some(marker) => marker.pairs.clone(),
            None => Vec::new(),
        };
        pairs.retain(|(known, _)| *known != value);
        pairs.push((value, rotation));
        let from = pairs.len().saturating_sub(3);
        let marker = Some(Marker { owner: owner.clone(), pairs: pairs.split_off(from) });
        self.put(now, Content { value: Some(value), marker, scheduled_for_deletion: false }, Author::Us);
    }
}

impl Content {
    pub fn shows(&self) -> Shows {
        if self.scheduled_for_deletion {
            return Shows::ScheduledForDeletion;
        }
        let owner = self.marker.as_ref().map(|marker| marker.owner.clone());
        match self.value {
            None => Shows::Nothing { owner },
            Some(value) => {
                let pairs = self.marker.iter().flat_map(|marker| &marker.pairs);
                let rotation = pairs.rev().find(|(known, _)| *known == value).map(|(_, rotation)| *rotation);
                Shows::Value { fingerprint: fingerprint(value), owner, rotation }
            }
        }
    }
}
