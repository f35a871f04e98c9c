//! `OutboundList` and its outbounds: the services that workloads call.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns;
use ecs_mesh_model::{Glob, ServiceName, Tags};

/// Outbounds of all workloads that the list names. A change reaches running tasks without a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutboundListSpec {
    /// Names of `Workload`s, or patterns over them; at least one.
    ///
    /// Tasks that are described by tags count under their service's name.
    #[schemars(length(min = 1))]
    pub workloads: Vec<Glob>,
    /// Services that those workloads call; `[]` for none of this list.
    pub outbounds: Vec<Outbound>,
}

/// A service or another backend that a task calls: `service`, or `backend`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outbound {
    /// Called service: the `service` of its `Workload`, in any version of Kuma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Inbound `port` of that service, not its `containerPort`.
    ///
    /// It is also the port of the MeshService that Kuma makes of the service. With `reach: bindOutbounds`, all ports of the
    /// service if it is omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<NonZeroU16>,
    /// Called resource of the mesh, instead of `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Where the sidecar listens for the app.
    ///
    /// Required with `reach: outbounds`. With `reach: bindOutbounds` the sidecar listens on the address of the service: a
    /// `Workload` must not have the field, and that of an `OutboundList` is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<Listen>,
}

/// A resource of the mesh that tasks call, by its name or its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    /// Type of the resource.
    pub kind: BackendKind,
    /// Name of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::dns_label")]
    pub name: Option<String>,
    /// Resources with these labels, instead of `name`.
    ///
    /// With `reach: bindOutbounds` all of them, and without `port`, since Kuma then takes one of them alone. With
    /// `reach: outbounds` the oldest (Kuma 2.9 and later).
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schemars(schema_with = "patterns::texts_by_key")]
    pub labels: Tags,
    /// Port of the resource; with `reach: bindOutbounds`, all ports if it is omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
}

/// Types of resources that a Dataplane can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum BackendKind {
    /// Service of a zone.
    MeshService,
    /// Service outside of the mesh.
    MeshExternalService,
    /// Service in several zones.
    MeshMultiZoneService,
}

impl BackendKind {
    /// All types.
    pub const ALL: [Self; 3] = [Self::MeshService, Self::MeshExternalService, Self::MeshMultiZoneService];

    /// The spelling in Kuma's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MeshService => "MeshService",
            Self::MeshExternalService => "MeshExternalService",
            Self::MeshMultiZoneService => "MeshMultiZoneService",
        }
    }
}

/// One backend that an outbound calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CalledBackend {
    /// The service of a `Workload`.
    Service(ServiceName),
    /// A resource of the mesh.
    Resource {
        /// Its type.
        kind: BackendKind,
        /// Its name.
        name: String,
    },
    /// The oldest resource of the mesh with these labels.
    Labelled {
        /// Its type.
        kind: BackendKind,
        /// The labels.
        labels: Tags,
    },
}

impl CalledBackend {
    /// The service of a `Workload`.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service(service) => Some(service),
            Self::Resource { .. } | Self::Labelled { .. } => None,
        }
    }
}

impl fmt::Display for CalledBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "{service}"),
            Self::Resource { kind, name } => write!(f, "{} {name}", kind.as_str()),
            Self::Labelled { kind, labels } => {
                let labels: Vec<String> =
                    labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "{} {}", kind.as_str(), labels.join(","))
            }
        }
    }
}

/// An outbound for which the sidecar listens within the task (`reach: outbounds`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutboundListener {
    /// The called backend.
    pub backend: CalledBackend,
    /// The port of the backend.
    pub port: NonZeroU16,
    /// Where the sidecar listens.
    pub listen: Listen,
}

impl fmt::Display for OutboundListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listen = std::net::SocketAddr::new(self.listen.address, self.listen.port.get());
        write!(f, "{}:{} on {listen}", self.backend, self.port)
    }
}

/// A backend that a sidecar may bind (`reach: bindOutbounds`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReachableBackend {
    /// One backend.
    One {
        /// The backend.
        backend: CalledBackend,
        /// One of its ports; all ports if `None`.
        port: Option<NonZeroU16>,
    },
    /// All resources of a type with these labels.
    All {
        /// Their type.
        kind: BackendKind,
        /// The labels.
        labels: Tags,
    },
}

impl ReachableBackend {
    /// The backend, if one alone is called.
    pub fn one(&self) -> Option<&CalledBackend> {
        match self {
            Self::One { backend, .. } => Some(backend),
            Self::All { .. } => None,
        }
    }
}

/// An address and port within the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listen {
    /// Address that the app calls.
    #[serde(default = "loopback")]
    #[schemars(schema_with = "patterns::ip_address")]
    pub address: IpAddr,
    /// Port that the app calls.
    pub port: NonZeroU16,
}

fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}
