//! Deliberate breakages of the core: each breaks one promise, so that a test can show that the
//! simulator's oracle would notice. Without the feature `breakages` every switch is off, and the
//! compiler removes the sites.

/// One rule of the core that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Breakage {
    /// A revocation relies on a read-back of any age (S1).
    StaleReadBack,
    /// A revocation relies on what was confirmed once, not on a read-back (S1).
    ReadBackSkipped,
    /// A revocation is sent without a list under the same claim (S7).
    RevokedUnlisted,
    /// A write of unknown outcome is taken to have ended (S1).
    UnsettledWritesIgnored,
    /// A write that a crash cut off is taken as refused (S1).
    CutOffWriteRefused,
    /// A place that is no longer configured is forgotten (S1).
    FormerDeliveryForgotten,
    /// The grace period counts from the intent, not from the last confirmation (S2).
    GraceFromIntent,
    /// A place that showed something else does not begin the grace period anew (S2).
    GraceNotRestarted,
    /// A token is revoked as soon as every delivery shows a later one (S2).
    GraceIgnored,
    /// A reload shortens a grace period in progress (S2).
    GraceShortened,
    /// One delivery's confirmation counts for all (S1, S2).
    PromotedAfterFirst,
    /// A lost token is revoked as soon as it is found (S2).
    LostRevokedAtOnce,
    /// What a rebuild found is revoked (S3).
    AdoptedRevoked,
    /// An id that the operator no longer lists for adoption is revoked all the same (S3).
    WithdrawalIgnored,
    /// The old admin token is revoked before rotad has used the new one for a whole sweep (the admin token).
    UnusedAdminToken,
    /// An id listed for adoption is taken although rotad made it for another credential (S3).
    AnothersAdopted,
    /// A request without an answer is taken as refused: its token is forgotten (S5, L2).
    LostForgotten,
    /// A request without an answer is sent once more, with the same id (S5).
    RequestSentAgain,
    /// A failed delivery asks for a new token (S6).
    FailedDeliveryMints,
    /// Being away from one list proves that a token is gone (S7).
    AbsenceAsProof,
    /// A token is asked for without a list under the same claim (S7).
    IssuedUnlisted,
    /// A token is asked for without a look at the deliveries (S7).
    IssuedUnread,
    /// What the places show and the journal does not know is not looked into (S7).
    RebuildSkipped,
    /// A start of the process makes every credential due (S7).
    DueAtStart,
    /// Clocks that disagree stop nothing (S7).
    FreezeIgnored,
    /// What a person put back is overwritten at once (the table of read-backs).
    RolledBackOverwritten,
    /// A delivery that can't be written puts the rotation off for ever (L1).
    DeadlineIgnored,
    /// A revocation that failed once is not tried again (L2).
    RevocationGivenUp,
    /// A credential with nothing to do never asks to be looked at again (L3).
    NeverWoken,
    /// A read-scaling token is asked for before the account was connected to (read scaling).
    ConnectionSkipped,
    /// That the account was connected to is not remembered (read scaling).
    ConnectionForgotten,
    /// A set-up token is left to expire (L2).
    SetUpTokenKept,
    /// A request for a set-up token without an answer is sent once more, with the same id (S5).
    SetUpSentAgain,
    /// The engine's limits let everything pass (blast radius).
    LimitsIgnored,
    /// A restart begins a new minute of the limits (blast radius).
    RestartUncounted,
    /// The engine acts before it saves the intent (S3, S6).
    SavedAfterEffect,
}

#[cfg(feature = "breakages")]
mod switches {
    use std::cell::Cell;

    use super::Breakage;

    thread_local! {
        static BROKEN: Cell<u64> = const { Cell::new(0) };
    }

    /// Breaks exactly these, in this thread.
    pub fn break_only(breakages: &[Breakage]) {
        BROKEN.set(breakages.iter().fold(0, |all, one| all | 1 << (*one as u32)));
    }

    pub(crate) fn broken(breakage: Breakage) -> bool {
        BROKEN.get() & 1 << (breakage as u32) != 0
    }
}

#[cfg(feature = "breakages")]
pub use switches::break_only;
#[cfg(feature = "breakages")]
pub(crate) use switches::broken;

/// Whether a rule is switched off: never, in a build without the feature.
#[cfg(not(feature = "breakages"))]
pub(crate) const fn broken(_: Breakage) -> bool {
    false
}
