//! One write: everything is prepared beside the place, and two renames make it visible.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, retry_on_intr};

use super::directory::Directory;
use super::failures::{explain, unsuitable};
use crate::fail_point::{self, Point};
use crate::rotation::{Failed, Reason, WriteOutcome};

/// How often the temporary file is tried again when other writers come and go.
const CLAIMS_MAX: usize = 100;

/// The names beside a place called `NAME`.
#[derive(Debug)]
pub(super) struct Names {
    pub value: String,
    pub marker: String,
    /// The value while it is written: also the lock on the place. Its name is the place's own, not a
    /// random one, so that what a crash left is found without listing a directory of thousands.
    new_value: String,
    new_marker: String,
}

impl Names {
    pub fn of(value: &str) -> Self {
        Self {
            value: value.to_owned(),
            marker: format!(".{value}.rotad"),
            new_value: format!(".{value}.rotad-new"),
            new_marker: format!(".{value}.rotad-mark"),
        }
    }

    /// Whether a place of this name would be another place's marker or temporary file.
    pub fn is_reserved(value: &str) -> bool {
        value.starts_with('.') && [".rotad", ".rotad-new", ".rotad-mark"].iter().any(|end| value.ends_with(end))
    }
}

/// Mode, user and group of both files; `None` for what the kernel gives a new file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    pub mode: u32,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// The temporary files of one write, made and locked by us; removed when dropped before the end.
pub(super) struct Draft<'a> {
    directory: &'a Directory,
    names: &'a Names,
    value: OwnedFd,
    /// Whether the temporary files may still be there.
    value_left: bool,
    marker_left: bool,
}

impl<'a> Draft<'a> {
    /// Makes the temporary file and locks it, so that this is the only writer of the place.
    pub fn begin(directory: &'a Directory, names: &'a Names, access: Access) -> Result<Self, Failed> {
        for _ in 0..CLAIMS_MAX {
            match create(directory, &names.new_value) {
                Ok(value) => {
                    let draft = Self { directory, names, value, value_left: true, marker_left: false };
                    lock(directory, &draft.value, FlockOperation::LockExclusive)?;
                    // Between its making and its lock, another writer may have taken it for left-over.
                    if same_file(directory, &draft.value, &names.new_value)? {
                        fail_point::pass(Point::FileClaimed);
                        return Ok(draft);
                    }
                    draft.forget();
                }
                Err(Errno::EXIST) => remove_leftovers(directory, names, access, FlockOperation::LockExclusive)?,
                Err(errno) => return Err(explain(errno, &format!("create a file for `{}`", names.value), &directory.path)),
            }
        }
        let detail = format!("other writers keep `{}` busy", directory.path.join(&names.value).display());
        Err(Failed::new(Reason::Busy, detail))
    }

    /// The temporary file that had our handle's name is somebody else's by now.
    fn forget(mut self) {
        self.value_left = false;
    }

    /// Writes value and marker to the disk, mode and owner included, still under their temporary names.
    pub fn prepare(&mut self, value: &[u8], marker: &[u8], access: Access) -> Result<(), Failed> {
        let doing = format!("prepare the marker of `{}`", self.names.value);
        let mut made = create(self.directory, &self.names.new_marker);
        if matches!(made, Err(Errno::EXIST)) {
            // Left by a crash: nobody else writes here while we hold the lock.
            remove_own(self.directory, &self.names.new_marker, access)?;
            made = create(self.directory, &self.names.new_marker);
        }
        let marker_fd = made.map_err(|errno| explain(errno, &doing, &self.directory.path))?;
        self.marker_left = true;
        self.fill(&marker_fd, marker, access)?;
        self.fill(&self.value, value, access)?;
        self.flush(&self.value)?;
        self.flush(&marker_fd)?;
        fail_point::pass(Point::FilePrepared);
        Ok(())
    }

    fn fill(&self, fd: &OwnedFd, content: &[u8], access: Access) -> Result<(), Failed> {
        let (directory, name) = (&self.directory.path, &self.names.value);
        let mut rest = content;
        while !rest.is_empty() {
            let written = retry_on_intr(|| rustix::io::write(fd, rest));
            let written = written.map_err(|errno| explain(errno, &format!("write `{name}`"), directory))?;
            rest = &rest[written..];
        }
        give(fd, access).map_err(|errno| cannot_give(errno, name, self.directory))
    }

    fn flush(&self, fd: &OwnedFd) -> Result<(), Failed> {
        let doing = format!("flush `{}` to the disk", self.names.value);
        rustix::fs::fsync(fd).map_err(|errno| explain(errno, &doing, &self.directory.path))
    }

    /// Puts the marker and then the value in place. Only the second rename changes what consumers see.
    pub fn land(mut self) -> WriteOutcome {
        let directory = self.directory;
        let rename = |from: &str, to: &str| rustix::fs::renameat(&directory.fd, from, &directory.fd, to);
        if let Err(errno) = rename(&self.names.new_marker, &self.names.marker) {
            return WriteOutcome::Refused(explain(errno, &format!("replace `{}`", self.names.marker), &directory.path));
        }
        self.marker_left = false;
        fail_point::pass(Point::FileMarked);
        let doing = format!("replace `{}`", self.names.value);
        match rename(&self.names.new_value, &self.names.value) {
            Ok(()) => self.value_left = false,
            // A network file system can lose the answer to a rename that it did.
            Err(errno @ (Errno::IO | Errno::STALE | Errno::TIMEDOUT | Errno::INTR)) => {
                return WriteOutcome::Unknown(explain(errno, &doing, &directory.path));
            }
            Err(errno) => return WriteOutcome::Refused(explain(errno, &doing, &directory.path)),
        }
        fail_point::pass(Point::FileLanded);
        match rustix::fs::fsync(&directory.fd) {
            Ok(()) => WriteOutcome::Written,
            Err(errno) => WriteOutcome::Unknown(explain(errno, "flush the directory to the disk", &directory.path)),
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // The value's file goes last: it is the lock. What can't be removed now goes with the next write.
        if self.marker_left {
            let _ = rustix::fs::unlinkat(&self.directory.fd, &self.names.new_marker, AtFlags::empty());
        }
        if self.value_left {
            let _ = rustix::fs::unlinkat(&self.directory.fd, &self.names.new_value, AtFlags::empty());
        }
    }
}

fn create(directory: &Directory, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&directory.fd, name, flags, Mode::from_raw_mode(0o600))
}

fn lock(directory: &Directory, file: &OwnedFd, how: FlockOperation) -> Result<(), Failed> {
    retry_on_intr(|| rustix::fs::flock(file, how)).map_err(|errno| explain(errno, "lock a file", &directory.path))
}

/// Whether `name` is this open file.
fn same_file(directory: &Directory, file: &OwnedFd, name: &str) -> Result<bool, Failed> {
    let own = rustix::fs::fstat(file).map_err(|errno| explain(errno, &format!("look at `{name}`"), &directory.path))?;
    Ok(directory.status(name)?.is_some_and(|stat| (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino)))
}

/// Sets group, mode and user, in this order: the file opens up to its group only once the group is
/// right, and rotad stays its owner until nothing is left to set.
fn give(file: &OwnedFd, access: Access) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    if let Some(gid) = access.gid.filter(|gid| *gid != stat.st_gid) {
        rustix::fs::fchown(file, None, Some(Gid::from_raw(gid)))?;
    }
    if access.mode != stat.st_mode & 0o7777 {
        rustix::fs::fchmod(file, Mode::from_raw_mode(access.mode))?;
    }
    if let Some(uid) = access.uid.filter(|uid| *uid != stat.st_uid) {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), None)?;
    }
    Ok(())
}

fn cannot_give(errno: Errno, name: &str, directory: &Directory) -> Failed {
    if errno != Errno::PERM {
        return explain(errno, &format!("set mode and owner of `{name}`"), &directory.path);
    }
    Failed::new(Reason::Forbidden, cannot_give_detail(&directory.path.join(name).to_string_lossy()))
}

/// The sentence for a missing right to give a file away, here and in `check`.
pub(super) fn cannot_give_detail(path: &str) -> String {
    let user = rustix::process::geteuid().as_raw();
    format!(
        "user {user} may not give `{path}` to the configured owner or group: add it to the group (`SupplementaryGroups=`), or grant \
         CAP_CHOWN (`AmbientCapabilities=`)"
    )
}

/// Removes what a crashed writer of this place left, unless the writer lives: its lock shows.
///
/// With `LockExclusive` a living writer is waited for; with `NonBlockingLockExclusive` it is left alone.
pub(super) fn remove_leftovers(directory: &Directory, names: &Names, access: Access, how: FlockOperation) -> Result<(), Failed> {
    let Some(stat) = directory.status(&names.new_value)? else {
        return Ok(());
    };
    require_own(directory, &names.new_value, &stat, access)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&directory.fd, names.new_value.as_str(), flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(explain(errno, &format!("open the left-over `{}`", names.new_value), &directory.path)),
    };
    match retry_on_intr(|| rustix::fs::flock(&file, how)) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(()),
        Err(errno) => return Err(explain(errno, "lock a file", &directory.path)),
    }
    if same_file(directory, &file, &names.new_value)? {
        remove_own(directory, &names.new_marker, access)?;
        unlink(directory, &names.new_value)?;
    }
    Ok(())
}

fn remove_own(directory: &Directory, name: &str, access: Access) -> Result<(), Failed> {
    let Some(stat) = directory.status(name)? else {
        return Ok(());
    };
    require_own(directory, name, &stat, access)?;
    unlink(directory, name)
}

/// A left-over is a regular file of rotad's user, or of the user that it was just being given to.
fn require_own(directory: &Directory, name: &str, stat: &rustix::fs::Stat, access: Access) -> Result<(), Failed> {
    let own = stat.st_uid == rustix::process::geteuid().as_raw() || Some(stat.st_uid) == access.uid;
    if own && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        return Ok(());
    }
    let path = directory.path.join(name);
    Err(unsuitable(format!("`{}` is in the way and not a file of ours: find out who made it, and remove it", path.display())))
}

fn unlink(directory: &Directory, name: &str) -> Result<(), Failed> {
    match rustix::fs::unlinkat(&directory.fd, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(explain(errno, &format!("remove the left-over `{name}`"), &directory.path)),
    }
}
