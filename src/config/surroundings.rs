//! What a check must know beside the text: files, environment variables, the time. No network.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::FsWord;

/// What there is at a path, for a file that a secret is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileFact {
    /// It can be read; its permission bits, without the group's read bit where that is how this process reads it.
    Readable {
        mode: u32,
    },
    /// It can be read, and there is nothing in it, or an empty line alone.
    Empty,
    Directory,
    /// Neither a file nor a directory: reading it could wait for ever.
    Special,
    /// Why it can't be read, in the words of the system.
    Unreadable(String),
}

/// What a directory is on, for a file that must be there after a reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountFact {
    /// A disk, as far as can be told.
    Lasting,
    /// Memory: a reboot empties it. The kind of file system.
    Memory(&'static str),
    ReadOnly,
}

/// The world around a configuration, behind a trait so that tests can have their own.
pub trait Surroundings {
    /// Gaps between cron's due times are looked at from here on.
    fn now(&self) -> Timestamp;
    fn file(&self, path: &Path) -> FileFact;
    /// Whether the environment variable is set and not empty.
    fn has_variable(&self, name: &str) -> bool;
    /// What the directory is on; a disk, where nobody looks.
    fn mount(&self, _: &Path) -> MountFact {
        MountFact::Lasting
    }
}

/// File systems in memory, by the kernel's numbers (`statfs(2)`).
const IN_MEMORY: [(FsWord, &str); 3] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0x9584_58f6, "hugetlbfs")];

/// The machine that rotad runs on. The time is handed in, since `clock` alone reads it.
#[derive(Debug, Clone, Copy)]
pub struct System {
    pub now: Timestamp,
}

impl Surroundings for System {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn file(&self, path: &Path) -> FileFact {
        let unreadable = |error: std::io::Error| FileFact::Unreadable(reason(&error));
        match fs::metadata(path) {
            Err(error) => unreadable(error),
            Ok(metadata) if metadata.is_dir() => FileFact::Directory,
            Ok(metadata) if !metadata.is_file() => FileFact::Special,
            Ok(metadata) => match fs::File::open(path) {
                Err(error) => unreadable(error),
                Ok(file) if is_empty(&file) => FileFact::Empty,
                Ok(_) => {
                    let (mode, user) = (metadata.permissions().mode() & 0o7777, rustix::process::geteuid().as_raw());
                    FileFact::Readable { mode: without_need(mode, metadata.uid(), user) }
                }
            },
        }
    }

    fn has_variable(&self, name: &str) -> bool {
        std::env::var_os(name).is_some_and(|value| !value.is_empty())
    }

    fn mount(&self, directory: &Path) -> MountFact {
        // What can't be looked at can't be written to either, which `check --online` tells.
        let flags = rustix::fs::statvfs(directory).map(|found| found.f_flag);
        if flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY)) {
            return MountFact::ReadOnly;
        }
        let kind = rustix::fs::statfs(directory).map(|found| found.f_type);
        let memory = |(magic, _): &&(FsWord, &str)| kind.is_ok_and(|kind| kind == *magic);
        IN_MEMORY.iter().find(memory).map_or(MountFact::Lasting, |(_, name)| MountFact::Memory(name))
    }
}

/// Whether a file holds nothing but perhaps an end of a line. What it holds else is not looked at.
fn is_empty(file: &fs::File) -> bool {
    let mut begin = zeroize::Zeroizing::new(Vec::with_capacity(2));
    file.take(2).read_to_end(&mut begin).is_ok() && begin.trim_ascii().is_empty() && begin.len() < 2
}

/// Takes every file and variable for granted: for commands that read no secret themselves, and are run by users
/// who may not.
#[derive(Debug, Clone, Copy)]
pub struct Unlooked {
    pub now: Timestamp,
}

impl Surroundings for Unlooked {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn file(&self, _: &Path) -> FileFact {
        FileFact::Readable { mode: 0o600 }
    }

    fn has_variable(&self, _: &str) -> bool {
        true
    }
}

/// The bits of a file of `owner` without the one that `user` needs to read it. Kubernetes and systemd hand secrets over as
/// root's files that the service's group may read: there is nothing to warn of.
fn without_need(mode: u32, owner: u32, user: u32) -> u32 {
    if owner == user || user == 0 { mode } else { mode & !0o040 }
}

/// The system's words without its number: `No such file or directory`.
pub(super) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_neither_owner_nor_root_needs_the_group_to_read() {
        assert_eq!(without_need(0o440, 0, 65_532), 0o400);
        assert_eq!(without_need(0o464, 0, 65_532), 0o424, "others, and a group that may write, are more than that");
        assert_eq!(without_need(0o640, 65_532, 65_532), 0o640);
        assert_eq!(without_need(0o640, 65_532, 0), 0o640);
    }
}
