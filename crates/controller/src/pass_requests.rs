//! Requests of passes over a whole set of objects: each pass completes the requests before its start.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The requests of one loop. Starts with one.
///
/// ```
/// use ecs_mesh_controller::PassRequests;
///
/// let requests = PassRequests::default();
/// let begun = requests.begin();
/// requests.request();
/// requests.complete(begun);
/// assert!(!requests.is_settled(), "the last request came after the start of the pass");
/// requests.complete(requests.begin());
/// assert!(requests.is_settled());
/// ```
#[derive(Debug)]
pub struct PassRequests {
    requested: AtomicU64,
    completed: AtomicU64,
    notify: Notify,
}

impl Default for PassRequests {
    fn default() -> Self {
        Self { requested: AtomicU64::new(1), completed: AtomicU64::default(), notify: Notify::default() }
    }
}

impl PassRequests {
    /// Requests a pass.
    pub fn request(&self) {
        self.requested.fetch_add(1, Ordering::AcqRel);
        self.notify.notify_one();
    }

    /// Whether every requested pass has ended.
    pub fn is_settled(&self) -> bool {
        self.completed.load(Ordering::Acquire) == self.requested.load(Ordering::Acquire)
    }

    /// The requests that a pass beginning now completes.
    pub fn begin(&self) -> u64 {
        self.requested.load(Ordering::Acquire)
    }

    /// Marks these requests as completed.
    pub fn complete(&self, requests: u64) {
        self.completed.store(requests, Ordering::Release);
    }

    /// Waits for a request.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }
}
