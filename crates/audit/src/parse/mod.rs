//! Parsers: task definitions in JSON, `CONSUL_ECS_CONFIG_JSON`, and the configuration of Consul client agents.

pub(super) mod agent;
pub(super) mod config;
pub(super) mod definition;
pub(super) mod schema;
pub(super) mod secrets;
