//! `OutboundList` and the outbounds in it: who may call what.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns;
use ecs_mesh_model::{Glob, ServiceName};

/// Outbounds for all workloads that it names; edited without touching the tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutboundListSpec {
    /// Names of `Workload`s, or patterns over them; at least one. Tasks that are described by tags count
    /// under their service's name.
    #[schemars(length(min = 1))]
    pub workloads: Vec<Glob>,
    /// What those workloads call; `[]` for nothing.
    pub outbounds: Vec<Outbound>,
}

/// One service that a task calls, and where the task finds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outbound {
    /// The service that is called.
    pub service: ServiceName,
    /// The inbound port of that service: its `port`, not its `containerPort`.
    pub target_port: NonZeroU16,
    /// Where the sidecar listens for the app.
    pub listen: Listen,
}

/// An address and port within the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listen {
    /// Where the sidecar listens for the app.
    #[serde(default = "loopback")]
    #[schemars(schema_with = "patterns::ip_address")]
    pub address: IpAddr,
    /// The port that the app calls.
    pub port: NonZeroU16,
}

fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}
