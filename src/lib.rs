//! The program `ecs-mesh-operator`: watches ECS tasks and registers them with Kuma, Kong Mesh or Consul.
//!
//! Data flows through the crates in this order: [`ecs_mesh_aws`] observes, [`ecs_mesh_core::intent`] evaluates what
//! should be, [`ecs_mesh_core::plan`] decides what to do, and [`ecs_mesh_control_plane`] writes. [`ecs_mesh_controller`]
//! drives them, and [`operator`] connects them. `docs/architecture.md` has the picture and the invariants.

#![forbid(unsafe_code)]

/// The version of the program with the commit that it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ECS_MESH_BUILD_COMMIT"), ")");

/// The commit that the program was built from: 12 digits, or `unknown`.
pub const COMMIT: &str = env!("ECS_MESH_BUILD_COMMIT");

pub mod cli;
mod listener;
pub mod manifest_stores;
pub mod operator;
pub mod read_api;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod team_events;
pub mod telemetry;
mod terminal;
