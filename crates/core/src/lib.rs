//! The desired state of tasks in a mesh ([`intent`]), and the steps towards it ([`plan`]); the same for tokens that the
//! operator issues ([`tokens`]).
//!
//! Pure: nothing here awaits, reads a clock or logs. The caller hands in all facts and the time, so that a plan shows exactly
//! the steps of a run.
//!
//! ```
//! use ecs_mesh_core::plan::{DecisionInput, Sighting, TaskLiveness, decide, diff};
//! use ecs_mesh_model::Timestamp;
//! use serde_json::json;
//!
//! // A task that no source has shown yet: no steps.
//! let input = DecisionInput {
//!     liveness: TaskLiveness::Unknown,
//!     evaluation: None,
//!     known: &[],
//!     sighting: Sighting::Old,
//!     manifests_complete: true,
//!     settling: None,
//!     self_registered: false,
//!     now: Timestamp(0),
//! };
//! assert!(decide(&input).steps.is_empty());
//!
//! let changes = diff(&json!({"port": 15050}), &json!({"port": 15051}));
//! assert_eq!(changes[0].path, "port");
//! ```

#![forbid(unsafe_code)]

pub mod intent;
pub mod plan;
pub mod tokens;
