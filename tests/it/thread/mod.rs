//! The program as its users meet it: real processes on loopback, driven through the AWS SDK, seen through the control
//! plane's API, the logs and the exit codes.
//!
//! Nothing here asserts how long something takes: what must come is waited for, up to [`house::PATIENCE`].

mod begin;
mod consul;
mod consul_house;
mod consul_troubles;
mod hang;
pub(crate) mod house;
mod manifests;
mod messages;
mod moto;
mod plan;
mod planes;
mod probes;
mod servers;
mod show;
mod whole;
