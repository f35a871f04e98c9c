//! The declarative resources that users write: serde types, one file per kind, with the meaning of each field.
//!
//! Names and addresses are parsed while reading, so a value that is here has passed its own rule; rules between
//! fields and between documents are checked by [`crate::manifests`].

mod control_plane;
mod duration;
mod mesh_binding;
mod outbound;
mod workload;

pub use control_plane::{ControlPlaneSpec, ControlPlaneType, KumaConnection};
pub use duration::HumanDuration;
pub use mesh_binding::{
    BindingSelector, CleanupPolicy, Discovery, GuardPolicy, LifecyclePolicy, MeshBindingSpec, RoleTagMode,
    RoleTagPolicy,
};
pub use outbound::{Listen, Outbound, OutboundListSpec};
pub use workload::{Inbound, Probe, Protocol, WorkloadSelector, WorkloadSpec};

/// The `apiVersion` of every document.
pub const API_VERSION: &str = "ecs-mesh.dev/v1alpha1";
