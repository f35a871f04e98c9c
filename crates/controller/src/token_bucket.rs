//! Guarantees that callers get no more than a burst and then a rate, in order of arrival.
//!
//! Callers that can wait ([`TokenBucket::acquire_spare`]) get what the others leave, and a fifth of the rate at least. While
//! one of them waits, each token of the others costs a quarter more, which is saved for it: the others are served a little
//! slower, and none of them is left out.
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
    /// As `front`, for callers that can wait.
    spare_front: sync::Mutex<()>,
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
            spare: 0,
            spare_waiters: 0,
        };
        Self {
            inner: Arc::new(Inner {
                front: sync::Mutex::new(()),
                spare_front: sync::Mutex::new(()),
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
            let taken = lock(&self.inner.level).take(Instant::now(), count);
            let Err(at) = taken else {
                self.inner.changed.notify_waiters();
                return;
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep_until(at) => {}
            }
        }
    }

    /// Waits for a token that other callers leave: until no caller waits and at least half of the burst is left, or until the
    /// others have paid for it. Dropping the future cancels the request and takes nothing.
    pub async fn acquire_spare(&self) {
        /// How long to wait behind callers of which it is not known when they are served.
        const BUSY: Duration = Duration::from_millis(100);
        let _front = self.inner.spare_front.lock().await;
        let _waiter = SpareWaiter::new(&self.inner);
        loop {
            let changed = self.inner.changed.notified();
            let now = Instant::now();
            // The lock is released before the await.
            let is_free = self.inner.front.try_lock().is_ok();
            let at = match lock(&self.inner.level).take_spare(now, is_free) {
                Ok(()) => return,
                Err(at) => at.unwrap_or(saturating_add(now, BUSY)),
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep_until(at) => {}
            }
        }
    }

    /// As [`Self::acquire_spare`], and takes nothing: for a call that takes its token later.
    pub async fn wait_until_spare(&self) {
        self.acquire_spare().await;
        lock(&self.inner.level).give_back();
        self.inner.changed.notify_waiters();
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

/// A caller that waits for a spare token. Dropped, it waits no longer.
struct SpareWaiter<'a>(&'a Inner);

impl<'a> SpareWaiter<'a> {
    fn new(inner: &'a Inner) -> Self {
        lock(&inner.level).spare_waiters += 1;
        Self(inner)
    }
}

impl Drop for SpareWaiter<'_> {
    fn drop(&mut self) {
        lock(&self.0.level).spare_waiters -= 1;
    }
}

/// Of how many tokens the price of one is saved while a caller waits for a spare one: a fifth of all is spare.
const SPARE_SHARE: i128 = 4;

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
    /// Paid by callers for those that wait for a spare token: one token at most.
    spare: i128,
    spare_waiters: usize,
}

impl BucketLevel {
    /// Takes tokens, or returns the instant at which to try again.
    fn take(&mut self, now: Instant, count: u32) -> Result<(), Instant> {
        self.count_to(now);
        let requested = i128::from(count) * TOKEN;
        let saved = if self.spare_waiters > 0 { requested / SPARE_SHARE } else { 0 };
        let missing = (requested + saved).min(self.burst) - self.tokens;
        if missing > 0 {
            return Err(saturating_add(self.counted_to, self.time_of(missing)));
        }
        if self.counted_to > now {
            return Err(self.counted_to);
        }
        self.tokens -= requested + saved;
        self.spare = (self.spare + saved).min(TOKEN);
        Ok(())
    }

    /// Takes a token that was saved, or one of at least half a burst if no caller waits. Otherwise the instant at which to try
    /// again, as far as it is known.
    fn take_spare(&mut self, now: Instant, is_free: bool) -> Result<(), Option<Instant>> {
        self.count_to(now);
        if self.counted_to > now {
            return Err(Some(self.counted_to));
        }
        if self.spare >= TOKEN {
            self.spare -= TOKEN;
            return Ok(());
        }
        if !is_free {
            return Err(None);
        }
        let missing = (self.burst / 2).max(TOKEN) - self.tokens;
        if missing > 0 {
            return Err(Some(saturating_add(self.counted_to, self.time_of(missing))));
        }
        self.tokens -= TOKEN;
        Ok(())
    }

    /// Returns a token.
    fn give_back(&mut self) {
        self.tokens = (self.tokens + TOKEN).min(self.burst);
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
        self.spare = 0;
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
    async fn spare_callers_slow_others_evenly() {
        let bucket = TokenBucket::new(10.0, 1);
        bucket.acquire(1).await;
        let spare = bucket.clone();
        let spare = tokio::spawn(async move {
            let begun = Instant::now();
            let mut times = Vec::new();
            for _ in 0..2 {
                spare.acquire_spare().await;
                times.push(begun.elapsed().as_millis());
            }
            times
        });
        tokio::task::yield_now().await;
        let times = times_of(&bucket, 10).await;
        let gaps: Vec<u128> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (100..=125).contains(gap)), "none waits for another token: {times:?}");
        assert_eq!(spare.await.unwrap(), [475, 975]);
        // Without others, all is spare.
        bucket.acquire_spare().await;
        let begun = Instant::now();
        bucket.acquire_spare().await;
        assert_eq!(begun.elapsed().as_millis(), 100);
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
