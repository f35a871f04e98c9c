//! The embedded world: AWS, a Kuma and a Consul control plane and the tasks that live there, in one process on loopback.
//!
//! Never used by the production paths. [`aws`], [`kuma`] and [`consul`] are servers; [`world`] deploys, scales and
//! kills; the [`judge`] holds what a client wrote against the world's own truth. All of them are plain values that are
//! told the time, so that a simulation can replay them.

#![forbid(unsafe_code)]

pub mod aws;
pub mod consul;
pub mod endpoints;
pub mod oracle;
pub mod kuma;
pub mod fault_injection;
pub mod control_planes;
pub mod world;
