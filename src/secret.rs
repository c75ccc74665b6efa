//! A secret value: it can't be printed, serialised or cloned, and its memory is wiped when it is dropped.

use std::fmt;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::rotation::Fingerprint;

/// Where a secret of ours is read from, again and again: it may change while rotad runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    /// The name of an environment variable.
    Environment(String),
}

/// A token's value, or another secret of ours such as the admin token.
///
/// `Debug` shows nothing of it, there is no `Display`, `Serialize` or `Clone`, and the buffer is
/// overwritten on drop. Libraries make copies of their own which are freed but not wiped.
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The one way to the value: whoever calls this takes care of where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the value: what the journal and the markers keep of it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(Sha256::digest(self.0.as_bytes()).into())
    }

    /// A second copy, for the few places that must hold the value twice; named so that it is seen.
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_value() {
        let secret = Secret::new("hunter2-hunter2".to_owned());
        assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(…) Secret(…)");
    }

    #[test]
    fn the_fingerprint_is_sha_256_of_the_value() {
        assert_eq!(
            Secret::new("abc".to_owned()).fingerprint().to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
