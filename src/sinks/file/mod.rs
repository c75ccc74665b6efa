//! The file sink: a token in a file of its own, with a marker beside it.
//!
//! For the place `/run/etl/token` there are, in the same directory:
//! - `token`: the value, as the format says;
//! - `.token.rotad`: the marker (`sinks/marker.rs`), with the same mode and owner and nothing secret in it;
//! - `.token.rotad-new` and `.token.rotad-mark`: value and marker while they are being written. The
//!   first one also is the lock that makes writers of one place take turns. A crash can leave them
//!   behind; the next read or write of the place removes them.
//!
//! Needs write and search permission on the directory, and read permission to list it; `CAP_CHOWN`
//! where `owner` is another user or `group` one that rotad's user is not in.
//!
//! Everything that touches the file system runs on a blocking thread, with a time limit for the
//! caller. A thread that hangs in the kernel can't be cancelled: the place is busy until it has
//! ended, and what it was about to write does not land once its caller has given up.

mod check;
mod directory;
mod failures;
mod place;
mod transaction;

use std::path::PathBuf;

pub use place::{FilePlace, Sink};

use super::format::Format;

/// `[sink.<name>.file]`: where several replicas share a journal, the one host that may write here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    pub host: Option<String>,
}

/// What a delivery to a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Absolute, placeholders filled in.
    pub path: PathBuf,
    pub format: Format,
    /// Permission bits; the default is 0600.
    pub mode: u32,
    /// A name from `/etc/passwd`, or a number.
    pub owner: Option<String>,
    /// A name from `/etc/group`, or a number.
    pub group: Option<String>,
}
