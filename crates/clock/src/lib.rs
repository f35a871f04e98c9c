//! The single source of wall-clock time, so that a simulation can pause it.
//!
//! ```
//! use ecs_mesh_clock::Clock;
//! use ecs_mesh_model::Timestamp;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let clock = Clock::simulated(Timestamp(1_000));
//! tokio::time::advance(std::time::Duration::from_millis(234)).await;
//! assert_eq!(clock.now(), Timestamp(1_234));
//! # });
//! ```

#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use ecs_mesh_model::Timestamp;

/// Reads the wall-clock time. To measure durations, use [`tokio::time::Instant`] instead.
#[derive(Clone, Debug)]
pub struct Clock(ClockSource);

#[derive(Clone, Debug)]
enum ClockSource {
    System,
    Simulated { start: Timestamp, origin: Instant },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(ClockSource::System)
    }

    /// A clock that shows `start` now and then follows tokio's clock, which a test may pause and advance.
    pub fn simulated(start: Timestamp) -> Self {
        Self(ClockSource::Simulated { start, origin: Instant::now() })
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            ClockSource::System => {
                // A machine set to before 1970 has no usable clock; with zero every other time is in its future.
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                Timestamp(0).plus(since_epoch)
            }
            ClockSource::Simulated { start, origin } => start.plus(origin.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn simulated_clock_follows_the_paused_clock() {
        let clock = Clock::simulated(Timestamp(1_000));
        let copy = clock.clone();
        tokio::time::advance(Duration::from_millis(234)).await;
        assert_eq!((clock.now(), copy.now()), (Timestamp(1_234), Timestamp(1_234)));
    }

    #[test]
    fn system_clock_shows_this_century() {
        assert!(Clock::system().now() > Timestamp::parse("2024-01-01T00:00:00Z").unwrap());
    }
}
