//! Which fault met which step, counted: the rows are faults, the columns are the boundaries between
//! the steps of a turn. A cell that can't occur says why; every other one must be met often enough.

use std::collections::BTreeMap;

/// An enum, and the list of all its variants in their order.
macro_rules! listed {
    ($(#[$about:meta])* $name:ident { $($(#[$variant_about:meta])* $variant:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_about])* $variant,)* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
        }
    };
}

listed! {
    /// What a credential is at when a fault comes: a call to the journal, the API or a place.
    Step {
        /// Between two turns.
        Idle,
        /// The row is loaded at the begin of a turn.
        Load,
        List,
        /// A first look at a place.
        Read,
        /// The intent to rotate is saved.
        Intend,
        Issue,
        /// What became of the request for a token is saved.
        Record,
        Verify,
        /// "Attempted" is saved.
        Attempt,
        Write,
        /// A look after a write of the same turn.
        ReadBack,
        /// "Confirmed" is saved.
        Confirm,
        /// The intent to revoke is saved.
        IntendRevocation,
        Revoke,
        /// What became of the revocation is saved.
        RecordRevocation,
        /// Any other save: a write's answer, what a look taught, when to wake.
        Note,
    }
}

impl Step {
    pub fn title(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Load => "load",
            Self::List => "list",
            Self::Read => "read",
            Self::Intend => "intend",
            Self::Issue => "issue",
            Self::Record => "record",
            Self::Verify => "verify",
            Self::Attempt => "attempt",
            Self::Write => "write",
            Self::ReadBack => "readback",
            Self::Confirm => "confirm",
            Self::IntendRevocation => "int-rev",
            Self::Revoke => "revoke",
            Self::RecordRevocation => "rec-rev",
            Self::Note => "note",
        }
    }

    pub fn is_save(self) -> bool {
        use Step::*;
        matches!(self, Intend | Record | Attempt | Confirm | IntendRevocation | RecordRevocation | Note)
    }

    /// A request to the API.
    pub fn is_asked_of_the_api(self) -> bool {
        matches!(self, Self::List | Self::Issue | Self::Verify | Self::Revoke)
    }

    fn is_look(self) -> bool {
        matches!(self, Self::List | Self::Read | Self::ReadBack | Self::Verify | Self::Load)
    }

    /// A call over a network.
    fn is_call(self) -> bool {
        self.is_asked_of_the_api() || matches!(self, Self::Read | Self::ReadBack | Self::Write)
    }

    /// It changes the world.
    fn is_effect(self) -> bool {
        matches!(self, Self::Issue | Self::Write | Self::Revoke)
    }
}

listed! {
    /// A kind of fault or of outside change.
    Fault {
        /// The process ends before the call leaves it, or before the save is made.
        CrashBefore,
        /// The process ends while the call is under way; what it asked for happens after its end.
        CrashUnderWay,
        /// The call was carried out, or the save is durable, and the process ends without having heard so.
        CrashAfter,
        /// SIGTERM; started again.
        Stopped,
        JournalUnwritable,
        JournalLost,
        JournalRestored,
        Throttled,
        ThrottledUntil,
        Unavailable,
        Unauthorized,
        Unreachable,
        TimedOutNotDone,
        TimedOutDone,
        DoneLate,
        Slow,
        Rejected,
        NameTaken,
        NoSuchAccount,
        TtlDropped,
        TypeDropped,
        Disproved,
        Lags,
        PageMissing,
        WrongOrganization,
        RolledBack,
        ChangedByHand,
        Wiped,
        ScheduledForDeletion,
        OwnedByOther,
        RevokedByHand,
        SecondInstallation,
        DeliveriesChanged,
        TimesChanged,
        CredentialRemoved,
        ClockAMinuteAhead,
        ClockAMinuteBack,
        ClockAnHourAhead,
        ClockAnHourBack,
        ClockAYearAhead,
        ClockAYearBack,
        Suspended,
        /// The machine is suspended until a token of the credential has expired.
        TokenExpired,
    }
}

/// A class of faults, which can be switched off while a failing seed is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    Crash,
    Journal,
    Api,
    Sink,
    Persons,
    Reloads,
    Clocks,
}

impl Class {
    pub const ALL: [Self; 7] = [Self::Clocks, Self::Reloads, Self::Persons, Self::Sink, Self::Api, Self::Journal, Self::Crash];

    pub fn title(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Journal => "journal",
            Self::Api => "api",
            Self::Sink => "sink",
            Self::Persons => "persons",
            Self::Reloads => "reloads",
            Self::Clocks => "clocks",
        }
    }
}

impl Fault {
    /// The class that the fault belongs to when it comes at `step`.
    pub fn class(self, step: Step) -> Class {
        use Fault::*;
        match self {
            CrashBefore | CrashUnderWay | CrashAfter | Stopped => Class::Crash,
            JournalUnwritable | JournalLost | JournalRestored => Class::Journal,
            ClockAMinuteAhead | ClockAMinuteBack | ClockAnHourAhead | ClockAnHourBack | ClockAYearAhead | ClockAYearBack
            | Suspended | TokenExpired => Class::Clocks,
            DeliveriesChanged | TimesChanged | CredentialRemoved => Class::Reloads,
            RolledBack | ChangedByHand | Wiped | ScheduledForDeletion | OwnedByOther | RevokedByHand | SecondInstallation
            | WrongOrganization => Class::Persons,
            Throttled | ThrottledUntil | Unavailable | Unauthorized | Unreachable | TimedOutNotDone | TimedOutDone | DoneLate
            | Slow | Lags => {
                if step.is_asked_of_the_api() {
                    Class::Api
                } else {
                    Class::Sink
                }
            }
            Rejected | NameTaken | NoSuchAccount | TtlDropped | TypeDropped | Disproved | PageMissing => Class::Api,
        }
    }

    /// It comes from outside and changes the world; the call that is under way goes on.
    pub fn is_outside(self) -> bool {
        matches!(self.class(Step::Idle), Class::Persons | Class::Reloads | Class::Clocks)
            || matches!(self, Self::Stopped | Self::JournalLost | Self::JournalRestored | Self::NoSuchAccount)
    }

    /// Why this fault can't come at this step; `None` where it can, and then it must be met.
    pub fn cannot(self, step: Step) -> Option<&'static str> {
        use Fault::*;
        const NO_CALL: &str = "nothing is under way that could fail so";
        const NOT_THIS_CALL: &str = "that call has no such answer";
        let only = |fits: bool, otherwise: &'static str| if fits { None } else { Some(otherwise) };
        match self {
            _ if self.is_outside() => None,
            CrashAfter | CrashUnderWay if step == Step::Idle => {
                Some("between two turns there is one way to end: see crash-before")
            }
            CrashUnderWay => {
                only(step.is_effect(), "a look or a save that the process did not live to see the end of changed nothing")
            }
            CrashBefore => None,
            CrashAfter => only(step != Step::Load, "a row that was loaded changed nothing: see crash-before"),
            JournalUnwritable => only(step.is_save() || step == Step::Load, "the journal is not asked"),
            Throttled | Unavailable | Unauthorized | Unreachable | Slow => only(step.is_call(), NO_CALL),
            ThrottledUntil => only(step.is_call(), NO_CALL),
            TimedOutNotDone => only(step.is_call(), NO_CALL),
            TimedOutDone | DoneLate => only(step.is_effect(), "a look that is carried out without an answer changed nothing"),
            Rejected | NameTaken | TtlDropped | TypeDropped => only(step == Step::Issue, NOT_THIS_CALL),
            Disproved => only(step == Step::Verify, NOT_THIS_CALL),
            Lags => only(
                step.is_look() && step.is_call() && step != Step::Verify,
                "what it shows is not compared with anything older",
            ),
            PageMissing => only(step == Step::List, NOT_THIS_CALL),
            _ => None,
        }
    }
}

/// The cells that a run must have met.
pub fn owed() -> Vec<(Fault, Step)> {
    let cells = Fault::ALL.iter().flat_map(|fault| Step::ALL.iter().map(move |step| (*fault, *step)));
    cells.filter(|(fault, step)| fault.cannot(*step).is_none()).collect()
}

/// How often each fault met each step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matrix(BTreeMap<(Fault, Step), u64>);

impl Matrix {
    pub fn meet(&mut self, fault: Fault, step: Step) {
        *self.0.entry((fault, step)).or_default() += 1;
    }

    pub fn of(&self, fault: Fault, step: Step) -> u64 {
        self.0.get(&(fault, step)).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (cell, count) in &other.0 {
            *self.0.entry(*cell).or_default() += count;
        }
    }

    /// The cells that were met less than `least` times, with how often.
    pub fn short_of(&self, least: u64) -> Vec<(Fault, Step, u64)> {
        let cells = owed().into_iter().map(|(fault, step)| (fault, step, self.of(fault, step)));
        cells.filter(|(_, _, count)| *count < least).collect()
    }

    /// The table for people: a number, or a letter for why the cell can't occur.
    pub fn table(&self) -> String {
        let mut reasons: Vec<&'static str> = Vec::new();
        let mut text = format!("{:<21}", "fault");
        Step::ALL.iter().for_each(|step| text += &format!("{:>9}", step.title()));
        for fault in Fault::ALL.iter().copied() {
            text += &format!("\n{:<21}", format!("{fault:?}"));
            for step in Step::ALL.iter().copied() {
                let cell = match fault.cannot(step) {
                    None => self.of(fault, step).to_string(),
                    Some(reason) => {
                        let index = reasons.iter().position(|known| *known == reason).unwrap_or_else(|| {
                            reasons.push(reason);
                            reasons.len() - 1
                        });
                        char::from(b'a' + u8::try_from(index).unwrap()).to_string()
                    }
                };
                text += &format!("{cell:>9}");
            }
        }
        for (index, reason) in reasons.iter().enumerate() {
            text += &format!("\n{}: {reason}", char::from(b'a' + u8::try_from(index).unwrap()));
        }
        text
    }
}
