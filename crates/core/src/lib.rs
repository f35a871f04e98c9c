//! What a task should be in the mesh, and what is to be done about it. Pure: nothing here awaits, reads a clock or logs.

#![forbid(unsafe_code)]

pub mod intent;
pub mod plan;
