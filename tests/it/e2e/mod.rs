//! The program as its users meet it: real processes on loopback, driven through the AWS SDK, seen through the control
//! plane's API, the logs and the exit codes.
//!
//! Nothing here asserts how long something takes: what must come is waited for, up to [`harness::PATIENCE`].

mod startup;
mod consul;
mod consul_harness;
mod consul_failures;
mod shutdown;
pub(crate) mod harness;
mod manifests;
mod messages;
mod moto;
mod plan;
mod control_planes;
mod probes;
mod servers;
mod demo;
mod task_lifecycle;
