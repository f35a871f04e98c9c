//! A small controller runtime: when a key is worked on, by whom, and how often. Knows neither ECS nor meshes.
//!
//! One guarantee, one file:
//!
//! | file | guarantees |
//! |---|---|
//! | [`queue`] | a key waits once, runs at its earliest time, never twice at once, and never starves |
//! | [`backoff`] | retries come apart exponentially, with jitter, between two bounds |
//! | [`controller`] | at most so many reconciles run, a panic costs one key one retry, a stop ends by its deadline |
//! | [`batch`] | single reads share calls, and no answer is older than its question |
//! | [`bucket`] | calls keep to a rate, first come, first served |
//! | [`circuit`] | a remote that is down is asked by one probe at a time |
//! | [`lease`] | whether this process may write |
//! | [`health`] | whether every loop makes progress |
//! | [`secrets`] | how secrets that are kept elsewhere are read |
//! | [`shutdown`] | a signal asks for an orderly stop, a second one for an end at once |
//!
//! Everything runs by [`tokio::time`] and by seeds handed in: under one thread and a paused clock, two runs of one
//! seed are the same run.

#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub mod backoff;
pub mod batch;
pub mod token_bucket;
pub mod circuit_breaker;
pub mod controller;
pub mod health;
pub mod lease;
pub mod queue;
pub mod secrets;
pub mod shutdown;

pub use backoff::{Backoff, Delays};
pub use batch::{BatchCall, BatchError, Batcher};
pub use token_bucket::TokenBucket;
pub use circuit_breaker::{Circuit, CircuitConfig, CircuitState, CircuitOpenUntil, Permit};
pub use controller::{Controller, ShutdownSummary, ControllerObserver, Reconciler};
pub use health::{Health, Heartbeat, StuckLoop};
pub use lease::{AlwaysHeld, Lease};
pub use queue::{Requeue, Priority, WorkQueue, QueueStats, WorkItem};
pub use secrets::{NoSecrets, Secrets};
pub use shutdown::{Deadline, Signals};

/// Locks, whether or not a thread once panicked while holding the lock: no critical section in this room calls
/// code that may leave its data half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `now + by`, where "too far to count" becomes "further than any process lives".
fn saturating_add(now: Instant, by: Duration) -> Instant {
    const THIRTY_YEARS: Duration = Duration::from_hours(30 * 365 * 24);
    now.checked_add(by).unwrap_or_else(|| now + THIRTY_YEARS)
}
