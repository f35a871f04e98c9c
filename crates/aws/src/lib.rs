//! What *is*: tasks, role tags and messages as AWS tells of them. Decides nothing.

#![forbid(unsafe_code)]

pub mod aws;
pub mod definitions;
pub mod describer;
pub mod events;
#[cfg(any(test, feature = "testing"))]
pub mod fakes;
pub mod inspect;
pub mod intake;
pub mod roles;
pub mod sdk;
pub mod store;
