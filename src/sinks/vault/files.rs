//! The files and variables that our own secrets come from, read again whenever they may have changed.

use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::rotation::{Failed, Reason};
use crate::secret::{Secret, SecretSource};

/// Far above any token, certificate chain or bundle, and small enough to read at once.
const FILE_MAX: u64 = 1 << 20;

/// A file's content.
///
/// # Errors
/// `Missing`, `Forbidden` or `Unsuitable`, naming the file.
pub(super) async fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => Reason::Missing,
            std::io::ErrorKind::PermissionDenied => Reason::Forbidden,
            _ => Reason::Unsuitable,
        };
        Failed::new(reason, format!("the file `{shown}` can't be read: {error}"))
    };
    let metadata = tokio::fs::metadata(path).await.map_err(failed)?;
    if !metadata.is_file() || metadata.len() > FILE_MAX {
        return Err(Failed::new(Reason::Unsuitable, format!("`{shown}` is not a regular file of at most 1 MiB")));
    }
    tokio::fs::read(path).await.map(Zeroizing::new).map_err(failed)
}

/// A secret's value, without white space around it.
///
/// # Errors
/// As `read`; `Missing` for an unset variable or an empty value.
pub(super) async fn secret(source: &SecretSource) -> Result<Secret, Failed> {
    let content = match source {
        SecretSource::File(path) => read(path).await?,
        SecretSource::Environment(name) => match std::env::var(name) {
            Ok(value) => Zeroizing::new(value.into_bytes()),
            Err(_) => return Err(Failed::new(Reason::Missing, format!("the environment variable `{name}` is not set"))),
        },
    };
    let shown = shown(source);
    match std::str::from_utf8(&content).map(str::trim) {
        Ok("") => Err(Failed::new(Reason::Missing, format!("{shown} is empty"))),
        // It goes into a header or a JSON string: whatever else is there, it is not the secret.
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Secret::new(text.to_owned())),
        _ => Err(Failed::new(Reason::Unsuitable, format!("{shown} holds more than one line of printable characters"))),
    }
}

/// How people call the source.
pub(super) fn shown(source: &SecretSource) -> String {
    match source {
        SecretSource::File(path) => format!("the file `{}`", path.display()),
        SecretSource::Environment(name) => format!("the environment variable `{name}`"),
    }
}

/// SHA-256 over the files' contents; `None` while one of them can't be read (it is being replaced).
pub(super) async fn digest(paths: &[&Path]) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    for path in paths {
        let content = read(path).await.ok()?;
        hash.update(content.len().to_be_bytes());
        hash.update(&content);
    }
    Some(hash.finalize().into())
}
