//! The marker that a sink keeps beside a value: whose the place is, and which rotation each of the
//! last values came from. AWS has none: there the version's id says it.

use std::fmt;

use crate::rotation::{Fingerprint, Owner, RotationId};

/// As many pairs as a marker keeps.
const PAIRS_MAX: usize = 3;

/// In text `deployment/credential fingerprint:rotation …`, newest first: at most 433 bytes, where
/// Vault takes 512 in a value of custom metadata (documented).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    pub owner: Owner,
    pairs: Vec<(Fingerprint, RotationId)>,
}

impl Marker {
    /// The marker in `text`; `None` where it is none of ours or mangled: then nothing explains the value.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let owner = words.next()?.parse().ok()?;
        let pairs = words.map(|word| {
            let (fingerprint, rotation) = word.split_once(':')?;
            Some((fingerprint.parse().ok()?, rotation.parse().ok()?))
        });
        Some(Self { owner, pairs: pairs.collect::<Option<Vec<_>>>()? })
    }

    /// The rotation that the value with this fingerprint came from.
    pub fn rotation(&self, fingerprint: Fingerprint) -> Option<RotationId> {
        self.pairs.iter().find(|(known, _)| *known == fingerprint).map(|(_, rotation)| *rotation)
    }

    /// The marker to write before a new value. The pair that explains the value in place is kept
    /// before all others, or a few failed writes would push it out and make our own value unexplained.
    /// The pairs stay under a new owner too: the core lets only a renamed credential write over another name.
    pub fn next(before: Option<&Self>, owner: &Owner, new: (Fingerprint, RotationId), in_place: Option<Fingerprint>) -> Self {
        let known = before.map_or(&[][..], |marker| &marker.pairs);
        let serving = known.iter().filter(|(fingerprint, _)| Some(*fingerprint) == in_place);
        let others = known.iter().filter(|(fingerprint, _)| Some(*fingerprint) != in_place);
        let mut pairs = vec![new];
        pairs.extend(serving.chain(others).filter(|(fingerprint, _)| *fingerprint != new.0));
        pairs.truncate(PAIRS_MAX);
        Self { owner: owner.clone(), pairs }
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.owner)?;
        self.pairs.iter().try_for_each(|(fingerprint, rotation)| write!(f, " {fingerprint}:{rotation}"))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::rotation::InstallationId;

    fn pair(number: u8) -> (Fingerprint, RotationId) {
        let wall = Timestamp::from_second(1_790_000_000 + i64::from(number)).unwrap();
        (Fingerprint::new([number; 32]), RotationId::mint(wall, None, InstallationId(1), 0))
    }

    fn owner(credential: &str) -> Owner {
        Owner { deployment: "prod".parse().unwrap(), credential: credential.parse().unwrap() }
    }

    fn after(writes: &[u8], in_place: Option<u8>) -> Marker {
        let in_place = in_place.map(|number| pair(number).0);
        let next =
            |before: Option<Marker>, number: &u8| Some(Marker::next(before.as_ref(), &owner("etl"), pair(*number), in_place));
        writes.iter().fold(None, next).unwrap()
    }

    #[test]
    fn a_marker_reads_as_it_was_written() {
        let marker = after(&[1, 2], Some(1));
        assert_eq!(Marker::parse(&marker.to_string()), Some(marker.clone()));
        assert_eq!(marker.rotation(pair(1).0), Some(pair(1).1));
        assert_eq!(marker.rotation(pair(3).0), None);
    }

    #[test]
    fn what_is_not_a_marker_of_ours_explains_nothing() {
        let good = after(&[1], None).to_string();
        for text in ["", "prod", "prod/etl/x", &good[..good.len() - 1], &good.replace(':', "="), &format!("{good} ")] {
            assert_eq!(Marker::parse(text), None, "{text}");
        }
    }

    #[test]
    fn failed_writes_never_push_out_the_pair_of_the_value_in_place() {
        let marker = after(&[1, 2, 3, 4, 5, 6], Some(1));
        assert_eq!([1, 5, 6].map(|number| marker.rotation(pair(number).0).is_some()), [true, true, true]);
        assert_eq!(marker.pairs.len(), PAIRS_MAX);
    }

    #[test]
    fn a_second_write_of_one_value_takes_one_pair() {
        assert_eq!(after(&[1, 1, 1], Some(1)).pairs, [pair(1)]);
    }

    #[test]
    fn a_renamed_owner_keeps_what_explains_the_value_in_place() {
        let before = after(&[1, 2], None);
        let renamed = Marker::next(Some(&before), &owner("other"), pair(3), Some(pair(2).0));
        assert_eq!((renamed.owner, renamed.pairs), (owner("other"), vec![pair(3), pair(2), pair(1)]));
    }

    #[test]
    fn the_longest_marker_fits_into_custom_metadata() {
        let long = Owner { deployment: "d".repeat(63).parse().unwrap(), credential: "c".repeat(63).parse().unwrap() };
        let mut marker = Marker::next(None, &long, pair(1), None);
        marker = Marker::next(Some(&marker), &long, pair(2), None);
        marker = Marker::next(Some(&marker), &long, pair(3), None);
        assert!(marker.to_string().len() <= 512, "{}", marker.to_string().len());
    }
}
