//! The embedded world: AWS, a Kuma control plane and the tasks that live there, in one process on loopback.
//!
//! Never used by the production paths.

pub mod aws;
pub mod kuma;
