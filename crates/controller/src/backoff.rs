//! Guarantees that retry delays grow exponentially, with jitter, between two bounds.
//!
//! The n-th delay is between d and 2d, where d doubles from `min` to half of `max`, so no delay is shorter than `min` or
//! longer than `max`. The jitter comes from a seed.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// The bounds of retry delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The shortest delay.
    pub min: Duration,
    /// The longest delay, jitter included.
    pub max: Duration,
}

impl Default for Backoff {
    /// 200 ms to 60 s.
    fn default() -> Self {
        Self { min: Duration::from_millis(200), max: Duration::from_mins(1) }
    }
}

impl Backoff {
    /// The delays of one failing operation, from its first failure on. The same seed gives the same delays.
    pub fn start(&self, seed: u64) -> Delays {
        let delays = ExponentialBuilder::new()
            .with_min_delay(self.min)
            // backon adds up to one delay as jitter.
            .with_max_delay((self.max / 2).max(self.min))
            .without_max_times()
            .with_jitter()
            .with_jitter_seed(seed)
            .build();
        Delays { delays, max: self.max }
    }
}

/// The endless sequence of delays before each further retry of one operation.
#[derive(Debug)]
pub struct Delays {
    delays: <ExponentialBuilder as BackoffBuilder>::Backoff,
    max: Duration,
}

impl Delays {
    /// The delay after one more failure.
    pub fn after_failure(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_delays(backoff: Backoff, seed: u64, count: usize) -> Vec<Duration> {
        let mut delays = backoff.start(seed);
        (0..count).map(|_| delays.after_failure()).collect()
    }

    #[test]
    fn delays_double_with_jitter_up_to_the_bound() {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) };
        for seed in 0..200 {
            for (delay, base) in first_delays(backoff, seed, 8).iter().zip([1, 2, 4, 8, 15, 15, 15, 15]) {
                let base = Duration::from_secs(base);
                assert!((base..=base * 2).contains(delay), "{delay:?} for {base:?}, seed {seed}");
            }
        }
    }

    #[test]
    fn delays_depend_on_the_seed_only() {
        assert_eq!(first_delays(Backoff::default(), 7, 10), first_delays(Backoff::default(), 7, 10));
        assert_ne!(first_delays(Backoff::default(), 7, 10), first_delays(Backoff::default(), 8, 10));
    }

    #[test]
    fn delay_stays_bounded_after_a_thousand_failures() {
        assert!(first_delays(Backoff::default(), 1, 1_000).iter().all(|d| *d <= Duration::from_mins(1)));
    }
}
