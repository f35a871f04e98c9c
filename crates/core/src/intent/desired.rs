//! The desired registration of a task, independent of the type of control plane.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::CalledWorkloads;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{Inbound, Outbound, Probe, WorkloadSpec};
use ecs_mesh_model::{ClusterId, MeshName, OperatorId, Reason, ServiceName, TaskArn, TaskId};

/// The owner of a registration: written on each registration, and checked on the server's copy before each write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnershipLabels {
    /// The operator that owns the registration.
    pub operator: OperatorId,
    /// The task's cluster.
    pub cluster: ClusterId,
    /// The task.
    pub task: TaskId,
}

impl OwnershipLabels {
    /// The ownership labels of this task's registrations.
    pub fn of(operator: &OperatorId, task: &TaskArn) -> Self {
        Self { operator: operator.clone(), cluster: ClusterId::of(task.cluster()), task: task.id().clone() }
    }
}

/// The id of a registration: a name within a mesh of one control plane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistrationId {
    /// The mesh.
    pub mesh: MeshName,
    /// The name in that mesh.
    pub name: Arc<str>,
}

impl fmt::Display for RegistrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.mesh, self.name)
    }
}

/// The desired registration of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredRegistration {
    /// The mesh and the name.
    pub id: RegistrationId,
    /// The ownership labels.
    pub marks: OwnershipLabels,
    /// The name of the task's cluster. [`OwnershipLabels`] have only its hash, which does not name a deleted cluster.
    pub cluster_name: Arc<str>,
    /// The binding of the registration.
    pub binding: Arc<str>,
    /// The task's address.
    pub address: IpAddr,
    /// The task's service.
    pub service: ServiceName,
    /// The label `kuma.io/workload`, where the workload has a DNS-1035 label.
    pub workload: Option<Arc<str>>,
    /// The ports that others may call, in the order of the manifest.
    pub inbounds: Vec<Inbound>,
    /// How the control plane determines readiness.
    pub probe: Probe,
    /// The task's outbounds.
    pub outbounds: Outbounds,
    /// The workload labels of the services that the outbounds call.
    pub called_workloads: CalledWorkloads,
}

/// The desired outbounds of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbounds {
    /// Exactly these, in a stable order.
    Exactly(Vec<Outbound>),
    /// These, and those that an existing registration has on other listeners: the list that declared them may have left the
    /// manifests less than `cleanup.settle` ago.
    AtLeast(Vec<Outbound>),
    /// The manifests contradict each other or are incomplete. An existing registration keeps its outbounds; a new one gets
    /// `fallback`, the outbounds without a conflict.
    KeepCurrent {
        /// The outbounds of a task that is not registered yet.
        fallback: Vec<Outbound>,
    },
}

impl Outbounds {
    /// The outbounds of the workload `name`. Conflicts are added to `warnings`, with both sources.
    pub(super) fn of(
        set: &ManifestSet,
        name: &str,
        workload: &WorkloadSpec,
        may_lack_lists: bool,
        warnings: &mut Vec<Reason>,
    ) -> Self {
        let merged = set.merged_outbounds(name, workload);
        // An invalid document may declare further outbounds, so incomplete manifests remove none.
        if set.complete && merged.conflicts.is_empty() {
            let outbounds = merged.resolved;
            return if may_lack_lists { Self::AtLeast(outbounds) } else { Self::Exactly(outbounds) };
        }
        let until = "until then the task keeps the outbounds that it has";
        let warning = |conflict| Reason::constant(format!("Workload {name}: {conflict}; {until}"));
        warnings.extend(merged.conflicts.iter().map(warning));
        Self::KeepCurrent { fallback: merged.resolved }
    }

    /// The outbounds that the manifests declare without a conflict.
    pub fn declared(&self) -> &[Outbound] {
        match self {
            Self::Exactly(outbounds)
            | Self::AtLeast(outbounds)
            | Self::KeepCurrent { fallback: outbounds } => outbounds,
        }
    }

    /// The outbounds once no list can have left the manifests recently.
    #[must_use]
    pub fn settled(self) -> Self {
        match self {
            Self::AtLeast(outbounds) => Self::Exactly(outbounds),
            other => other,
        }
    }
}
