//! `OutboundList` and its outbounds: the services that workloads call.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns;
use ecs_mesh_model::{Glob, ServiceName};

/// Outbounds of all workloads that the list names. A change reaches running tasks without a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutboundListSpec {
    /// Names of `Workload`s, or patterns over them; at least one.
    ///
    /// Tasks that are described by tags count under their service's name.
    #[schemars(length(min = 1))]
    pub workloads: Vec<Glob>,
    /// Services that those workloads call; `[]` for none.
    pub outbounds: Vec<Outbound>,
}

/// A service that a task calls, and where the task reaches it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outbound {
    /// Called service: the `service` of its `Workload`, in any version of Kuma.
    pub service: ServiceName,
    /// Inbound `port` of that service, not its `containerPort`.
    ///
    /// It is also the port of the MeshService that Kuma makes of the service.
    pub target_port: NonZeroU16,
    /// Where the sidecar listens for the app.
    pub listen: Listen,
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
