//! Dependencies of an operator.

use std::error::Error;
use std::sync::Arc;

use ecs_mesh_api::ControlPlaneSpec;
use ecs_mesh_aws::aws::{Ec2, Ecs, Iam, MemberAccounts};
use ecs_mesh_clock::Clock;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_consul_acl::backend::{AclBackend, ConsulAclBackend};
use ecs_mesh_control_plane::ControlPlane;
use ecs_mesh_control_plane::http::{StreamTransport, Transport};
use ecs_mesh_controller::Lease;
use ecs_mesh_kuma::{KumaControlPlane, TokenIssuer};
use ecs_mesh_model::OperatorId;

use super::dry_run::DryRunRecorder;
use super::leadership::Replicas;
use super::tokens::TokenStores;
use crate::telemetry::metrics::Metrics;

/// Connects to a control plane. The error names the field of the manifest that is at fault.
pub type ConnectFn = Arc<dyn Fn(&str, &ControlPlaneSpec) -> ConnectResult + Send + Sync>;

/// The clients of a control plane, or why its manifest cannot be used.
pub type ConnectResult = Result<Connected, Box<dyn Error + Send + Sync>>;

/// The clients of one control plane, which share a connection.
#[derive(Clone)]
pub struct Connected {
    /// Reads and writes registrations of tasks.
    pub client: Arc<dyn ControlPlane>,
    /// Reads and writes ACL objects, where the control plane has them.
    pub acl: Option<Arc<dyn AclBackend>>,
    /// Issues and revokes data plane tokens, where the control plane has them.
    pub tokens: Option<Arc<dyn TokenIssuer>>,
}

impl Connected {
    /// A control plane without ACL objects and tokens.
    pub fn new(client: Arc<dyn ControlPlane>) -> Self {
        Self { client, acl: None, tokens: None }
    }

    /// Kuma, with its data plane tokens.
    pub fn kuma<T: Transport + 'static>(client: KumaControlPlane<T>) -> Self {
        let client = Arc::new(client);
        Self { tokens: Some(Arc::clone(&client) as _), acl: None, client }
    }

    /// Consul, with its ACL objects.
    pub fn consul<T: StreamTransport + 'static>(client: ConsulControlPlane<T>) -> Self {
        let client = Arc::new(client);
        Self { acl: Some(Arc::new(ConsulAclBackend::new(Arc::clone(&client)))), tokens: None, client }
    }
}

/// Rate limits of AWS reads in one account and Region, in calls per second.
#[derive(Clone, Copy, Debug)]
pub struct ReadRates {
    /// ListTasks, DescribeTasks and DescribeContainerInstances. The account's shared quota is 20 with a burst of 100. The
    /// same rate again for each of DescribeServices, task protection and EC2's DescribeInstances.
    pub ecs: f64,
    /// DescribeTaskDefinition. The account's quota is 20 with a burst of 50.
    pub definitions: f64,
    /// GetRole. AWS publishes no quota.
    pub iam: f64,
}

impl Default for ReadRates {
    fn default() -> Self {
        Self { ecs: 10.0, definitions: 10.0, iam: 10.0 }
    }
}

/// The dependencies of an operator.
pub struct OperatorDeps {
    /// The stable identity that marks this operator's registrations.
    pub id: OperatorId,
    /// The id that it had before, whose registrations it takes over.
    pub previous_id: Option<OperatorId>,
    /// ECS.
    pub ecs: Arc<dyn Ecs>,
    /// EC2.
    pub ec2: Arc<dyn Ec2>,
    /// IAM.
    pub iam: Arc<dyn Iam>,
    /// Where the accounts are set that these may read beside the operator's own.
    pub accounts: Arc<dyn MemberAccounts>,
    /// Where data plane tokens are stored.
    pub token_stores: TokenStores,
    /// Connects to control planes.
    pub connect: ConnectFn,
    /// Whether this process may write.
    pub lease: Arc<dyn Lease>,
    /// The other copies, where a lease elects one of them; `None` if this is the only one.
    pub replicas: Option<Replicas>,
    /// The time.
    pub clock: Clock,
    /// Metrics and health.
    pub metrics: Arc<Metrics>,
    /// Rate limits of AWS reads.
    pub rates: ReadRates,
    /// Seed of all jitter.
    pub seed: u64,
    /// Makes this a dry run: changes are recorded here instead of being written.
    pub recorder: Option<Arc<DryRunRecorder>>,
}

#[cfg(test)]
impl OperatorDeps {
    /// The operator `op` with this ECS and an IAM without tags. Connecting to a control plane fails.
    pub(super) fn for_tests(ecs: Arc<dyn Ecs>) -> Self {
        Self {
            id: OperatorId::parse("op").unwrap(),
            previous_id: None,
            ecs,
            ec2: Arc::new(ecs_mesh_aws::fakes::FakeEc2::default()),
            iam: ecs_mesh_aws::fakes::FakeIam::returning(Ok(ecs_mesh_model::Tags::default())),
            accounts: Arc::new(()),
            token_stores: TokenStores::new(
                Arc::new(ecs_mesh_aws::fakes::FakeTokenStore::default()),
                Arc::new(ecs_mesh_aws::fakes::FakeTokenStore::default()),
            ),
            connect: Arc::new(|_, _| Err("no control plane".into())),
            lease: Arc::new(ecs_mesh_controller::AlwaysHeld),
            replicas: None,
            clock: ecs_mesh_aws::fakes::clock(),
            metrics: Arc::new(Metrics::default()),
            rates: ReadRates::default(),
            seed: 1,
            recorder: None,
        }
    }
}
