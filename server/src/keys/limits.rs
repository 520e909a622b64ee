//! How much a key may ask for: requests and tokens a minute, requests at once.
//!
//! An own token bucket instead of a library, because unused tokens go back into it, and because a test tells it the time.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What is limited; none leaves it unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests a minute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens a minute, of prompts and answers together.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Requests at once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub concurrent: Option<NonZeroU32>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many requests in the last minute.
    #[error("Rate limit reached: this key may make {limit} requests a minute. Try again in {}", seconds(*.retry_after))]
    Requests {
        /// The limit.
        limit: u32,
        /// When the next would be let in.
        retry_after: Duration,
    },
    /// Too many tokens in the last minute.
    #[error(
        "Rate limit reached: this key may use {limit} tokens a minute, and this request asks for up to {asked}. Try \
         again in {}, or ask for fewer tokens", seconds(*.retry_after)
    )]
    Tokens {
        /// The limit.
        limit: u32,
        /// The tokens of the prompt and the most the answer can have.
        asked: usize,
        /// When that many will be there, if nothing else is asked for.
        retry_after: Duration,
    },
    /// Too many requests at once.
    #[error("Rate limit reached: this key may have {limit} requests running at once. Wait until one has ended")]
    Concurrent {
        /// The limit.
        limit: u32,
    },
    /// More tokens than the limit can ever give.
    #[error(
        "This request asks for up to {asked} tokens, its prompt included, and this key may use {limit} tokens a minute: \
         shorten the prompt, or ask for fewer tokens"
    )]
    NeverFits {
        /// The limit.
        limit: u32,
        /// The tokens of the prompt and the most the answer can have.
        asked: usize,
    },
}

impl Refusal {
    /// When asking again makes sense; none if it never does.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::Requests { retry_after, .. } | Refusal::Tokens { retry_after, .. } => Some(*retry_after),
            // Nobody knows when a running request ends.
            Refusal::Concurrent { .. } => Some(Duration::from_secs(1)),
            Refusal::NeverFits { .. } => None,
        }
    }
}

fn seconds(wait: Duration) -> String {
    format!("{:.1} s", wait.as_secs_f64().max(0.1))
}

/// Limits and what is left of them now: (limit, remaining).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests a minute.
    pub requests: Option<(u32, u32)>,
    /// Tokens a minute.
    pub tokens: Option<(u32, u32)>,
}

/// A bucket that fills at a steady rate; whole when nothing was taken for a minute.
#[derive(Debug)]
struct Bucket {
    per_minute: u32,
    level: f64,
    updated: Instant,
}

impl Bucket {
    fn full(per_minute: NonZeroU32, now: Instant) -> Self {
        Bucket { per_minute: per_minute.get(), level: f64::from(per_minute.get()), updated: now }
    }

    fn refill(&mut self, now: Instant) {
        let minutes = now.saturating_duration_since(self.updated).as_secs_f64() / 60.0;
        self.put(minutes * f64::from(self.per_minute));
        self.updated = self.updated.max(now);
    }

    fn put(&mut self, amount: f64) {
        self.level = (self.level + amount).min(f64::from(self.per_minute));
    }

    /// Takes an amount, or says how long until it will be there.
    fn take(&mut self, amount: f64) -> Result<(), Duration> {
        if amount <= self.level {
            self.level -= amount;
            return Ok(());
        }
        let minutes = (amount - self.level) / f64::from(self.per_minute);
        // Rounded up to a millisecond, so that whoever waits as long as told is not told again.
        Err(Duration::from_secs_f64((minutes * 60_000.0).ceil() / 1_000.0))
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and a u32
    fn standing(&mut self, now: Instant) -> (u32, u32) {
        self.refill(now);
        (self.per_minute, self.level.max(0.0) as u32)
    }
}

/// The account of one key.
#[derive(Debug)]
pub(super) struct Meter {
    state: Mutex<State>,
    clock: fn() -> Instant,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    running: u32,
}

impl Meter {
    pub(super) fn new(limits: Limits) -> Self {
        Meter::with_clock(limits, Instant::now)
    }

    fn with_clock(limits: Limits, clock: fn() -> Instant) -> Self {
        let now = clock();
        let bucket = |limit: Option<NonZeroU32>| limit.map(|limit| Bucket::full(limit, now));
        let (requests, tokens) = (bucket(limits.requests_per_minute), bucket(limits.tokens_per_minute));
        Meter { state: Mutex::new(State { limits, requests, tokens, running: 0 }), clock }
    }

    /// New limits for the same key; what runs and was used goes on counting where the limit is the same.
    pub(super) fn set_limits(&self, limits: Limits) {
        let now = (self.clock)();
        let mut state = self.lock();
        let renew = |bucket: &mut Option<Bucket>, limit: Option<NonZeroU32>| {
            if bucket.as_ref().map(|bucket| bucket.per_minute) != limit.map(NonZeroU32::get) {
                *bucket = limit.map(|limit| Bucket::full(limit, now));
            }
        };
        renew(&mut state.requests, limits.requests_per_minute);
        renew(&mut state.tokens, limits.tokens_per_minute);
        state.limits = limits;
    }

    pub(super) fn admit(self: &Arc<Self>) -> Result<Admission, Refusal> {
        let now = (self.clock)();
        let mut state = self.lock();
        if let Some(limit) = state.limits.concurrent.map(NonZeroU32::get)
            && state.running >= limit
        {
            return Err(Refusal::Concurrent { limit });
        }
        if let Some(bucket) = &mut state.requests {
            bucket.refill(now);
            let limit = bucket.per_minute;
            bucket.take(1.0).map_err(|retry_after| Refusal::Requests { limit, retry_after })?;
        }
        state.running = state.running.saturating_add(1);
        Ok(Admission(Arc::clone(self)))
    }

    #[allow(clippy::cast_precision_loss)] // a count of tokens is far below 2^53
    pub(super) fn charge(self: &Arc<Self>, tokens: usize) -> Result<Charge, Refusal> {
        let now = (self.clock)();
        let mut state = self.lock();
        let Some(bucket) = &mut state.tokens else { return Ok(Charge::default()) };
        bucket.refill(now);
        let (limit, asked) = (bucket.per_minute, tokens);
        if u32::try_from(tokens).ok().is_none_or(|tokens| tokens > limit) {
            return Err(Refusal::NeverFits { limit, asked });
        }
        bucket.take(tokens as f64).map_err(|retry_after| Refusal::Tokens { limit, asked, retry_after })?;
        Ok(Charge { meter: Some(Arc::clone(self)), taken: tokens, used: 0 })
    }

    /// More than this is never let through.
    pub(super) fn most_tokens(&self) -> Option<usize> {
        let limit = self.lock().limits.tokens_per_minute;
        limit.map(|limit| usize::try_from(limit.get()).unwrap_or(usize::MAX))
    }

    pub(super) fn standing(&self) -> Standing {
        let now = (self.clock)();
        let mut state = self.lock();
        Standing {
            requests: state.requests.as_mut().map(|bucket| bucket.standing(now)),
            tokens: state.tokens.as_mut().map(|bucket| bucket.standing(now)),
        }
    }

    // No code that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was let in. It counts among the concurrent ones until this is dropped.
#[derive(Debug)]
pub struct Admission(Arc<Meter>);

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running = state.running.saturating_sub(1);
    }
}

/// Tokens that were taken in advance. Dropping it gives back those that were not used.
#[derive(Debug, Default)]
pub struct Charge {
    meter: Option<Arc<Meter>>,
    taken: usize,
    used: usize,
}

impl Charge {
    /// Says how many of the tokens were used up to now.
    pub fn settle(&mut self, used: usize) {
        self.used = used;
    }
}

impl Drop for Charge {
    #[allow(clippy::cast_precision_loss)] // a count of tokens is far below 2^53
    fn drop(&mut self) {
        let unused = self.taken.saturating_sub(self.used);
        if let Some(meter) = &self.meter
            && let Some(bucket) = &mut meter.lock().tokens
        {
            bucket.put(unused as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<Instant> = Cell::new(Instant::now());
    }

    fn pass(time: Duration) {
        NOW.set(NOW.get() + time);
    }

    fn limits(requests: Option<u32>, tokens: Option<u32>, concurrent: Option<u32>) -> Limits {
        let limit = |n: Option<u32>| n.and_then(NonZeroU32::new);
        Limits { requests_per_minute: limit(requests), tokens_per_minute: limit(tokens), concurrent: limit(concurrent) }
    }

    fn meter(requests: Option<u32>, tokens: Option<u32>, concurrent: Option<u32>) -> Arc<Meter> {
        let limits = limits(requests, tokens, concurrent);
        Arc::new(Meter::with_clock(limits, || NOW.get()))
    }

    #[test]
    fn requests_come_back_at_a_steady_rate_and_whoever_waits_as_told_is_let_in() {
        let meter = meter(Some(3), None, None);
        for left in [2, 1, 0] {
            meter.admit().unwrap();
            assert_eq!(meter.standing().requests, Some((3, left)));
        }
        let refusal = meter.admit().unwrap_err();
        assert_eq!(refusal, Refusal::Requests { limit: 3, retry_after: Duration::from_secs(20) });
        pass(Duration::from_millis(19_900));
        let wait = meter.admit().unwrap_err().retry_after().unwrap();
        assert!(wait <= Duration::from_millis(101), "{wait:?}");
        pass(wait);
        meter.admit().unwrap();
        assert!(meter.admit().is_err());
        // A long silence saves up one minute's worth and no more.
        pass(Duration::from_secs(3600));
        assert_eq!(meter.standing().requests, Some((3, 3)));
    }

    #[test]
    fn concurrent_requests_are_counted_until_they_are_dropped() {
        let meter = meter(Some(100), None, Some(2));
        let first = meter.admit().unwrap();
        let _second = meter.admit().unwrap();
        assert_eq!(meter.admit().unwrap_err(), Refusal::Concurrent { limit: 2 });
        assert_eq!(meter.standing().requests, Some((100, 98)), "a request that is not let in costs nothing");
        drop(first);
        meter.admit().unwrap();
    }

    #[test]
    fn unused_tokens_are_given_back_and_used_ones_are_not() {
        let meter = meter(None, Some(100), None);
        let mut charge = meter.charge(80).unwrap();
        assert_eq!(meter.standing().tokens, Some((100, 20)));
        let refusal = meter.charge(30).unwrap_err();
        assert_eq!(refusal, Refusal::Tokens { limit: 100, asked: 30, retry_after: Duration::from_secs(6) });
        charge.settle(10);
        charge.settle(25);
        drop(charge);
        assert_eq!(meter.standing().tokens, Some((100, 75)));
        // More used than taken, which a wrong estimate could bring, gives nothing back.
        let mut charge = meter.charge(5).unwrap();
        charge.settle(9);
        drop(charge);
        assert_eq!(meter.standing().tokens, Some((100, 70)));
        // Giving back never fills the bucket beyond its size.
        let charge = meter.charge(60).unwrap();
        pass(Duration::from_secs(60));
        drop(charge);
        assert_eq!(meter.standing().tokens, Some((100, 100)));
    }

    #[test]
    fn what_can_never_fit_is_not_told_to_wait() {
        let meter = meter(None, Some(100), None);
        for asked in [101, usize::MAX] {
            let refusal = meter.charge(asked).unwrap_err();
            assert_eq!((refusal, refusal.retry_after()), (Refusal::NeverFits { limit: 100, asked }, None));
        }
        meter.charge(100).unwrap();
    }

    #[test]
    fn changed_limits_count_at_once_and_forget_nothing_that_runs() {
        let meter = meter(Some(1), Some(50), Some(1));
        let running = meter.admit().unwrap();
        let limits = limits(Some(10), Some(50), Some(2));
        let mut charge = meter.charge(40).unwrap();
        charge.settle(40);
        meter.set_limits(limits);
        assert_eq!(meter.standing(), Standing { requests: Some((10, 10)), tokens: Some((50, 10)) });
        let _second = meter.admit().unwrap();
        assert_eq!(meter.admit().unwrap_err(), Refusal::Concurrent { limit: 2 });
        drop(running);
        meter.admit().unwrap();
        meter.set_limits(Limits::default());
        assert!(meter.charge(usize::MAX).is_ok() && meter.standing() == Standing::default());
    }
}
