//! What SQLite's errors mean for people: what is wrong with the journal, and what to do.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::journal::JournalError;

/// It can't be opened or read.
pub(super) fn unusable(path: &Path, error: &rusqlite::Error) -> JournalError {
    JournalError::Unusable(explain(path, error))
}

/// Nothing was recorded.
pub(super) fn unwritable(path: &Path, error: &rusqlite::Error) -> JournalError {
    JournalError::Unwritable(explain(path, error))
}

/// The file is there and readable, but does not hold what a journal holds.
pub(super) fn damaged(path: &Path, finding: &str) -> JournalError {
    JournalError::Unusable(damage(path, finding))
}

fn explain(path: &Path, error: &rusqlite::Error) -> String {
    let shown = path.display();
    match error.sqlite_error_code() {
        // No room for the log's index shows as an I/O error.
        Some(ErrorCode::DiskFull) => full(path),
        Some(ErrorCode::SystemIoFailure) if has_no_room(path) => full(path),
        // Without its log's index, which it can't make there, SQLite can't even read.
        Some(ErrorCode::ReadOnly) => read_only(path, error),
        Some(ErrorCode::CannotOpen) if is_read_only(path) => read_only(path, error),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => damage(path, &error.to_string()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("another program keeps journal `{shown}` locked (an `sqlite3` shell, a backup?): end it")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => format!(
            "journal `{shown}` can't be opened ({error}): it, its `-wal` and `-shm` files and its directory must be open to the user \
             that rotad runs as"
        ),
        Some(ErrorCode::SystemIoFailure) => {
            format!("journal `{shown}` met an I/O error ({error}): look at the disk, its free space and the kernel's log")
        }
        _ => format!("journal `{shown}` failed: {error}"),
    }
}

fn read_only(path: &Path, error: &rusqlite::Error) -> String {
    format!(
        "journal `{}` is read-only ({error}): remount its file system, or let rotad's user write to it and its directory",
        path.display()
    )
}

fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

fn full(path: &Path) -> String {
    format!("the file system of journal `{}` is full: make room", path.display())
}

fn has_no_room(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_bavail == 0)
}

fn damage(path: &Path, finding: &str) -> String {
    let shown = path.display();
    format!(
        "`{shown}` is damaged or not a journal of rotad ({finding}): restore it from a backup, or delete `{shown}`, `{shown}-wal` \
         and `{shown}-shm`: rotad then rebuilds from MotherDuck and the sinks"
    )
}
