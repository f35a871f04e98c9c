//! The single source of time, so that a simulation can pause it.
//!
//! Two readings: a steady one for all durations that decide something, and the wall clock for what people and certificates
//! date. The steady one also counts while the machine is suspended, and no step of the wall clock changes it.
//!
//! ```
//! use ecs_mesh_clock::Clock;
//! use ecs_mesh_model::Timestamp;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let clock = Clock::simulated(Timestamp(1_000));
//! tokio::time::advance(std::time::Duration::from_millis(234)).await;
//! assert_eq!(clock.now(), Timestamp(1_234));
//! // An administrator sets the machine's clock an hour back.
//! clock.step_wall(-3_600_000);
//! assert_eq!((clock.now(), clock.wall()), (Timestamp(1_234), Timestamp(1_234 - 3_600_000)));
//! # });
//! ```

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use ecs_mesh_model::Timestamp;

/// The clock that also counts while the machine is suspended, where there is one.
#[cfg(target_os = "linux")]
const STEADY: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const STEADY: ClockId = ClockId::Monotonic;

/// Reads the time. Shared by its clones.
#[derive(Clone, Debug)]
pub struct Clock(ClockSource);

#[derive(Clone, Debug)]
enum ClockSource {
    /// The readings of both clocks at the start.
    System {
        wall: Timestamp,
        steady: Duration,
    },
    Simulated {
        start: Timestamp,
        origin: Instant,
        wall_offset: Arc<AtomicI64>,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(ClockSource::System { wall: system_wall(), steady: since_boot() })
    }

    /// A clock that shows `start` now and then follows tokio's clock, which a test may pause and advance.
    pub fn simulated(start: Timestamp) -> Self {
        Self(ClockSource::Simulated { start, origin: Instant::now(), wall_offset: Arc::default() })
    }

    /// The steady time now: what the wall clock showed when this clock was created, plus the time since. Durations between
    /// two such times are right, whatever happens to the wall clock.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            ClockSource::System { wall, steady } => wall.plus(since_boot().saturating_sub(*steady)),
            ClockSource::Simulated { start, origin, .. } => start.plus(origin.elapsed()),
        }
    }

    /// The wall-clock time, to be compared with times that a person, a server or a certificate gives.
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            ClockSource::System { .. } => system_wall(),
            ClockSource::Simulated { wall_offset, .. } => {
                Timestamp(self.now().0 + wall_offset.load(Ordering::Relaxed))
            }
        }
    }

    /// Steps the wall clock of a simulated clock by this many milliseconds; that of the machine is left alone.
    pub fn step_wall(&self, millis: i64) {
        if let ClockSource::Simulated { wall_offset, .. } = &self.0 {
            wall_offset.fetch_add(millis, Ordering::Relaxed);
        }
    }
}

fn system_wall() -> Timestamp {
    // A machine set to before 1970 has no usable clock; with zero every other time is in its future.
    Timestamp(0).plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}

fn since_boot() -> Duration {
    let now = clock_gettime(STEADY);
    let seconds = Duration::from_secs(now.tv_sec.try_into().unwrap_or_default());
    seconds + Duration::from_nanos(now.tv_nsec.try_into().unwrap_or_default())
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

    #[tokio::test(start_paused = true)]
    async fn step_of_the_wall_clock_leaves_the_steady_time_alone() {
        let (clock, day) = (Clock::simulated(Timestamp(1_000_000_000)), 86_400_000);
        let copy = clock.clone();
        clock.step_wall(-day);
        clock.step_wall(500);
        assert_eq!((copy.now(), copy.wall()), (Timestamp(1_000_000_000), Timestamp(1_000_000_500 - day)));
    }

    #[test]
    fn system_clock_shows_this_century_and_does_not_go_back() {
        let clock = Clock::system();
        let first = clock.now();
        assert!(first > Timestamp::parse("2024-01-01T00:00:00Z").unwrap());
        assert!(clock.now() >= first && clock.wall() >= Timestamp(first.0 - 60_000));
    }
}
