//! The operator against a real Kuma: what it registers is stored as written, and sidecars route by it.
//!
//! `KUMA_CP_BIN` names kuma-cp 2.14 or 3.0. `KUMA_DP_BIN` and `ENVOY_BIN` name the programs of sidecars, for requests
//! through the mesh; these need root on Linux, and `ip`, `unshare`, `mount` and `kill`. Tests of a program that is not named
//! are skipped. `CONTRIBUTING.md` says where the programs come from.

mod doctor;
#[path = "../../examples/deployments/network.rs"]
#[allow(dead_code)] // The measurement uses all of it.
mod network;
#[path = "../../examples/deployments/process.rs"]
#[allow(dead_code)] // The measurement uses all of it.
mod process;
mod registrations;
mod relay;
mod server;
mod sidecars;
mod storage;
mod traffic;
