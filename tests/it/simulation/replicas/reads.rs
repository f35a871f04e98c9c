//! Checks that the replicas together read ECS no faster than one process may.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use ecs_mesh_model::Timestamp;

/// The calls that share the rate `--ecs-reads-per-second`.
const OF_TASKS: [&str; 3] = ["ecs:ListTasks", "ecs:DescribeTasks", "ecs:DescribeContainerInstances"];
const WINDOW: Duration = Duration::from_mins(1);
/// The burst of a process is what the rate gains in this time.
const BURST: Duration = Duration::from_secs(5);

/// The latest reads of one replica.
#[derive(Default)]
pub(in super::super) struct ReplicaReads(Mutex<VecDeque<Timestamp>>);

impl ReplicaReads {
    /// Records a call.
    pub(in super::super) fn record(&self, operation: &str, now: Timestamp) {
        if OF_TASKS.contains(&operation) {
            self.0.lock().unwrap().push_back(now);
        }
    }

    /// The calls within the last window.
    pub(in super::super) fn count(&self, now: Timestamp) -> usize {
        let mut calls = self.0.lock().unwrap();
        while calls.front().is_some_and(|at| at.age_at(now) > WINDOW) {
            calls.pop_front();
        }
        calls.len()
    }
}

/// The most calls of this many processes in one window, at this rate a second for all.
pub(in super::super) fn most(rate: f64, processes: usize) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    // small numbers
    let most = (rate * (WINDOW.as_secs_f64() + processes as f64 * BURST.as_secs_f64())) as usize;
    most
}
