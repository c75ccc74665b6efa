//! What an error of the file system means here, in one sentence with its remedy.

use std::path::Path;

use rustix::io::Errno;

use crate::rotation::{Failed, Reason};

pub(super) fn unsuitable(detail: String) -> Failed {
    Failed::new(Reason::Unsuitable, detail)
}

/// The failure for `errno` while `doing` (as in "can't *doing*") something in the directory `directory`.
pub(super) fn explain(errno: Errno, doing: &str, directory: &Path) -> Failed {
    let user = rustix::process::geteuid().as_raw();
    let directory = directory.display();
    let (reason, cause) = match errno {
        Errno::NOSPC => (Reason::Full, format!("no space is left on the file system of `{directory}`: make room there")),
        Errno::DQUOT => {
            (Reason::Full, format!("the disk quota of user {user} on `{directory}` is used up: raise it or make room"))
        }
        Errno::FBIG => (Reason::Full, format!("files of user {user} may not grow that large: see `ulimit -f`")),
        Errno::ROFS => (
            Reason::Forbidden,
            format!("`{directory}` is read-only: mount it writable; under systemd, name it in `ReadWritePaths=`"),
        ),
        Errno::ACCESS => (
            Reason::Forbidden,
            format!(
                "user {user} lacks a permission: it needs read, write and search (`rwx`) on `{directory}`, search on all above it"
            ),
        ),
        Errno::PERM => (
            Reason::Forbidden,
            format!(
                "the kernel does not permit user {user} to: look for `chattr +i`, a sticky `{directory}` or a security module"
            ),
        ),
        Errno::NOENT => (Reason::Missing, format!("`{directory}` does not exist: create it, for user {user} to write to")),
        Errno::NOTDIR => (Reason::Unsuitable, format!("`{directory}` is not a directory: configure a path below one")),
        Errno::LOOP => {
            (Reason::Unsuitable, format!("there is a symbolic link at or above `{directory}`: configure the path without it"))
        }
        Errno::BUSY => {
            (Reason::Unsuitable, format!("it is a mount point: mount the whole directory `{directory}` instead of one file"))
        }
        Errno::XDEV => {
            (Reason::Unsuitable, format!("it is on another file system than `{directory}`: no file may be mounted there"))
        }
        Errno::ISDIR => (Reason::Unsuitable, "it is a directory: configure the path of a file".to_owned()),
        Errno::NAMETOOLONG => {
            (Reason::Unsuitable, "the path is too long for the file system: configure a shorter one".to_owned())
        }
        Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::BADF => (
            Reason::Unsuitable,
            format!("the file system of `{directory}` can't do it: use a local one (tmpfs, ext4, xfs, btrfs)"),
        ),
        Errno::MFILE | Errno::NFILE => {
            (Reason::Unavailable, "too many files are open: raise `LimitNOFILE=` or `ulimit -n`".to_owned())
        }
        Errno::IO => {
            (Reason::Unavailable, format!("the device of `{directory}` has an input/output error: look at the kernel's log"))
        }
        other => (Reason::Unavailable, format!("{} (at `{directory}`)", std::io::Error::from(other))),
    };
    Failed::new(reason, format!("can't {doing}: {cause}"))
}

/// The same for an error of the standard library.
pub(super) fn explain_io(error: &std::io::Error, doing: &str, directory: &Path) -> Failed {
    explain(Errno::from_io_error(error).unwrap_or(Errno::IO), doing, directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_that_a_person_can_mend_has_its_remedy_within_the_limit() {
        for (errno, reason, remedy) in [
            (Errno::NOSPC, Reason::Full, "make room"),
            (Errno::DQUOT, Reason::Full, "raise it"),
            (Errno::ROFS, Reason::Forbidden, "ReadWritePaths="),
            (Errno::ACCESS, Reason::Forbidden, "`rwx`"),
            (Errno::PERM, Reason::Forbidden, "chattr"),
            (Errno::NOENT, Reason::Missing, "create it"),
            (Errno::XDEV, Reason::Unsuitable, "no file may be mounted"),
            (Errno::LOOP, Reason::Unsuitable, "without it"),
            (Errno::BUSY, Reason::Unsuitable, "mount the whole directory"),
            (Errno::IO, Reason::Unavailable, "kernel's log"),
        ] {
            let directory = format!("/run/{}", "d".repeat(60));
            let failed = explain(errno, "replace `motherduck_token`", Path::new(&directory));
            assert_eq!(failed.reason, reason, "{errno:?}");
            assert!(failed.detail.contains(remedy), "{}", failed.detail);
            assert!(failed.detail.chars().count() < 300 && !failed.detail.ends_with('.'), "{}", failed.detail);
        }
    }
}
