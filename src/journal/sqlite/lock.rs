//! The proof that only one process writes a journal: two kernel locks, gone with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::journal::JournalError;

/// A journal's exclusive hold, released when it is dropped, and by the kernel when the process dies.
///
/// Two locks, since each alone has a hole: the file beside the database (`journal.db.lock`, never
/// removed) still stands when the database was deleted under a running rotad, and the lock on the
/// database itself stands when it is reached by another path (a hard link, a file mounted elsewhere).
/// Both are `flock` locks, which SQLite's own locks on the same file don't see.
///
/// Closing any descriptor of the database drops SQLite's locks in the whole process, so this must be
/// dropped after every connection, and nothing else may open the database directly.
#[derive(Debug)]
pub(super) struct Lock {
    _beside: File,
    _database: File,
    path: PathBuf,
    identity: (u64, u64),
}

impl Lock {
    /// Locks the journal at `path`, creating an empty file of mode 0600 where there is none.
    pub(super) fn acquire(path: &Path) -> Result<Self, JournalError> {
        let beside_path = beside(path);
        let mut beside = open(&beside_path).map_err(|error| unusable(&beside_path, &error))?;
        lock(&beside, path, holder)?;
        // The holder's name is for people's eyes only; without room for it the lock holds all the same.
        let _ = write_holder(&mut beside);
        let is_new = !path.exists();
        let database = open(path).map_err(|error| unusable(path, &error))?;
        lock(&database, path, |_| None)?;
        if is_new {
            sync_directory(path).map_err(|error| unusable(path, &error))?;
        }
        let metadata = database.metadata().map_err(|error| unusable(path, &error))?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { _beside: beside, _database: database, path: path.to_owned(), identity })
    }

    /// Whether the path still leads to the locked database: a deleted one would take writes that no restart finds.
    pub(super) fn still_there(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }
}

/// The lock file's path: the journal's with `.lock` behind it.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn lock(file: &File, path: &Path, holder: fn(&File) -> Option<String>) -> Result<(), JournalError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let by = holder(file).map_or_else(|| "another process".to_owned(), |holder| format!("process {holder}"));
            Err(JournalError::InUse(format!(
                "journal `{}` is in use by {by}: only one rotad may run on it; stop that one, or give this one a journal of its own",
                path.display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(JournalError::Unusable(format!(
            "journal `{}` can't be locked ({error}): keep it on a local file system",
            path.display()
        ))),
    }
}

/// Who holds the lock, as they wrote it: process id and host (which tells containers apart).
fn holder(file: &File) -> Option<String> {
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).ok()?;
    let (process, host) = text.trim().split_once(' ')?;
    process.bytes().all(|b| b.is_ascii_digit()).then(|| format!("{process} on `{host}`"))
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{} {host}", std::process::id())
}

/// Makes the new file's name durable.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn unusable(path: &Path, error: &std::io::Error) -> JournalError {
    let remedy = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "it and its directory must be writable for the user that rotad runs as",
        std::io::ErrorKind::ReadOnlyFilesystem => "its file system is read-only: remount it, or keep the journal elsewhere",
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "its file system is full: make room",
        _ => "look at its directory and file system",
    };
    JournalError::Unusable(format!("`{}` can't be opened for writing ({error}): {remedy}", path.display()))
}
