//! What the operator tells of itself.

pub mod log;
pub mod metrics;
