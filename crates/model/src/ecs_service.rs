//! A service as DescribeServices shows it.
//!
//! Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Service.html>.

use std::fmt;
use std::sync::Arc;

use super::{ClusterArn, intern};

/// A service by its cluster and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EcsServiceRef {
    cluster: ClusterArn,
    name: Arc<str>,
}

impl EcsServiceRef {
    /// The service of this name in the cluster.
    pub fn new(cluster: &ClusterArn, name: &str) -> Self {
        Self { cluster: cluster.clone(), name: intern(name) }
    }

    /// The cluster that the service is in.
    pub fn cluster(&self) -> &ClusterArn {
        &self.cluster
    }

    /// The name, unique among the cluster's active services.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// `CLUSTER/NAME`.
impl fmt::Display for EcsServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster.name(), self.name)
    }
}

/// The parts of a service that decisions about its deployments depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcsServiceState {
    /// `status` is ACTIVE: neither deleted nor being deleted.
    pub active: bool,
    /// `schedulingStrategy` is DAEMON: one task on each container instance.
    pub daemon: bool,
    /// ECS replaces tasks step by step: the deployment controller is ECS, and its strategy is ROLLING.
    pub rolling: bool,
    /// `desiredCount`.
    pub desired_count: usize,
    /// `deploymentConfiguration.maximumPercent`: the most tasks during a deployment, in percent of `desired_count`.
    pub maximum_percent: usize,
    /// `deployments`, the primary and those that it replaces.
    pub deployments: Vec<EcsDeployment>,
}

/// A deployment of a service.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Deployment.html>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcsDeployment {
    /// `ecs-svc/` and digits: the `startedBy` of its tasks.
    pub id: Arc<str>,
    /// `status` is PRIMARY: the most recent deployment.
    pub primary: bool,
    /// `rolloutState`.
    pub rollout: EcsRollout,
}

/// The `rolloutState` of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcsRollout {
    /// Tasks are being replaced.
    InProgress,
    /// The service is in a steady state.
    Completed,
    /// The circuit breaker or an alarm has ended it: it starts no more tasks.
    Failed,
}

impl EcsServiceState {
    /// The most recent deployment.
    pub fn primary(&self) -> Option<&EcsDeployment> {
        self.deployments.iter().find(|deployment| deployment.primary)
    }

    /// How many tasks ECS may start beside `desired_count` running ones.
    pub fn room(&self) -> usize {
        (self.desired_count * self.maximum_percent / 100).saturating_sub(self.desired_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_rounded_down() {
        for (desired_count, maximum_percent, room) in
            [(4, 200, 4), (4, 150, 2), (3, 150, 1), (1, 150, 0), (4, 100, 0), (0, 200, 0), (4, 50, 0)]
        {
            let state = EcsServiceState {
                active: true,
                daemon: false,
                rolling: true,
                desired_count,
                maximum_percent,
                deployments: Vec::new(),
            };
            assert_eq!(state.room(), room, "{maximum_percent}% of {desired_count}");
        }
    }
}
