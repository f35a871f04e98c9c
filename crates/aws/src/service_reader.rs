//! DescribeServices and task protection, below quotas of their own: up to 10 services a call, up to 100 tasks a read, and up to
//! 10 tasks a write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::aws::{AwsError, AwsErrorKind, Ecs, TaskProtectionOutput, batch_failure};
use super::read_buckets::ReadBuckets;
use ecs_mesh_controller::{BatchCall, Batcher};
use ecs_mesh_model::{ClusterArn, EcsServiceRef, EcsServiceState, Reason, TaskArn, TaskId};

/// Most services of one DescribeServices call.
const SERVICES: usize = 10;

/// Most tasks of one GetTaskProtection call.
const READ_TASKS: usize = 100;

/// Most tasks of one UpdateTaskProtection call.
pub const MAX_UPDATED_TASKS: usize = 10;

/// Pause after a throttling response. The quota is shared by the whole account.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// Result for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceOutcome {
    /// Found.
    Found(EcsServiceState),
    /// MISSING: deleted long ago, or not visible yet.
    Missing,
    /// Another failure, with ECS's reason.
    Failed(String),
}

/// Reads services and the protection of their tasks, and sets the protection.
#[derive(Clone)]
pub struct ServiceReader {
    services: Batcher<DescribeServicesCall>,
    ecs: Arc<dyn Ecs>,
    protections: ReadBuckets,
}

struct DescribeServicesCall {
    ecs: Arc<dyn Ecs>,
    buckets: ReadBuckets,
}

impl ServiceReader {
    /// Describes take tokens from `describes`, and calls about protection from `protections`.
    pub fn new(
        ecs: Arc<dyn Ecs>,
        describes: impl Into<ReadBuckets>,
        protections: impl Into<ReadBuckets>,
    ) -> Self {
        let (describes, protections) = (describes.into(), protections.into());
        let call = DescribeServicesCall { ecs: Arc::clone(&ecs), buckets: describes.clone() };
        let services = Batcher::with_buckets(call, SERVICES, move |cluster| describes.of_cluster(cluster));
        Self { services, ecs, protections }
    }

    /// Describes a service by a call that starts now or later.
    ///
    /// # Errors
    /// When the call failed, or ECS reported a failure other than MISSING.
    pub async fn describe(&self, service: &EcsServiceRef) -> Result<Option<EcsServiceState>, Reason> {
        let asked = self.services.ask(service.cluster().clone(), service.name().to_owned()).await;
        match asked.map_err(batch_failure)? {
            ServiceOutcome::Found(state) => Ok(Some(state)),
            ServiceOutcome::Missing => Ok(None),
            ServiceOutcome::Failed(reason) => {
                let message = format!("ecs:DescribeServices on {service} failed: {reason}");
                Err(Reason::new(format!("ecs:DescribeServices {reason}"), message))
            }
        }
    }

    /// The protection of tasks of one cluster.
    ///
    /// # Errors
    /// When a call failed.
    pub async fn protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskArn],
    ) -> Result<TaskProtectionOutput, AwsError> {
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id().clone()).collect();
        let mut output = TaskProtectionOutput::default();
        for ids in ids.chunks(READ_TASKS) {
            self.protections.of_cluster(cluster).acquire(1).await;
            let shown = self.penalize(cluster, self.ecs.task_protection(cluster, ids).await)?;
            output.tasks.extend(shown.tasks);
            output.failed.extend(shown.failed);
        }
        Ok(output)
    }

    /// Waits for one write of the cluster's rate. Apart from the write, so that nothing waits between the caller's last check and the
    /// write.
    pub async fn acquire_write(&self, cluster: &ClusterArn) {
        self.protections.of_cluster(cluster).acquire(1).await;
    }

    /// Protects up to [`MAX_UPDATED_TASKS`] tasks of one cluster for `minutes`, or, with `None`, ends their protection.
    ///
    /// # Errors
    /// When the call failed; it may have taken effect.
    pub async fn update_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskArn],
        minutes: Option<u16>,
    ) -> Result<TaskProtectionOutput, AwsError> {
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id().clone()).collect();
        self.penalize(cluster, self.ecs.update_task_protection(cluster, &ids, minutes).await)
    }

    fn penalize<T>(&self, cluster: &ClusterArn, result: Result<T, AwsError>) -> Result<T, AwsError> {
        result.inspect_err(|error| {
            if error.kind == AwsErrorKind::Throttled {
                self.protections.of_cluster(cluster).penalize(THROTTLE_PAUSE);
            }
        })
    }
}

#[async_trait]
impl BatchCall for DescribeServicesCall {
    type Group = ClusterArn;
    type Request = String;
    type Response = ServiceOutcome;
    type Error = AwsError;

    async fn call(
        &self,
        cluster: &ClusterArn,
        names: Vec<String>,
    ) -> Result<BTreeMap<String, ServiceOutcome>, AwsError> {
        let described = self.ecs.describe_services(cluster, &names).await.inspect_err(|error| {
            if error.kind == AwsErrorKind::Throttled {
                self.buckets.of_cluster(cluster).penalize(THROTTLE_PAUSE);
            }
        })?;
        let found = described.services.into_iter().map(|(name, state)| (name, ServiceOutcome::Found(state)));
        let missing = described.missing.into_iter().map(|name| (name, ServiceOutcome::Missing));
        let failed =
            described.failed.into_iter().map(|(name, reason)| (name, ServiceOutcome::Failed(reason)));
        Ok(found.chain(missing).chain(failed).collect())
    }
}
