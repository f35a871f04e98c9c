//! Guarantees that answers cost a limited part of the machine, however many are asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Answers that are rendered at a time.
const PLACES: usize = 2;

/// A place rests this many times as long as its answer took: all of them together cost at most half a core.
const REST_PER_COST: u32 = 3;

/// The places in which answers are rendered.
pub(super) struct RenderGate(Arc<Semaphore>);

impl Default for RenderGate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PLACES)))
    }
}

impl RenderGate {
    /// Waits for a place, and does the work on a thread for blocking work. `None` if it panicked.
    ///
    /// Work that has begun ends, and its place rests, also where the caller stops waiting.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // The semaphore is never closed, so this is always a permit.
        let permit = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let runtime = tokio::runtime::Handle::current();
        let done = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let done = work();
            runtime.spawn(rest(permit, began.elapsed()));
            done
        });
        done.await.ok()
    }
}

/// Keeps the place for as long as it rests after work of this duration.
async fn rest(permit: OwnedSemaphorePermit, cost: Duration) {
    tokio::time::sleep(cost.saturating_mul(REST_PER_COST)).await;
    drop(permit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn place_rests_after_its_answer() {
        let gate = RenderGate::default();
        let permit = Arc::clone(&gate.0).acquire_owned().await.unwrap();
        let resting = tokio::spawn(rest(permit, Duration::from_millis(100)));
        for (after, free) in [(0, 1), (299, 1), (2, 2)] {
            tokio::time::advance(Duration::from_millis(after)).await;
            tokio::task::yield_now().await;
            assert_eq!(gate.0.available_permits(), free, "{after}");
        }
        resting.await.unwrap();
    }

    #[tokio::test]
    async fn failed_work_leaves_its_place() {
        let gate = RenderGate::default();
        for _ in 0..PLACES + 1 {
            assert_eq!(gate.run(|| panic!("a defect")).await, None::<()>);
        }
        assert_eq!(gate.run(|| 7).await, Some(7));
    }
}
