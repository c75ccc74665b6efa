//! Keeps the requests to one organization within a rate and a number in flight.
//!
//! Two lines wait: the urgent one is for revocations. The deliveries are read back shortly before a
//! revocation, so a revocation that queued behind a crowd would act on old knowledge; it goes first,
//! and gives up soon rather than late.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// How much of the API one organization may use; `None` lifts that limit (for benchmarks).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub requests_per_second: Option<NonZeroU32>,
    pub max_in_flight: Option<NonZeroUsize>,
}

impl Limits {
    pub const NONE: Self = Self { requests_per_second: None, max_in_flight: None };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Usual,
    Urgent,
}

impl Line {
    /// How long a request waits for its slot before it is given back.
    fn patience(self) -> Duration {
        match self {
            // More than a full pool of workers needs at the default rate; a bound all the same.
            Self::Usual => Duration::from_secs(30),
            // Half of the 10 s for which a read-back may justify a revocation.
            Self::Urgent => Duration::from_secs(5),
        }
    }
}

/// A slot, held while the request is under way.
#[derive(Debug)]
pub(super) struct Slot {
    _in_flight: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(super) struct Limiter {
    pace: Option<Pace>,
    in_flight: Option<Arc<Semaphore>>,
    /// The head of each line waits for pace and place; the others wait for the head, in order.
    usual: tokio::sync::Mutex<()>,
    urgent: tokio::sync::Mutex<()>,
    urgent_waiting: AtomicUsize,
}

impl Limiter {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            pace: limits.requests_per_second.map(Pace::new),
            in_flight: limits.max_in_flight.map(|places| Arc::new(Semaphore::new(places.get().min(Semaphore::MAX_PERMITS)))),
            usual: tokio::sync::Mutex::new(()),
            urgent: tokio::sync::Mutex::new(()),
            urgent_waiting: AtomicUsize::new(0),
        }
    }

    /// Waits for a slot; `None` when there was none within the line's patience.
    pub(super) async fn admit(&self, line: Line) -> Option<Slot> {
        timeout(line.patience(), self.wait(line)).await.ok()
    }

    async fn wait(&self, line: Line) -> Slot {
        let _urgent = (line == Line::Urgent).then(|| Waiting::new(&self.urgent_waiting));
        let _head = match line {
            Line::Usual => self.usual.lock().await,
            Line::Urgent => self.urgent.lock().await,
        };
        if let Some(pace) = &self.pace {
            loop {
                let gives_way = line == Line::Usual && self.urgent_waiting.load(Ordering::Relaxed) > 0;
                match if gives_way { Some(pace.interval) } else { pace.take(Instant::now()) } {
                    Some(wait) => sleep(wait).await,
                    None => break,
                }
            }
        }
        let in_flight = match &self.in_flight {
            // The semaphore is never closed, so there is always a permit in the end.
            Some(semaphore) => Arc::clone(semaphore).acquire_owned().await.ok(),
            None => None,
        };
        Slot { _in_flight: in_flight }
    }
}

/// Counts one waiter for as long as it lives, cancelled or not.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A token bucket, kept as the moment at which it would be full again.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    /// How far ahead of the even pace a burst may run: a tenth of a second's worth.
    burst: Duration,
    full_at: Mutex<Option<Instant>>,
}

impl Pace {
    fn new(per_second: NonZeroU32) -> Self {
        let interval = Duration::from_secs(1) / per_second.get();
        Self { interval, burst: Duration::from_millis(100).saturating_sub(interval), full_at: Mutex::new(None) }
    }

    /// Takes one token, or says how long to wait for it.
    fn take(&self, now: Instant) -> Option<Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = full_at.map_or(now, |at| at.max(now));
        let over = ahead.duration_since(now).saturating_sub(self.burst);
        if !over.is_zero() {
            return Some(over);
        }
        *full_at = Some(ahead + self.interval);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: Option<u32>, in_flight: Option<usize>) -> Limiter {
        Limiter::new(Limits {
            requests_per_second: per_second.and_then(NonZeroU32::new),
            max_in_flight: in_flight.and_then(NonZeroUsize::new),
        })
    }

    #[tokio::test]
    async fn the_pace_holds_over_any_second() {
        let pace = Pace::new(NonZeroU32::new(20).unwrap());
        let start = Instant::now();
        let mut now = start;
        let mut taken = Vec::new();
        while taken.len() < 100 {
            match pace.take(now) {
                None => taken.push(now),
                Some(wait) => now += wait,
            }
        }
        for (index, moment) in taken.iter().enumerate() {
            let within = taken[index..].iter().take_while(|later| **later < *moment + Duration::from_secs(1)).count();
            assert!(within <= 22, "{within} requests in one second at a limit of 20");
        }
        assert!(now - start >= Duration::from_millis(4_800), "100 requests at 20 a second took {:?}", now - start);
    }

    #[tokio::test]
    async fn no_more_are_in_flight_than_allowed() {
        let limiter = limiter(None, Some(2));
        let (first, _second) = (limiter.admit(Line::Usual).await, limiter.admit(Line::Usual).await);
        assert!(timeout(Duration::from_millis(50), limiter.admit(Line::Usual)).await.is_err());
        drop(first);
        assert!(limiter.admit(Line::Usual).await.is_some());
    }

    #[tokio::test]
    async fn a_revocation_goes_before_those_who_wait() {
        let paced = Arc::new(limiter(Some(5), None));
        assert!(paced.admit(Line::Usual).await.is_some());
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for line in [Line::Usual, Line::Usual, Line::Usual, Line::Urgent] {
            let (paced, order) = (Arc::clone(&paced), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                assert!(paced.admit(line).await.is_some());
                order.lock().unwrap().push(line);
            }));
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(order.lock().unwrap()[0], Line::Urgent);
    }

    #[tokio::test]
    async fn without_limits_nobody_waits() {
        let limiter = limiter(None, None);
        let mut slots = Vec::new();
        for _ in 0..10_000 {
            // All are held at once: one that had to wait for another would be given back empty.
            slots.push(limiter.admit(Line::Usual).await);
        }
        assert!(slots.iter().all(Option::is_some));
    }
}
