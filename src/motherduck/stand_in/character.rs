//! Which side the stand-in takes of each question that the contract leaves open.

use serde::{Deserialize, Serialize};

use super::state::Refusal;

/// How the stand-in behaves where the real API's behaviour is not known, or is known to vary.
/// The default is the likeliest side of each question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Character {
    pub duplicate_name: DuplicateName,
    /// Whether the name of a revoked or expired token can be used again.
    pub dead_names_are_free: bool,
    /// Whether revoking an id that has expired is a success.
    pub expired_id_revokes: bool,
    pub revoke_answer: RevokeAnswer,
    /// Whether `ttl` may be `"3600"`.
    pub textual_ttl: bool,
    /// Whether `ttl` may be `3600.5`; the fraction is dropped.
    pub fractional_ttl: bool,
    /// What an account that is no Admin may do with its own tokens.
    pub member_creates: bool,
    pub member_lists: bool,
    pub member_revokes: bool,
    pub time_format: TimeFormat,
    /// Whether a token's name may hold `/`.
    pub slash_in_names: bool,
    /// Fields of the request that are dropped silently, as if they weren't known.
    pub drop_ttl: bool,
    pub drop_token_type: bool,
    pub drop_description: bool,
    /// Tokens in one page of a list; not paged when absent.
    pub page_size: Option<usize>,
    pub cursor_end: CursorEnd,
    /// The last page leads back to the second.
    pub cursor_loop: bool,
    /// This page of every list (from 0) answers 500.
    pub missing_page: Option<usize>,
    /// How long (of the stand-in's time) a new token is absent from lists.
    pub list_lag_ms: u64,
    /// How long a revoked token stays in lists.
    pub list_linger_ms: u64,
    /// How long a revoked token still works.
    pub revocation_delay_ms: u64,
    /// Whether an account's read-scaling tokens let nobody in before a read/write one did (documented).
    pub first_connection_needed: bool,
    /// The most live tokens of one account; 400 beyond.
    pub tokens_max: Option<usize>,
    /// More requests than this in one second (of real time) answer 429.
    pub requests_per_second: Option<u32>,
}

impl Default for Character {
    fn default() -> Self {
        Self {
            duplicate_name: DuplicateName::Conflict,
            dead_names_are_free: false,
            expired_id_revokes: false,
            revoke_answer: RevokeAnswer::EmptyObject,
            textual_ttl: false,
            fractional_ttl: false,
            member_creates: true,
            member_lists: true,
            member_revokes: true,
            time_format: TimeFormat::Milliseconds,
            slash_in_names: true,
            drop_ttl: false,
            drop_token_type: false,
            drop_description: false,
            page_size: None,
            cursor_end: CursorEnd::Absent,
            cursor_loop: false,
            missing_page: None,
            list_lag_ms: 0,
            list_linger_ms: 0,
            revocation_delay_ms: 0,
            first_connection_needed: true,
            tokens_max: None,
            requests_per_second: None,
        }
    }
}

/// What a name that is taken is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuplicateName {
    /// 409
    Conflict,
    /// 400 with `unique constraint` in the message
    BadRequest,
}

impl DuplicateName {
    pub(super) fn refusal(self, conflict: &str) -> Refusal {
        match self {
            Self::Conflict => Refusal::conflict(conflict),
            Self::BadRequest => Refusal::bad_request("name violates a unique constraint"),
        }
    }
}

/// What a successful revocation is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeAnswer {
    /// 200 with `{}`
    EmptyObject,
    /// 204
    NoContent,
    /// 200 without a body
    EmptyBody,
}

/// How times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// `2026-11-21T23:00:00Z`
    Seconds,
    /// `2026-11-21T23:00:00.123Z`
    Milliseconds,
    /// `2026-11-21T23:00:00.123456789Z`
    Nanoseconds,
    /// `2026-11-21T23:00:00.123+00:00`
    Offset,
    /// `2026-11-21T23:00:00.123`: not RFC 3339
    WithoutOffset,
}

impl TimeFormat {
    pub(super) fn write(self, moment: jiff::Timestamp) -> String {
        let civil = moment.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        match self {
            Self::Seconds => format!("{civil:.0}Z"),
            Self::Milliseconds => format!("{civil:.3}Z"),
            Self::Nanoseconds => format!("{civil:.9}Z"),
            Self::Offset => format!("{civil:.3}+00:00"),
            Self::WithoutOffset => format!("{civil:.3}"),
        }
    }
}

/// How the last page of a list says that it is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CursorEnd {
    Absent,
    Null,
    Empty,
}
