//! What a task should be in the mesh, in words that no control plane owns.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{Inbound, Outbound, Probe, WorkloadSpec};
use ecs_mesh_model::{ClusterId, MeshName, OperatorId, ServiceName, TaskArn, TaskId, Reason};

/// Whose a registration is: written on each, and checked on the server's copy before each write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnershipLabels {
    /// Which operator keeps it.
    pub operator: OperatorId,
    /// Which cluster its task runs in.
    pub cluster: ClusterId,
    /// Which task it stands for.
    pub task: TaskId,
}

impl OwnershipLabels {
    /// The marks of this task's registrations.
    pub fn of(operator: &OperatorId, task: &TaskArn) -> Self {
        Self { operator: operator.clone(), cluster: ClusterId::of(task.cluster()), task: task.id().clone() }
    }
}

/// Where a registration is: a name within a mesh of the control plane at hand.
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

/// What a task should be registered as.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredRegistration {
    /// Where.
    pub id: RegistrationId,
    /// Whose.
    pub marks: OwnershipLabels,
    /// The binding that wants it.
    pub binding: Arc<str>,
    /// The task's own address.
    pub address: IpAddr,
    /// Its service.
    pub service: ServiceName,
    /// The label `kuma.io/workload`, where one can be given (a DNS-1035 label).
    pub workload: Option<Arc<str>>,
    /// The ports that others may call, in the order of the manifest.
    pub inbounds: Vec<Inbound>,
    /// How readiness is found out.
    pub probe: Probe,
    /// What it calls.
    pub outbounds: Outbounds,
}

/// The outbounds that a task should have.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbounds {
    /// Just these, in a stable order.
    Exactly(Vec<Outbound>),
    /// The manifests contradict each other: what is registered stays; a new registration gets `fallback`,
    /// the part that nobody disputes.
    KeepCurrent {
        /// For a task that is not registered yet.
        fallback: Vec<Outbound>,
    },
}

impl Outbounds {
    /// What the workload called `name` calls. What is in dispute is told in `warnings`, with both places.
    pub(super) fn of(
        set: &ManifestSet,
        name: &str,
        workload: &WorkloadSpec,
        warnings: &mut Vec<Reason>,
    ) -> Self {
        let merged = set.merged_outbounds(name, workload);
        // What an invalid document would have asked for is not known: its silence takes nothing away.
        if set.complete && merged.conflicts.is_empty() {
            return Self::Exactly(merged.resolved);
        }
        let until = "until then the task keeps the outbounds that it has";
        let words = |conflict| Reason::constant(format!("Workload {name}: {conflict}; {until}"));
        warnings.extend(merged.conflicts.iter().map(words));
        Self::KeepCurrent { fallback: merged.resolved }
    }
}
