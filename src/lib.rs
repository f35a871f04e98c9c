//! `ecs-mesh-operator` keeps service meshes on Amazon ECS right: it hears task state changes, works out what each
//! task should be in the mesh, and keeps the control plane so.
//!
//! The rooms, in the order in which data flows: [`observe`] → [`intent`] → [`plan`] → [`mesh`], driven by
//! [`runtime`] and put together in [`reconcile`]. `docs/architecture.md` has the picture and the invariants.

pub mod cli;
pub mod reconcile;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod telemetry;
