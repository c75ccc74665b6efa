//! Places in the program at which a test ends or stops the process, to see what a crash or a pause
//! there leaves behind. Without the feature `fail-points` a passing is nothing at all, and the
//! compiler removes it; no build for production has the feature.
//!
//! `ROTAD_FAIL_POINT=POINT:N:kill` has the process kill itself, as `kill -9` does, when it passes
//! `POINT` for the N-th time; `stop` in place of `kill` suspends it until somebody sends SIGCONT.

/// Defines the points and the list of all of them at once, so that none can be missing from the list.
macro_rules! points {
    ($($(#[$documentation:meta])* $point:ident),* $(,)?) => {
        /// One place in the program. Its name in `ROTAD_FAIL_POINT` is the variant's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[$documentation])* $point),*
        }

        impl Point {
            pub const ALL: &[Self] = &[$(Self::$point),*];
        }
    };
}

points! {
    /// A new journal's tables are written and not committed: in a first start alone.
    JournalMade,
    /// The journal is open and locked, and nothing was read from it.
    JournalOpened,
    /// The schedule is loaded, and no turn has begun.
    ScheduleLoaded,
    /// A credential's state is loaded for its turn.
    TurnBegun,
    /// A state is about to be handed to the journal.
    BeforeSave,
    /// The journal's transaction is written and not committed.
    BeforeCommit,
    /// The journal's transaction is committed, and nobody was told.
    AfterCommit,
    // What precedes an effect is saved before it, and what came of it is not saved after it.
    BeforeList,
    AfterList,
    BeforeRead,
    AfterRead,
    BeforeIssue,
    AfterIssue,
    BeforeVerify,
    AfterVerify,
    BeforeWrite,
    AfterWrite,
    BeforeRevoke,
    AfterRevoke,
    /// The turn's last state is saved, and the scheduler was not told when to wake.
    TurnSaved,
    /// AWS has the new version under our own label, and `AWSCURRENT` is where it was.
    AwsPut,
    /// Vault has the new marker and the old value.
    VaultMarked,
    /// The temporary file is made and locked, and empty.
    FileClaimed,
    /// Value and marker are on the disk under their temporary names.
    FilePrepared,
    /// The new marker is in place beside the old value.
    FileMarked,
    /// The new value is in place, and its directory was not flushed.
    FileLanded,
    /// Told to stop: nothing new begins, and turns under way come to their end.
    Draining,
    /// Told to stop: every turn has ended, and the journal is not closed.
    Drained,
}

#[cfg(not(feature = "fail-points"))]
#[inline]
pub const fn pass(_: Point) {}

#[cfg(feature = "fail-points")]
pub use armed::pass;

#[cfg(feature = "fail-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    const VARIABLE: &str = "ROTAD_FAIL_POINT";

    struct Armed {
        point: Point,
        passings_left: AtomicU32,
        signal: Signal,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    pub fn pass(point: Point) {
        let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| parse(&text)));
        let Some(armed) = armed.as_ref().filter(|armed| armed.point == point) else { return };
        // Below zero it wraps and is never one again.
        if armed.passings_left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        // It can't fail: a process may always signal itself.
        let _ = kill_process(getpid(), armed.signal);
        // A stop may reach another thread first; this one must not run on until it has.
        std::thread::sleep(Duration::from_millis(100));
    }

    /// A test that arms nothing by a misspelt name would wait for ever.
    fn parse(text: &str) -> Armed {
        let mut parts = text.split(':');
        let point = parts.next().and_then(|name| Point::ALL.iter().find(|point| format!("{point:?}") == name));
        let passing = parts.next().and_then(|number| number.parse().ok());
        let signal = parts.next().and_then(|action| match action {
            "kill" => Some(Signal::KILL),
            "stop" => Some(Signal::STOP),
            _ => None,
        });
        let (Some(point), Some(passing), Some(signal)) = (point, passing, signal) else {
            panic!("`{VARIABLE}` is `{text}`; it must be `POINT:N:kill` or `POINT:N:stop`, with one of {:?}", Point::ALL);
        };
        Armed { point: *point, passings_left: AtomicU32::new(passing), signal }
    }
}
