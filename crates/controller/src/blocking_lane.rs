//! Runs work that may hang, such as reads of remote file systems, off the runtime and with a time limit.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

/// Runs one piece of blocking work at a time. Work that hangs keeps its lane: it costs one thread, however often it is tried
/// again, and callers are not held up longer than their limit.
///
/// ```
/// use std::time::Duration;
/// use ecs_mesh_controller::BlockingLane;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let lane = BlockingLane::default();
/// assert_eq!(lane.run(Duration::from_secs(5), || 6 * 7).await, Some(42));
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct BlockingLane(Arc<Mutex<()>>);

impl BlockingLane {
    /// Runs `work` once earlier work is done. `None` when both together take longer than `limit`, or `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let lane = Arc::clone(&self.0);
        let run = async {
            let turn = lane.lock_owned().await;
            tokio::task::spawn_blocking(move || {
                let _turn = turn;
                work()
            })
            .await
        };
        tokio::time::timeout(limit, run).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn hanging_work_costs_one_thread_until_it_ends() {
        let lane = BlockingLane::default();
        let (end, ended) = mpsc::channel::<()>();
        // No time at all: the work has started, and its caller does not wait.
        let hanging = lane.clone();
        let started = tokio::spawn(async move { hanging.run(LIMIT, move || ended.recv()).await });
        while lane.0.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(lane.run(Duration::ZERO, || "run beside the hanging work").await, None);
        end.send(()).unwrap();
        assert_eq!(started.await.unwrap(), Some(Ok(())));
        assert_eq!(lane.run(LIMIT, || "run after it").await, Some("run after it"));
    }
}
