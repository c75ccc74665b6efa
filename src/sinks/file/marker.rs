//! The marker `.NAME.rotad`: whose the place is, and which values stand for which rotations.

use serde::{Deserialize, Serialize};

use crate::rotation::{Fingerprint, Owner, RotationId};

/// The most pairs that a marker keeps.
const PAIRS_MAX: usize = 3;

/// A value and the rotation that issued it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pair {
    pub fingerprint: Fingerprint,
    pub rotation: RotationId,
}

/// What stands in a marker file: one JSON object. Unknown keys are left for later versions to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    pub owner: Owner,
    /// Oldest first.
    pub pairs: Vec<Pair>,
}

impl Marker {
    /// The marker in `content`; `None` where it makes no sense. A damaged marker explains nothing,
    /// so it counts as none, and the next write replaces it.
    pub fn parse(content: &[u8]) -> Option<Self> {
        serde_json::from_slice(content).ok()
    }

    pub fn render(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// The rotation that `fingerprint` stands for.
    pub fn rotation_of(&self, fingerprint: Fingerprint) -> Option<RotationId> {
        self.pairs.iter().rev().find(|pair| pair.fingerprint == fingerprint).map(|pair| pair.rotation)
    }

    /// The marker to stand beside a value that `new` explains, while the place still holds `held`.
    ///
    /// The pair of the value that is held is kept whatever its age: the marker is replaced just
    /// before the value, and between the two, perhaps for long after a crash, it must explain both.
    pub fn succeed(previous: Option<&Self>, owner: &Owner, new: Pair, held: Option<Fingerprint>) -> Self {
        let mut pairs: Vec<Pair> = previous.map(|marker| marker.pairs.clone()).unwrap_or_default();
        pairs.retain(|pair| *pair != new);
        while pairs.len() >= PAIRS_MAX {
            let oldest = pairs.iter().position(|pair| Some(pair.fingerprint) != held).unwrap_or(0);
            pairs.remove(oldest);
        }
        pairs.push(new);
        Self { owner: owner.clone(), pairs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        "prod/etl".parse().unwrap()
    }

    fn pair(number: u8) -> Pair {
        let rotation = format!("0197f6c0-0000-7000-8000-0000000000{number:02x}").parse().unwrap();
        Pair { fingerprint: Fingerprint::new([number; 32]), rotation }
    }

    fn after(numbers: &[u8], held: Option<u8>) -> Vec<Pair> {
        let held = held.map(|number| pair(number).fingerprint);
        let marker = numbers.iter().fold(None, |previous: Option<Marker>, number| {
            Some(Marker::succeed(previous.as_ref(), &owner(), pair(*number), held))
        });
        marker.unwrap().pairs
    }

    #[test]
    fn the_last_three_pairs_are_kept() {
        assert_eq!(after(&[1, 2, 3, 4], None), [pair(2), pair(3), pair(4)]);
    }

    #[test]
    fn the_pair_of_the_value_in_the_place_is_never_pushed_out() {
        // Three writes that got no further than the marker.
        assert_eq!(after(&[1, 2, 3, 4, 5], Some(1)), [pair(1), pair(4), pair(5)]);
    }

    #[test]
    fn writing_the_same_rotation_again_adds_no_pair() {
        assert_eq!(after(&[1, 2, 2, 2], Some(1)), [pair(1), pair(2)]);
    }

    #[test]
    fn a_marker_survives_being_written_and_read() {
        let marker = Marker { owner: owner(), pairs: vec![pair(1), pair(2)] };
        let parsed = Marker::parse(&marker.render().unwrap()).unwrap();
        assert_eq!(parsed, marker);
        assert_eq!(parsed.rotation_of(pair(2).fingerprint), Some(pair(2).rotation));
        assert_eq!(parsed.rotation_of(pair(3).fingerprint), None);
    }

    #[test]
    fn a_damaged_marker_counts_as_none() {
        for damaged in [&b""[..], b"{", b"{}", b"\xff", b"{\"owner\":{\"deployment\":\"A\",\"credential\":\"b\"},\"pairs\":[]}"] {
            assert_eq!(Marker::parse(damaged), None);
        }
    }
}
