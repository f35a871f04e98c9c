//! `Workload`: service, inbounds and outbounds of tasks in the mesh.

use std::net::IpAddr;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    GatewaySettings, Outbound, ProxyKind, ProxyRole, ZoneEgressSettings, ZoneIngressSettings, ZoneProxy,
    ZoneProxyDirection, patterns,
};
use ecs_mesh_model::{DataplaneOwner, Glob, ServiceName, Tags};

/// Describes the selected tasks in the mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Names of `MeshBinding`s; default: any that selects the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<String>,
    /// Tasks that are this workload.
    pub selector: WorkloadSelector,
    /// Service in the mesh (`kuma.io/service`).
    ///
    /// In Kuma 3.x, `workload` names the service, which is called by this name in `outbounds`. At Consul, the name that the task registers, which its role's tag `consul.hashicorp.com.service-name` must
    /// have: a Consul service name.
    pub service: ServiceName,
    /// Label `kuma.io/workload`; default: the service's name.
    ///
    /// Kuma 2.13 and later. In 3.x it is the name of the MeshService, so a service whose name is no DNS label needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::dns_label")]
    pub workload: Option<String>,
    /// The role of the task's proxy in the mesh.
    ///
    /// At Kuma. The block of the same name has its settings.
    #[serde(default)]
    pub proxy: ProxyKind,
    /// Settings of a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySettings>,
    /// Settings of a zone ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_ingress: Option<ZoneIngressSettings>,
    /// Settings of a zone egress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_egress: Option<ZoneEgressSettings>,
    /// Ports that others may call.
    ///
    /// None for a task that only calls others, and for a gateway or zone proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"]))]
    pub inbounds: Vec<Inbound>,
    /// How the sidecar gets its outbounds.
    #[serde(default)]
    pub reach: Reach,
    /// Services that the task calls.
    ///
    /// Added to those of the `OutboundList`s that select the workload. With `reach: bindOutbounds`, all services of the mesh
    /// if there is neither; an empty list is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbounds: Option<Vec<Outbound>>,
    /// How the control plane determines that the app is ready.
    #[serde(default)]
    pub probe: Probe,
    /// Kuma: who owns the Dataplanes of the tasks; default: the binding's `dataplanes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplanes: Option<DataplaneOwner>,
}

impl WorkloadSpec {
    /// The role of the task's proxy in the mesh. A block that is missing has its defaults.
    pub fn proxy_role(&self) -> ProxyRole {
        match self.proxy {
            ProxyKind::Sidecar => ProxyRole::Sidecar,
            ProxyKind::Gateway => ProxyRole::Gateway(self.gateway.unwrap_or_default().kind),
            ProxyKind::ZoneIngress => {
                let ZoneIngressSettings { port, advertised, scope } =
                    self.zone_ingress.clone().unwrap_or_default();
                let direction = ZoneProxyDirection::Ingress { advertised };
                ProxyRole::Zone(ZoneProxy { direction, port, scope })
            }
            ProxyKind::ZoneEgress => {
                let ZoneEgressSettings { port, scope } = self.zone_egress.clone().unwrap_or_default();
                ProxyRole::Zone(ZoneProxy { direction: ZoneProxyDirection::Egress, port, scope })
            }
        }
    }
}

/// How a sidecar gets its outbounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Reach {
    /// The Dataplane lists listeners, each on a port of the task.
    #[default]
    Outbounds,
    /// The sidecar runs with `--bind-outbounds`, and binds each reachable service on the service's own address (Kuma 2.11 and
    /// later, with `meshServices.mode: Exclusive` in 2.x).
    BindOutbounds,
}

impl Reach {
    /// The text in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbounds => "outbounds",
            Self::BindOutbounds => "bindOutbounds",
        }
    }
}

/// Selects the tasks of a workload. All given conditions must hold; at least one is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct WorkloadSelector {
    /// ECS services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Glob>,
    /// Task definition families.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<Glob>,
    /// Required ECS task tags.
    ///
    /// Costs a describe for each new task.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schemars(schema_with = "patterns::texts_by_key")]
    pub tags: Tags,
    /// Cluster ARNs, or patterns over them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::clusters")]
    pub clusters: Vec<Glob>,
}

/// A port that others may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inbound {
    /// Unique name, by which a `MeshService` refers to the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::dns_label")]
    pub name: Option<String>,
    /// Container that listens; for messages only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Port that the app listens on.
    pub container_port: NonZeroU16,
    /// Port that the sidecar listens on.
    pub port: NonZeroU16,
    /// Address that the app listens on; default: the task's own.
    ///
    /// Such as `127.0.0.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::ip_address")]
    pub service_address: Option<IpAddr>,
    /// Protocol of the port.
    #[serde(default)]
    pub protocol: Protocol,
    /// Further inbound tags, such as `version`; labels in Kuma 3.x.
    ///
    /// Not `kuma.io/service`, `kuma.io/protocol` or `kuma.io/zone`, which follow from other fields. In 3.x all inbounds of a
    /// task share its labels, so they must have the same tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schemars(schema_with = "patterns::inbound_tags")]
    pub tags: Tags,
}

/// Protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// HTTP/1.1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Kafka (Kuma 2.x only).
    Kafka,
}

impl Protocol {
    /// The spelling in the control plane's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Kafka => "kafka",
        }
    }
}

/// How the control plane determines that the app is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// The sidecar connects to the app's port: ready while that succeeds.
    #[default]
    Tcp,
    /// Ready as soon as the sidecar is connected.
    None,
}
