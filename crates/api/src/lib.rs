//! The declarative resources of the operator: types, parsing, validation, schemas and CRDs.
//!
//! The schemas are generated from these types ([`schema`]): a field's doc comment is its description for the authors of
//! manifests. Its first paragraph is a cell of the reference, further paragraphs are notes below the table.
//!
//! Names are parsed while reading, so each value satisfies its own rule. [`manifests`] checks the rules between fields and
//! between documents.
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use ecs_mesh_api::manifests::{ManifestScope, assemble, read_file};
//!
//! let text = "\
//! apiVersion: ecs-mesh.dev/v1alpha1
//! kind: ControlPlane
//! metadata: {name: kuma}
//! spec: {type: kuma, kuma: {adress: 'https://kuma-cp.internal:5682'}}
//! ";
//! let file: Arc<Path> = Path::new("mesh.yaml").into();
//! let (manifests, errors) = read_file(&file, text);
//! assert!(errors[0].message.contains("did you mean address?"));
//! assert!(assemble(manifests, ManifestScope::Complete).set.control_planes.is_empty());
//! ```

#![forbid(unsafe_code)]

mod allow_list;
mod aws_account;
mod consul_auth;
mod control_plane;
mod duration;
mod inbound_tags;
mod kuma_release;
pub mod limits;
pub mod manifests;
mod mesh_binding;
mod outbound;
mod patterns;
mod percent;
mod proxy;
pub mod schema;
mod token_policy;
mod workload;
pub mod yaml;

pub use allow_list::{AllowList, RefusedSource};
pub use aws_account::{AccountReadRates, AwsAccountSpec};
pub use consul_auth::{
    ClientTokens, ConsulAuthSpec, ConsulEnterprise, GatewayKind, LoginSettings, Presence, ServiceTokens,
    TokenLocality,
};
pub use control_plane::{
    ConsulConnection, ControlPlaneProxy, ControlPlaneSpec, ControlPlaneType, KumaConnection,
};
pub use duration::HumanDuration;
pub use inbound_tags::InexpressibleTag;
pub use kuma_release::{ApiDialect, KumaFeature, KumaRelease};
pub use mesh_binding::{
    AddressFamily, BindingSelector, CleanupPolicy, DeploymentPolicy, Discovery, DrainPolicy, GuardPolicy,
    LifecyclePolicy, MeshBindingSpec, OnRevoked, RoleTagMode, RoleTagPolicy, ServiceClaim,
};
pub use outbound::{
    Backend, BackendKind, CalledBackend, Listen, Outbound, OutboundListSpec, OutboundListener,
    ReachableBackend,
};
pub use percent::Percent;
pub use proxy::{
    AdvertisedEndpoint, GatewaySettings, GatewayType, InexpressibleProxy, ProxyKind, ProxyRole,
    ZoneEgressSettings, ZoneIngressSettings, ZoneProxy, ZoneProxyDirection, ZoneProxyForm, ZoneProxyKind,
    ZoneProxyScope,
};
pub use token_policy::{TokenPolicy, TokenStoreKind};
pub use workload::{Inbound, Probe, Protocol, Reach, WorkloadSelector, WorkloadSpec};

/// The `apiVersion` of all documents.
pub const API_VERSION: &str = "ecs-mesh.dev/v1alpha1";

/// The pattern of `metadata.name`, whose length is at most 63.
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$";
