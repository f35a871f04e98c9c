//! The oracle reports each kind of violation, and accepts correct writes.

mod consul;
mod hold;
mod kuma;
mod reach;

use std::sync::Arc;
use std::time::Duration;

use super::{Invariant, InvariantViolation, OracleConfig};
use crate::aws::{Cloud, CloudConfig, CloudTask, LifeTimes};
use crate::world::CLUSTER;
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

const START: Timestamp = Timestamp(1_800_000_000_000);
const STEP: Duration = Duration::from_millis(100);
/// An interval without events: only the test changes the world.
const NEVER: (Duration, Duration) = (Duration::from_hours(1_000), Duration::from_hours(1_000));

/// An account whose tasks keep running for ten seconds after a stop request.
fn account() -> Cloud {
    let life = LifeTimes { draining: Duration::from_secs(10), ..LifeTimes::default() };
    Cloud::new(CloudConfig { life, ..CloudConfig::default() }, START)
}

fn oracle_config(operator: String, cluster: &str) -> OracleConfig {
    OracleConfig {
        operator,
        cluster: cluster.to_owned(),
        deleted_cluster: None,
        tags_lag: Duration::from_secs(100),
        max_fraction: 0.3,
        min_owned: 10,
    }
}

/// A longer step for longer periods, to keep the tests fast.
fn step_for(time: Duration) -> Duration {
    if time > Duration::from_secs(30) { Duration::from_secs(1) } else { STEP }
}

fn runs(task: &CloudTask) -> bool {
    task.last_status == LastStatus::Running && task.desired_status == DesiredStatus::Running
}

/// The running tasks of a service.
fn running(cloud: &Cloud, service: &str) -> Vec<Arc<CloudTask>> {
    cloud.all_tasks().filter(|task| task.service() == Some(service) && runs(task)).cloned().collect()
}

/// Requests the stop of a running task.
fn drain(cloud: &mut Cloud, service: &str, now: Timestamp) -> Arc<CloudTask> {
    let task = running(cloud, service).remove(0);
    cloud.stop_task(CLUSTER, &task.arn, "stopped by a person", now).unwrap();
    task
}

/// The only violation.
fn only(violations: &[InvariantViolation]) -> (Invariant, &str) {
    match violations {
        [one] => (one.invariant, &one.message),
        other => panic!("{other:#?}"),
    }
}

/// Checks that the only violation is of this invariant and that its message contains each part.
fn assert_violation(violations: &[InvariantViolation], invariant: Invariant, message: &[&str]) {
    let (found, text) = only(violations);
    assert_eq!(found, invariant, "{text}");
    for part in message {
        assert!(text.contains(part), "{text:?} does not contain {part:?}");
    }
}
