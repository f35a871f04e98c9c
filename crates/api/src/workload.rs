//! `Workload`: what a task is in the mesh.

use std::net::IpAddr;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Outbound, patterns};
use ecs_mesh_model::{Glob, ServiceName, Tags};

/// What the tasks that it selects are in the mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Names of `MeshBinding`s; left out: any binding that selects the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<String>,
    /// Which tasks.
    pub selector: WorkloadSelector,
    /// The service in the mesh (`kuma.io/service`). At Consul the name that the task registers, which its role's tag
    /// `consul.hashicorp.com.service-name` must be: at most 256 lower-case letters, digits, '-' and '_', starting and
    /// ending with a letter or digit.
    pub service: ServiceName,
    /// The value of the label `kuma.io/workload` where it is not the service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::dns_label")]
    pub workload: Option<String>,
    /// The ports that others may call; none for a task that only calls others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"]))]
    pub inbounds: Vec<Inbound>,
    /// What the task calls, besides the `OutboundList`s that select it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbounds: Vec<Outbound>,
    /// How the control plane learns that the app answers.
    #[serde(default)]
    pub probe: Probe,
}

/// Which tasks a workload takes. All given conditions must hold; at least one must be given.
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
    /// ECS task tags that must be there, with these values (costs a describe per new task).
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schemars(schema_with = "patterns::texts_by_key")]
    pub tags: Tags,
    /// ARNs of clusters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::clusters")]
    pub clusters: Vec<Glob>,
}

/// A port that others may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inbound {
    /// The port's name, by which a `MeshService` knows it; unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::dns_label")]
    pub name: Option<String>,
    /// The container that listens, for error messages and for people; not sent to the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The port that the app listens on.
    pub container_port: NonZeroU16,
    /// The port that the sidecar listens on.
    pub port: NonZeroU16,
    /// The address that the app listens on, where it is not the task's own, such as `127.0.0.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::ip_address")]
    pub service_address: Option<IpAddr>,
    /// What is spoken on the port.
    #[serde(default)]
    pub protocol: Protocol,
    /// Further inbound tags (Kuma 2.x), such as `version`; not `kuma.io/service`, `kuma.io/protocol` or
    /// `kuma.io/zone`, which follow from other fields.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schemars(schema_with = "patterns::inbound_tags")]
    pub tags: Tags,
}

/// What is spoken on a port (Kuma 2.x also knows kafka).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Bytes.
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

/// How the control plane learns that the app answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// The sidecar connects to the app's port: ready once it answers, not ready when it stops answering.
    #[default]
    Tcp,
    /// Ready as soon as the sidecar is connected, whether or not the app answers.
    None,
}
