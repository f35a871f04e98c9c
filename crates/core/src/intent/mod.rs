//! Desired state: pure functions from observed facts and manifests to a verdict on each task.

mod called_workloads;
mod claim;
mod consul;
mod dataplane_owner;
mod desired;
mod discovered;
mod evaluator;
mod history;
mod mesh_backends;
mod principals;
mod registration_name;
mod roles;
mod select;
mod sidecar_reach;
mod tag_key;
mod task_address;
mod violation;
mod zone_proxy_id;

pub use called_workloads::CalledWorkloads;
pub use claim::{ClaimingTask, service_claim_violation};
pub use consul::{
    GATEWAY_TAG, NAMESPACE_TAG, SERVICE_TAG, TASK_MESH_TAG, TASK_NAMESPACE_TAG, TASK_PARTITION_TAG,
};
pub use dataplane_owner::{DataplaneTask, dataplane_owner};
pub use desired::{
    DesiredProxy, DesiredReach, DesiredRegistration, Outbounds, OwnershipLabels, RegisteredBackends,
    RegistrationId,
};
pub use discovered::discovered_workload;
pub use evaluator::{
    Evaluation, Evaluator, Fact, HoldReason, IgnoreReason, MissingFact, RoleTags, SelectedWorkload,
    TaskFacts, Verdict, workload_label,
};
pub use history::ManifestHistory;
pub use mesh_backends::{MeshBackend, MeshServices};
pub use principals::BoundPrincipals;
pub use roles::dataplane_role_violations;
pub use select::{bindings, may_describe, owning_binding, workloads, workloads_in};
pub use sidecar_reach::{ReachMismatch, reach_mismatch};
pub use tag_key::SERVICE_KEY;
pub use violation::{RoleRule, RoleViolation, ViolationBasis};

use std::fmt;

use ecs_mesh_model::Reason;

fn list(names: &[std::sync::Arc<str>]) -> String {
    names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bindings(names) => write!(
                f,
                "several MeshBindings select the task ({}); narrow their selectors so that only one does",
                list(names)
            ),
            Self::Workloads(names) => write!(
                f,
                "several Workloads select the task ({}); narrow their selectors so that only one does",
                list(names)
            ),
            Self::Unknown(fact) => write!(f, "reading {fact}"),
            Self::AddressPending => f.write_str("the task's address is pending"),
            Self::Unusable(reason) | Self::TemplateMode(reason) => write!(f, "{reason}"),
        }
    }
}

impl HoldReason {
    /// The reason, with a key that is equal for all tasks with this cause.
    pub fn reason(&self) -> Reason {
        let message = self.to_string();
        match self {
            Self::Unknown(cause) | Self::Unusable(cause) | Self::TemplateMode(cause) => {
                Reason::new(cause.key.clone(), message)
            }
            Self::Bindings(_) | Self::Workloads(_) | Self::AddressPending => Reason::constant(message),
        }
    }

    /// A bounded label for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Bindings(_) => "bindings_overlap",
            Self::Workloads(_) => "workloads_overlap",
            Self::Unknown(_) => "unknown",
            Self::AddressPending => "address_pending",
            Self::Unusable(_) => "invalid_metadata",
            Self::TemplateMode(_) => "template_mode",
        }
    }
}

impl fmt::Display for IgnoreReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBinding => f.write_str("no MeshBinding selects the task"),
            Self::OtherControlPlane => f.write_str("the task's MeshBinding names another control plane"),
            Self::NoWorkload => f.write_str("no Workload selects the task"),
            Self::NotRegistered => f.write_str("the task has no registration, and no Workload selects it"),
            Self::NetworkMode(mode) if mode == "none" => f.write_str(
                "refused: a task in network mode none has no network; run it in network mode awsvpc, or host",
            ),
            Self::NetworkMode(mode) => write!(
                f,
                "refused: in network mode {mode} the sidecar's ports are mapped to other ports of the instance, which the \
                 sidecar does not know; run the task in network mode awsvpc, or host"
            ),
            Self::ExternalInstance => f.write_str(
                "refused: ECS and EC2 do not show the address of an external instance (launch type EXTERNAL); run the task on \
                 Fargate, EC2 or Managed Instances, or let its sidecar register itself (kuma-dp run --dataplane-file)",
            ),
        }
    }
}

impl IgnoreReason {
    /// A bounded label for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoBinding => "no_binding",
            Self::OtherControlPlane => "other_control_plane",
            Self::NoWorkload => "no_workload",
            Self::NotRegistered => "not_registered",
            Self::NetworkMode(_) => "unsupported_network_mode",
            Self::ExternalInstance => "external_instance",
        }
    }

    /// Whether the manifests ask for a registration that where the task runs makes impossible.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::NetworkMode(_) | Self::ExternalInstance)
    }
}
