//! Each broken promise is found and named, and what is allowed is not: a judge that finds nothing would pass everybody.

mod consul;
mod kuma;

use std::sync::Arc;
use std::time::Duration;

use super::{Invariant, OracleConfig, InvariantViolation};
use crate::aws::{Cloud, CloudConfig, CloudTask, LifeTimes};
use crate::world::CLUSTER;
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

const START: Timestamp = Timestamp(1_800_000_000_000);
const STEP: Duration = Duration::from_millis(100);
/// Nothing happens but what a test does.
const NEVER: (Duration, Duration) = (Duration::from_hours(1_000), Duration::from_hours(1_000));

/// An account in which a task that is to stop takes its time: ten seconds until its containers are told.
fn account() -> Cloud {
    let life = LifeTimes { draining: Duration::from_secs(10), ..LifeTimes::default() };
    Cloud::new(CloudConfig { life, ..CloudConfig::default() }, START)
}

fn rules(operator: String, cluster: &str) -> OracleConfig {
    OracleConfig {
        operator,
        cluster: cluster.to_owned(),
        tags_lag: Duration::from_secs(100),
        max_fraction: 0.3,
        min_owned: 10,
    }
}

/// Where much time passes, the world need not move often.
fn step_of(time: Duration) -> Duration {
    if time > Duration::from_secs(30) { Duration::from_secs(1) } else { STEP }
}

fn runs(task: &CloudTask) -> bool {
    task.last_status == LastStatus::Running && task.desired_status == DesiredStatus::Running
}

/// The running tasks of a service.
fn running(cloud: &Cloud, service: &str) -> Vec<Arc<CloudTask>> {
    cloud.all_tasks().filter(|task| task.service() == Some(service) && runs(task)).cloned().collect()
}

/// Begins the stop of a task that runs.
fn drain(cloud: &mut Cloud, service: &str, now: Timestamp) -> Arc<CloudTask> {
    let task = running(cloud, service).remove(0);
    cloud.stop_task(CLUSTER, &task.arn, "stopped by a person", now).unwrap();
    task
}

/// The only finding.
fn only(violations: &[InvariantViolation]) -> (Invariant, &str) {
    match violations {
        [one] => (one.invariant, &one.message),
        other => panic!("{other:#?}"),
    }
}

/// Is of this promise, and says this.
fn is(violations: &[InvariantViolation], invariant: Invariant, message: &[&str]) {
    let (found, said) = only(violations);
    assert_eq!(found, invariant, "{said}");
    for word in message {
        assert!(said.contains(word), "{said:?} does not say {word:?}");
    }
}
