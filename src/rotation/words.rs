//! The words of the design as types: names, ids, fingerprints and moments.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The first segment of every token's name; one constant, since whether `/` is accepted there is
/// not documented (open question 13 of the API notes).
const NAME_PREFIX: &str = "rotad";
const NAME_SEPARATOR: char = '/';

/// Why a text is not a name, a token's name or a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WordError {
    #[error("`{0}` is not 1 to 63 characters of `a-z 0-9 _ -`")]
    Name(String),
    #[error("`{0}` is not a fingerprint of 64 hexadecimal digits")]
    Fingerprint(String),
    #[error("`{0}` is not a rotation id (a UUIDv7)")]
    RotationId(String),
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(std::sync::Arc<str>);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = WordError;
            fn from_str(text: &str) -> Result<Self, WordError> {
                let fits = (1..=63).contains(&text.len())
                    && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
                fits.then(|| Self(text.into())).ok_or_else(|| WordError::Name(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = WordError;
            fn try_from(text: String) -> Result<Self, WordError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// One deployment of rotad: 1 to 63 characters of `a-z 0-9 _ -`, part of every token's name.
    Deployment
);
name!(
    /// One credential's name: 1 to 63 characters of `a-z 0-9 _ -`, unique in its deployment.
    CredentialName
);

/// Whose a token or a place is: one credential of one deployment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    pub deployment: Deployment,
    pub credential: CredentialName,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.deployment, self.credential)
    }
}

impl FromStr for Owner {
    type Err = WordError;
    /// Parses what `Display` writes: `deployment/credential`.
    fn from_str(text: &str) -> Result<Self, WordError> {
        let (deployment, credential) = text.split_once('/').ok_or_else(|| WordError::Name(text.to_owned()))?;
        Ok(Self { deployment: deployment.parse()?, credential: credential.parse()? })
    }
}

/// One journal's life, minted with it: 32 bits that every rotation id carries at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstallationId(pub u32);

impl fmt::Display for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// One attempt to replace a credential's token: a UUIDv7 whose last 8 hexadecimal digits are the
/// installation's id. Ids of one credential order by age: the minter never goes backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Uuid", into = "Uuid")]
pub struct RotationId(Uuid);

/// The last millisecond that an id can carry: the end of the year 9999, where times end. An id from
/// beyond is nobody's, and would leave no room for later ones.
const MILLIS_MAX: u64 = 253_402_207_200_999;

impl RotationId {
    /// Mints an id for `wall`, later than `after` even when the wall clock went backwards (but at the end of times).
    pub fn mint(wall: Timestamp, after: Option<Self>, installation: InstallationId, random: u64) -> Self {
        let after_millis = after.map_or(0, |id| id.millis() + 1);
        let millis = u64::try_from(wall.as_millisecond()).unwrap_or(0).max(after_millis).min(MILLIS_MAX);
        let mut bytes = [0_u8; 10];
        bytes[..6].copy_from_slice(&random.to_be_bytes()[..6]);
        bytes[6..].copy_from_slice(&installation.0.to_be_bytes());
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }

    /// The wall clock's milliseconds since 1970 at which the id was minted.
    pub fn millis(self) -> u64 {
        (self.0.as_u128() >> 80) as u64
    }

    /// The moment at which the id was minted, as its minter's wall clock had it.
    pub fn minted_at(self) -> Timestamp {
        i64::try_from(self.millis()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
    }

    pub fn installation(self) -> InstallationId {
        InstallationId((self.0.as_u128() & 0xffff_ffff) as u32)
    }

    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for RotationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RotationId {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError::RotationId(text.chars().take(64).collect());
        let id = Uuid::try_parse(text).map_err(|_| wrong())?;
        // The hyphenated lower-case form only: a name has one spelling.
        if id.to_string() != text {
            return Err(wrong());
        }
        id.try_into()
    }
}

impl TryFrom<Uuid> for RotationId {
    type Error = WordError;
    fn try_from(uuid: Uuid) -> Result<Self, WordError> {
        let id = Self(uuid);
        let fits = uuid.get_version_num() == 7 && id.millis() <= MILLIS_MAX;
        fits.then_some(id).ok_or_else(|| WordError::RotationId(uuid.to_string()))
    }
}

impl From<RotationId> for Uuid {
    fn from(id: RotationId) -> Uuid {
        id.0
    }
}

/// A token's name: `rotad/<deployment>/<credential>/<rotation id>`, the only link that survives everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenName {
    pub owner: Owner,
    pub rotation: RotationId,
}

impl TokenName {
    /// The parts of a name of ours; `None` for anybody else's. Exactly four segments, never a prefix.
    pub fn parse(name: &str) -> Option<Self> {
        let mut segments = name.split(NAME_SEPARATOR);
        let (prefix, deployment, credential, rotation) = (segments.next()?, segments.next()?, segments.next()?, segments.next()?);
        if prefix != NAME_PREFIX || segments.next().is_some() {
            return None;
        }
        let owner = Owner { deployment: deployment.parse().ok()?, credential: credential.parse().ok()? };
        Some(Self { owner, rotation: rotation.parse().ok()? })
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { deployment, credential } = &self.owner;
        write!(f, "{NAME_PREFIX}{NAME_SEPARATOR}{deployment}{NAME_SEPARATOR}{credential}{NAME_SEPARATOR}{}", self.rotation)
    }
}

/// A token's id as MotherDuck gives it (a UUID in text): what it is revoked by. Never its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub String);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a token's value, in text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError::Fingerprint(text.chars().take(80).collect());
        let mut bytes = [0_u8; 32];
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong());
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = WordError;
    fn try_from(text: String) -> Result<Self, WordError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

/// What a token may do: MotherDuck's `token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenType {
    ReadWrite,
    ReadScaling,
}

impl TokenType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "read_write",
            Self::ReadScaling => "read_scaling",
        }
    }
}

impl fmt::Display for TokenType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A MotherDuck username. Shown as written, compared without case, as MotherDuck does (observed).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Account(std::sync::Arc<str>);

impl Account {
    pub fn new(username: &str) -> Self {
        Self(username.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one writing that all writings of this account share.
    pub fn folded(&self) -> String {
        self.0.to_lowercase()
    }
}

impl PartialEq for Account {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.folded() == other.folded()
    }
}

impl Eq for Account {}

impl PartialOrd for Account {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Account {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.0 == other.0 { Ordering::Equal } else { self.folded().cmp(&other.folded()) }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One place that one credential's token goes to, as people would write it: `file:/run/etl/token`,
/// `vault:https://vault.internal:8200/secret/etl/motherduck#token`, `aws:eu-central-1/prod/etl`.
/// Made of where the place is, not of the sink's name, so that renaming a sink moves nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(pub std::sync::Arc<str>);

impl DeliveryId {
    pub fn new(place: &str) -> Self {
        Self(place.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Counted milliseconds that never run ahead of the wall clock, the boot-time clock or (across
/// restarts) the API's `Date`: what grace periods are measured by. It only has differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steady(pub i64);

impl Steady {
    /// How much time has certainly passed since `earlier`; never negative.
    pub fn since(self, earlier: Self) -> SignedDuration {
        SignedDuration::from_millis(self.0.saturating_sub(earlier.0).max(0))
    }
}

/// One moment, by both clocks: `wall` for schedules and expiry, `steady` for periods that must
/// not be cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    pub wall: Timestamp,
    pub steady: Steady,
}

impl Moment {
    /// The moment so much later by both clocks.
    pub fn later_by(self, time: SignedDuration) -> Self {
        let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self { wall: self.wall.checked_add(time).unwrap_or(Timestamp::MAX), steady: Steady(self.steady.0.saturating_add(millis)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> RotationId {
        text.parse().unwrap()
    }

    #[test]
    fn a_rotation_id_is_a_valid_uuid_v7_that_carries_its_installation() {
        let wall = Timestamp::from_millisecond(1_790_000_000_123).unwrap();
        let minted = RotationId::mint(wall, None, InstallationId(0xdead_beef), 0x0123_4567_89ab_cdef);
        assert_eq!(minted.as_uuid().get_version_num(), 7);
        assert_eq!(minted.as_uuid().get_variant(), uuid::Variant::RFC4122);
        assert_eq!(minted.millis(), 1_790_000_000_123);
        assert_eq!(minted.installation(), InstallationId(0xdead_beef));
        assert!(minted.to_string().ends_with("deadbeef"));
        assert_eq!(id(&minted.to_string()), minted);
    }

    #[test]
    fn ids_never_go_backwards_even_when_the_wall_clock_does() {
        let wall = Timestamp::from_millisecond(1_790_000_000_000).unwrap();
        let first = RotationId::mint(wall, None, InstallationId(1), u64::MAX);
        let second = RotationId::mint(wall - SignedDuration::from_hours(1), Some(first), InstallationId(1), 0);
        assert!(second > first);
    }

    #[test]
    fn an_id_from_beyond_the_end_of_times_is_none_and_leaves_room_for_later_ones() {
        for wrong in ["ffffffff-ffff-7fff-bfff-ffffffffffff", "e677cc8b-a6e8-7000-8000-000000000000"] {
            assert!(wrong.parse::<RotationId>().is_err(), "{wrong}");
            assert!(Uuid::try_parse(wrong).unwrap().try_into().map(|_: RotationId| ()).is_err(), "{wrong}");
        }
        let last = id("e677cc8b-a6e7-7000-8000-000000000000");
        assert_eq!(last.minted_at().as_millisecond(), Timestamp::MAX.as_millisecond());
        let minted = RotationId::mint(Timestamp::UNIX_EPOCH, Some(last), InstallationId(1), u64::MAX);
        assert!(minted > last && minted.millis() == last.millis(), "{minted}");
        assert_eq!(id(&minted.to_string()), minted);
    }

    #[test]
    fn token_names_are_parsed_into_exactly_their_segments() {
        let name = "rotad/prod/etl/0197f6c0-0000-7000-8000-0000deadbeef";
        let parsed = TokenName::parse(name).unwrap();
        assert_eq!(parsed.to_string(), name);
        assert_eq!(parsed.owner.to_string(), "prod/etl");
        for other in [
            "rotad/prod/etl/0197f6c0-0000-7000-8000-0000deadbeef/x",
            "rotad/prod/etl",
            "rotad//etl/0197f6c0-0000-7000-8000-0000deadbeef",
            "rotad/prod/ETL/0197f6c0-0000-7000-8000-0000deadbeef",
            "rotad/prod/etl/0197F6C0-0000-7000-8000-0000DEADBEEF",
            "rotad/prod/etl/0197f6c0-0000-4000-8000-0000deadbeef",
            "rotad2/prod/etl/0197f6c0-0000-7000-8000-0000deadbeef",
            " rotad/prod/etl/0197f6c0-0000-7000-8000-0000deadbeef",
            "MotherDuck Extension",
        ] {
            assert_eq!(TokenName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn accounts_are_compared_without_case() {
        assert_eq!(Account::new("ETL_Prod"), Account::new("etl_prod"));
        assert_ne!(Account::new("etl_prod"), Account::new("etl_prod2"));
    }

    #[test]
    fn a_name_has_63_characters_at_most() {
        assert!("a".repeat(63).parse::<CredentialName>().is_ok());
        for wrong in ["", "A", "a b", "ä", "a/b", &"a".repeat(64)] {
            assert!(wrong.parse::<CredentialName>().is_err(), "{wrong}");
        }
    }
}
