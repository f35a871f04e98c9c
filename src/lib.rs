//! The program `ecs-mesh-operator`: watches ECS tasks and registers them with Kuma, Kong Mesh or Consul.
//!
//! Data flows through the crates in this order: [`ecs_mesh_aws`] observes, [`ecs_mesh_core::intent`] evaluates what
//! should be, [`ecs_mesh_core::plan`] decides what to do, and [`ecs_mesh_control_plane`] writes. [`ecs_mesh_controller`]
//! drives them, and [`operator`] connects them. `docs/architecture.md` has the picture and the invariants.

#![forbid(unsafe_code)]

pub mod cli;
pub mod operator;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod telemetry;
