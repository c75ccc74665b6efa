//! Which faults met which actions, counted: a simulator that never meets a case proves nothing of it.

use std::collections::BTreeMap;

/// A kind of fault or of outside change. The name is what the table prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    None,
    CrashBeforeSave,
    CrashAfterSave,
    CrashUnderWay,
    CrashBeforeTold,
    SaveFails,
    Throttled,
    Unavailable,
    Rejected,
    NameTaken,
    NoSuchAccount,
    LostNotDone,
    LostDone,
    DoneLate,
    TtlDropped,
    TypeDropped,
    Disproved,
    Lagging,
    Incomplete,
    Unreadable,
    Refused,
    Conflict,
    RollBack,
    ChangedByHand,
    Wiped,
    ScheduledForDeletion,
    OwnedByOther,
    RevokedByHand,
    SecondInstallation,
    JournalLost,
    JournalRestored,
    ClockSkewed,
    Reconfigured,
    Renamed,
    Ordered,
    /// The token at hand was made by a person and adopted.
    MadeByHand,
    /// The token at hand is one that the calls were made with.
    OwnToken,
}

/// What the core asked for when it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum During {
    List,
    Read,
    Issue,
    Verify,
    Connect,
    Write,
    Revoke,
    Wait,
}

impl During {
    pub const ALL: [Self; 8] =
        [Self::List, Self::Read, Self::Issue, Self::Verify, Self::Connect, Self::Write, Self::Revoke, Self::Wait];
}

#[derive(Debug, Clone, Default)]
pub struct Coverage {
    pub met: BTreeMap<(Fault, During), u64>,
}

impl Coverage {
    pub fn meet(&mut self, fault: Fault, during: During) {
        *self.met.entry((fault, during)).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (cell, count) in &other.met {
            *self.met.entry(*cell).or_default() += count;
        }
    }

    /// The cells that a run must have met.
    pub fn owed() -> Vec<(Fault, During)> {
        use During as D;
        use Fault as F;
        let effects = [D::List, D::Read, D::Issue, D::Verify, D::Connect, D::Write, D::Revoke];
        let mut owed = Vec::new();
        for during in effects {
            owed.extend([F::None, F::CrashBeforeSave, F::CrashUnderWay, F::CrashBeforeTold].map(|fault| (fault, during)));
        }
        for during in [D::Issue, D::Write, D::Revoke] {
            owed.extend([F::CrashAfterSave, F::SaveFails, F::LostNotDone, F::LostDone, F::DoneLate].map(|fault| (fault, during)));
        }
        for during in [D::List, D::Issue, D::Revoke] {
            owed.extend([F::Throttled, F::Unavailable, F::NoSuchAccount].map(|fault| (fault, during)));
        }
        owed.extend([F::Rejected, F::NameTaken, F::TtlDropped, F::TypeDropped].map(|fault| (fault, D::Issue)));
        owed.extend([F::Incomplete, F::Lagging].map(|fault| (fault, D::List)));
        owed.extend([F::Unreadable, F::Lagging].map(|fault| (fault, D::Read)));
        owed.extend([F::MadeByHand, F::OwnToken].map(|fault| (fault, D::Revoke)));
        owed.extend([F::Refused, F::Conflict].map(|fault| (fault, D::Write)));
        owed.extend([F::Disproved, F::Unavailable].map(|fault| (fault, D::Verify)));
        owed.extend([F::LostDone, F::Unavailable].map(|fault| (fault, D::Connect)));
        let outside = [
            F::RollBack,
            F::ChangedByHand,
            F::Wiped,
            F::ScheduledForDeletion,
            F::OwnedByOther,
            F::RevokedByHand,
            F::SecondInstallation,
            F::JournalLost,
            F::JournalRestored,
            F::ClockSkewed,
            F::Reconfigured,
            F::Renamed,
            F::Ordered,
        ];
        for fault in outside {
            owed.push((fault, D::Wait));
        }
        for fault in [F::RollBack, F::ChangedByHand, F::Wiped] {
            owed.extend([D::List, D::Read, D::Issue, D::Write, D::Revoke].map(|during| (fault, during)));
        }
        owed
    }

    pub fn missing(&self) -> Vec<(Fault, During)> {
        Self::owed().into_iter().filter(|cell| !self.met.contains_key(cell)).collect()
    }

    pub fn table(&self) -> String {
        let mut text = format!("{:<22}", "fault");
        During::ALL.iter().for_each(|during| text += &format!("{:>9}", format!("{during:?}")));
        let mut faults: Vec<Fault> = self.met.keys().map(|(fault, _)| *fault).collect();
        faults.dedup();
        for fault in faults {
            text += &format!("\n{:<22}", format!("{fault:?}"));
            for during in During::ALL {
                text += &format!("{:>9}", self.met.get(&(fault, during)).map_or(String::new(), ToString::to_string));
            }
        }
        text
    }
}
