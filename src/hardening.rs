//! What the process gives up at its start, so that no value leaves it by the back door.
//!
//! No core dump: neither a file (`RLIMIT_CORE`) nor a pipe to a handler such as systemd-coredump,
//! which the limit does not stop but `PR_SET_DUMPABLE` does. The latter also keeps other processes
//! of the same user from reading this one's memory. The umask makes each file and socket private
//! until something says otherwise.

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask};

/// Hardens this process. To be called once, before threads are started or secrets are read.
///
/// # Errors
/// What the kernel said; the process should not go on then.
pub fn harden() -> std::io::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Asked first: a sandbox may refuse the call where it has set the limit itself.
    if getrlimit(Resource::Core) != none {
        setrlimit(Resource::Core, none)?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
