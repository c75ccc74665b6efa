//! What the design names and this version can't do yet: refused by `check`, never half done.
//! Removing a line of the table turns the feature on.

/// A feature that may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    PostgresJournal,
}

/// What is missing, and what the refusal says.
pub const GAPS: &[(Feature, &str)] =
    &[(Feature::PostgresJournal, "a `postgres://` journal is not supported yet; use `sqlite:/var/lib/rotad/journal.db`")];

/// The refusal, where the feature is missing.
pub(super) fn missing(feature: Feature) -> Option<&'static str> {
    GAPS.iter().find(|(gap, _)| *gap == feature).map(|(_, refusal)| *refusal)
}
