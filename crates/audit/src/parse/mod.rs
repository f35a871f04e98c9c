//! From texts to values: task definitions in JSON, `CONSUL_ECS_CONFIG_JSON`, and what agents are told.

pub(super) mod agent;
pub(super) mod config;
pub(super) mod definition;
pub(super) mod lines;
pub(super) mod schema;
pub(super) mod secrets;
