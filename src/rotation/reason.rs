//! Why a new token is due when it is, and what puts it off. The moments are those that the core acts by: nothing here is
//! computed a second time.

use jiff::Timestamp;

use super::backoff::Backoff;
use super::credential::Credential;
use super::policy::Policy;
use super::turn::Turn;
use super::words::Moment;

/// When the next rotation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub at: Timestamp,
    /// The deadline has passed: schedule, window, limits and freezes give way.
    pub urgent: bool,
    pub why: Why,
    /// What `why` says alone, before anything put it off.
    pub first_at: Timestamp,
    /// What put it off from there to `at`, one after the other.
    pub put_off: [Option<PutOff>; 2],
}

/// Why a new token is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// There is none yet.
    First,
    /// The schedule's time: of its `every`, spread by the credential's name, or of its `cron`.
    Schedule,
    /// The token's expiry comes too soon after the schedule's next time.
    Deadline,
    /// A delivery can't be written, so the token is kept to its deadline.
    Undelivered,
    /// It vanished, or a delivery is empty and no other can supply it.
    Gone,
    /// A person asked for it.
    Ordered,
}

/// What puts a rotation off, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum PutOff {
    /// The window after the due time was over, so the schedule's next time counts.
    Window { until: Timestamp },
    /// A person's pause.
    Pause { until: Timestamp },
    /// So many attempts failed in a row.
    Backoff { of: Tried, failures: u32, until: Timestamp },
    /// So many rotations may begin in a minute, and no more.
    Limit { until: Timestamp },
}

/// What was tried and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tried {
    Issue,
    List,
    Read,
}

impl PutOff {
    pub fn until(self) -> Timestamp {
        match self {
            Self::Window { until } | Self::Pause { until } | Self::Backoff { until, .. } | Self::Limit { until } => until,
        }
    }
}

impl Due {
    /// At a time that nothing puts off.
    pub(super) fn new(why: Why, at: Timestamp) -> Self {
        Self { at, urgent: false, why, first_at: at, put_off: [None; 2] }
    }

    /// By the schedule alone, for a token that was asked for at `basis`; `paused` and a window that is over put it off.
    /// `None` where the schedule has no more times.
    pub(super) fn scheduled(policy: &Policy, basis: Timestamp, paused: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        let next = |basis: Timestamp| policy.schedule.next_after(basis);
        let first_at = next(basis)?;
        // A due time whose window is over is passed by.
        let open_since = policy.window.and_then(|window| now.checked_sub(window).ok()).filter(|since| *since > basis);
        let in_window = open_since.map_or(Some(first_at), next)?;
        let at = paused.map_or(in_window, |until| in_window.max(until));
        let window = (in_window != first_at).then_some(PutOff::Window { until: in_window });
        let pause = (at != in_window).then_some(PutOff::Pause { until: at });
        Some(Self { at, put_off: [window, pause], ..Self::new(Why::Schedule, first_at) })
    }
}

impl Turn<'_> {
    /// What keeps a rotation that is due from being asked for, by what the pass before has found.
    pub fn held(&self, now: Moment) -> Option<PutOff> {
        if self.due(now).at > now.wall {
            return None;
        }
        if let Some(until) = self.limited {
            return Some(PutOff::Limit { until });
        }
        let Credential { issuing, listing, deliveries, .. } = &self.credential;
        let reading = deliveries.values().filter_map(|known| known.trouble.as_ref()).filter(|trouble| !trouble.writing);
        let tried = [(Tried::Issue, issuing), (Tried::List, listing)];
        let tried = tried.into_iter().chain(reading.map(|trouble| (Tried::Read, &trouble.backoff)));
        let waits = |(of, backoff): (Tried, &Backoff)| {
            let until = backoff.wait(now.wall)?;
            Some(PutOff::Backoff { of, failures: backoff.failures, until })
        };
        tried.filter_map(waits).max_by_key(|put_off| put_off.until())
    }
}
