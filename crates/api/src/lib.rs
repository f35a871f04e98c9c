//! The declarative resources that users write: serde types, one file per kind, with the meaning of each field.
//!
//! The manifests' schemas come from these types ([`crate::schema`]): a field's doc comment is its description there,
//! so it is written for the person who writes the manifest.
//!
//! Names and addresses are parsed while reading, so a value that is here has passed its own rule; rules between
//! fields and between documents are checked by [`crate::manifests`].

#![forbid(unsafe_code)]

mod consul_auth;
mod control_plane;
mod duration;
pub mod limits;
pub mod manifests;
mod mesh_binding;
mod outbound;
pub mod schema;
mod patterns;
mod workload;

pub use consul_auth::{
    ClientTokens, ConsulAuthSpec, ConsulEnterprise, GatewayKind, LoginSettings, Presence, ServiceTokens,
    TokenLocality,
};
pub use control_plane::{ConsulConnection, ControlPlaneSpec, ControlPlaneType, KumaConnection};
pub use duration::HumanDuration;
pub use mesh_binding::{
    BindingSelector, CleanupPolicy, Discovery, GuardPolicy, LifecyclePolicy, MeshBindingSpec, OnRevoked,
    RoleTagMode, RoleTagPolicy,
};
pub use outbound::{Listen, Outbound, OutboundListSpec};
pub use workload::{Inbound, Probe, Protocol, WorkloadSelector, WorkloadSpec};

/// The `apiVersion` of every document.
pub const API_VERSION: &str = "ecs-mesh.dev/v1alpha1";

/// What `metadata.name` looks like, beside its length of at most 63.
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$";
