//! The files and variables that our own secrets come from, read again whenever they may have changed.

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Secret;
use crate::rotation::{Failed, Reason};

/// Far above any token, certificate chain or bundle, and small enough to read at once.
const FILE_MAX: u64 = 1 << 20;

/// Where a secret of ours is read from, again and again: it may change while rotad runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    /// The name of an environment variable.
    Environment(String),
}

impl SecretSource {
    /// One word of printable characters, without white space around it.
    ///
    /// # Errors
    /// As `read_file`; `Missing` for an unset variable or an empty value.
    pub async fn read_word(&self) -> Result<Secret, Failed> {
        self.read(|byte| byte.is_ascii_graphic()).await
    }

    /// The same for one line, as a header has it: there may be spaces in it.
    ///
    /// # Errors
    /// As `read_word`.
    pub async fn read_line(&self) -> Result<Secret, Failed> {
        self.read(|byte| byte.is_ascii_graphic() || byte == b' ').await
    }

    async fn read(&self, fits: fn(u8) -> bool) -> Result<Secret, Failed> {
        let content = match self {
            Self::File(path) => read_file(path).await?,
            Self::Environment(name) => match std::env::var(name) {
                Ok(value) => Zeroizing::new(value.into_bytes()),
                Err(_) => return Err(Failed::new(Reason::Missing, format!("the environment variable `{name}` is not set"))),
            },
        };
        match std::str::from_utf8(&content).map(str::trim) {
            Ok("") => Err(Failed::new(Reason::Missing, format!("{self} is empty"))),
            // It goes into a header, an address or a JSON string: whatever else is there, it is not the secret.
            Ok(text) if text.bytes().all(fits) => Ok(Secret::new(text.to_owned())),
            _ => Err(Failed::new(Reason::Unsuitable, format!("{self} holds more than one line of printable characters"))),
        }
    }
}

/// How people call the source.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file `{}`", path.display()),
            Self::Environment(name) => write!(f, "the environment variable `{name}`"),
        }
    }
}

/// A file's content.
///
/// # Errors
/// `Missing`, `Forbidden` or `Unsuitable`, naming the file.
pub async fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failed> {
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
