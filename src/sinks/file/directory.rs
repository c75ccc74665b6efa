//! A place's directory, opened without following a symbolic link anywhere, and what is read in it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::failures::{explain, explain_io, unsuitable};
use crate::rotation::Failed;

/// The most bytes of a value or a marker that are read: AWS has 64 KiB, a token has under 2 KiB.
const CONTENT_MAX: u64 = 1 << 20;

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Which content a name had when it was read: another file, a write or a change of mode shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    #[allow(clippy::unnecessary_cast)] // the types of these fields differ between architectures
    fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

/// A regular file as it was read.
pub(super) struct Found {
    pub content: Zeroizing<Vec<u8>>,
    pub identity: Identity,
}

pub(super) struct Directory {
    pub fd: OwnedFd,
    pub path: PathBuf,
}

impl Directory {
    pub fn open(path: &Path) -> Result<Self, Failed> {
        let how = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = match rustix::fs::openat2(CWD, path, OPEN_DIRECTORY, Mode::empty(), how) {
            // Kernels before 5.6, and sandboxes that don't know the call (they answer EPERM).
            Err(Errno::NOSYS | Errno::PERM) => walk(path),
            other => other,
        };
        match opened {
            Ok(fd) => Ok(Self { fd, path: path.to_owned() }),
            Err(errno) => Err(link_on_the_way(path).unwrap_or_else(|| explain(errno, "open the directory", path))),
        }
    }

    /// Status of `name` itself; `None` where there is nothing.
    pub fn status(&self, name: &str) -> Result<Option<Stat>, Failed> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(explain(errno, &format!("look at `{name}`"), &self.path)),
        }
    }

    /// Whether `name` still is what it was when it was read.
    pub fn still(&self, name: &str, identity: Option<Identity>) -> Result<bool, Failed> {
        Ok(self.status(name)?.map(|stat| Identity::of(&stat)) == identity)
    }

    /// The regular file `name`, whole; `None` where there is nothing. Never waits for a writer (a
    /// pipe) or a device, and follows no link.
    pub fn read(&self, name: &str) -> Result<Option<Found>, Failed> {
        let doing = format!("read `{name}`");
        let Some(stat) = self.status(name)? else {
            return Ok(None);
        };
        // Opening a device can already do something, so its type is looked at before and after.
        self.require_regular(name, &stat)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ACCESS) => return Err(self.unreadable(name)),
            Err(errno) => return Err(explain(errno, &doing, &self.path)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| explain(errno, &doing, &self.path))?;
        self.require_regular(name, &stat)?;
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > CONTENT_MAX {
            return Err(self.too_large(name));
        }
        // Room for all of it at once: a buffer that grows leaves copies behind that are not wiped.
        let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
        let limit = u64::try_from(content.capacity()).unwrap_or(0).max(1);
        File::from(fd).take(limit).read_to_end(&mut content).map_err(|error| explain_io(&error, &doing, &self.path))?;
        if content.len() as u64 > size {
            return Err(Failed::new(
                crate::rotation::Reason::Busy,
                format!("`{}` grew while it was read: somebody writes to it in place", self.path.join(name).display()),
            ));
        }
        Ok(Some(Found { content, identity: Identity::of(&stat) }))
    }

    fn require_regular(&self, name: &str, stat: &Stat) -> Result<(), Failed> {
        let path = self.path.join(name);
        let path = path.display();
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(()),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&self.fd, name, Vec::new()).unwrap_or_default();
                let target = target.to_string_lossy();
                return Err(unsuitable(format!(
                    "`{path}` is a symbolic link to `{target}`: configure the file that it leads to"
                )));
            }
            FileType::Directory => "a directory",
            FileType::Fifo => "a named pipe",
            FileType::Socket => "a socket",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            FileType::Unknown => "of an unknown type",
        };
        Err(unsuitable(format!("`{path}` is {kind}, where a regular file should be: remove it, or configure another path")))
    }

    fn unreadable(&self, name: &str) -> Failed {
        let user = rustix::process::geteuid().as_raw();
        Failed::new(
            crate::rotation::Reason::Forbidden,
            format!(
                "user {user} may not read `{}` back: it must be its owner, or in its group with a mode such as 0640, or have \
                 CAP_DAC_READ_SEARCH",
                self.path.join(name).display()
            ),
        )
    }

    fn too_large(&self, name: &str) -> Failed {
        let path = self.path.join(name);
        unsuitable(format!("`{}` is larger than 1 MiB: that is no token; configure another path", path.display()))
    }

    /// Whether something is mounted at `name`, so that no rename can replace it.
    pub fn is_mount_point(&self, name: &str) -> Result<bool, Failed> {
        let failed = |errno| explain(errno, &format!("look at `{name}`"), &self.path);
        match rustix::fs::statx(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS) {
            Ok(status) if status.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
                Ok(status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
            }
            // Older kernels: a bind mount of the same file system goes unseen here, and the rename says EBUSY.
            Ok(_) | Err(Errno::NOSYS) => {
                let own = rustix::fs::fstat(&self.fd).map_err(failed)?;
                Ok(self.status(name)?.is_some_and(|stat| stat.st_dev != own.st_dev))
            }
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// The failure where something is mounted at `name`.
    pub fn mount_point(&self, name: &str) -> Failed {
        let directory = self.path.display();
        unsuitable(format!(
            "`{}` is a mount point, which no rename can replace: mount its directory `{directory}` as a whole instead of the one file",
            self.path.join(name).display()
        ))
    }
}

/// Opens `path` one component at a time, none of them a symbolic link: for kernels without `openat2`.
fn walk(path: &Path) -> rustix::io::Result<OwnedFd> {
    let mut fd = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for component in path.components() {
        if let Component::Normal(name) = component {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fd = rustix::fs::openat(&fd, name, flags, Mode::empty())?;
        }
    }
    rustix::fs::openat(&fd, ".", OPEN_DIRECTORY, Mode::empty())
}

/// Which component of `path` is a symbolic link, and the path to configure instead, if that is what is wrong.
fn link_on_the_way(path: &Path) -> Option<Failed> {
    let mut so_far = PathBuf::new();
    for component in path.components() {
        so_far.push(component);
        let stat = rustix::fs::statat(CWD, &so_far, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            continue;
        }
        let link = format!("`{}` is a symbolic link, and no link is followed", so_far.display());
        return Some(unsuitable(match path.canonicalize() {
            Ok(real) => format!("{link}: configure a path below `{}`", real.display()),
            Err(_) => format!("{link}; it leads nowhere: configure a path without it"),
        }));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::rotation::Reason;

    #[test]
    fn the_walk_for_old_kernels_opens_directories_and_no_links() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("real/inner")).unwrap();
        symlink(base.join("real"), base.join("link")).unwrap();
        std::fs::write(base.join("file"), "x").unwrap();
        assert!(walk(&base.join("real/inner")).is_ok());
        assert_eq!(walk(&base.join("link/inner")).unwrap_err(), Errno::NOTDIR);
        assert_eq!(walk(&base.join("link")).unwrap_err(), Errno::NOTDIR);
        assert_eq!(walk(&base.join("file")).unwrap_err(), Errno::NOTDIR);
        assert_eq!(walk(&base.join("absent")).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn a_link_on_the_way_is_named_with_the_path_to_configure() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("real/inner")).unwrap();
        symlink("real", base.join("link")).unwrap();
        let Err(failed) = Directory::open(&base.join("link/inner")) else { panic!("it was opened") };
        assert_eq!(failed.reason, Reason::Unsuitable);
        assert!(failed.detail.contains(&format!("`{}` is a symbolic link", base.join("link").display())), "{failed}");
        assert!(failed.detail.contains(&format!("below `{}`", base.join("real/inner").display())), "{failed}");
    }

    #[test]
    fn a_file_that_was_written_replaced_or_removed_is_no_longer_what_was_read() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(&root.path().canonicalize().unwrap()).unwrap();
        let path = root.path().join("token");
        let read = || directory.read("token").unwrap().map(|found| found.identity);
        assert!(directory.still("token", None).unwrap());
        std::fs::write(&path, "one").unwrap();
        assert!(!directory.still("token", None).unwrap());

        let before = read();
        assert!(directory.still("token", before).unwrap());
        std::fs::write(&path, "four").unwrap();
        assert!(!directory.still("token", before).unwrap());

        let before = read();
        std::fs::write(root.path().join("new"), "four").unwrap();
        std::fs::rename(root.path().join("new"), &path).unwrap();
        assert!(!directory.still("token", before).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!directory.still("token", before).unwrap());
    }
}
