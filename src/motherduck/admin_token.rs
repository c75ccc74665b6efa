//! The admin token: read from its source again and again, since it may be replaced while rotad runs.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::rotation::{Failed, Reason};
use crate::secret::{Secret, SecretSource};

/// How long a value that was read is used before its source is looked at again: a file and a variable cost nothing.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// The same for a place in a sink, each of whose reads is a request.
const FRESH_FOR_REMOTE: Duration = Duration::from_secs(30);

/// The most bytes of a secret's file that are read: a token has far fewer, and the wrong file may have many more.
const FILE_MAX: usize = 64 * 1024;

/// A place that an admin token is read from.
#[async_trait]
pub trait TokenPlace: Send + Sync {
    /// The token that is there now, within the place's own time limit.
    ///
    /// # Errors
    /// Why there is none.
    async fn read(&self) -> Result<Secret, Failed>;
}

/// Where the admin token comes from.
#[derive(Clone)]
pub enum AdminSource {
    Secret(SecretSource),
    Place(Arc<dyn TokenPlace>),
}

impl AdminSource {
    fn fresh_for(&self) -> Duration {
        match self {
            Self::Secret(_) => FRESH_FOR,
            Self::Place(_) => FRESH_FOR_REMOTE,
        }
    }

    async fn read(&self) -> Result<Secret, Failed> {
        match self {
            Self::Secret(source) => read(source),
            Self::Place(place) => {
                let value = place.read().await?;
                checked(value.expose(), "place")
            }
        }
    }
}

pub(super) struct AdminToken {
    source: AdminSource,
    /// Held while the source is read, so that many requests at once read it once.
    last: Mutex<Option<Held>>,
}

struct Held {
    value: Secret,
    read_at: Instant,
}

impl AdminToken {
    pub(super) fn new(source: AdminSource) -> Self {
        Self { source, last: Mutex::new(None) }
    }

    /// The value as of the last second, or half minute. While the source can't be read the last good value is used:
    /// a file that is being replaced must not stop a rotation.
    pub(super) async fn current(&self) -> Result<Secret, Failed> {
        let mut last = self.last.lock().await;
        if let Some(held) = &*last
            && held.read_at.elapsed() < self.source.fresh_for()
        {
            return Ok(held.value.duplicate());
        }
        match (self.source.read().await, &mut *last) {
            (Ok(value), last) => {
                let copy = value.duplicate();
                *last = Some(Held { value, read_at: Instant::now() });
                Ok(copy)
            }
            (Err(failed), Some(held)) => {
                tracing::warn!(reason = failed.reason.as_str(), "{failed}; the value read before is used");
                held.read_at = Instant::now();
                Ok(held.value.duplicate())
            }
            (Err(failed), None) => Err(failed),
        }
    }

    /// The source is looked at anew before the next request: it was written.
    pub(super) async fn look_again(&self) {
        if let Some(held) = &mut *self.last.lock().await {
            held.read_at = held.read_at.checked_sub(self.source.fresh_for()).unwrap_or(held.read_at);
        }
    }

    /// What the source says at this moment, if that differs from `refused`: a token that the API
    /// refused may have been replaced since it was read.
    pub(super) async fn replacement_for(&self, refused: &Secret) -> Option<Secret> {
        let mut last = self.last.lock().await;
        // Another request that was refused may have found it meanwhile.
        if let Some(held) = last.as_ref().filter(|held| held.value.fingerprint() != refused.fingerprint()) {
            return Some(held.value.duplicate());
        }
        let value = self.source.read().await.ok()?;
        if value.fingerprint() == refused.fingerprint() {
            return None;
        }
        let copy = value.duplicate();
        *last = Some(Held { value, read_at: Instant::now() });
        Some(copy)
    }
}

/// The value as the source has it, surrounding white space removed.
fn read(source: &SecretSource) -> Result<Secret, Failed> {
    let (text, place) = match source {
        SecretSource::File(path) => (read_file(path)?, format!("file `{}`", path.display())),
        SecretSource::Environment(name) => {
            let text = std::env::var(name).map_err(|_| {
                Failed::new(
                    Reason::Unauthorized,
                    format!("the admin token's environment variable `{name}` is not set or not text; set it"),
                )
            })?;
            (Zeroizing::new(text), format!("environment variable `{name}`"))
        }
    };
    checked(&text, &place)
}

fn checked(text: &str, place: &str) -> Result<Secret, Failed> {
    let value = text.trim();
    if value.is_empty() {
        return Err(Failed::new(Reason::Unauthorized, format!("the admin token's {place} is empty; put the token there")));
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        let detail = format!("the admin token's {place} holds more than one word of plain characters; put the token alone there");
        return Err(Failed::new(Reason::Unauthorized, detail));
    }
    Ok(Secret::new(value.to_owned()))
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, Failed> {
    let wrong = |what: String| Failed::new(Reason::Unauthorized, format!("the admin token's file `{}` {what}", path.display()));
    let unreadable = |error: std::io::Error| wrong(format!("can't be read: {error}; rotad's user must be able to read it"));
    // Opening a FIFO would block until someone writes to it.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(wrong("is not a regular file; give the path of the file that holds the token".to_owned()));
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // One allocation of the full size, so that no copy is left behind by growing.
    let mut bytes = Zeroizing::new(vec![0_u8; FILE_MAX + 1]);
    let mut length = 0;
    let mut file = file.take(FILE_MAX as u64 + 1);
    loop {
        match file.read(&mut bytes[length..]).map_err(unreadable)? {
            0 => break,
            count => length += count,
        }
    }
    if length > FILE_MAX {
        return Err(wrong(format!("has more than {FILE_MAX} bytes; give the file that holds the token alone")));
    }
    let text = std::str::from_utf8(&bytes[..length]).map_err(|_| wrong("is not text; put the token alone there".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(content: &[u8]) -> (tempfile::TempDir, SecretSource) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        std::fs::write(&path, content).unwrap();
        (folder, SecretSource::File(path))
    }

    #[test]
    fn white_space_around_the_token_is_removed() {
        let (_folder, source) = in_file(b"  eyJh.b.c\r\n\n");
        assert_eq!(read(&source).unwrap().expose(), "eyJh.b.c");
    }

    #[test]
    fn what_is_no_token_is_refused_with_a_remedy_and_without_its_content() {
        for (content, expected) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"PLANTED PLANTED", "more than one word"),
            (b"PLANTED\nPLANTED", "more than one word"),
            (b"PLANTED\xff", "is not text"),
            (&[b'P'; FILE_MAX + 1], "more than 65536 bytes"),
        ] {
            let (_folder, source) = in_file(content);
            let failed = read(&source).unwrap_err();
            assert!(failed.detail.contains(expected), "{failed}");
            assert!(!failed.detail.contains("PLANTED"), "{failed}");
            assert_eq!(failed.reason, Reason::Unauthorized);
        }
    }

    #[test]
    fn a_folder_or_a_missing_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let failed = read(&SecretSource::File(folder.path().to_owned())).unwrap_err();
        assert!(failed.detail.contains("not a regular file"), "{failed}");
        let failed = read(&SecretSource::File(folder.path().join("none"))).unwrap_err();
        assert!(failed.detail.contains("No such file"), "{failed}");
        let failed = read(&SecretSource::Environment("ROTAD_TEST_NO_SUCH_VARIABLE".to_owned())).unwrap_err();
        assert!(failed.detail.contains("`ROTAD_TEST_NO_SUCH_VARIABLE` is not set"), "{failed}");
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_a_lost_one_leaves_the_last_value_in_use() {
        let (_folder, source) = in_file(b"first");
        let SecretSource::File(path) = source.clone() else { unreachable!() };
        let token = AdminToken::new(AdminSource::Secret(source));
        assert_eq!(token.current().await.unwrap().expose(), "first");
        std::fs::write(&path, "second").unwrap();
        tokio::time::sleep(FRESH_FOR).await;
        assert_eq!(token.current().await.unwrap().expose(), "second");
        std::fs::remove_file(&path).unwrap();
        tokio::time::sleep(FRESH_FOR).await;
        assert_eq!(token.current().await.unwrap().expose(), "second");
        std::fs::write(&path, "third").unwrap();
        assert_eq!(token.replacement_for(&Secret::new("second".to_owned())).await.unwrap().expose(), "third");
        assert_eq!(token.current().await.unwrap().expose(), "third");
        assert!(token.replacement_for(&Secret::new("third".to_owned())).await.is_none());
    }
}
