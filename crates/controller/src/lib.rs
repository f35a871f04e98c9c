//! A small controller runtime: work queue, reconcile loop, retries, rate limits and lease. Knows neither ECS nor meshes.
//!
//! | module | guarantee |
//! |---|---|
//! | [`queue`] | a key waits once, runs at its earliest time, never runs concurrently and never starves |
//! | [`backoff`] | retry delays grow exponentially, with jitter, between two bounds |
//! | [`controller`] | bounded concurrency; a panic costs one key one retry; a shutdown ends by its deadline |
//! | [`batch`] | single reads share calls, and no response is older than its request |
//! | [`token_bucket`] | calls keep to a rate, first come, first served |
//! | [`circuit_breaker`] | an unreachable remote receives one probe at a time |
//! | [`lease`] | whether this process may write, until when, and why not |
//! | [`files`] | a file that a user names is regular and small, or is not read |
//! | [`blocking_lane`] | hanging work blocks no caller, and costs one thread |
//! | [`health`] | whether every loop makes progress |
//! | [`secrets`] | how secrets in an external store are read |
//! | [`shutdown`] | a signal starts a graceful shutdown, a second one ends it immediately |
//!
//! Time comes from [`tokio::time`] and randomness from the caller's seeds: on one thread with a paused clock, two runs
//! of one seed are identical.
//!
//! ```
//! use ecs_mesh_controller::{Backoff, Priority, Requeue, WorkQueue};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let queue = WorkQueue::new(Backoff::default(), 1);
//! queue.add("task", Priority::Sweep);
//! queue.add("task", Priority::Removal); // Folds into the pending run.
//! let item = queue.next().await;
//! assert_eq!((item.key, item.cause), ("task", Priority::Removal));
//! queue.done(&item.key, Requeue::Forget);
//! assert_eq!(queue.take(), None);
//! # });
//! ```

#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub mod active_warnings;
pub mod backoff;
pub mod batch;
pub mod blocking_lane;
pub mod circuit_breaker;
pub mod controller;
pub mod files;
pub mod health;
pub mod lease;
pub mod pass_requests;
pub mod proxy_variables;
pub mod queue;
pub mod secrets;
pub mod shutdown;
pub mod token_bucket;

pub use active_warnings::ActiveWarnings;
pub use backoff::{Backoff, Delays};
pub use batch::{BatchCall, BatchError, Batcher, Urgency};
pub use blocking_lane::BlockingLane;
pub use circuit_breaker::{Circuit, CircuitConfig, CircuitOpenUntil, CircuitState, Permit};
pub use controller::{Controller, ControllerObserver, Reconciler, ShutdownSummary};
pub use files::{ReadFileError, read_file};
pub use health::{Health, Heartbeat, StuckLoop};
pub use lease::{AlwaysHeld, FencingToken, HeldTerm, Lease, LeaseTerm, WriteObstacle, WritePermit};
pub use pass_requests::PassRequests;
pub use proxy_variables::ProxyVariables;
pub use queue::{Priority, QueueStats, Requeue, WorkItem, WorkQueue};
pub use secrets::{NoSecrets, SecretError, SecretRequest, Secrets};
pub use shutdown::{Deadline, Signals};
pub use token_bucket::TokenBucket;

/// Locks a mutex and ignores poisoning: no critical section in this crate calls code that may panic halfway through a
/// change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `now + by`, or 30 years from now on overflow.
fn saturating_add(now: Instant, by: Duration) -> Instant {
    const THIRTY_YEARS: Duration = Duration::from_hours(30 * 365 * 24);
    now.checked_add(by).unwrap_or_else(|| now + THIRTY_YEARS)
}
