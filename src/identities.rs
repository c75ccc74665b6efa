//! Names of users and groups to their numbers, and what rotad's own user may do with them.
//!
//! `/etc/passwd` and `/etc/group` are read here instead of asking the C library: a static build
//! (the container image) can't load the library's modules for names. Users of a directory service
//! are given by number.

use std::fs;

use rustix::process::{getegid, geteuid, getgroups};
use rustix::thread::CapabilitySet;

use crate::rotation::{Failed, Reason};

/// Which of the two files a name stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    User,
    Group,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::User => "/etc/passwd",
            Self::Group => "/etc/group",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

/// The name of a user in `/etc/passwd`, if it is there.
pub fn user_name(number: u32) -> Option<String> {
    let text = fs::read_to_string(Kind::User.file()).ok()?;
    let mut lines = text.lines().map(|line| line.split(':'));
    lines
        .find_map(|mut fields| Some((fields.next()?, fields.nth(1)?)).filter(|(_, id)| id.parse() == Ok(number)))
        .map(|(name, _)| name.to_owned())
}

/// The number of the user or group `name`, which may itself be a number.
pub fn resolve(name: &str, kind: Kind) -> Result<u32, Failed> {
    if let Ok(number) = name.parse() {
        return usable(number, kind);
    }
    let file = kind.file();
    let text = fs::read_to_string(file).map_err(|error| {
        Failed::new(
            Reason::Missing,
            format!("can't read `{file}` to look up the {} `{name}`: {error}; give its number", kind.word()),
        )
    })?;
    match find(&text, name) {
        Some(number) => usable(number, kind),
        None => Err(Failed::new(
            Reason::Missing,
            format!(
                "there is no {} `{name}` in `{file}`: create it, or give the number of one from a directory service",
                kind.word()
            ),
        )),
    }
}

/// The number in the third field of the line whose first field is `name`, as both files have it.
fn find(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn usable(number: u32, kind: Kind) -> Result<u32, Failed> {
    // The kernel takes the highest number as "leave as it is".
    (number != u32::MAX)
        .then_some(number)
        .ok_or_else(|| Failed::new(Reason::Rejected, format!("{number} is not the number of a {}", kind.word())))
}

fn has(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

fn in_group(gid: u32) -> bool {
    getegid().as_raw() == gid || getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == gid))
}

/// Whether a file of ours may be given to this user and group.
pub fn may_give(uid: Option<u32>, gid: Option<u32>) -> bool {
    let own = uid.is_none_or(|uid| uid == geteuid().as_raw()) && gid.is_none_or(in_group);
    own || has(CapabilitySet::CHOWN)
}

/// Whether a file with this mode and owner can be read back.
pub fn may_read(mode: u32, uid: Option<u32>, gid: Option<u32>) -> bool {
    if has(CapabilitySet::DAC_OVERRIDE) || has(CapabilitySet::DAC_READ_SEARCH) {
        return true;
    }
    let readable = |bit| mode & bit != 0;
    if uid.is_none_or(|uid| uid == geteuid().as_raw()) {
        readable(0o400)
    } else if gid.is_none_or(in_group) {
        readable(0o040)
    } else {
        readable(0o004)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whole_in_their_own_field() {
        let text = "root:x:0:0:root:/root:/bin/sh\n# etl:x:1:1\nbroken\netl2:x:7:7::/:\netl:x:1005:1006::/home/etl:/bin/sh\n";
        assert_eq!(find(text, "etl"), Some(1005));
        assert_eq!(find(text, "root"), Some(0));
        assert_eq!(find(text, "et"), None);
        assert_eq!(find(text, "broken"), None);
    }

    #[test]
    fn numbers_stand_for_themselves_and_unknown_names_are_told() {
        assert_eq!(resolve("4711", Kind::Group), Ok(4711));
        assert_eq!(resolve("root", Kind::User), Ok(0));
        assert!(resolve("4294967295", Kind::User).is_err());
        let failed = resolve("no-such-group-here", Kind::Group).unwrap_err();
        assert_eq!(failed.reason, Reason::Missing);
        assert!(failed.detail.contains("`no-such-group-here`") && failed.detail.contains("/etc/group"), "{failed}");
    }
}
