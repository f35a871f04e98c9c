//! The one place wall-clock time comes from, so that a simulation can stop it.

#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use ecs_mesh_model::Timestamp;

/// Tells the wall-clock time. For how long something takes, use [`tokio::time::Instant`] instead.
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

    /// A clock that shows `start` now and goes on with tokio's clock, which a test may pause and advance.
    pub fn simulated(start: Timestamp) -> Self {
        Self(ClockSource::Simulated { start, origin: Instant::now() })
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            ClockSource::System => {
                // A machine set to before 1970 has no usable clock; zero makes everything else look new.
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
    async fn a_simulated_clock_goes_on_with_the_paused_one() {
        let clock = Clock::simulated(Timestamp(1_000));
        let copy = clock.clone();
        tokio::time::advance(Duration::from_millis(234)).await;
        assert_eq!((clock.now(), copy.now()), (Timestamp(1_234), Timestamp(1_234)));
    }

    #[test]
    fn the_system_clock_shows_this_century() {
        assert!(Clock::system().now() > Timestamp::parse("2024-01-01T00:00:00Z").unwrap());
    }
}
