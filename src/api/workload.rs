//! `Workload`: what a task is in the mesh.

use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use super::Outbound;
use crate::model::{Glob, ServiceName, Tags};

/// What the tasks that it selects are in the mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Names of `MeshBinding`s; left out: any binding that selects the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<String>,
    /// Which tasks.
    pub selector: WorkloadSelector,
    /// The service in the mesh (`kuma.io/service`).
    pub service: ServiceName,
    /// The value of the label `kuma.io/workload` where it is not the service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The ports that others may call; none for a task that only calls others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inbounds: Vec<Inbound>,
    /// What the task calls, besides the `OutboundList`s that select it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbounds: Vec<Outbound>,
    /// How the control plane learns that the app answers.
    #[serde(default)]
    pub probe: Probe,
}

/// Which tasks a workload takes. All given conditions must hold; at least one must be given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSelector {
    /// ECS service names or patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Glob>,
    /// Task definition families or patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<Glob>,
    /// ECS task tags that must be there, with these values (costs a describe per new task).
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// Cluster ARNs or patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<Glob>,
}

/// A port that others may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inbound {
    /// The port's name, by which a `MeshService` knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The container that listens, for error messages and for people; not sent to the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The port that the app listens on.
    pub container_port: NonZeroU16,
    /// The port that the sidecar listens on.
    pub port: NonZeroU16,
    /// The address that the app listens on, where it is not the task's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_address: Option<IpAddr>,
    /// What is spoken on the port.
    #[serde(default)]
    pub protocol: Protocol,
    /// Further inbound tags (Kuma 2.x), such as `version`.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// What is spoken on a port (Kuma 2.x also knows kafka).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Kafka.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// The sidecar connects to the app's port: ready once it answers, not ready when it stops answering.
    #[default]
    Tcp,
    /// Ready as soon as the sidecar is connected, whether or not the app answers.
    None,
}
