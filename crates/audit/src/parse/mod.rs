//! Parsers: task definitions in JSON, `CONSUL_ECS_CONFIG_JSON`, Consul client agents, sidecars, and policies of IAM.

pub(super) mod agent;
pub(super) mod config;
pub(super) mod definition;
pub(super) mod iam_policy;
pub(super) mod schema;
pub(super) mod secrets;
pub(super) mod sidecar;
