//! End-to-end tests: real processes on loopback, driven through the AWS SDK, and observed through the control plane's
//! API, log fields and exit codes.
//!
//! Tests assert no durations: they wait for expected events up to [`harness::TIMEOUT`].

mod accounts;
mod audit_log;
mod consul;
mod consul_failures;
mod consul_harness;
mod consul_operators;
mod control_planes;
mod demo;
mod deployments;
mod drain;
pub(crate) mod harness;
mod host_mode;
mod import;
mod import_files;
mod manifests;
mod messages;
mod moto;
mod moto_accounts;
mod outside;
mod permissions;
mod plan;
mod probes;
mod read_api;
mod read_api_access;
mod read_rates;
mod reading_commands;
mod recording_proxy;
mod replicas;
pub(crate) mod servers;
mod shutdown;
mod startup;
mod task_lifecycle;
mod team_events;
mod workload_tags;
