//! Whether the files that a login comes from have changed.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::secret::read_file;

/// SHA-256 over the files' contents; `None` while one of them can't be read (it is being replaced).
pub(super) async fn digest(paths: &[&Path]) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    for path in paths {
        let content = read_file(path).await.ok()?;
        hash.update(content.len().to_be_bytes());
        hash.update(&content);
    }
    Some(hash.finalize().into())
}
