//! `ecs-mesh-operator` keeps service meshes on Amazon ECS right: it hears task state changes, works out what each
//! task should be in the mesh, and keeps the control plane so.
//!
//! The crates, in the order in which data flows: [`ecs_mesh_aws`] → [`ecs_mesh_core::intent`] →
//! [`ecs_mesh_core::plan`] → [`ecs_mesh_control_plane`], driven by [`ecs_mesh_controller`] and put together in
//! [`reconcile`]. `docs/architecture.md` has the picture and the invariants.

#![forbid(unsafe_code)]

pub mod cli;
pub mod reconcile;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod telemetry;
