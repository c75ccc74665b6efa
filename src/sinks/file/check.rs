//! What can be known of a place without writing to it.

use rustix::fs::{Access as Ask, AtFlags, StatVfsMountFlags};
use rustix::io::Errno;

use super::directory::Directory;
use super::failures::{explain, unsuitable};
use super::place::Inner;
use super::transaction::cannot_give_detail;
use crate::identities::{may_give, may_read};
use crate::rotation::{Failed, Reason};
use crate::sinks::Finding;

/// `f_type` of a file system in memory, from `statfs(2)`.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Each thing that is wrong; or that all is fine, and what can't be known.
pub(super) fn probe(place: &Inner) -> Vec<Finding> {
    let directory = match Directory::open(place.directory()) {
        Ok(directory) => directory,
        Err(failed) => return vec![Finding::Wrong(failed)],
    };
    let problems = [
        check_directory(&directory),
        check_writable(&directory),
        check_target(place, &directory),
        check_marker(place, &directory),
        check_access(place),
    ];
    let mut findings: Vec<Finding> = problems.into_iter().filter_map(Result::err).map(Finding::Wrong).collect();
    if findings.is_empty() {
        let path = place.path().display();
        let medium =
            if is_in_memory(&directory) { "in memory (tmpfs)" } else { "on a disk, which may keep traces of old values" };
        findings.push(Finding::Fine(format!("`{path}` can be written and read back; it is {medium}")));
        findings.push(Finding::Unknowable(format!("whether there is room for `{path}` shows only when it is written")));
    }
    findings
}

/// In a directory that everybody may write to, without the sticky bit, anybody could replace the token.
fn check_directory(directory: &Directory) -> Result<(), Failed> {
    let stat = rustix::fs::fstat(&directory.fd).map_err(|errno| explain(errno, "look at the directory", &directory.path))?;
    if stat.st_mode & 0o1002 == 0o0002 {
        let path = directory.path.display();
        return Err(unsuitable(format!("everybody may replace files in `{path}`: take that away with `chmod o-w {path}`")));
    }
    Ok(())
}

fn check_writable(directory: &Directory) -> Result<(), Failed> {
    let failed = |errno| explain(errno, "write to the directory", &directory.path);
    let wanted = Ask::WRITE_OK | Ask::EXEC_OK | Ask::READ_OK;
    match rustix::fs::accessat(&directory.fd, ".", wanted, AtFlags::EACCESS) {
        Ok(()) => {}
        // Before Linux 5.8 only the real ids can be asked for; rotad's are the same as its effective ones.
        Err(Errno::NOSYS | Errno::INVAL) => rustix::fs::accessat(&directory.fd, ".", wanted, AtFlags::empty()).map_err(failed)?,
        Err(errno) => return Err(failed(errno)),
    }
    let read_only = rustix::fs::fstatvfs(&directory.fd).is_ok_and(|status| status.f_flag.contains(StatVfsMountFlags::RDONLY));
    if read_only { Err(failed(Errno::ROFS)) } else { Ok(()) }
}

fn check_target(place: &Inner, directory: &Directory) -> Result<(), Failed> {
    let name = place.names().value;
    if directory.is_mount_point(&name)? {
        return Err(directory.mount_point(&name));
    }
    directory.read(&name)?;
    match directory.status(&name)? {
        Some(stat) if stat.st_nlink > 1 => Err(unsuitable(format!(
            "`{}` has {} names (hard links): readers of the others would keep an old token; leave it only this one",
            place.path().display(),
            stat.st_nlink
        ))),
        _ => Ok(()),
    }
}

fn check_marker(place: &Inner, directory: &Directory) -> Result<(), Failed> {
    directory.read(&place.names().marker).map(|_| ())
}

fn check_access(place: &Inner) -> Result<(), Failed> {
    let access = place.access()?;
    let path = place.path().to_string_lossy();
    if !may_give(access.uid, access.gid) {
        return Err(Failed::new(Reason::Forbidden, cannot_give_detail(&path)));
    }
    if !may_read(access.mode, access.uid, access.gid) {
        let user = rustix::process::geteuid().as_raw();
        return Err(Failed::new(
            Reason::Forbidden,
            format!(
                "user {user} could not read `{path}` back with mode {:04o} and that owner: use its group and 0640, or grant \
                 CAP_DAC_READ_SEARCH",
                access.mode
            ),
        ));
    }
    Ok(())
}

fn is_in_memory(directory: &Directory) -> bool {
    #[allow(clippy::unnecessary_cast)] // the type of this field differs between architectures
    rustix::fs::fstatfs(&directory.fd).is_ok_and(|status| status.f_type as i64 == TMPFS_MAGIC)
}
