//! Misbehaviour on demand.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Operation;
use super::route::Call;

/// One fault: what goes wrong, for which requests, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Any operation when empty.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// Any account when absent; compared without case.
    #[serde(default)]
    pub account: Option<String>,
    pub misbehaviour: Misbehaviour,
    /// How many such requests go well before.
    #[serde(default)]
    pub skip: u32,
    /// How many requests it meets; without a limit when absent.
    #[serde(default)]
    pub requests: Option<u32>,
    /// How long it lasts in real time; until it is cleared when absent.
    #[serde(default)]
    pub seconds: Option<f64>,
}

impl Fault {
    /// For the next request, whichever it is.
    pub fn once(misbehaviour: Misbehaviour) -> Self {
        Self { requests: Some(1), ..Self::always(misbehaviour) }
    }

    /// For every request until cleared.
    pub fn always(misbehaviour: Misbehaviour) -> Self {
        Self { operations: Vec::new(), account: None, misbehaviour, skip: 0, requests: None, seconds: None }
    }

    /// Only for this operation.
    pub fn of(self, operation: Operation) -> Self {
        Self { operations: vec![operation], ..self }
    }
}

/// What goes wrong. `carry_out` says whether the request takes effect all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Misbehaviour {
    /// The port is closed and open connections are reset; needs `seconds`, and takes no other limit.
    Refuse {},
    /// The connection is reset instead of an answer.
    Reset { carry_out: bool },
    /// No answer ever comes.
    Hang { carry_out: bool },
    /// This status instead of the answer.
    Status {
        status: u16,
        #[serde(default)]
        retry_after: Option<RetryAfter>,
        #[serde(default)]
        carry_out: bool,
        /// HTML, as a gateway in between sends it, instead of the API's JSON.
        #[serde(default)]
        html: bool,
    },
    /// This status, type and text instead of the answer.
    Body {
        status: u16,
        content_type: String,
        text: String,
        #[serde(default)]
        carry_out: bool,
    },
    /// Carried out; the answer breaks off in the middle of its body.
    Truncate {},
    /// Carried out; the answer's body is missing.
    Empty {},
    /// Not carried out; 404 with the text `Not Found`.
    NoRoute {},
    /// Not carried out; sent elsewhere.
    Redirect { status: u16, location: String },
    /// Carried out and answered, but later.
    Delay { seconds: f64 },
    /// The connection is reset at once, and the request carried out only later.
    Late { seconds: f64 },
}

impl Misbehaviour {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Refuse {} => "refuse",
            Self::Reset { .. } => "reset",
            Self::Hang { .. } => "hang",
            Self::Status { .. } => "status",
            Self::Body { .. } => "body",
            Self::Truncate {} => "truncate",
            Self::Empty {} => "empty",
            Self::NoRoute {} => "no_route",
            Self::Redirect { .. } => "redirect",
            Self::Delay { .. } => "delay",
            Self::Late { .. } => "late",
        }
    }
}

/// The form of a `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// `Retry-After: 7`
    Seconds(u32),
    /// An HTTP date that many seconds ahead.
    Date(u32),
}

/// The faults that wait for their requests, in the order in which they were given.
#[derive(Default)]
pub(super) struct Faults(Mutex<Vec<Active>>);

struct Active {
    fault: Fault,
    until: Option<Instant>,
}

impl Faults {
    pub(super) fn add(&self, fault: Fault) {
        let until = fault.seconds.map(|seconds| Instant::now() + duration(seconds));
        self.lock().push(Active { fault, until });
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        self.lock().iter().map(|active| active.fault.clone()).collect()
    }

    /// The first fault that meets this request, counted down.
    pub(super) fn meet(&self, call: &Call) -> Option<Misbehaviour> {
        let mut faults = self.lock();
        let index = faults.iter().position(|active| active.fault.fits(call))?;
        let fault = &mut faults[index].fault;
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        let misbehaviour = fault.misbehaviour.clone();
        if let Some(requests) = &mut fault.requests {
            *requests = requests.saturating_sub(1);
            if *requests == 0 {
                faults.remove(index);
            }
        }
        Some(misbehaviour)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Active>> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        faults.retain(|active| active.until.is_none_or(|until| now < until));
        faults
    }
}

impl Fault {
    fn fits(&self, call: &Call) -> bool {
        let account =
            |name: &String| call.username.as_ref().is_some_and(|username| username.to_lowercase() == name.to_lowercase());
        (self.operations.is_empty() || self.operations.contains(&call.operation)) && self.account.as_ref().is_none_or(account)
    }
}

/// A duration from seconds in JSON; nonsense is none at all, and a day is the most.
pub(super) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.min(86_400.0)).unwrap_or_default()
}
