//! Guarantees that callers get no more than a burst and then a rate, in order of arrival.
//!
//! After a throttling response ([`TokenBucket::penalize`]) the bucket pauses and then refills at the rate. Saved tokens
//! are dropped, since the remote evidently counts differently.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{self, Notify};
use tokio::time::{Instant, sleep_until};

use super::{lock, saturating_add};

/// A token bucket shared by its clones. One token is one call.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The first waiter holds this lock; tokio's mutex is fair, so waiters get it in order of arrival.
    front: sync::Mutex<()>,
    level: Mutex<BucketLevel>,
    changed: Notify,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens (at least one) that gains `per_second` (at least 0.001) tokens a second.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let burst = i128::from(burst.max(1)) * TOKEN;
        let level = BucketLevel {
            tokens: burst,
            burst,
            milli_rate: milli_rate(per_second),
            counted_to: Instant::now(),
        };
        Self {
            inner: Arc::new(Inner {
                front: sync::Mutex::new(()),
                level: level.into(),
                changed: Notify::new(),
            }),
        }
    }

    /// Waits for `count` tokens, after all earlier waiters. A request above the burst is served when the bucket is
    /// full, and later waiters wait until the debt is repaid. Dropping the future cancels the request and takes nothing.
    pub async fn acquire(&self, count: u32) {
        let _front = self.inner.front.lock().await;
        loop {
            let changed = self.inner.changed.notified();
            let Err(at) = lock(&self.inner.level).take(Instant::now(), count) else { return };
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep_until(at) => {}
            }
        }
    }

    /// Waits until no caller waits and at least half of the burst is left, for a call that can wait; but no longer than five
    /// tokens take, so that such calls get a fifth of the rate at least. Takes nothing.
    pub async fn wait_until_spare(&self) {
        /// How long to wait behind callers of which it is not known when they are served.
        const BUSY: Duration = Duration::from_millis(100);
        let patience = lock(&self.inner.level).time_of(5 * TOKEN);
        let deadline = saturating_add(Instant::now(), patience);
        loop {
            let now = Instant::now();
            if now >= deadline {
                return;
            }
            let at = match self.inner.front.try_lock() {
                Ok(_front) => match lock(&self.inner.level).half_full_at(now) {
                    None => return,
                    Some(at) => at,
                },
                Err(_) => saturating_add(now, BUSY),
            };
            sleep_until(at.min(deadline)).await;
        }
    }

    /// Takes `count` tokens if they are available now and no caller waits.
    pub fn try_acquire(&self, count: u32) -> bool {
        let Ok(_front) = self.inner.front.try_lock() else { return false };
        lock(&self.inner.level).take(Instant::now(), count).is_ok()
    }

    /// Changes the rate from now on, also for callers that already wait.
    pub fn set_rate(&self, per_second: f64) {
        lock(&self.inner.level).set_rate(Instant::now(), milli_rate(per_second));
        self.inner.changed.notify_waiters();
    }

    /// Stops handing out tokens for this long and leaves at most one token then. Of several penalties the one that
    /// ends last applies.
    pub fn penalize(&self, pause: Duration) {
        lock(&self.inner.level).penalize(Instant::now(), pause);
        self.inner.changed.notify_waiters();
    }

    /// The number of whole tokens that are available now.
    pub fn available(&self) -> u32 {
        lock(&self.inner.level).available(Instant::now())
    }
}

/// Units per token, so that the gain per nanosecond is an integer for every rate in thousandths per second: with integer
/// arithmetic a token is available at exactly the instant that was computed for it.
const TOKEN: i128 = 1_000_000_000_000;

fn milli_rate(per_second: f64) -> i128 {
    const MAX_MILLI_RATE: f64 = 1e9;
    let milli = (per_second * 1_000.0).round().clamp(1.0, MAX_MILLI_RATE);
    // Clamped to the range of the type; NaN becomes zero, which `max` raises.
    #[allow(clippy::cast_possible_truncation)]
    i128::from(milli as i64).max(1)
}

#[derive(Debug)]
struct BucketLevel {
    tokens: i128,
    burst: i128,
    milli_rate: i128,
    /// The instant up to which `tokens` includes gains. In the future during a penalty.
    counted_to: Instant,
}

impl BucketLevel {
    /// Takes tokens, or returns the instant at which to try again.
    fn take(&mut self, now: Instant, count: u32) -> Result<(), Instant> {
        self.count_to(now);
        let requested = i128::from(count) * TOKEN;
        let missing = requested.min(self.burst) - self.tokens;
        if missing > 0 {
            return Err(saturating_add(self.counted_to, self.time_of(missing)));
        }
        if self.counted_to > now {
            return Err(self.counted_to);
        }
        self.tokens -= requested;
        Ok(())
    }

    /// The time at which half of the burst is available if no token is taken; `None` if it is available now.
    fn half_full_at(&mut self, now: Instant) -> Option<Instant> {
        self.count_to(now);
        let missing = (self.burst / 2 - self.tokens).max(0);
        let at = saturating_add(self.counted_to, self.time_of(missing));
        (at > now).then_some(at)
    }

    /// The time in which this much is gained.
    fn time_of(&self, units: i128) -> Duration {
        let nanos = (units + self.milli_rate - 1) / self.milli_rate;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn set_rate(&mut self, now: Instant, milli_rate: i128) {
        self.count_to(now);
        self.milli_rate = milli_rate;
    }

    fn penalize(&mut self, now: Instant, pause: Duration) {
        self.count_to(now);
        self.tokens = self.tokens.min(TOKEN);
        self.counted_to = self.counted_to.max(saturating_add(now, pause));
    }

    fn available(&mut self, now: Instant) -> u32 {
        self.count_to(now);
        if self.counted_to > now { 0 } else { u32::try_from(self.tokens / TOKEN).unwrap_or(0) }
    }

    fn count_to(&mut self, now: Instant) {
        if let Some(elapsed) = now.checked_duration_since(self.counted_to) {
            let gained =
                i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX).saturating_mul(self.milli_rate);
            self.tokens = self.tokens.saturating_add(gained).min(self.burst);
            self.counted_to = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Starts a waiter for one token that returns how long it waited.
    async fn spawn_waiter(bucket: &TokenBucket) -> tokio::task::JoinHandle<Duration> {
        let (bucket, begun) = (bucket.clone(), Instant::now());
        let waiting = tokio::spawn(async move {
            bucket.acquire(1).await;
            begun.elapsed()
        });
        tokio::task::yield_now().await;
        waiting
    }

    async fn times_of(bucket: &TokenBucket, takes: usize) -> Vec<u128> {
        let begun = Instant::now();
        let mut times = Vec::new();
        for _ in 0..takes {
            bucket.acquire(1).await;
            times.push(begun.elapsed().as_millis());
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn bucket_serves_the_burst_then_the_rate() {
        let bucket = TokenBucket::new(20.0, 3);
        assert_eq!(times_of(&bucket, 6).await, [0, 0, 0, 50, 100, 150]);
    }

    #[tokio::test(start_paused = true)]
    async fn spare_call_leaves_half_of_the_burst_to_others() {
        let bucket = TokenBucket::new(10.0, 8);
        bucket.wait_until_spare().await;
        bucket.acquire(8).await;
        let begun = Instant::now();
        bucket.wait_until_spare().await;
        assert_eq!((begun.elapsed().as_millis(), bucket.available()), (400, 4));
        // Callers that never leave a token delay it by five tokens at most.
        let (others, begun) = (bucket.clone(), Instant::now());
        let busy = tokio::spawn(async move {
            loop {
                others.acquire(1).await;
            }
        });
        tokio::task::yield_now().await;
        bucket.wait_until_spare().await;
        assert_eq!(begun.elapsed().as_millis(), 500);
        busy.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn idle_bucket_saves_at_most_its_burst() {
        let bucket = TokenBucket::new(10.0, 2);
        advance(3_600 * SECOND).await;
        assert_eq!(bucket.available(), 2);
        assert_eq!(times_of(&bucket, 4).await, [0, 0, 100, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn bucket_serves_waiters_in_order_of_arrival() {
        let bucket = TokenBucket::new(1.0, 5);
        bucket.acquire(5).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let takers = [("five", 5), ("one", 1), ("two", 2)].map(|(name, count)| {
            let (bucket, served, begun) = (bucket.clone(), Arc::clone(&served), Instant::now());
            tokio::spawn(async move {
                bucket.acquire(count).await;
                lock(&served).push((name, begun.elapsed().as_secs()));
            })
        });
        for taker in takers {
            taker.await.unwrap();
        }
        assert_eq!(*lock(&served), [("five", 5), ("one", 6), ("two", 8)]);
    }

    #[tokio::test(start_paused = true)]
    async fn try_acquire_fails_when_another_caller_waits() {
        let bucket = TokenBucket::new(1.0, 5);
        bucket.acquire(4).await;
        let waiting = tokio::spawn({
            let bucket = bucket.clone();
            async move { bucket.acquire(3).await }
        });
        tokio::task::yield_now().await;
        assert!(!bucket.try_acquire(1), "a token is available, but a caller waits for three");
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_waiter_takes_no_tokens() {
        let bucket = TokenBucket::new(1.0, 1);
        bucket.acquire(1).await;
        assert!(timeout(SECOND / 2, bucket.acquire(1)).await.is_err());
        advance(SECOND / 2).await;
        assert!(bucket.try_acquire(1));
        assert!(!bucket.try_acquire(1));
    }

    #[tokio::test(start_paused = true)]
    async fn request_above_burst_delays_later_requests() {
        let bucket = TokenBucket::new(1.0, 2);
        let begun = Instant::now();
        bucket.acquire(6).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        bucket.acquire(1).await;
        assert_eq!(begun.elapsed(), 5 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn penalty_pauses_the_bucket_and_drops_the_burst() {
        let bucket = TokenBucket::new(1.0, 100);
        bucket.penalize(10 * SECOND);
        bucket.penalize(2 * SECOND);
        assert!(!bucket.try_acquire(1));
        assert_eq!(bucket.available(), 0);
        assert_eq!(times_of(&bucket, 3).await, [10_000, 11_000, 12_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn penalty_applies_to_callers_that_already_wait() {
        let bucket = TokenBucket::new(1.0, 1);
        bucket.acquire(1).await;
        let waiting = spawn_waiter(&bucket).await;
        bucket.penalize(5 * SECOND);
        assert_eq!(waiting.await.unwrap(), 6 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn new_rate_applies_to_callers_that_already_wait() {
        let bucket = TokenBucket::new(0.001, 1);
        bucket.acquire(1).await;
        let waiting = spawn_waiter(&bucket).await;
        bucket.set_rate(4.0);
        assert_eq!(waiting.await.unwrap(), SECOND / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_rate_becomes_the_slowest_rate() {
        for rate in [0.0, -1.0, f64::NAN] {
            let bucket = TokenBucket::new(rate, 0);
            assert_eq!(times_of(&bucket, 2).await, [0, 1_000_000]);
        }
    }
}
