//! The file sink.

use std::path::PathBuf;

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
    pub owner: Option<String>,
    pub group: Option<String>,
}
